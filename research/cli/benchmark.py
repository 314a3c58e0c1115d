"""Command `sparring benchmark`: measure speed, beside peers where they are installed."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import OmegaConf

from sparring.benchmark import scaling
from sparring.benchmark.cases import Figures, _compare, _write, composed, measure, table
from sparring.cli import setup
from sparring.config import composer
from sparring.distribute import cluster, local_workers
from sparring.errors import UserError
from sparring.processes import signals


def main(arguments: Sequence[str]) -> int:
    """Measure, print a table, write benchmark.json and benchmark.md; return the exit code."""
    loaded: Any = OmegaConf.to_container(OmegaConf.load(composer.CONF / "benchmark.yaml"))
    cases: dict[str, Any] = loaded["cases"]
    chosen = _parse(arguments, cases)
    setup.prepare()
    if chosen.measure:
        cfg = composed(cases[chosen.cases[0]], chosen.override)
        if count := cluster.workers_to_start(cfg.get("strategy") or {}):
            return local_workers.run(["benchmark", *arguments], count)
        print(json.dumps(measure(cases[chosen.cases[0]], cfg)))
        return 0
    chosen.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Figures] = {}
    with signals.heard_by(_end, signal.SIGTERM):
        for name in chosen.cases or list(cases):
            found[name] = _compare(name, cases[name], chosen)
            # Written after each case, as all of them take long
            _write(chosen.out, found, cases, chosen.repeats)
    print(table(found, cases))
    if drawn := scaling.draw(found, chosen.out / "scaling.png"):
        print(drawn)
    return 0


def _end(number: int, frame: Any) -> NoReturn:
    """End by an exception, as Ctrl-C would.

    The signal's default action would leave the measuring process behind.
    """
    del frame
    sys.exit(128 + number)


def _parse(arguments: Sequence[str], cases: Mapping[str, Any]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sparring benchmark", description=f"Cases: {', '.join(cases)}."
    )
    parser.add_argument("cases", nargs="*", help="which; default all")
    parser.add_argument(
        "--repeats", type=int, default=5, help="measurements of each; the median counts; default 5"
    )
    parser.add_argument(
        "--peer-python", type=Path, help="interpreter made by `make peers`; without it, no peers"
    )
    parser.add_argument(
        "--also",
        type=Path,
        help="another interpreter with Sparring, such as .venv-tf221/bin/python",
    )
    parser.add_argument(
        "--override",
        action="append",
        default=[],
        help="a key=value for every case; may be repeated",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks"), help="folder for benchmark.json and .md"
    )
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(list(arguments))
    unknown = [c for c in chosen.cases if c not in cases]
    if unknown:
        raise UserError(f"no benchmark named {unknown[0]}; there are: {', '.join(cases)}.")
    if chosen.repeats < 1:
        raise UserError(f"--repeats {chosen.repeats}: at least one.")
    for python in (chosen.peer_python, chosen.also):
        if python and not os.access(python, os.X_OK):
            raise UserError(
                f"{python} is no interpreter here: `make peers`, or `make setup STACK=tf221`, "
                "makes one."
            )
    return chosen
