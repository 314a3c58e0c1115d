"""Spaces as TF-Agents specs."""

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from tf_agents.trajectories import time_step as ts

from sparring.agents.networks import specs
from sparring.errors import UserError


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_observations_keep_their_shape_and_dtype(dtype):
    spec = specs.time_step_spec(spaces.Box(0, 255, (2, 3), dtype)).observation
    assert (spec.shape, spec.dtype) == ((2, 3), tf.as_dtype(dtype))


def test_actions_count_from_zero_and_boxes_keep_their_bounds():
    one = specs.action_spec(spaces.Discrete(5))
    assert (one.shape, one.dtype, one.minimum, one.maximum) == ((), tf.int32, 0, 4)
    several = specs.action_spec(spaces.MultiDiscrete([3, 5]))
    assert (several.shape, several.dtype) == ((2,), tf.int32)
    assert (several.minimum.tolist(), several.maximum.tolist()) == ([0, 0], [2, 4])
    box = specs.action_spec(
        spaces.Box(np.array([-1, -2], np.float32), np.array([3, 4], np.float32))
    )
    assert (box.shape, box.dtype) == ((2,), tf.float32)
    assert (box.minimum.tolist(), box.maximum.tolist()) == ([-1, -2], [3, 4])


def test_what_no_agent_serves_is_refused():
    with pytest.raises(UserError, match=r"a Box, or of a Dict of Boxes.*Discrete"):
        specs.time_step_spec(spaces.Discrete(3))
    with pytest.raises(UserError, match="offer Discrete, MultiDiscrete or a bounded Box"):
        specs.action_spec(spaces.Text(4))


def test_time_steps_around_observations():
    steps = specs.zero_time_steps(tf.ones([3, 2]))
    assert steps.step_type.numpy().tolist() == [ts.StepType.MID] * 3
    assert (steps.reward.numpy().tolist(), steps.discount.numpy().tolist()) == (
        [0.0] * 3,
        [1.0] * 3,
    )
    assert steps.observation.shape == (3, 2)
    given = tf.constant([0, 1, 2])
    assert specs.zero_time_steps(tf.ones([3, 2]), given).step_type is given
