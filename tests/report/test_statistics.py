"""Statistics over seeds: numbers worked by hand, properties, and the package of the paper's
authors.
"""

from pathlib import Path

import numpy as np
import pytest

from sparring.report import statistics
from sparring.report.analysis import AGGREGATES, Analysis
from sparring.report.discovery import Run
from sparring.report.groups import Group
from sparring.report.statistics import Bootstrap

TWO = [np.array([0.0, 1.0, 2.0, 7.0]), np.array([0.5, 0.5, 1.5, 3.5])]
RNG = np.random.default_rng(0)
MATRIX = RNG.normal(0.6, 0.3, (10, 4))  # runs, tasks
OTHERS = RNG.normal(0.5, 0.4, (7, 4))


def columns(matrix: np.ndarray) -> list[np.ndarray]:
    return list(matrix.T)


def test_aggregates_worked_by_hand():
    # Sorted: 0 .5 .5 1 | 1.5 2 3.5 7; two are cut at each end: (.5 + 1 + 1.5 + 2) / 4 = 1.25.
    assert statistics.interquartile_mean(TWO) == pytest.approx(1.25)
    # Means of tasks: 10 / 4 = 2.5 and 6 / 4 = 1.5; median and mean of two numbers are both 2.
    assert statistics.mean(TWO) == pytest.approx(2.0)
    assert statistics.median([*TWO, np.array([9.0])]) == pytest.approx(2.5)
    # min(x, 1): 0 1 1 1 and .5 .5 1 1, means .75 and .75; the gap is 1 - .75.
    assert statistics.optimality_gap(TWO) == pytest.approx(0.25)
    # 5 runs: one is cut at each end, (2 + 3 + 4) / 3.
    assert statistics.interquartile_mean(
        [np.array([100.0, 2.0, 3.0, 4.0, -100.0])]
    ) == pytest.approx(3.0)


def test_a_profile_worked_by_hand():
    # Above 0.5: 3 of 4 and 2 of 4; above 2: 1 of 4 each. A run that equals the threshold is not
    # above it.
    np.testing.assert_allclose(statistics.profile(TWO, np.array([0.5, 2.0])), [0.625, 0.25])


def test_probability_of_improvement_worked_by_hand():
    # Pairs (1,1) tie, (1,2) lose, (3,1) win, (3,2) win: (.5 + 0 + 1 + 1) / 4; the other task is
    # won: their mean.
    ours = [np.array([1.0, 3.0]), np.array([5.0])]
    theirs = [np.array([1.0, 2.0]), np.array([4.0, 3.0])]
    assert statistics.probability_of_improvement(ours, theirs) == pytest.approx((0.625 + 1.0) / 2)
    assert statistics.probability_of_improvement(theirs, ours) == pytest.approx((0.375 + 0.0) / 2)


def test_pairs_are_those_of_seeds_that_both_have():
    found = statistics.paired_differences({3: 1.0, 0: 5.0, 7: 2.0}, {0: 4.0, 3: 3.0, 8: 1.0})
    np.testing.assert_allclose(found, [1.0, -2.0])


def test_the_middle_of_curves_leaves_out_what_is_not_there():
    curves = np.array([[1.0, 8.0], [2.0, np.nan], [3.0, 4.0], [4.0, np.nan], [100.0, np.nan]])
    # 5 runs: (2 + 3 + 4) / 3. 2 runs: none is cut, (8 + 4) / 2.
    np.testing.assert_allclose(statistics.middle(curves), [3.0, 6.0])
    assert np.isnan(statistics.middle(np.full((3, 1), np.nan)))[0]


def test_points_are_those_of_rliable():
    from rliable import metrics

    theirs = {
        "IQM": metrics.aggregate_iqm,
        "median": metrics.aggregate_median,
        "mean": metrics.aggregate_mean,
        "optimality gap": metrics.aggregate_optimality_gap,
    }
    assert theirs.keys() == AGGREGATES.keys()
    for matrix in (MATRIX, OTHERS, MATRIX[:3], MATRIX[:, :1]):
        for name, ours in AGGREGATES.items():
            assert ours(columns(matrix)) == pytest.approx(theirs[name](matrix), abs=1e-12), name
    ties = np.round(MATRIX, 1), np.round(OTHERS, 1)
    for a, b in ((MATRIX, OTHERS), ties):
        wanted = metrics.probability_of_improvement(a, b)
        assert statistics.probability_of_improvement(columns(a), columns(b)) == pytest.approx(
            wanted, abs=1e-12
        )


