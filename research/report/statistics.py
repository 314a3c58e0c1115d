"""Statistics over few seeds: robust aggregates with bootstrap intervals, in NumPy.

After Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice",
sections 4.1 to 4.3, and compared with their package rliable by `tests/report/test_statistics.py`.
Scores of one method are an array [N] of its runs for each task, one number a run; tasks may have
different numbers of runs. Larger is better throughout.

The bootstrap is stratified: every draw takes, of each task, as many runs as it has, with
replacement. Draws follow from a seed. Arrays of draws are [R, N]; a statistic works on the last
axis, so draws and data pass through the same code.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

Statistic = Callable[[Sequence[np.ndarray]], np.ndarray]

_PAIRS = 20_000_000  # comparisons held in memory at once


def interquartile_mean(tasks: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean of the middle half of all runs of all tasks: [..., N] each -> [...].

    A quarter of the runs, rounded down, is left out at each end.
    """
    runs = np.sort(np.concatenate(tasks, axis=-1), axis=-1)
    count = runs.shape[-1]
    cut = count // 4
    return runs[..., cut : count - cut].mean(axis=-1)


def median(tasks: Sequence[np.ndarray]) -> np.ndarray:
    """Return the median over tasks of each task's mean over runs."""
    return np.median(_means(tasks), axis=0)


def mean(tasks: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean over tasks of each task's mean over runs."""
    return _means(tasks).mean(axis=0)


def optimality_gap(tasks: Sequence[np.ndarray], goal: float = 1.0) -> np.ndarray:
    """Return how far runs stay below `goal` on average; higher scores count as `goal`."""
    return goal - mean([np.minimum(runs, goal) for runs in tasks])


def profile(tasks: Sequence[np.ndarray], thresholds: np.ndarray) -> np.ndarray:
    """Return the share of runs above each threshold, averaged over tasks.

    [..., N] each -> [..., T]. Agarwal et al.'s score distribution, equation 2.
    """
    return np.mean([(runs[..., None] > thresholds).mean(axis=-2) for runs in tasks], axis=0)


def _means(tasks: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack([runs.mean(axis=-1) for runs in tasks])  # [tasks, ...]


def probability_of_improvement(
    ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]
) -> np.ndarray:
    """Return the probability that a run of ours beats one of theirs on the same task.

    A tie counts as half. It is averaged over tasks; for each it is the Mann-Whitney U statistic
    over the number of pairs: [..., N] and [..., M] each -> [...].
    """
    return np.mean([_better(a, b) for a, b in zip(ours, theirs, strict=True)], axis=0)


def _better(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.ndim > 1 and a.shape[0] > 1 and a.size * b.shape[-1] > _PAIRS:
        half = a.shape[0] // 2
        return np.concatenate([_better(a[:half], b[:half]), _better(a[half:], b[half:])])
    x = a[..., :, None]
    y = b[..., None, :]
    return ((x > y) + 0.5 * (x == y)).mean(axis=(-2, -1))


def paired_differences(ours: Mapping[int, float], theirs: Mapping[int, float]) -> np.ndarray:
    """Return ours minus theirs for every seed that both have, in the order of seeds."""
    return np.array(
        [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())],
        dtype=np.float64,
    )


class Bootstrap:
    """Percentile intervals from stratified draws.

    Args:
        seed: the draws follow from it.
        draws: their number.
        level: the share of the distribution that an interval covers.
    """

    def __init__(self, seed: int = 0, draws: int = 2000, level: float = 0.95) -> None:
        self.seed = seed
        self.draws = draws
        self.level = level

    def interval(
        self, statistic: Statistic, tasks: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of the interval of a statistic of one method's runs: [...] each."""
        return self._ends(statistic(self._drawn(tasks, np.random.default_rng([self.seed, 0]))))

    def interval_of_two(
        self,
        statistic: Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], np.ndarray],
        ours: Sequence[np.ndarray],
        theirs: Sequence[np.ndarray],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of the interval of a statistic of two methods, drawn independently."""
        streams = (np.random.default_rng([self.seed, i]) for i in (0, 1))
        drawn = [
            self._drawn(tasks, stream)
            for tasks, stream in zip((ours, theirs), streams, strict=True)
        ]
        return self._ends(statistic(*drawn))

    def band(self, curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the interval of the interquartile mean over runs at every point of curves [N, T].

        The ends are [T] each. A run is drawn as a whole, so that the band is that of curves. NaN
        marks points that a run lacks.
        """
        rows = np.random.default_rng([self.seed, 0]).integers(
            len(curves), size=(min(self.draws, 500), len(curves))
        )
        return self._ends(middle(curves[rows]))

    def _drawn(self, tasks: Sequence[np.ndarray], stream: np.random.Generator) -> list[np.ndarray]:
        return [runs[stream.integers(len(runs), size=(self.draws, len(runs)))] for runs in tasks]

    def _ends(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tail = 50 * (1 - self.level)
        low, high = np.nanpercentile(values, [tail, 100 - tail], axis=0)
        return low, high


def middle(curves: np.ndarray) -> np.ndarray:
    """Return the interquartile mean over runs at every point: [..., N, T] -> [..., T].

    Runs without a point there (NaN) do not count; NaN if none has one.
    """
    ordered = np.sort(curves, axis=-2)  # NaN last
    count = np.isfinite(ordered).sum(axis=-2, keepdims=True)  # [..., 1, T]
    cut = count // 4
    place = np.arange(curves.shape[-2])[:, None]
    kept = (place >= cut) & (place < count - cut)  # [..., N, T]
    total = np.where(kept, ordered, 0.0).sum(axis=-2)
    number = kept.sum(axis=-2)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
