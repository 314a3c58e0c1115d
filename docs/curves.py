"""Draw the curves of sweeps over seeds: python docs/curves.py runs/ppo_breakout runs/ppo_freeway --out minatar.png

One panel for each sweep, one line for each of its runs, all of one tag. matplotlib comes with the development packages.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("agg")

from matplotlib import pyplot
from tensorboard.backend.event_processing.plugin_event_accumulator import TENSORS, EventAccumulator
from tensorboard.util import tensor_util


def points(run: Path, tag: str) -> tuple[list[int], list[float]]:
    """Steps and values of a scalar of a run."""
    events = EventAccumulator(str(run), size_guidance={TENSORS: 0}).Reload().Tensors(tag)
    return [event.step for event in events], [tensor_util.make_ndarray(event.tensor_proto).item() for event in events]


def main() -> None:
    """Parse, read, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweeps", nargs="+", type=Path)
    parser.add_argument("--tag", default="eval/episode_return")
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    columns = min(len(chosen.sweeps), 4)
    rows = -(-len(chosen.sweeps) // columns)
    _, axes = pyplot.subplots(rows, columns, figsize=(3.2 * columns, 2.4 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(chosen.sweeps) :]:
        axis.remove()
    for axis, sweep in zip(axes.flat, chosen.sweeps, strict=False):
        for run in sorted(path.parent for path in sweep.glob("*/config.yaml")):
            steps, values = points(run, chosen.tag)
            axis.plot([step / 1e6 for step in steps], values, label=run.name, linewidth=1.2)
        axis.set_title(sweep.name, fontsize=9)
        axis.tick_params(labelsize=7)
        axis.set_xlabel("million environment steps", fontsize=7)
    pyplot.savefig(chosen.out, dpi=110)


main()
