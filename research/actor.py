"""`sparring actor RUN`: step environments for a run whose learner is another process, here or on another host."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from research import launch, mistakes, record
from research.cli import strict
from research.errors import UserError

FILE = "actors.json"  # in the run's folder: where its learner is


def main(arguments: Sequence[str]) -> int:
    """Parse the flags and act until the learner ends; returns the exit code."""
    parser = argparse.ArgumentParser(prog="sparring actor", description="Step environments for a run's learner.")
    strict(parser)
    parser.add_argument("run", type=Path, help="the run's folder, or one with a copy of its config.yaml")
    parser.add_argument("--address", help="HOST:PORT of the learner; default: as the run's folder says")
    parser.add_argument("--place", help=argparse.SUPPRESS)  # NUMBER:GENERATION, from a learner that starts its own
    chosen = parser.parse_args(list(arguments))
    address = chosen.address or _address(chosen.run)
    if not address.rpartition(":")[2].isdigit() or not address.rpartition(":")[0]:
        raise UserError(f"--address {address}: give HOST:PORT.")
    launch.prepare()
    cfg = record.read_config(chosen.run)
    if cfg.get("actors") is None:
        raise UserError(f"{chosen.run} is a run without actors: it began without actors=reverb.")
    cfg.strategy = OmegaConf.create({"_target_": "research.strategy.one_device"})
    mistakes.check_composed(cfg)

    from research import train

    number, _, generation = (chosen.place or "").partition(":")
    train.build(cfg).play(address, (int(number), int(generation)) if chosen.place else None)
    return 0


def _address(run: Path) -> str:
    try:
        return str(json.loads((run / FILE).read_text())["address"])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{run} does not say where its learner is: give --address HOST:PORT.") from error
