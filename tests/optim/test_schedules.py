"""Schedules at hand-computed points of a run."""

import math

import pytest
import tensorflow as tf

from sparring.errors import UserError
from sparring.optim.schedules import Cosine, Linear, Warmup, as_schedule


def at(schedule, progress: float) -> float:
    value = tf.convert_to_tensor(schedule(tf.constant(progress)))
    assert value.dtype == tf.float32
    assert value.shape == ()
    return float(value)


@pytest.mark.parametrize(
    ("progress", "expected"),
    # from 1 to 0.05 in a tenth of the run: halfway there at 0.05, (1 + 0.05) / 2 = 0.525
    [(0.0, 1.0), (0.05, 0.525), (0.1, 0.05), (0.5, 0.05), (1.0, 0.05)],
)
def test_linear(progress, expected):
    assert at(Linear(1.0, 0.05, 0.1), progress) == pytest.approx(expected, abs=1e-6)


def test_linear_spans_the_run_unless_told_otherwise():
    assert at(Linear(4.0, 0.0), 0.25) == 3.0
    assert at(Linear(0.0, 4.0, 2.0), 1.0) == 2.0  # a fraction above one ends on the way


@pytest.mark.parametrize(
    ("progress", "expected"),
    # (1 + cos(pi p)) / 2: at a quarter (1 + 0.70711) / 2 = 0.853553
    [(0.0, 1.0), (0.25, 0.853553), (0.5, 0.5), (0.75, 0.146447), (1.0, 0.0)],
)
def test_cosine(progress, expected):
    assert at(Cosine(1.0), progress) == pytest.approx(expected, abs=1e-6)


def test_cosine_between_two_values_over_a_part_of_the_run():
    schedule = Cosine(3.0, 1.0, 0.5)
    assert at(schedule, 0.25) == pytest.approx(2.0, abs=1e-6)
    # a third of the way: 1 + 2 * (1 + cos(pi / 3)) / 2 = 1 + 1.5
    assert at(schedule, 0.5 / 3) == pytest.approx(2.5, abs=1e-6)
    assert at(schedule, 0.9) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("progress", "expected"),
    # up to 2 in a fifth of the run, then 2 -> 0 over the rest: at 0.6 half of the rest is over
    [(0.0, 0.0), (0.05, 0.5), (0.1, 1.0), (0.2, 2.0), (0.6, 1.0), (1.0, 0.0)],
)
def test_warmup(progress, expected):
    assert at(Warmup(Linear(2.0, 0.0), 0.2), progress) == pytest.approx(expected, abs=1e-6)


def test_warmup_to_a_number_stays_there():
    schedule = Warmup(0.5, 0.5)
    assert [at(schedule, p) for p in (0.25, 0.5, 1.0)] == [0.25, 0.5, 0.5]


def test_numbers_are_constant_and_callables_are_themselves():
    assert at(as_schedule(3e-4), 0.7) == pytest.approx(3e-4, rel=1e-6)
    assert at(as_schedule(2), 0.0) == 2.0
    mine = lambda progress: progress * 2.0  # noqa: E731
    assert as_schedule(mine) is mine


@pytest.mark.parametrize(
    "make", [lambda f: Linear(1.0, 0.0, f), lambda f: Cosine(1.0, 0.0, f), lambda f: Warmup(1.0, f)]
)
@pytest.mark.parametrize("fraction", [0.0, -0.5, math.nan])
def test_a_fraction_that_is_no_span_of_the_run_is_refused(make, fraction):
    # at progress 0 a fraction of 0 would be 0 / 0, and every weight not a number after one update
    with pytest.raises(UserError, match=f"fraction={fraction}.*above 0"):
        make(fraction)


@pytest.mark.parametrize("fraction", [1.0, 1.5])
def test_a_warmup_leaves_something_to_follow(fraction):
    with pytest.raises(UserError, match=f"fraction={fraction}.*below 1"):
        Warmup(Linear(1.0, 0.0), fraction)
