"""Command `sparring check env=...`: say all that training would meet in an environment."""

import argparse
from collections.abc import Sequence

from sparring.cli import setup
from sparring.cli.parser import strict
from sparring.config import targets
from sparring.config.composer import Composer
from sparring.config.validation import Command
from sparring.envs.testing.check_host import findings


def main(arguments: Sequence[str]) -> int:
    """Parse, check, print; return 0, or 1 if something is to be mended."""
    parser = argparse.ArgumentParser(
        prog="sparring check",
        description="Check an environment: spaces, rewards, ends, repetition, pictures.",
    )
    strict(parser)
    parser.add_argument(
        "overrides", nargs="+", help="env=gymnasium env.id=my_module:MyEnv, or env=cartpole"
    )
    parser.add_argument("--config-dir", help="a folder of configs of yours")
    parser.add_argument("--steps", type=int, default=1000, help="random steps; default 1000")
    chosen = parser.parse_args(list(arguments))
    setup.prepare()
    composer = Composer("rl", chosen.config_dir, chosen.overrides)
    cfg = Command(composer, chosen.overrides, multirun=False).cfg
    environment = targets.instantiate(cfg.env)
    if environment.compiled:
        from sparring.envs.testing.check import check_environment  # which needs TensorFlow

        check_environment(environment, chosen.steps)
        print(f"{environment.name} keeps the rules of compiled environments.")
        return 0
    found = findings(environment, chosen.steps)
    for one in found:
        print(f"{'mend' if one.problem else 'fine'}  {one.text}")
    return int(any(one.problem for one in found))
