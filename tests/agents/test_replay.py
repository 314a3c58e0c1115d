"""The replay ring against hand-made sequences and a plain list of everything that was
ever written.
"""

from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from tf_agents.trajectories import trajectory

from sparring.agents.replay import Ring, Rows
from sparring.xla import random

pytestmark = pytest.mark.long

NUMBER: spaces.Box = spaces.Box(-1e9, 1e9, (), np.float32)
CHOICE: spaces.Discrete = spaces.Discrete(1000)
KEY = random.stream(11, "replay")


class Slots(NamedTuple):
    """T slots of B environments, as `Ring.write` takes them: observation [T + 1, B], the others [T,
    B].
    """

    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    first: np.ndarray

    def part(self, start: int, stop: int) -> "Slots":
        return Slots(self.observation[start : stop + 1], *(x[start:stop] for x in self[1:]))


def slots(observation, reward, terminated, truncated, first) -> Slots:
    """From one row of numbers per environment; the action is the observation's last three
    digits.
    """
    rows = [np.array(x).T for x in (observation, reward, terminated, truncated, first)]
    seen = rows[0].astype(np.float32)
    return Slots(
        seen,
        seen[:-1].astype(np.int32) % 1000,
        rows[1].astype(np.float32),
        *(x.astype(bool) for x in rows[2:]),
    )


def drawn(batch) -> dict[float, tuple]:
    """Sampled transitions by their observation; each must look the same however often it
    was drawn.
    """
    found: dict[float, tuple] = {}
    for start, *rest in zip(*(np.asarray(x).tolist() for x in batch[:6]), strict=True):
        assert found.setdefault(start, tuple(rest)) == tuple(rest)
    return found


# One environment. Observation t is 10 + t. Rewards 1, 2, then terminated at observation 12; a reset
# step; 4, 8, then truncated at observation 15; a reset step; 16, 32, 64 and the episode goes on at
# observation 19.
EPISODES = slots(
    [[10, 11, 12, 13, 14, 15, 16, 17, 18, 19]],
    [[1, 2, 0, 4, 8, 0, 16, 32, 64]],
    [[0, 1, 0, 0, 0, 0, 0, 0, 0]],
    [[0, 0, 0, 0, 1, 0, 0, 0, 0]],
    [[0, 0, 1, 0, 0, 1, 0, 0, 0]],
)
# start -> (action, reward, discount before gamma, next observation, mask), with gamma 1/2. The
# reset steps at 12 and 15 are no transitions and never drawn
ONE_STEP = {
    10: (10, 1, 1, 11, 1),
    11: (11, 2, 0, 12, 1),  # terminated: nothing follows
    13: (13, 4, 1, 14, 1),
    14: (
        14,
        8,
        1,
        15,
        1,
    ),  # truncated: bootstraps from the final observation, not from the reset's 16
    16: (16, 16, 1, 17, 1),
    17: (17, 32, 1, 18, 1),
    18: (18, 64, 1, 19, 1),
}
THREE_STEP = {
    10: (10, 2, 0, 12, 1),  # 1 + 2/2
    11: (11, 2, 0, 12, 1),
    13: (13, 8, 0.5, 15, 1),  # 4 + 8/2, two steps: gamma**1 before the gamma of the bootstrap
    14: (14, 8, 1, 15, 1),  # 8, and neither the reset's 0 nor the next episode's 16
    16: (16, 48, 0.25, 19, 1),  # 16 + 32/2 + 64/4, three steps: gamma**2
}


@pytest.mark.parametrize("mode", ["eager", "xla"])
def test_one_step_transitions_by_hand(mode):
    ring = Ring(100, 1, NUMBER, CHOICE)
    ring.write(*EPISODES)
    sample = (
        ring.sample
        if mode == "eager"
        else tf.function(ring.sample, jit_compile=True, autograph=False)
    )
    assert drawn(sample(KEY, 300, 1, 0.5)) == ONE_STEP


