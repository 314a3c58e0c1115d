"""Command `sparring actor RUN`: step environments for a run's learner in another process.

The learner may be on another host.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from sparring.cli import setup
from sparring.cli.parser import strict
from sparring.config import validation
from sparring.errors import UserError
from sparring.storage import run_folder
from sparring.storage.run_folder import RunFolder


def main(arguments: Sequence[str]) -> int:
    """Parse the flags and act until the learner ends; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="sparring actor", description="Step environments for a run's learner."
    )
    strict(parser)
    parser.add_argument(
        "run", type=Path, help="the run's folder, or one with a copy of its config.yaml"
    )
    parser.add_argument(
        "--address", help="HOST:PORT of the learner; default: as the run's folder says"
    )
    # INDEX:GENERATION, given by a learner that starts its own actors
    parser.add_argument("--place", help=argparse.SUPPRESS)
    chosen = parser.parse_args(list(arguments))
    address = chosen.address or _address(chosen.run)
    if not address.rpartition(":")[2].isdigit() or not address.rpartition(":")[0]:
        raise UserError(f"--address {address}: give HOST:PORT.")
    setup.prepare()
    cfg = RunFolder(chosen.run).read_config()
    if cfg.get("actors") is None:
        raise UserError(f"{chosen.run} is a run without actors: it began without actors=reverb.")
    cfg.strategy = OmegaConf.create({"_target_": "sparring.distribute.strategies.one_device"})
    validation.check_composed(cfg)

    from sparring.training import experiment

    number, _, generation = (chosen.place or "").partition(":")
    experiment.build(cfg).play(address, (int(number), int(generation)) if chosen.place else None)
    return 0


def _address(run: Path) -> str:
    try:
        return str(json.loads((run / run_folder.LEARNER).read_text())["address"])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{run} does not say where its learner is: give --address HOST:PORT."
        ) from error