@pytest.mark.filterwarnings(
    "ignore:random_state is deprecated:FutureWarning"
)  # rliable gives it to arch
def test_profiles_and_intervals_are_those_of_rliable():
    from rliable import library, metrics

    scores = {"ours": MATRIX}
    _, wanted = library.get_interval_estimates(
        scores,
        lambda m: np.array([metrics.aggregate_iqm(m)]),
        reps=20000,
        random_state=np.random.RandomState(1),
    )
    low, high = Bootstrap(seed=1, draws=20000).interval(
        statistics.interquartile_mean, columns(MATRIX)
    )
    np.testing.assert_allclose([low, high], wanted["ours"][:, 0], atol=4e-3)  # of a width of 0.13
    assert high - low > 0.1
    grid = np.linspace(0.0, 1.0, 11)
    shares, bands = library.create_performance_profile(scores, grid, reps=2000)
    np.testing.assert_allclose(statistics.profile(columns(MATRIX), grid), shares["ours"])

    def share(tasks):
        return statistics.profile(tasks, grid)

    np.testing.assert_allclose(
        Bootstrap(draws=20000).interval(share, columns(MATRIX)), bands["ours"], atol=0.03
    )


def test_an_interval_covers_what_it_says():
    """A hundred sets of ten runs: the 80% interval of the mean holds the true mean about that
    often, a little less.
    """
    sets = np.random.default_rng(3).normal(size=(100, 10))
    ends = [Bootstrap(i, 500, 0.8).interval(statistics.mean, [runs]) for i, runs in enumerate(sets)]
    assert 65 <= sum(low <= 0.0 <= high for low, high in ends) <= 85


def test_draws_are_stratified_and_follow_from_the_seed():
    # Constant tasks: every stratified draw has the same mean; a draw over all runs would not.
    tasks = [np.zeros(5), np.ones(5)]
    assert Bootstrap().interval(statistics.mean, tasks) == (0.5, 0.5)
    one, again, other = (
        Bootstrap(seed).interval(statistics.mean, columns(MATRIX)) for seed in (4, 4, 5)
    )
    assert one == again
    assert one != other


def test_many_runs_are_compared_in_parts(monkeypatch):
    whole = Bootstrap().interval_of_two(
        statistics.probability_of_improvement, columns(MATRIX), columns(OTHERS)
    )
    monkeypatch.setattr(statistics, "_PAIRS", 1000)
    assert Bootstrap().interval_of_two(
        statistics.probability_of_improvement, columns(MATRIX), columns(OTHERS)
    ) == pytest.approx(whole, abs=1e-12)


def group(method: str, task: str, scores: list[float]) -> Group:
    runs = [
        Run(Path(f"{method}{task}{i}"), "s", "finished", i, {"a": 1}, score=s)
        for i, s in enumerate(scores)
    ]
    return Group(method, task, tuple(runs))


def test_scores_are_scaled_by_what_was_given_else_by_their_task_s_own_runs():
    groups = [
        group("a", "x", [10.0, 20.0]),
        group("b", "x", [30.0, 10.0]),
        group("a", "y", [5.0]),
        group("b", "y", [1.0]),
    ]
    found = Analysis(groups, True, Bootstrap(), {"y": [1, 9]})
    # x by its own 10 to 30: 0 and 1/2; y by 1 to 9: (5 - 1) / 8.
    np.testing.assert_allclose(np.concatenate(found.normalized("a")), [0.0, 0.5, 0.5])
    less = Analysis(groups, False, Bootstrap(), {"y": [9, 1]})
    np.testing.assert_allclose(np.concatenate(less.normalized("a")), [1.0, 0.5, 0.5])
    assert (found.comparisons[0].probability.value, less.comparisons[0].probability.value) == (
        pytest.approx(
            (0.375 + 1) / 2
        ),  # x: 10 ties 10 and loses to 30, 20 loses and wins: 1.5 of 4
        pytest.approx((0.625 + 0) / 2),
    )


def test_aggregates_are_over_tasks_that_every_method_has():
    groups = [
        group("a", "x", [1.0]),
        group("b", "x", [0.0]),
        group("a", "y", [3.0]),
        group("c", "x", []),
    ]
    found = Analysis(groups, True, Bootstrap())
    assert (found.common, found.compared) == (["x"], ["a", "b"])
    assert found.aggregates("a")["mean"].value == 1.0
