"""The report in TensorBoard: bands as custom scalars, tables as text, charts as images, a row of HParams a method."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from research.event_reader import Curves
from research.report import charts
from research.report.analysis import AGGREGATES, Analysis
from research.sweep import safe
from research.tensorboard import Writer, declare_hparams


def write(
    folder: Path,
    text: str,
    pictures: Mapping[str, np.ndarray],
    analysis: Analysis,
    curves: Mapping[Path, Curves],
    tag: str,
) -> None:
    """Everything, in place of what an earlier report left: the report itself in `folder`, each method in one below."""
    _clear(folder)
    metrics = {f"report/{task}": f"{tag} on {task}: interquartile mean over seeds." for task in analysis.tasks}
    metrics |= {f"report/{name}": f"{name} of normalised scores over tasks." for name in AGGREGATES}
    declare_hparams(folder, {"method": analysis.methods}, metrics)
    descriptions = {f"report/{name}": f"The report's chart of {name}." for name in pictures}
    writer = Writer(folder, descriptions={**descriptions, "report": "What the runs come to over seeds."})
    writer.text("report", text)
    writer.images({f"report/{name}": picture for name, picture in pictures.items()}, 0)
    writer.close()
    for method in analysis.methods:
        _write_method(folder / safe(method), method, analysis, curves, tag, metrics)


def _write_method(
    folder: Path,
    method: str,
    analysis: Analysis,
    curves: Mapping[Path, Curves],
    tag: str,
    metrics: Mapping[str, str],
) -> None:
    level = f"{100 * analysis.bootstrap.level:g}%"
    words = {
        "": f"interquartile mean of {tag}",
        "/low": f"its {level} interval, low",
        "/high": f"{level} interval, high",
    }
    descriptions = {f"band/{t}{end}": f"{t}: {said} over seeds." for t in analysis.tasks for end, said in words.items()}
    writer = Writer(folder, descriptions={**descriptions, **metrics})
    writer.hparams({"method": method}, {})
    writer.bands({"report": {task: f"band/{task}" for task in analysis.tasks}})
    for task in analysis.tasks:
        group = analysis.group(method, task)
        found = charts.band(group, curves, tag, analysis) if group else None
        if found is not None:
            for step, *ends in zip(found.steps, found.middle, found.low, found.high, strict=True):
                values = zip(("", "/low", "/high"), ends, strict=True)
                writer.scalars({f"band/{task}{end}": value for end, value in values}, int(step))
    scores = {f"report/{t}": analysis.estimate(method, t).value for t in analysis.tasks if analysis.scores(method, t)}
    if analysis.common and method in analysis.compared:
        scores |= {f"report/{name}": e.value for name, e in analysis.aggregates(method).items()}
    writer.hparams({"method": method}, scores)
    writer.close()


def _clear(folder: Path) -> None:
    """Remove the events of an earlier report; its folders of methods hold nothing else."""
    for path in folder.glob("events.out.tfevents.*"):
        path.unlink()
    for inner in [p for p in folder.iterdir() if p.is_dir() and not p.is_symlink()]:
        if all(path.name.startswith("events.out.tfevents.") for path in inner.iterdir()):
            shutil.rmtree(inner)
