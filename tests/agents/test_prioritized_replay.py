"""Prioritised replay: which transitions have a priority, how they are drawn and what they weigh."""

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from sparring.agents.prioritized_replay import PrioritizedRing
from sparring.agents.replay import Ring, Rows
from sparring.optim.schedules import Linear
from sparring.xla import random
from tests.agents.test_replay import EPISODES, THREE_STEP, drawn, random_slots

SEEN = spaces.Box(-np.inf, np.inf, (), np.float32)
KEY = tf.constant([1, 2], tf.uint32)


def ring(capacity: int, num_envs: int = 1, span: int = 1, **settings) -> PrioritizedRing:
    return PrioritizedRing(capacity, num_envs, SEEN, spaces.Discrete(1000), None, span, **settings)


def held(one: PrioritizedRing) -> set[float]:
    """The observations whose transitions have a priority."""
    rows = np.flatnonzero(one.priorities.levels[0].numpy())
    return set(one.observation.numpy()[rows].tolist())


def test_three_step_transitions_have_a_priority_as_soon_as_they_are_whole() -> None:
    one = ring(9, span=3)
    one.write(*EPISODES.part(0, 2))  # observations 10, 11 and 12: nothing goes on for three steps
    assert held(one) == set()
    one.write(*EPISODES.part(2, 4))  # up to 14: of the starts 10 and 11, slot 11 has three after it
    assert held(one) == {10.0, 11.0}
    one.write(*EPISODES.part(4, 9))
    assert held(one) == set(map(float, THREE_STEP))  # no resets, and 17 and 18 are not whole
    rows = one.choose(KEY, 200, 3)
    assert drawn(one.gather(rows, 3, 0.5)).keys() == THREE_STEP.keys()


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("span", [1, 3])
def test_what_has_a_priority_is_what_a_uniform_ring_draws(num_envs: int, span: int) -> None:
    new = random_slots(np.random.default_rng(0), 60, num_envs)
    one = ring(15, num_envs, span)
    uniform = Ring(15, num_envs, SEEN, spaces.Discrete(1000))
    at = 0
    for length in (1, 3, 5, 2, 4, 5, 1, 1, 5, 3):
        for each in (one, uniform):
            each.write(*new.part(at, at + length))
        at += length
        if at <= span:
            continue
        batch = uniform.sample(random.fold(KEY, at), 2000, span)
        kept = np.asarray(batch.mask) > 0.0
        assert held(one) == set(np.asarray(batch.observation)[kept].tolist())


def test_priorities_and_weights_by_hand() -> None:
    one = ring(9, alpha=0.5, beta=Linear(0.5, 1.0), epsilon=0.0)
    one.write(*EPISODES)
    slots = tf.constant([0, 1, 3, 4, 6, 7, 8], tf.int64)
    rows = Rows(slots, tf.zeros_like(slots))
    one.learned(rows, tf.constant([1.0, 4.0, 0.0, 0.0, 0.0, 0.0, 9.0]), tf.constant(0.0))
    # Square roots 1, 2 and 3 of 6 in all: shares 1/6, 1/3 and 1/2
    chosen = one.choose(KEY, 6000, 1, 0.0)
    counts = np.bincount(np.asarray(chosen.slot), minlength=9)
    assert counts.tolist() == [1000, 2000, 0, 0, 0, 0, 0, 0, 3000]  # strata of equal size
    # P ** -1/2 divided by the largest, which is row 0's: 1, 2 ** -1/2, 3 ** -1/2; at the end 1,
    # 1/2, 1/3
    for progress, power in ((0.0, 0.5), (1.0, 1.0)):
        chosen = one.choose(KEY, 60, 1, progress)
        batch = one.gather(chosen, 1)
        for slot, weight in ((0, 1.0), (1, 2.0**-power), (8, 3.0**-power)):
            mine = np.asarray(chosen.slot) == slot
            np.testing.assert_allclose(np.asarray(batch.mask)[mine], weight, rtol=1e-5)
    # What is new has the highest priority so far, 3
    one.write(*EPISODES.part(0, 1))
    new = one.priorities.weights(
        one._row(Rows(tf.constant([9], tf.int64), tf.constant([0], tf.int64)))
    )
    np.testing.assert_allclose(new, [3.0])


def test_what_was_overwritten_meanwhile_gets_no_priority() -> None:
    one = ring(9)
    one.write(*EPISODES)
    slots = tf.constant([2], tf.int64)  # of the reset at observation 12
    one.learned(Rows(slots, tf.zeros_like(slots)), tf.constant([5.0]), tf.constant(0.0))
    assert 12.0 not in held(one)


def test_choosing_writing_and_learning_compile() -> None:
    new = random_slots(np.random.default_rng(1), 12, 2)
    found = []
    for jit in (None, True):
        one = ring(16, 2)

        def step(part, one=one):
            one.write(*part)
            rows = one.choose(KEY, 8, 1, 0.5)
            batch = one.gather(rows, 1, 0.9)
            one.learned(rows, tf.abs(batch.reward), tf.constant(0.5))
            return batch, one.priorities.levels[0].value()

        call = step if jit is None else tf.function(step, jit_compile=True, autograph=False)
        results = [call(new.part(at, at + 4)) for at in (0, 4, 8)]
        found.append([np.asarray(x) for x in tf.nest.flatten(results[-1])])
    for eager, compiled in zip(*found, strict=True):
        np.testing.assert_allclose(eager, compiled, rtol=1e-5)
