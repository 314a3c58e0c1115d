"""Analysis of groups of runs: estimates with intervals for tasks, over tasks, and in pairs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from sparring.errors import UserError
from sparring.report import statistics
from sparring.report.groups import Group
from sparring.report.statistics import Bootstrap

THRESHOLDS = np.linspace(0.0, 1.0, 101)  # of performance profiles
_ALL_PAIRS = 5  # up to so many methods are compared in all pairs, more with a baseline only


@dataclass(frozen=True)
class Estimate:
    """Value of a statistic and the ends of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Comparison of one method with another.

    `probability` is that of one of our runs being better; `differences` are ours minus theirs.
    """

    ours: str
    theirs: str
    probability: Estimate
    # Task -> differences of every seed that both have, and the estimate of their mean
    differences: Mapping[str, tuple[np.ndarray, Estimate]]


AGGREGATES: dict[str, Callable[..., np.ndarray]] = {
    "IQM": statistics.interquartile_mean,
    "median": statistics.median,
    "mean": statistics.mean,
    "optimality gap": statistics.optimality_gap,
}


class Analysis:
    """Analysis of methods on tasks.

    Args:
        groups: methods on tasks.
        maximize: whether a larger score is better.
        bootstrap: for the intervals.
        scale: task -> (worst, best): scores that become 0 and 1 before tasks are aggregated. A task
          that it lacks is scaled by the worst and the best of its own runs.
        baseline: the method that others are compared with; None compares every pair, up to five
          methods.

    Raises:
        UserError: no method of that name.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        maximize: bool,
        bootstrap: Bootstrap,
        scale: Mapping[str, Sequence[float]] | None = None,
        baseline: str | None = None,
    ) -> None:
        self.groups = list(groups)
        self.maximize = maximize
        self.bootstrap = bootstrap
        self.methods = list(dict.fromkeys(g.method for g in groups))
        self.tasks = list(dict.fromkeys(g.task for g in groups))
        self.given = dict(scale or {})
        self.baseline = baseline
        self._by_name = {(g.method, g.task): g for g in groups}
        if baseline is not None and baseline not in self.methods:
            raise UserError(
                f"--baseline {baseline}: no such method. There are: {'; '.join(self.methods)}."
            )

    def group(self, method: str, task: str) -> Group | None:
        """Return the runs of a method on a task, or None."""
        return self._by_name.get((method, task))

    def scores(self, method: str, task: str) -> dict[int, float]:
        """Return seed -> score of the runs that count."""
        group = self.group(method, task)
        return group.scores() if group else {}

    def estimate(self, method: str, task: str) -> Estimate:
        """Return the interquartile mean of a method's scores on a task, in the score's own unit."""
        values = [np.array(list(self.scores(method, task).values()))]
        return self._estimate(statistics.interquartile_mean, values)

    @cached_property
    def common(self) -> list[str]:
        """Tasks on which every method with any score has one: those of the aggregates."""
        return [t for t in self.tasks if all(self.scores(m, t) for m in self.compared)]

    @cached_property
    def compared(self) -> list[str]:
        """Methods with any score."""
        return [m for m in self.methods if any(self.scores(m, t) for t in self.tasks)]

    @property
    def scalable(self) -> bool:
        """Whether normalised scores are meaningful.

        They are not for a single method scaled by its own runs alone.
        """
        return bool(self.common) and (
            len(self.compared) > 1 or all(task in self.given for task in self.common)
        )

    @cached_property
    def scale(self) -> dict[str, tuple[float, float]]:
        """Worst and best score of each task, given or found."""
        return {
            task: self._scale(task)
            for task in self.tasks
            if any(self.scores(m, task) for m in self.methods)
        }

    def _scale(self, task: str) -> tuple[float, float]:
        if task in self.given:
            worst, best = self.given[task]
            return float(worst), float(best)
        values = [score for method in self.methods for score in self.scores(method, task).values()]
        return (min(values), max(values)) if self.maximize else (max(values), min(values))

    def normalized(self, method: str) -> list[np.ndarray]:
        """Return a method's scores on each common task, scaled to 0 and 1: [N] each."""
        found = []
        for task in self.common:
            worst, best = self.scale[task]
            values = np.array(list(self.scores(method, task).values()), np.float64)
            found.append(
                (values - worst) / (best - worst) if best != worst else np.ones_like(values)
            )
        return found

    def aggregates(self, method: str) -> dict[str, Estimate]:
        """Return the four aggregates of normalised scores over the common tasks."""
        return {name: self._estimate(f, self.normalized(method)) for name, f in AGGREGATES.items()}

    def profile(self, method: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the performance profile over `THRESHOLDS` and its interval's ends: [101] each."""
        tasks = self.normalized(method)

        def share(drawn: Sequence[np.ndarray]) -> np.ndarray:
            return statistics.profile(drawn, THRESHOLDS)

        return (share(tasks), *self.bootstrap.interval(share, tasks))

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Comparisons of every pair of methods, or of each with the baseline."""
        if len(self.compared) < 2 or not self.common:
            return []
        pairs: list[tuple[str, str]] = list(combinations(self.compared, 2))
        if self.baseline is not None or len(self.compared) > _ALL_PAIRS:
            base = self.baseline or self.compared[0]
            pairs = [(method, base) for method in self.compared if method != base]
        return [self._compare(ours, theirs) for ours, theirs in pairs]

    def _compare(self, ours: str, theirs: str) -> Comparison:
        a = self.normalized(ours)
        b = self.normalized(theirs)
        value = float(statistics.probability_of_improvement(a, b))
        low, high = self.bootstrap.interval_of_two(statistics.probability_of_improvement, a, b)
        differences = {}
        for task in self.common:
            paired = statistics.paired_differences(
                self.scores(ours, task), self.scores(theirs, task)
            )
            if len(paired):
                differences[task] = (paired, self._estimate(statistics.mean, [paired]))
        return Comparison(ours, theirs, Estimate(value, float(low), float(high)), differences)

    def _estimate(self, statistic: Callable[..., Any], tasks: Sequence[np.ndarray]) -> Estimate:
        low, high = self.bootstrap.interval(statistic, tasks)
        return Estimate(float(statistic(tasks)), float(low), float(high))
