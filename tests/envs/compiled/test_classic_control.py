"""Classic control against Gymnasium's own: the same states and actions give the same steps."""

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from sparring.envs.compiled.acrobot import Acrobot
from sparring.envs.compiled.classic_control import (
    CartPole,
    FixedHorizonCartPole,
    MountainCar,
    MountainCarContinuous,
    Pendulum,
)
from sparring.xla import compilation, random

PI = np.pi
# class -> low and high of the random states: beyond the limits where states can lie there, and
# close to the goals
STATES = {
    CartPole: ([-2.5, -3.0, -0.22, -3.0], [2.5, 3.0, 0.22, 3.0]),
    Acrobot: ([-PI, -PI, -4 * PI, -9 * PI], [PI, PI, 4 * PI, 9 * PI]),
    MountainCar: ([-1.2, -0.07], [0.6, 0.07]),
    MountainCarContinuous: ([-1.2, -0.07], [0.6, 0.07]),
    Pendulum: ([-10.0, -8.0], [10.0, 8.0]),
}
COUNT = 10_000
every = pytest.mark.parametrize("kind", STATES, ids=lambda kind: kind.name)


def original(kind, states, actions):
    """Gymnasium's observations, rewards and terminations after one step from each state."""
    env = gym.make(kind.name).unwrapped
    env.reset(seed=0)
    rows = []
    for state, action in zip(states.astype(np.float64), actions, strict=True):
        env.state = state
        env.steps_beyond_terminated = (
            None  # CartPole's, which would call the next terminated step a mistake
        )
        rows.append(env.step(action)[:3])
    return (np.array(column) for column in zip(*rows, strict=True))


@every
def test_the_same_step_as_gymnasiums_from_random_states(kind):
    rng = np.random.default_rng(0)
    env = kind()
    low, high = STATES[kind]
    states = rng.uniform(low, high, (COUNT, len(low))).astype(np.float32)
    if isinstance(env.action_space, gym.spaces.Discrete):
        actions = rng.integers(env.action_space.n, size=COUNT)
    else:
        actions = rng.uniform(env.action_space.low, env.action_space.high, (COUNT, 1)).astype(
            np.float32
        )
    observation, reward, terminated = original(kind, states, actions)
    # Fast states magnify what float32 rounds away: Gymnasium's own answer moves with its question's
    # last place.
    moved = 0.0
    for _ in range(4):
        nudged = np.nextafter(states, rng.choice([-np.inf, np.inf], states.shape), dtype=np.float32)
        moved = np.maximum(moved, np.abs(next(original(kind, nudged, actions)) - observation))
    allowed = 1e-6 * np.abs(observation).max(axis=0) + 30 * moved.max(axis=1, keepdims=True)
    assert np.median(allowed / np.abs(observation).max(axis=0)) < 1e-4
    assert 0.001 < terminated.mean() < 0.9 or kind is Pendulum  # both outcomes are among the states
    state_type = type(env.initial(tf.zeros([1, 2], tf.uint32)))

    def step(states, actions):
        new, *rest = env.transition(
            state_type(*tf.unstack(states, axis=1)), actions, tf.zeros([COUNT, 2], tf.uint32)
        )
        return env.observe(new), *rest

    for mode in ("eager", "graph", "xla"):
        compiled = compilation.function(step, mode)
        ours = compiled(
            tf.constant(states), tf.constant(actions, tf.int32 if actions.ndim == 1 else tf.float32)
        )
        np.testing.assert_array_less(np.abs(ours[0] - observation), allowed, err_msg=mode)
        np.testing.assert_allclose(ours[1], reward, rtol=2e-6, atol=1e-6, err_msg=mode)
        np.testing.assert_array_equal(ours[2], terminated, err_msg=mode)


@every
def test_spaces_and_time_limit_are_gymnasiums(kind):
    env = kind()
    theirs = gym.make(kind.name)
    assert env.observation_space == theirs.observation_space
    assert env.action_space == theirs.action_space
    assert env.max_episode_steps == theirs.spec.max_episode_steps


