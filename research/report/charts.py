"""Charts of a report: curves with bands, aggregates, profiles, probabilities of improvement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sparring.report import statistics
from sparring.report.analysis import AGGREGATES, THRESHOLDS, Analysis, Estimate
from sparring.report.groups import Group
from sparring.tensorboard.event_reader import Curves

POINTS = 200  # of a curve at most
_COLUMNS = 3  # panels in a row
_COLORS = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
_SMALL = 8  # points of a font


@dataclass(frozen=True)
class Band:
    """Curve of a group: interquartile mean over its runs and its interval's ends, [T] each."""

    steps: np.ndarray
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray


def band(group: Group, curves: Mapping[Path, Curves], tag: str, analysis: Analysis) -> Band | None:
    """Return the curve of the runs that count; None without a point.

    A run that ended early keeps its last value.
    """
    lines = [curves[run.folder].of(tag) for run in group.counted]
    lines = [line for line in lines if len(line[0])]
    if not lines:
        return None
    grid = np.unique(np.concatenate([steps for steps, _ in lines]))
    grid = grid[np.unique(np.linspace(0, len(grid) - 1, POINTS).round().astype(int))]
    # [N, T]
    values = np.stack([np.interp(grid, steps, numbers, left=np.nan) for steps, numbers in lines])
    return Band(grid, statistics.middle(values), *analysis.bootstrap.band(values))


def learning(analysis: Analysis, curves: Mapping[Path, Curves], tag: str) -> Figure:
    """Return learning curves, a panel for each task.

    There is a band for each method over a thin line for each run, dotted if it does not count.
    """
    figure, panels = _panels(len(analysis.tasks))
    for axes, task in zip(panels, analysis.tasks, strict=True):
        for color, method in zip(_colors(analysis.methods), analysis.methods, strict=True):
            group = analysis.group(method, task)
            if group is None:
                continue
            found = band(group, curves, tag, analysis)
            if found is not None:
                axes.plot(
                    found.steps,
                    found.middle,
                    color=color,
                    linewidth=1.4,
                    label=method,
                    marker=_marker(found.steps),
                )
                axes.fill_between(
                    found.steps, found.low, found.high, color=color, alpha=0.2, linewidth=0
                )
            for run in group.runs:
                if run.folder in curves:
                    steps, values = curves[run.folder].of(tag)
                    axes.plot(
                        steps,
                        values,
                        color=color,
                        linewidth=0.6,
                        alpha=0.5,
                        linestyle="-" if run.counts else ":",
                        marker=_marker(steps),
                        markersize=4,
                    )
        axes.set_title(task, fontsize=9)
        axes.set_xlabel("steps", fontsize=_SMALL)
        axes.set_ylabel(tag, fontsize=_SMALL)
    _legend(figure, analysis.methods)
    return figure


def aggregates(analysis: Analysis) -> Figure:
    """Return a panel for each aggregate, with a bar from low to high for each method."""
    found = {method: analysis.aggregates(method) for method in analysis.compared}
    figure = Figure(figsize=(10, 1.0 + 0.4 * len(found)), layout="constrained")
    for axes, name in zip(
        figure.subplots(1, len(AGGREGATES), sharey=True, squeeze=False)[0], AGGREGATES, strict=True
    ):
        _bars(
            axes, {method: estimates[name] for method, estimates in found.items()}, analysis.methods
        )
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("normalised score", fontsize=_SMALL)
    return figure


def profiles(analysis: Analysis) -> Figure:
    """Return a chart of the share of runs above each normalised score."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    _tidy(axes)
    for color, method in zip(_colors(analysis.methods), analysis.methods, strict=True):
        if method in analysis.compared:
            share, low, high = analysis.profile(method)
            axes.plot(THRESHOLDS, share, color=color, linewidth=1.4, label=method)
            axes.fill_between(THRESHOLDS, low, high, color=color, alpha=0.2, linewidth=0)
    axes.set_xlabel("normalised score", fontsize=_SMALL)
    axes.set_ylabel("share of runs above it", fontsize=_SMALL)
    axes.set_ylim(-0.03, 1.03)
    _legend(figure, analysis.methods)
    return figure


def improvement(analysis: Analysis) -> Figure:
    """Return a bar for each pair of methods, and the line of no difference."""
    bars = {f"{pair.ours} over {pair.theirs}": pair.probability for pair in analysis.comparisons}
    figure = Figure(figsize=(7, 1.0 + 0.4 * len(bars)), layout="constrained")
    axes = figure.subplots()
    _bars(axes, bars, list(bars))
    axes.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("probability of improvement", fontsize=_SMALL)
    return figure


def pixels(figure: Figure) -> np.ndarray:
    """Return a chart as an image, uint8 [H, W, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _bars(axes: Axes, estimates: Mapping[str, Estimate], colored: Sequence[str]) -> None:
    _tidy(axes)
    axes.use_sticky_edges = False  # keeps a bar's end off the edge of the panel
    colors = dict(zip(colored, _colors(colored), strict=True))
    names = list(reversed(list(estimates)))
    for place, name in enumerate(names):
        found = estimates[name]
        axes.barh(
            place, found.high - found.low, left=found.low, height=0.6, color=colors[name], alpha=0.6
        )
        axes.vlines(found.value, place - 0.3, place + 0.3, color="black", linewidth=1.5)
    axes.set_yticks(range(len(names)), names, fontsize=_SMALL)


def _marker(steps: np.ndarray) -> str | None:
    """Return the marker of a curve: a single point has no line that would show it."""
    return "o" if len(steps) == 1 else None


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    figure = Figure(
        figsize=(4.2 * columns if count > 1 else 6.5, 3.0 * rows + 0.4), layout="constrained"
    )
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[count:]:
        axes.remove()
    for axes in panels[:count]:
        _tidy(axes)
    return figure, panels[:count]


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.tick_params(labelsize=7)


def _colors(names: Sequence[str]) -> list[tuple[float, float, float]]:
    return [_COLORS[i % len(_COLORS)] for i in range(len(names))]


def _legend(figure: Figure, methods: Sequence[str]) -> None:
    shown: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
    if len(methods) > 1 and shown:
        columns = min(len(shown), 4)
        figure.legend(
            list(shown.values()),
            list(shown),
            loc="outside lower center",
            ncols=columns,
            fontsize=_SMALL,
        )
