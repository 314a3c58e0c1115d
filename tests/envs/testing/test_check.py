"""check_environment passes what keeps its promises and names what a broken environment breaks."""

from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from sparring.envs.compiled.acrobot import Acrobot
from sparring.envs.compiled.base import CompiledEnvironment
from sparring.envs.compiled.classic_control import (
    CartPole,
    MountainCar,
    MountainCarContinuous,
    Pendulum,
)
from sparring.envs.compiled.frozen_lake import FrozenLake
from sparring.envs.compiled.toys import Catch, DeepSea, Memory, PointMass
from sparring.envs.testing.check import check_environment
from sparring.errors import UserError
from sparring.xla import random

pytestmark = pytest.mark.long


class WalkState(NamedTuple):
    place: tf.Tensor  # [B] float32
    time: tf.Tensor  # [B] int32


class Walk(CompiledEnvironment):
    """A random walk with a push, which ends 1 away from its beginning: nothing wrong with it."""

    name = "Walk"
    observation_space = spaces.Box(-2.0, 2.0, (1,), np.float32)
    action_space = spaces.Discrete(2)
    max_episode_steps = 50
    speed = 0.2

    def initial(self, keys):
        return WalkState(
            random.uniform(keys, 1)[:, 0] * 0.2 - 0.1, tf.zeros(keys.shape[:1], tf.int32)
        )

    def observe(self, state):
        return state.place[:, tf.newaxis]

    def transition(self, state, action, keys):
        push = tf.where(action == 1, 0.1, -0.1) + self.speed * (random.uniform(keys, 1)[:, 0] - 0.5)
        place = tf.clip_by_value(state.place + push, -1.5, 1.5)
        return WalkState(place, state.time + 1), place, tf.abs(place) > 1.0


def broken(**changes):
    """A Walk with other methods and attributes."""
    return type("Walk", (Walk,), changes)()


def stepping(change):
    """A Walk whose transition's result `change` changes: (env, state, keys, new, reward,
    terminated) -> result.
    """

    def transition(self, state, action, keys):
        return change(self, state, keys, *Walk.transition(self, state, action, keys))

    return broken(transition=transition)


@pytest.mark.parametrize(
    "env",
    [
        *(Walk(), CartPole(), Acrobot(), MountainCar(), MountainCarContinuous(), Pendulum()),
        *(Catch(), DeepSea(6), DeepSea(5, mapping_seed=3), Memory(), PointMass()),
        *(FrozenLake(), FrozenLake(["SFS", "HFG"], slippery=False)),
    ],
    ids=lambda env: env.name,
)
def test_what_keeps_its_promises_passes(env):
    before = env.action_space.sample(), dict(env.__dict__)
    check_environment(env)
    assert env.max_episode_steps == type(env).max_episode_steps
    assert env.__dict__.keys() - {"_programs"} == before[1].keys() - {"_programs"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": None}, "no name"),
        (
            {"observation_space": spaces.Box(-2.0, 2.0, (1,), np.float64)},
            "a Box of float32, or of uint8",
        ),
        ({"observation_space": spaces.Discrete(3)}, r"observation_space is Discrete\(3\)"),
        ({"action_space": spaces.Box(-np.inf, 1.0, (1,), np.float32)}, "finite bounds"),
        ({"action_space": spaces.Discrete(2, start=1)}, "counts from 0"),
        ({"action_space": spaces.MultiBinary(2)}, "Discrete or MultiDiscrete"),
        ({"max_episode_steps": 10.0}, "max_episode_steps is 10.0"),
        (
            {"initial": lambda self, keys: WalkState(0.0, tf.zeros(keys.shape[:1]))},
            r"state\.place as float, not a tenso",
        ),
        (
            {"initial": lambda self, keys: WalkState(tf.zeros([3]), tf.zeros([3], tf.int32))},
            r"initial returns state\.place as float32 \[3\] for a batch of 1",
        ),
        (
            {
                "initial": lambda self, keys: WalkState(
                    tf.random.normal(keys.shape[:1]), tf.zeros(keys.shape[:1], tf.int32)
                )
            },
            r"uses RandomStandardNormal \(.*test_check.py line \d+\), which remembers",
        ),
        (
            {"observe": lambda self, state: state.place},
            r"observe returns float32 \[1\].*says float32 \[1, 1\]",
        ),
        (
            {"observe": lambda self, state: state.time[:, tf.newaxis]},
            r"observe returns int32 \[1, 1\]",
        ),
        ({"observation_space": spaces.Box(-0.5, 0.5, (1,), np.float32)}, r"from -0\.5 to 0\.5"),
        (
            {"observe": lambda self, state: tf.math.sqrt(state.place)[:, tf.newaxis]},
            "first observation is nan",
        ),
        (
            {"info": ("place",)},
            r"measure returns \{\}, and its info is \('place',\): return float32 \[B\] under each",
        ),
        (
            {"observe": lambda self, state: {"place": state.place[:, tf.newaxis]}},
            r"observe returns .*'place'.*, its observation_space is Box",
        ),
        (
            {"render": lambda self, state: np.zeros((4, 4, 3))},
            r"float64 \[4, 4, 3\].* uint8 \[H, W, 3\]",
        ),
    ],
)
def test_what_an_environment_says_of_itself_is_held_against_it(changes, says):
    with pytest.raises(UserError, match=says):
        check_environment(broken(**changes))


def python_if(env, state, keys, new, reward, terminated):
    return new, (reward if reward[0] > 0 else -reward), terminated


def own_generator(env, state, keys, new, reward, terminated):
    return new, reward + tf.random.uniform(reward.shape), terminated


