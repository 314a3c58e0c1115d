"""TensorBoard pages of a report: bands as custom scalars, tables as text, charts as images.

The HParams table of a sweep is written by its runs: a row for each setting, metrics averaged over
seeds.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sparring.config.overrides import safe
from sparring.report import charts
from sparring.report.analysis import Analysis
from sparring.report.discovery import OWN_EVENTS
from sparring.storage import atomic, run_folder
from sparring.tensorboard.event_reader import Curves
from sparring.tensorboard.hparams import DECLARATION
from sparring.tensorboard.writer import Writer


def write(
    folder: Path,
    text: str,
    pictures: Mapping[str, np.ndarray],
    analysis: Analysis,
    curves: Mapping[Path, Curves],
    tag: str,
    files: Sequence[str] = (),
) -> None:
    """Write the report into `folder` and each method into a folder below.

    `files` are the report's other files there, for the next report to replace (`clear`).
    """
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
    _note(folder, before, files)


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
            descriptions[f"report/{task}{end}"] = f"{task}: {said} over seeds."
    writer = Writer(folder, descriptions=descriptions)
    writer.bands({"report": {task: f"report/{task}" for task in analysis.tasks}})
    for task in analysis.tasks:
        group = analysis.group(method, task)
        found = charts.band(group, curves, tag, analysis) if group else None
        if found is not None:
            for step, *ends in zip(found.steps, found.middle, found.low, found.high, strict=True):
                values = zip(("", "/low", "/high"), ends, strict=True)
                writer.scalars({f"report/{task}{end}": value for end, value in values}, int(step))
    writer.close()


def clear(folder: Path) -> None:
    """Remove the files that an earlier report recorded as its own, and nothing else."""
    for name in run_folder.read_json(folder / OWN_EVENTS).get("events", []):
        path = folder / str(name)
        if folder.resolve() not in path.resolve().parents:
            continue
        if path.name.startswith("events.out.tfevents.") or path.suffix in (".md", ".csv", ".png"):
            path.unlink(missing_ok=True)
        if path.parent != folder:
            with contextlib.suppress(OSError):  # something else is in it
                path.parent.rmdir()


def _note(folder: Path, before: set[Path], files: Sequence[str]) -> None:
    """Record what is this report's, for the next one to replace."""
    own = sorted(str(path.relative_to(folder)) for path in _events(folder) - before)
    atomic.write_text(folder / OWN_EVENTS, json.dumps({"events": [*own, *files]}, indent=2) + "\n")


def _events(folder: Path) -> set[Path]:
    found = {*folder.glob("events.out.tfevents.*"), *folder.glob("*/events.out.tfevents.*")}
    return {path for path in found if path.name != DECLARATION}  # which is the sweep's
