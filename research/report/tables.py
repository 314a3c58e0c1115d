"""Tables of a report, as Markdown and CSV."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparring.report.analysis import AGGREGATES, Analysis, Estimate
from sparring.report.discovery import Run

_LISTED_SEEDS = 10  # a row lists so many scores at most


@dataclass
class Table:
    """Table of a report: `name` is its file's, `rows` hold cells, `note` stands below it."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[Any]] = field(default_factory=list)
    note: str = ""

    def markdown(self, most: int = 0) -> str:
        """Return the title, the table and the note, with `most` rows at most unless it is 0."""
        shown = self.rows[:most] if most else self.rows
        cells = [self.columns, *([said(cell) for cell in row] for row in shown)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        head, *body = [
            _row([cell.ljust(width) for cell, width in zip(r, widths, strict=True)]) for r in cells
        ]
        lines = [f"## {self.title}", "", head, _row(["-" * width for width in widths]), *body]
        if len(shown) < len(self.rows):
            lines.append(f"\nand {len(self.rows) - len(shown)} more in {self.name}.csv.")
        return "\n".join([*lines, *(["", self.note] if self.note else [])])

    def csv(self) -> str:
        """Return every row as CSV, numbers in full precision."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([self.columns, *self.rows])
        return text.getvalue()


def said(value: Any) -> str:
    """Return a cell as text for readers."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def results(analysis: Analysis, unit: str) -> Table:
    """Return a row for each method on each task, in the score's own unit."""
    level = f"{100 * analysis.bootstrap.level:g}%"
    columns = [
        "task",
        "method",
        "seeds",
        "scores",
        "mean",
        "spread",
        "IQM",
        "low",
        "high",
        "worst",
        "best",
    ]
    table = Table(
        "results", f"{unit}, for each task", [*columns, "steps", "seconds a seed", "left out"]
    )
    for group in sorted(analysis.groups, key=lambda g: analysis.tasks.index(g.task)):
        values = list(group.scores().values())
        left_out = len(group.runs) - len(values)
        if not values:
            table.rows.append([group.task, group.method, 0, *[None] * 10, left_out])
            continue
        estimate = analysis.estimate(group.method, group.task)
        ends = (min(values), max(values)) if analysis.maximize else (max(values), min(values))
        seconds = float(np.median([run.seconds for run in group.counted]))
        steps = max(run.step for run in group.counted)
        row = [
            group.task,
            group.method,
            len(values),
            _listed(values),
            float(np.mean(values)),
            float(np.std(values)),
        ]
        table.rows.append(
            [*row, estimate.value, estimate.low, estimate.high, *ends, steps, seconds, left_out]
        )
    table.note = (
        "Spread: standard deviation over seeds. IQM: mean of the middle half of the seeds; low "
        f"and high: its {level} "
        "interval (bootstrap). Seconds: the median run, start-up included."
    )
    return table


def _listed(values: Sequence[float]) -> str:
    shown = ", ".join(said(value) for value in values[:_LISTED_SEEDS])
    return shown + (", ..." if len(values) > _LISTED_SEEDS else "")


def aggregates(analysis: Analysis) -> Table:
    """Return a row for each method, with its aggregates over tasks."""
    columns: list[str] = []
    for name in AGGREGATES:
        columns += [name, f"{name} low", f"{name} high"]
    table = Table(
        "aggregates",
        f"Over {_counted(len(analysis.common), 'task')}, normalised scores",
        ["method", "runs"],
    )
    table.columns += columns
    for method in analysis.compared if analysis.common else []:
        found = analysis.aggregates(method)
        runs = sum(len(analysis.scores(method, task)) for task in analysis.common)
        row: list[Any] = [method, runs]
        for estimate in found.values():
            row += _three(estimate)
        table.rows.append(row)
    table.note = _scale_note(analysis)
    return table


def _scale_note(analysis: Analysis) -> str:
    def ends(task: str) -> str:
        worst, best = analysis.scale[task]
        return (
            f"{task} {said(worst)} to "
            f"{said(best)}{'' if task in analysis.given else ' (its own runs)'}"
        )

    out = [task for task in analysis.tasks if task not in analysis.common]
    note = "0 and 1 are: " + "; ".join(ends(task) for task in analysis.common) + "."
    return note + (
        f" Not every method has a score on {', '.join(out)}: left out here." if out else ""
    )


def comparisons(analysis: Analysis) -> Table:
    """Return a row for each pair of methods, with the probability that the first is better."""
    table = Table(
        "comparisons",
        "Probability of improvement",
        ["ours", "theirs", "probability", "low", "high"],
    )
    for pair in analysis.comparisons:
        table.rows.append([pair.ours, pair.theirs, *_three(pair.probability)])
    table.note = (
        "How likely a run of ours is better than one of theirs on the same task; a tie is half."
    )
    return table


def pairs(analysis: Analysis) -> Table:
    """Return a row for each pair of methods on each task, with the difference seed by seed."""
    columns = [
        "task",
        "ours",
        "theirs",
        "pairs",
        "mean difference",
        "low",
        "high",
        "better",
        "worse",
    ]
    table = Table("pairs", "Differences between equal seeds", columns)
    for pair in analysis.comparisons:
        for task, (differences, estimate) in pair.differences.items():
            signed = differences if analysis.maximize else -differences
            counts = [int((signed > 0).sum()), int((signed < 0).sum())]
            table.rows.append(
                [task, pair.ours, pair.theirs, len(differences), *_three(estimate), *counts]
            )
    table.note = "Ours minus theirs, in the score's own unit, over seeds that both have."
    return table


def runs(found: Sequence[Run]) -> Table:
    """Return a row for each run, those that do not count first."""
    table = Table(
        "runs", "All runs", ["run", "status", "seed", "step", "of", "score", "seconds", "why"]
    )
    for run in sorted(found, key=lambda r: (r.counts, str(r.folder))):
        # A run without a readable config has none of these
        known: list[Any] = [run.seed, run.step, run.steps] if run.settings else [None] * 3
        seconds = float(run.seconds) or None
        table.rows.append(
            [f"{run.sweep}/{run.folder.name}", run.status, *known, run.score, seconds, run.problem]
        )
    return table


def left_out(found: Sequence[Run]) -> str:
    """Return a paragraph on the runs that do not count; empty if all do."""
    absent = [run for run in found if not run.counts]
    if not absent:
        return ""
    kinds = Counter(run.status for run in absent)
    listed = ", ".join(f"{n} {status}" for status, n in kinds.most_common())
    lines = [
        f"**{len(absent)} of {_counted(len(found), 'run')} do not count: {listed}.** What failed "
        "may be what a"
    ]
    lines[0] += " method does badly at: with failures left out its numbers flatter it."
    lines += [
        f"- `{run.sweep}/{run.folder.name}`: {run.status}{_progress(run)}{_because(run)}"
        for run in absent[:20]
    ]
    return "\n".join(
        [*lines, *([f"- and {len(absent) - 20} more, in runs.csv"] if len(absent) > 20 else [])]
    )


def _progress(run: Run) -> str:
    return f" at step {run.step} of {run.steps}" if run.step else ""


def _because(run: Run) -> str:
    return f": {run.problem}" if run.problem else ""


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _three(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high