@every
def test_episodes_open_as_gymnasiums_do(kind):
    """The greatest distance between two distribution functions of 4 000 samples is below 0.05 (p >
    1e-4) in each.
    """
    env = kind()
    theirs = gym.make(kind.name).unwrapped
    theirs.reset(seed=1)
    samples = np.array([theirs.reset()[0] for _ in range(4000)])
    ours = env.observe(env.initial(random.members(random.stream(0, "test"), 4000))).numpy()
    assert ours.shape == samples.shape
    for mine, other in zip(ours.T, samples.T, strict=True):
        grid = np.sort(np.concatenate([mine, other]))
        distance = np.searchsorted(np.sort(mine), grid, "right") - np.searchsorted(
            np.sort(other), grid, "right"
        )
        assert np.abs(distance).max() < 0.05 * 4000
        assert len(np.unique(mine)) > 3000 or (mine == other).all()  # no two members open alike


@every
def test_an_episode_is_cut_where_gymnasium_cuts_it(kind):
    """Actions that never end an episode: truncated at the limit, neither before nor after, and open
    again after.
    """
    env = kind()
    state = env.reset(random.members(random.stream(0, "test"), 2))
    still = tf.zeros([2, *env.action_space.shape], env.action_space.dtype)
    balanced = type(state.state)(*(tf.zeros([2]) for _ in state.state))

    @tf.function(autograph=False)
    def step(state, t):
        return env.step(state, still, random.members(random.fold(random.stream(0, "test"), t), 2))

    ends = []
    for t in range(env.max_episode_steps + 2):
        if kind is CartPole:  # which falls by itself: put it upright again
            state = state._replace(state=balanced)
        state, seen = step(state, tf.constant(t))
        assert not seen.terminated.numpy().any()
        ends.append((bool(seen.truncated[0]), bool(seen.first[0])))
    assert ends == [(False, False)] * (env.max_episode_steps - 1) + [
        (True, False),
        (False, True),
        (False, False),
    ]


@every
def test_the_picture_shows_the_state(kind):
    env = kind()
    low, high = (np.array(bound, np.float32) for bound in STATES[kind])
    state_type = type(env.initial(tf.zeros([1, 2], tf.uint32)))
    one, other = (
        env.render(state_type(*(0.5 * (low + high) + share * (high - low)))) for share in (0.1, 0.2)
    )
    assert one.dtype == np.uint8
    assert one.shape == other.shape
    assert one.shape[2] == 3
    assert 200 <= one.shape[1] <= 400
    assert (one != other).any()


def test_a_pole_that_has_fallen_stays_so_at_no_reward_until_the_horizon():
    """Step it beside CartPole until that terminates, always to the left."""
    plain = CartPole().vector(1, seed=3)
    fixed = FixedHorizonCartPole().vector(1, seed=3)
    np.testing.assert_array_equal(plain.reset(), fixed.reset())
    left = np.zeros(1, np.int32)
    for _ in range(500):
        ours = fixed.step(left)
        theirs = plain.step(left)
        np.testing.assert_allclose(ours.observation, theirs.observation, atol=1e-5)
        assert ours.reward == theirs.reward == 1.0  # of the step that falls too
        assert not ours.terminated
        if theirs.terminated:
            break
    fallen = ours.observation
    assert abs(fallen[0, 2]) > 12 * 2 * PI / 360
    for _ in range(20):
        ours = fixed.step(left)
        assert ours.reward == 0.0
        assert not ours.terminated
        assert not ours.truncated
        np.testing.assert_array_equal(ours.observation, fallen)


def test_every_episode_of_a_fixed_horizon_is_as_long():
    env = FixedHorizonCartPole(max_episode_steps=30).vector(4, seed=0)
    env.reset()
    ended = [env.step(np.ones(4, np.int32)).truncated.all() for _ in range(30)]
    assert ended == [False] * 29 + [True]
    again = env.step(np.ones(4, np.int32))
    assert again.first.all()
    assert np.abs(again.observation).max() <= 0.05  # upright again
    assert (env.step(np.ones(4, np.int32)).reward == 1.0).all()
