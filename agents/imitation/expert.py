"""Expert's transitions on the device, and the agent's share of the expert's return."""

from typing import Any

import numpy as np
import tensorflow as tf

from sparring import nested
from sparring.agents.agent import Agent, Likelihood, require
from sparring.agents.imitation.demonstrations import Demonstrations
from sparring.errors import UserError
from sparring.training.trainer import Evaluation

SHARE = "imitation/expert_share"
DESCRIPTIONS = {
    SHARE: "Evaluated return over the demonstrations' mean return, both above that of random play "
    "where it is known."
}


class Expert:
    """Transitions of demonstrations as tensors, from which batches are taken by their rows.

    Raises:
      UserError: the demonstrations are not of these spaces.
    """

    def __init__(
        self, demonstrations: Demonstrations, observation_space: Any, action_space: Any
    ) -> None:
        demonstrations.check_spaces(observation_space, action_space)
        self.demonstrations = demonstrations
        steps = demonstrations.transitions()
        self.count = demonstrations.steps
        integers = not np.issubdtype(steps.action.dtype, np.floating)
        action = steps.action.astype(np.int32 if integers else np.float32)
        self.observation = nested.map_parts(tf.constant, steps.observation)
        self.following = nested.map_parts(tf.constant, steps.following)
        self.action = tf.constant(action)
        self.terminated = tf.constant(steps.terminated)

    def share(self, value: float) -> float | None:
        """Return what part of the expert's return an evaluated return is; None if unknown.

        Without the return of random play, a share of a return below 0 means nothing.
        """
        mean = float(self.demonstrations.returns.mean())
        lowest = self.demonstrations.random_return
        if lowest is None:
            return value / mean if mean > 0.0 else None
        return (value - lowest) / (mean - lowest) if mean > lowest else None

    def report(self, found: Evaluation) -> None:
        """Add the share to an evaluation."""
        value = found.scalars.get("eval/episode_return")
        share = None if value is None else self.share(value)
        if share is not None:
            found.scalars[SHARE] = share


def require_imitator(agent: Agent) -> None:
    """Raise UserError for an agent that cannot learn from demonstrations on-policy."""
    require(agent, Likelihood)
    require_single_steps(agent)


def require_single_steps(agent: Agent) -> None:
    """Raise UserError for an agent that learns from more than single steps."""
    if tf.nest.flatten(agent.start(1)):
        raise UserError(
            "memory: demonstrations are learned from step by step, out of their order, and a "
            "memory could remember nothing: leave it out."
        )
