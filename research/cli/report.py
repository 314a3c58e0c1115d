"""Command `sparring report FOLDER...`: statistics over the seeds of finished runs."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from sparring.cli.parser import strict
from sparring.errors import UserError
from sparring.report import discovery
from sparring.report.builder import report

_EXAMPLES = """
sparring report runs/first                      its methods over seeds, in runs/first/report
sparring report runs/base runs/mine             one sweep beside another, equal seeds paired
sparring report runs/first --scale scales.yaml  with your worst and best scores: {Catch: [-1, 1]}
"""


def main(arguments: Sequence[str]) -> int:
    """Parse the flags, report, print; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="sparring report",
        description="Statistics over seeds of all runs in folders: tables, charts, TensorBoard.",
        epilog=f"for example{_EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    strict(parser)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of runs: sweeps, or runs")
    parser.add_argument(
        "--out",
        type=Path,
        help=f"where to write; default {discovery.FOLDER}/ in the folder; of several, beside them",
    )
    parser.add_argument(
        "--tag",
        help="the scalar to report, such as eval/episode_length; default the runs' objective",
    )
    parser.add_argument(
        "--minimize", action="store_true", help="smaller is better; default what the runs say"
    )
    parser.add_argument(
        "--scale", type=Path, help="a YAML of task: [worst, best], the scores that count as 0 and 1"
    )
    parser.add_argument(
        "--baseline", help="the method that the others are compared with; default every pair"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap; default 0")
    parser.add_argument("--draws", type=int, default=2000, help="of the bootstrap; default 2000")
    chosen = parser.parse_args(list(arguments))
    if chosen.draws < 1 or chosen.seed < 0:
        raise UserError("--draws is at least 1, --seed at least 0.")
    print(report(chosen))
    return 0
