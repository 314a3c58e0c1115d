"""Masks of actions: which are allowed in a state, uint8 [B, A], a part of the observation.

An action that is not allowed has probability zero (Huang and Ontañón 2020, "A closer look at
invalid action masking in policy gradient algorithms"). Of a MultiDiscrete space, A is the sum of
its choices: those of the first come first. Where nothing is allowed, everything is.
"""

from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from sparring import nested
from sparring.agents.networks.distributions import IMPOSSIBLE
from sparring.errors import UserError


def require(observation_space: gymnasium.Space, action_space: gymnasium.Space) -> None:
    """Raise UserError for a mask that does not fit the actions."""
    mask = nested.mask_of(observation_space)
    if mask is None:
        return
    spaces = gymnasium.spaces
    if not isinstance(action_space, spaces.Discrete | spaces.MultiDiscrete):
        raise UserError(
            f"The observations have an action_mask, and the actions are {action_space}: masks are "
            "of Discrete and MultiDiscrete actions."
        )
    count = int(np.sum(choices(action_space)))
    if mask.shape != (count,):
        raise UserError(
            f"The observations' action_mask is {list(mask.shape)}, and {action_space} has {count} "
            f"choices: make it [{count}]."
        )


def choices(action_space: Any) -> list[int]:
    """Return how many values each choice of a Discrete or MultiDiscrete action has."""
    if isinstance(action_space, gymnasium.spaces.Discrete):
        return [int(action_space.n)]  # type: ignore[arg-type]
    return [int(n) for n in action_space.nvec]


def beside(seen: tf.Tensor, observation: Any) -> Any:
    """Return `seen` with the mask of the observation that it was made of, if that has one."""
    mask = nested.mask_of(observation)
    return seen if mask is None else {nested.OBSERVATION: seen, nested.MASK: mask}


def best(values: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    """Return the allowed actions, int32 [B], of the highest of `values` [B, A]."""
    return tf.argmax(allowed(values, mask), axis=-1, output_type=tf.int32)


def masked(policy: tfd.Distribution, mask: tf.Tensor, action_space: Any) -> tfd.Distribution:
    """Return a policy over choices with those that `mask` [B, A] does not allow left out.

    Raises:
        UserError: the policy is of another kind.
    """
    if isinstance(policy, tfd.Categorical):
        return tfd.Categorical(logits=allowed(policy.logits, mask))
    if isinstance(policy, tfd.Independent) and isinstance(policy.distribution, tfd.Categorical):
        logits = policy.distribution.logits  # [B, K, A]
        counts = choices(action_space)
        each = tf.split(mask, counts, axis=1)
        widest = logits.shape[2]
        pad = [tf.pad(m, [[0, 0], [0, widest - m.shape[1]]]) for m in each]
        inner = tfd.Categorical(logits=allowed(logits, tf.stack(pad, axis=1)))
        return tfd.Independent(inner, reinterpreted_batch_ndims=1)
    raise UserError(
        f"agent.head: a {type(policy).__name__} cannot be masked, and the observations have an "
        "action_mask: choose a head that gives a Categorical."
    )


def allowed(values: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    """Return `values` [..., A] where `mask` allows them, else what no action is chosen by."""
    if mask is None:
        return values
    possible = mask > 0
    anything = ~tf.reduce_any(possible, axis=-1, keepdims=True)
    return tf.where(possible | anything, values, IMPOSSIBLE)
