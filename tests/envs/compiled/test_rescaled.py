"""Actions from -1 to 1, stretched to an environment's own, on both paths."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from sparring.envs.compiled.classic_control import CartPole, Pendulum
from sparring.envs.compiled.rescaled import Rescaled
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.envs.testing.check import check_environment
from sparring.errors import UserError
from sparring.xla import random


class Pushed(Pendulum):
    """A pendulum whose actions go from -2 to 4."""

    action_space = spaces.Box(-2.0, 4.0, (1,), np.float32)


def test_a_compiled_step_is_that_of_the_stretched_action() -> None:
    """From -2 to 4, 0 is 1 and each half is 3 wide."""
    inner = Pushed()
    outer = Rescaled(inner)
    assert (outer.action_space.low[0], outer.action_space.high[0]) == (-1.0, 1.0)
    keys = random.members(random.stream(0, "environment"), 3)
    state = inner.initial(keys)
    given = outer.transition(state, tf.constant([[0.5], [-1.0], [0.0]]), keys)
    wanted = inner.transition(state, tf.constant([[2.5], [-2.0], [1.0]]), keys)
    np.testing.assert_array_equal(given[1], wanted[1])
    check_environment(outer, steps=30)


def test_an_environment_of_the_host_gets_the_stretched_action() -> None:
    vector = Gymnasium("Pendulum-v1", rescale_actions=True).vector(1, seed=3)
    own = gymnasium.make("Pendulum-v1")
    first, _ = own.reset(seed=3)
    np.testing.assert_array_equal(vector.reset()[0], first)
    step = vector.step(np.float32([[-0.25]]))
    _, reward, *_ = own.step(np.float32([-0.5]))
    np.testing.assert_allclose(step.reward, [reward], rtol=1e-6)
    vector.close()


def test_other_actions_are_refused() -> None:
    with pytest.raises(UserError, match=r"CartPole.* are Discrete\(2\); those of a Box"):
        Rescaled(CartPole())
    with pytest.raises(UserError, match=r"env.rescale_actions: the actions are Discrete\(2\)"):
        Gymnasium("CartPole-v1", rescale_actions=True)
