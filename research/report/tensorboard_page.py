"""TensorBoard pages of a report: bands as custom scalars, tables as text, charts as images.

The HParams table of a sweep is written by its runs: a row for each setting, metrics averaged over
seeds.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sparring.config.overrides import safe
from sparring.report import charts
from sparring.report.analysis import Analysis
from sparring.storage import atomic, run_folder
from sparring.tensorboard.event_reader import Curves
from sparring.tensorboard.writer import Writer

_OWN = ".events.json"


def write(
    folder: Path,
    text: str,
    pictures: Mapping[str, np.ndarray],
    analysis: Analysis,
    curves: Mapping[Path, Curves],
    tag: str,
) -> None:
    """Write the report into `folder` and each method into a folder below.

    The events of an earlier report are replaced.
    """
    _clear(folder)
    before = _events(folder)
    descriptions = {f"report/{name}": f"The report's chart of {name}." for name in pictures}
    writer = Writer(
        folder, descriptions={**descriptions, "report": "What the runs come to over seeds."}
    )
    writer.text("report", text)
    writer.images({f"report/{name}": picture for name, picture in pictures.items()}, 0)
    writer.close()
    for method in analysis.methods:
        _write_method(folder / safe(method), method, analysis, curves, tag)
    _note(folder, before)


def _write_method(
    folder: Path, method: str, analysis: Analysis, curves: Mapping[Path, Curves], tag: str
) -> None:
    level = f"{100 * analysis.bootstrap.level:g}%"
    words = {
        "": f"interquartile mean of {tag}",
        "/low": f"its {level} interval, low",
        "/high": f"{level} interval, high",
    }
    descriptions = {}
    for task in analysis.tasks:
        for end, said in words.items():
            descriptions[f"band/{task}{end}"] = f"{task}: {said} over seeds."
    writer = Writer(folder, descriptions=descriptions)
    writer.bands({"report": {task: f"band/{task}" for task in analysis.tasks}})
    for task in analysis.tasks:
        group = analysis.group(method, task)
        found = charts.band(group, curves, tag, analysis) if group else None
        if found is not None:
            for step, *ends in zip(found.steps, found.middle, found.low, found.high, strict=True):
                values = zip(("", "/low", "/high"), ends, strict=True)
                writer.scalars({f"band/{task}{end}": value for end, value in values}, int(step))
    writer.close()


def _clear(folder: Path) -> None:
    """Remove the events that an earlier report recorded as its own, and nothing else."""
    for name in run_folder.read_json(folder / _OWN).get("events", []):
        path = folder / str(name)
        if (
            path.name.startswith("events.out.tfevents.")
            and folder.resolve() in path.resolve().parents
        ):
            path.unlink(missing_ok=True)


def _note(folder: Path, before: set[Path]) -> None:
    """Record which events are this report's, for the next one to replace."""
    own = sorted(str(path.relative_to(folder)) for path in _events(folder) - before)
    atomic.write_text(folder / _OWN, json.dumps({"events": own}, indent=2) + "\n")


def _events(folder: Path) -> set[Path]:
    return {*folder.glob("events.out.tfevents.*"), *folder.glob("*/events.out.tfevents.*")}
