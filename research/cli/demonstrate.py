"""Command `sparring demonstrate RUN`: record an agent's episodes, for `sparring imitation`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from sparring.cli import setup
from sparring.cli.evaluate import override
from sparring.cli.parser import strict
from sparring.errors import UserError
from sparring.storage.run_folder import RunFolder
from sparring.training.trained_model import restored


def main(arguments: Sequence[str]) -> int:
    """Parse the flags, record and print; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="sparring demonstrate", description="Record whole episodes of a run's agent."
    )
    strict(parser)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument(
        "overrides",
        nargs="*",
        help="settings other than the run's, such as env.max_episode_steps=1000",
    )
    parser.add_argument("--episodes", type=int, default=10, help="how many; default 10")
    parser.add_argument(
        "--checkpoint", choices=("best", "latest"), default="best", help="which model; default best"
    )
    parser.add_argument(
        "--sampled", action="store_true", help="act as in training; default: greedily"
    )
    parser.add_argument(
        "--out", type=Path, default=None, help="the file; default demonstrations.npz in the run"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the episodes; default 0")
    chosen = parser.parse_intermixed_args(list(arguments))
    if chosen.episodes < 1:
        raise UserError(f"--episodes {chosen.episodes}: at least one.")
    if not 0 <= chosen.seed < 2**31:
        raise UserError(f"--seed {chosen.seed}: from 0 to {2**31 - 1}.")
    out = chosen.out or chosen.run / "demonstrations.npz"
    if out.suffix != ".npz":
        raise UserError(f"--out {out}: demonstrations are a file that ends in .npz.")
    setup.prepare()
    print(*record(chosen, out), sep="\n")
    return 0


def record(chosen: argparse.Namespace, out: Path) -> list[str]:
    """Record the episodes that the flags ask for; return what to tell of them, in lines."""
    cfg = RunFolder(chosen.run).read_config()
    if "env" not in cfg:
        raise UserError(f"{chosen.run}: this run has no agent, whose episodes could be recorded.")
    cfg.seed = chosen.seed
    override(cfg, chosen.overrides)
    environment: Any = OmegaConf.to_container(cfg.env, resolve=True)
    with restored(chosen.run, cfg, chosen.checkpoint) as (trainer, step):
        metadata = {
            "environment": environment,
            "run": str(chosen.run.resolve()),
            "checkpoint": chosen.checkpoint,
            "step": step,
        }
        return trainer.demonstrate(out, chosen.episodes, chosen.seed, chosen.sampled, metadata)
