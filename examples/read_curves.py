"""Read a run's result and curves, and print one curve as comma-separated values.

python examples/read_curves.py runs/cartpole --tag eval/episode_return
"""

import argparse
import sys
from pathlib import Path

import sparring


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--tag", default="", help="default: the run's objective")
    arguments = parser.parse_args()
    result = sparring.RunFolder(arguments.run).read_result()
    curves = sparring.read_curves(arguments.run)
    if not (arguments.tag or result):
        raise SystemExit("the run has no result yet: say which curve with --tag")
    tag = arguments.tag or result["objective"]["name"]
    if tag not in curves.points:
        raise SystemExit(f"no curve {tag}; there are {', '.join(sorted(curves.points))}")
    print(f"step,{tag}")
    for step, value in zip(*curves.of(tag), strict=True):
        print(f"{step},{value:.6g}")
    if result:
        print(f"status: {result['status']} at step {result['step']}", file=sys.stderr)


if __name__ == "__main__":
    main()
