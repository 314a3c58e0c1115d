"""Command `sparring rerun RUN`: run a config again and compare the numbers.

The new run gets a folder of its own.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparring.cli import setup
from sparring.cli.parser import STARTED, strict
from sparring.config import validation
from sparring.distribute import cluster
from sparring.errors import UserError
from sparring.processes.resources import cores
from sparring.storage import provenance
from sparring.storage.run_folder import RunFolder
from sparring.tensorboard.event_reader import read_curves

_COMPARED = ("versions", "machine", "commit", "sparring_commit", "diffs")


def main(arguments: Sequence[str]) -> int:
    """Parse, run, compare; return 0 if all numbers are equal to the last bit, else 1."""
    parser = argparse.ArgumentParser(
        prog="sparring rerun", description="Run a run again and compare the numbers."
    )
    strict(parser)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument(
        "--name", help="of the new run's folder, beside the old one; default OLD-again"
    )
    chosen = parser.parse_args(list(arguments))
    setup.prepare()
    old = chosen.run.resolve()
    cfg = RunFolder(old).read_config()
    new = old.parent / (chosen.name or f"{old.name}-again")
    cfg.run.dir = str(new.parent)
    cfg.run.name = new.name
    validation.check_composed(cfg)
    if cluster.workers_to_start(cfg.strategy):
        raise UserError(
            f"{old} ran in several processes, and rerun is one: run its command again under a new "
            "run.name."
        )
    for line in changes(old):
        print(f"not as it was: {line}", file=sys.stderr)
    _pin(old)
    from sparring.training.experiment import train

    train(
        cfg,
        new,
        STARTED,
        {"command": "rerun", "arguments": [str(old)], "choices": provenance.read(old)["choices"]},
    )
    different = differences(old, new)
    if different:
        print(f"{new} differs from {old}:", *different[:20], sep="\n  ", file=sys.stderr)
        return 1
    print(f"the same numbers to the last bit as {old}")
    return 0


def changes(old: Path) -> list[str]:
    """Return what has changed since the run began, in lines.

    Raises:
        UserError: the run has no provenance.
    """
    starts = provenance.read(old).get("starts", [])
    if not starts:
        raise UserError(
            f"{old} does not say what it ran on: it has no {provenance.FILE}. Run its config.yaml "
            "anew."
        )
    before = starts[0]
    now = provenance.versions()
    found = []
    for key in _COMPARED:
        a = before.get(key)
        b = now.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += [
                f"{k}: {a.get(k)} -> {b.get(k)}" for k in a if k != "cores" and a.get(k) != b.get(k)
            ]
        elif key in now and a != b:
            found.append(f"{key}: {a} -> {b}")
    return found


def _pin(old: Path) -> None:
    """Use as many cores as the run did.

    With another number of them XLA and Eigen may add in another order.
    """
    machine = provenance.read(old)["starts"][0].get("machine", {})
    available = cores()
    if 0 < machine.get("cores", 0) < len(available):
        os.sched_setaffinity(0, available[: machine["cores"]])


def differences(old: Path, new: Path) -> list[str]:
    """Return a line for every curve that differs, with its first difference; times are left out."""
    ours, theirs = (read_curves(folder).points for folder in (old, new))
    found = []
    for tag in sorted({*ours, *theirs}):
        a = ours.get(tag, {})
        b = theirs.get(tag, {})
        if not tag.startswith("time/") and not _same(a, b):
            steps = [s for s in sorted({*a, *b}) if not _same({0: a.get(s)}, {0: b.get(s)})]
            found.append(f"{tag} at step {steps[0]}: {a.get(steps[0])} -> {b.get(steps[0])}")
    return found


def _same(a: dict[int, Any], b: dict[int, Any]) -> bool:
    """Return whether two curves are equal, NaN equalling NaN."""
    return a.keys() == b.keys() and all(
        x == b[k] or (x != x and b[k] != b[k]) for k, x in a.items()
    )