@pytest.mark.parametrize("mode", ["eager", "xla"])
def test_three_step_transitions_by_hand(mode):
    ring = Ring(100, 1, NUMBER, CHOICE)
    ring.write(*EPISODES)
    sample = (
        ring.sample
        if mode == "eager"
        else tf.function(ring.sample, jit_compile=True, autograph=False)
    )
    assert drawn(sample(KEY, 300, 3, 0.5)) == THREE_STEP  # 17 and 18 are not three steps old


def test_stock_three_step_return_goes_on_into_the_next_episode():
    # the mending: from observation 14 stock sums 8 + 0/2 + 16/4 = 12 and bootstraps from 17, of
    # another episode
    frames = tf.constant([[14.0, 15.0, 16.0, 17.0]])
    stock = trajectory.to_n_step_transition(
        trajectory.Trajectory(
            step_type=tf.constant([[1, 2, 0, 1]]),  # the second frame is the last of its episode
            observation=frames,
            action=tf.zeros_like(frames),
            policy_info=(),
            next_step_type=tf.constant([[2, 0, 1, 1]]),
            reward=tf.constant([[8.0, 0.0, 16.0, 32.0]]),
            discount=tf.ones_like(frames),  # truncated, not terminated
        ),
        gamma=0.5,
    )
    assert stock.next_time_step.reward.numpy().tolist() == [12.0]
    assert stock.next_time_step.observation.numpy().tolist() == [17.0]


def test_an_end_is_known_across_two_writes():
    # written in rollouts of one slot, an episode's end is flagged on an observation that the next
    # write stores again
    ring = Ring(100, 1, NUMBER, CHOICE)
    for t in range(9):
        ring.write(*EPISODES.part(t, t + 1))
    assert drawn(ring.sample(KEY, 300, 1, 0.5)) == ONE_STEP


@pytest.mark.parametrize("split", [0, 1, 2])
def test_nothing_leads_across_an_episode_that_a_restart_broke_off(split):
    # 1, 2, then a reset that no end announced, 4, 8: also where the reset begins a new rollout
    # (split 2)
    broken = slots(
        [[10, 11, 12, 13, 14, 15]], [[1, 2, 0, 4, 8]], [[0] * 5], [[0] * 5], [[0, 0, 1, 0, 0]]
    )
    ring = Ring(100, 1, NUMBER, CHOICE)
    if split:
        ring.write(*broken.part(0, split))
    ring.write(*broken.part(split, 5))
    # 1 + 2/2, two steps, bootstraps from 12
    assert drawn(ring.sample(KEY, 300, 3, 0.5))[10] == (10, 2, 0.5, 12, 1)
    found = drawn(ring.sample(KEY, 300, 1, 0.5))
    assert found[11] == (11, 2, 1, 12, 1)
    assert 12 not in found  # the reset is no transition


class Everything:
    """All slots ever written, in lists; the transitions a ring of `kept` slots must be able to give
    from them.
    """

    def __init__(self, num_envs: int, kept: int):
        self.num_envs = num_envs
        self.kept = kept
        self.rows: list[
            tuple
        ] = []  # per slot: observation, next observation, action, reward, and three flags

    def add(self, new: Slots) -> None:
        self.rows += list(zip(new.observation[:-1], new.observation[1:], *new[1:], strict=True))

    def transitions(self, steps: int, discount: float) -> dict[float, tuple]:
        starts = range(max(len(self.rows) - self.kept, 0), len(self.rows) - steps + 1)
        places = [(t, b) for t in starts for b in range(self.num_envs) if not self.rows[t][-1][b]]
        return dict(self._from(t, b, steps, discount) for t, b in places)

    def _from(self, start: int, b: int, steps: int, discount: float) -> tuple[float, tuple]:
        observation, _, action, *_ = (x[b] for x in self.rows[start])
        total = 0.0
        for k in range(steps):
            _, after, _, reward, terminated, truncated, _ = (x[b] for x in self.rows[start + k])
            total += discount**k * float(reward)
            broken = k + 1 < steps and self.rows[start + k + 1][-1][b]
            if terminated or truncated or broken:
                break
        scale = 0.0 if terminated else discount**k
        return float(observation), (int(action), total, scale, float(after), 1.0)


