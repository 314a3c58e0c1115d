"""A skill for every episode, behind what the environment shows."""

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from sparring.envs.compiled.frozen_lake_maps import FrozenLakeMaps
from sparring.envs.compiled.skills import Skills
from sparring.envs.compiled.toys import PointMass
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.envs.testing.check import check_environment
from sparring.errors import UserError
from sparring.xla import random


def test_a_skill_lasts_for_an_episode_and_is_drawn_anew() -> None:
    env = Skills(PointMass(3), 4)
    assert env.observation_space == spaces.Box(
        np.array([-np.inf] * 4 + [0.0] * 4, np.float32),
        np.array([np.inf] * 4 + [1.0] * 4, np.float32),
        dtype=np.float32,
    )
    state = env.open(0, 500)
    stream = env.stream(0)
    skills = []
    for t in range(8):
        state, step = env.step_at(state, tf.zeros([500, 2]), stream, tf.constant(t, tf.int64))
        shown = step.observation[:, 4:].numpy()
        np.testing.assert_array_equal(shown.sum(axis=1), 1.0)
        skills.append(shown.argmax(axis=1))
        np.testing.assert_array_equal(skills[-1], state.state.skill)
    # Three steps and a reset, twice
    for t in (1, 2, 4, 5, 6):
        np.testing.assert_array_equal(skills[t], skills[t - 1])
    changed = (skills[3] != skills[2]).mean()
    assert changed == pytest.approx(0.75, abs=0.08)  # three of four others; standard error 0.019
    np.testing.assert_allclose(np.bincount(skills[3]) / 500, 0.25, atol=0.08)


def test_all_else_is_the_environments() -> None:
    inner = PointMass()
    env = Skills(inner, 2)
    keys = random.members(random.stream(0, "test"), 5)
    state = env.initial(keys)
    ours = env.transition(state, tf.ones([5, 2]), keys)
    theirs = inner.transition(inner.initial(keys), tf.ones([5, 2]), keys)
    np.testing.assert_array_equal(ours[0].inner.position, theirs[0].position)
    np.testing.assert_array_equal(ours[1], theirs[1])
    assert env.max_episode_steps == 50


def test_every_promise_of_an_environment_is_kept() -> None:
    check_environment(Skills(PointMass(), 3))


def test_what_cannot_have_skills_is_refused_in_a_line() -> None:
    with pytest.raises(UserError, match="no compiled environment"):
        Skills(Gymnasium("Pendulum-v1"))
    with pytest.raises(UserError, match="behind a vector"):
        Skills(FrozenLakeMaps(count=3))
    with pytest.raises(UserError, match="skills=1: at least 2"):
        Skills(PointMass(), 1)