def numpy_generator(env, state, keys, new, reward, terminated):
    return new, reward + np.random.rand(), terminated


def attribute(env, state, keys, new, reward, terminated):
    env.count = getattr(env, "count", 0.0) + 1.0
    return new, reward + env.count, terminated


COUNT = tf.Variable(0.0)


def variable(env, state, keys, new, reward, terminated):
    return new, reward + COUNT.assign_add(1.0), terminated


def one_graph_one_number(env, state, keys, new, reward, terminated):
    return new, reward + float(tf.executing_eagerly()), terminated


def mixed_members(env, state, keys, new, reward, terminated):
    return new, reward - tf.reduce_mean(reward), terminated


def one_key_for_all(env, state, keys, new, reward, terminated):
    return new, reward + random.uniform(keys[:1], 1)[:, 0], terminated


def python_function(env, state, keys, new, reward, terminated):
    doubled = tf.numpy_function(lambda x: 2 * x, [reward], tf.float32)
    return new, tf.ensure_shape(doubled, reward.shape), terminated


def value_shaped(env, state, keys, new, reward, terminated):
    moved = tf.reshape(tf.where(new.place > -9.0), [-1])
    return WalkState(tf.gather(new.place, moved), new.time), reward, terminated


def clock_as_end(env, state, keys, new, reward, terminated):
    return new, reward, new.time >= env.max_episode_steps


def own_clock_as_end(env, state, keys, new, reward, terminated):
    return new, reward, new.time >= 50


def infinite(env, state, keys, new, reward, terminated):
    return new, tf.where(terminated, 1.0 / tf.zeros_like(reward), 0.0), terminated


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda e, s, k, n, r, t: (n._replace(time=tf.cast(n.time, tf.float32)), r, t),
            "state.time from int32.*float32",
        ),
        (
            lambda e, s, k, n, r, t: (n._replace(place=n.place[:, None]), r, t),
            r"place from float32 \[1\] into .*\[1, 1\]",
        ),
        (
            lambda e, s, k, n, r, t: (tuple(n), r, t),
            r"\(state\[0\], state\[1\]\) instead of \(state.place, state.time",
        ),
        (
            lambda e, s, k, n, r, t: (n, tf.cast(r, tf.int32), t),
            r"reward that is int32 \[1\]: it must be float32 \[1\]",
        ),
        (lambda e, s, k, n, r, t: (n, 0.0, t), r"reward that is float 0\.0"),
        (
            lambda e, s, k, n, r, t: (n, r, tf.cast(t, tf.float32)),
            r"terminated that is float32 \[1\]: it must be bool",
        ),
        (lambda e, s, k, n, r, t: (n, r[:, None], t), r"reward that is float32 \[1, 1\]"),
        (value_shaped, r"transition returns state.place as float32 \[None\].*env=gymnasium"),
        (python_if, r"a Python if.*runs.*test_check.py line \d+\)\. Use tf.where"),
        (
            own_generator,
            r"uses RandomUniform \(.*test_check.py line \d+\), which remembers something or draws",
        ),
        (variable, "AssignAddVariableOp .*, which remembers something"),
        (numpy_generator, "gives another step.reward when the same step is taken twice"),
        (attribute, "gives another step.reward when the same step is taken twice"),
        (one_graph_one_number, "another step.reward in eager mode"),
        (
            mixed_members,
            "a member's step.reward is .* in its batch, and .* when it is stepped among others",
        ),
        (one_key_for_all, "a member's step.reward is .* in its batch"),
        (
            python_function,
            r"XLA has no PyFunc \(.*test_check.py line \d+\).*compile=graph.*env=gymna",
        ),
        (clock_as_end, "ends episodes by max_episode_steps: leave the clock"),
        (own_clock_as_end, r"terminated only ever at max_episode_steps \(50\)"),
        (infinite, "a reward is .*inf"),
    ],
)
def test_what_a_transition_does_wrong_is_named(change, says):
    with pytest.raises(UserError, match=says):
        check_environment(stepping(change))


def test_a_step_of_ones_own_still_opens_episodes_after_ends():
    def step(self, env_state, action, keys):
        state, seen = Walk.step(self, env_state, action, keys)
        return state._replace(state=state.state._replace(time=env_state.state.time + 1)), seen

    with pytest.raises(
        UserError, match=r"after an end, state\.time is \d+, where `initial` gives 0"
    ):
        check_environment(broken(step=step))


def test_what_differs_under_xla_is_named():
    """A float too large for an int32 becomes the smallest one on a CPU, and the largest in XLA."""

    def overflowing(env, state, keys, new, reward, terminated):
        return new, tf.where(tf.cast(1e12 * (2.0 + new.place), tf.int32) > 0, 1.0, 0.0), terminated

    with pytest.raises(
        UserError, match=r"another step\.reward under XLA, 1\.0, than in a graph, 0\.0"
    ):
        check_environment(stepping(overflowing))


def test_a_step_that_fails_is_told():
    table = np.array([0.0, 5.0], np.float32)
    past = stepping(lambda e, s, k, n, r, t: (n, tf.gather(table, n.time), t))
    with pytest.raises(
        UserError, match=r"Walk fails when it is stepped: .*indices\[0\] = 2 is not in \[0, 2\)"
    ):
        check_environment(past)


def test_a_shape_that_hangs_on_values_is_found_though_it_is_gone_before_the_result():
    def sum_to(env, state, keys, new, reward, terminated):
        return (
            new,
            reward + tf.reduce_sum(tf.range(tf.cast(new.place[0] * 0.0, tf.float32) + 3.0)),
            terminated,
        )

    with pytest.raises(UserError, match=r"Walk cannot be compiled: XLA"):
        check_environment(stepping(sum_to))