def random_slots(rng, count: int, num_envs: int) -> Slots:
    """Slots whose observations are numbered, so that each says when and where it was."""
    observation = 1000.0 * np.arange(num_envs)[:, None] + np.arange(count + 1)
    ends = rng.random((2, num_envs, count)) < 0.2
    # The rest were broken off
    first = np.roll(ends.any(0), 1, axis=1) | (rng.random((num_envs, count)) < 0.1)
    first[:, 0] = False
    return slots(observation, rng.integers(-8, 8, (num_envs, count)), ends[0], ends[1], first)


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("capacity", [5, 12])
def test_the_ring_holds_the_newest_transitions_and_no_others(num_envs, capacity):
    kept = -(-capacity // num_envs)  # whole slots, rounded up
    ring = Ring(capacity, num_envs, NUMBER, CHOICE)
    everything = Everything(num_envs, kept)
    lengths = [
        1,
        1,
        2,
        1,
        2,
        1,
        1,
        2,
        2,
        1,
        1,
        1,
        2,
        1,
        1,
        2,
    ]  # of rollouts: 22 slots, around more than once
    new = random_slots(np.random.default_rng(num_envs), sum(lengths), num_envs)
    t = 0
    for i, length in enumerate(lengths):
        ring.write(*new.part(t, t + length))
        everything.add(new.part(t, t + length))
        t += length
        for steps in (1, 2):
            # Gamma 1/2 and whole rewards: sums are exact. 500 draws miss one of 15 with odds e**-31
            if t >= steps:
                found = drawn(ring.sample(random.fold(KEY, 2 * i + steps), 500, steps, 0.5))
                assert found == everything.transitions(steps, 0.5)


@pytest.mark.parametrize(("num_envs", "steps"), [(1, 1), (3, 1), (3, 3)])
def test_every_start_is_equally_likely(num_envs, steps):
    ring = Ring(30, num_envs, NUMBER, CHOICE)
    everything = Everything(num_envs, 30 // num_envs)
    new = random_slots(np.random.default_rng(0), 45, num_envs)
    for t in range(0, 45, 5):  # around the ring
        ring.write(*new.part(t, t + 5))
        everything.add(new.part(t, t + 5))
    starts = sorted(everything.transitions(steps, 1.0))
    count = 20_000
    values, counts = np.unique(ring.sample(KEY, count, steps).observation, return_counts=True)
    assert values.tolist() == starts
    # chi-square with K - 1 degrees of freedom: mean K - 1, variance twice that
    expected = count / len(starts)
    freedom = len(starts) - 1
    assert np.sum((counts - expected) ** 2 / expected) < freedom + 5 * (2 * freedom) ** 0.5


def test_where_half_of_the_steps_are_resets_all_that_is_drawn_are_transitions():
    # Episodes of one step: every second step is a reset
    count = 20
    resets = [t % 2 for t in range(count)]
    ring = Ring(100, 1, NUMBER, CHOICE)
    ends = [1 - r for r in resets]
    ring.write(*slots([range(count + 1)], [[1] * count], [ends], [[0] * count], [resets]))
    batch = ring.sample(KEY, 1000)
    assert np.asarray(batch.mask).tolist() == [1.0] * 1000
    values, counts = np.unique(batch.observation, return_counts=True)
    assert values.tolist() == list(range(0, 20, 2))
    # Each of ten has 100 of 1000, with a standard deviation of sqrt(1000 * 0.1 * 0.9) = 9.5
    assert (np.abs(counts - 100) < 5 * 9.5).all()


def test_rows_are_gathered_as_they_were_chosen_and_where_nothing_begins_nothing_counts():
    ring = Ring(100, 1, NUMBER, CHOICE)
    ring.write(*EPISODES)
    rows = Rows(tf.constant([4, 2, 0], tf.int64), tf.zeros([3], tf.int64))
    batch = ring.gather(rows, 3, 0.5)
    assert np.asarray(batch.observation).tolist() == [14, 12, 10]
    assert np.asarray(batch.reward).tolist()[::2] == [8, 2]
    assert np.asarray(batch.mask).tolist() == [1, 0, 1]  # slot 2 is a reset


def test_a_key_repeats_its_sample_and_another_differs():
    ring = Ring(100, 1, NUMBER, CHOICE)
    ring.write(*EPISODES)
    a, b, c = (ring.sample(random.fold(KEY, i), 50).observation.numpy() for i in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert np.any(a != c)


def test_slots_are_counted_past_32_bits():
    ring = Ring(4, 1, NUMBER, CHOICE)
    ring.written.assign(2**40)
    ring.write(*slots([[1, 2, 3, 4, 5]], [[1] * 4], [[0] * 4], [[0] * 4], [[0] * 4]))
    assert int(ring.written) == 2**40 + 4
    assert set(drawn(ring.sample(KEY, 100))) == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("observation", "action", "size"),
    [
        # a reward of 4 bytes and two flags of 1 in each
        (spaces.Box(-1, 1, (4,)), spaces.Discrete(2), 4 * 4 + 4 + 4 + 2),
        (spaces.Box(0, 255, (84, 84, 4), np.uint8), spaces.Discrete(6), 84 * 84 * 4 + 4 + 4 + 2),
        (spaces.Box(-1, 1, (3, 2)), spaces.Box(-1, 1, (5,)), 6 * 4 + 5 * 4 + 4 + 2),
        (spaces.Box(-1, 1, (1,)), spaces.MultiDiscrete([2, 3, 4]), 4 + 3 * 4 + 4 + 2),
    ],
)
def test_a_transition_takes_the_bytes_the_arithmetic_says(observation, action, size):
    ring = Ring(9, 2, observation, action)  # five slots of two and one open slot: twelve rows
    assert ring.bytes_per_transition == size
    stored = sum(v.numpy().nbytes for v in ring.variables if v.shape.rank)
    assert stored == 12 * size


def test_observations_and_actions_keep_dtype_and_shape():
    ring = Ring(6, 2, spaces.Box(0, 255, (2, 2), np.uint8), spaces.Box(-1, 1, (3,)))
    rng = np.random.default_rng(0)
    observation = rng.integers(0, 256, (4, 2, 2, 2), np.uint8)
    action = rng.normal(size=(3, 2, 3)).astype(np.float32)
    never = np.zeros((3, 2), bool)
    ring.write(observation, action, np.zeros((3, 2), np.float32), never, never, never)
    batch = ring.sample(KEY, 64)
    assert (batch.observation.dtype, batch.observation.shape) == (tf.uint8, (64, 2, 2))
    assert (batch.action.dtype, batch.action.shape) == (tf.float32, (64, 3))
    kept = _as_bytes(observation[:-1], action, observation[1:])
    assert (
        _as_bytes(
            *(
                np.asarray(x)[np.newaxis]
                for x in (batch.observation, batch.action, batch.next_observation)
            )
        )
        == kept
    )


def _as_bytes(*columns: np.ndarray) -> set[tuple[bytes, ...]]:
    """The distinct rows of columns [T, B, ...]."""
    rows = [x.reshape(-1, *x.shape[2:]) for x in columns]
    return {tuple(x[i].tobytes() for x in rows) for i in range(len(rows[0]))}


def test_writing_and_sampling_compile():
    eager = Ring(7, 2, NUMBER, CHOICE)
    compiled = Ring(7, 2, NUMBER, CHOICE)
    write = tf.function(compiled.write, jit_compile=True, autograph=False)
    new = random_slots(np.random.default_rng(1), 12, 2)
    for t in range(0, 12, 3):
        eager.write(*new.part(t, t + 3))
        write(*map(tf.constant, new.part(t, t + 3)))
    for a, b in zip(eager.variables, compiled.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    sample = tf.function(
        lambda key: compiled.sample(key, 20, 2, 0.9), jit_compile=True, autograph=False
    )
    pairs = map(tf.nest.flatten, (eager.sample(KEY, 20, 2, 0.9), sample(KEY)))
    for a, b in zip(*pairs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
