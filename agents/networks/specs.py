"""Gymnasium spaces as TF-Agents specs. Spaces arrive adapted: `envs` has removed starts, nesting
and odd dtypes.
"""

from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step

from sparring import nested
from sparring.errors import UserError


def time_step_spec(observation_space: Any) -> time_step.TimeStep:
    """The TimeStep spec of one environment whose observations are of a Box, or of several by name;
    of bytes it says the highest.
    """
    if not nested.is_observation_space(observation_space):
        raise UserError(
            "Agents see observations of a Box, or of a Dict of Boxes; this environment offers "
            f"{observation_space}."
        )
    return time_step.time_step_spec(nested.map_parts(_box_spec, observation_space))


def _box_spec(box: gymnasium.spaces.Box) -> tensor_spec.TensorSpec:
    dtype = tf.as_dtype(box.dtype)
    if dtype == tf.uint8:
        highest = int(box.high.max())
        return tensor_spec.BoundedTensorSpec(box.shape, dtype, 0, highest, "observation")
    return tensor_spec.TensorSpec(box.shape, dtype, "observation")


def action_spec(action_space: gymnasium.Space) -> tensor_spec.BoundedTensorSpec:
    """The action spec: a scalar or vector of int32 from 0, or a float32 vector with
    finite bounds.
    """
    spaces = gymnasium.spaces
    if isinstance(action_space, spaces.Discrete):
        return tensor_spec.BoundedTensorSpec((), tf.int32, 0, int(action_space.n) - 1, "action")  # type: ignore[arg-type]
    if isinstance(action_space, spaces.MultiDiscrete):
        top = np.asarray(action_space.nvec, np.int32) - 1
        return tensor_spec.BoundedTensorSpec(top.shape, tf.int32, np.zeros_like(top), top, "action")
    if isinstance(action_space, spaces.Box):
        return tensor_spec.BoundedTensorSpec(
            action_space.shape, tf.float32, action_space.low, action_space.high, "action"
        )
    raise UserError(
        f"No agent acts in the action space {action_space}: offer Discrete, MultiDiscrete or a "
        "bounded Box."
    )


def zero_time_steps(observation: Any, step_type: tf.Tensor | None = None) -> time_step.TimeStep:
    """A batch of time steps around `observation` [B, ...] for TF-Agents' losses, which read little
    else of them.
    """
    batch = tf.shape(nested.leaves(observation)[0])[0]
    step_type = tf.fill([batch], time_step.StepType.MID) if step_type is None else step_type
    return time_step.TimeStep(step_type, tf.zeros([batch]), tf.ones([batch]), observation)
