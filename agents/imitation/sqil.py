"""SQIL: rewards of 1 for the expert's steps and of 0 for the agent's, half of each batch each.

Reddy et al. 2020, "SQIL: imitation learning via reinforcement learning with sparse rewards",
section 3 and algorithm 1.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from sparring import nested
from sparring.agents.agent import Scalars
from sparring.agents.imitation.demonstrations import Demonstrations
from sparring.agents.imitation.expert import CHARTS, Expert, require_single_steps
from sparring.agents.imitation.expert import DESCRIPTIONS as EXPERT
from sparring.agents.replay import Ring, Rows, Transitions
from sparring.agents.training.rollout import Rollout
from sparring.distribute import replicas
from sparring.errors import UserError
from sparring.training.trainer import Evaluation
from sparring.xla import random


class SQIL:
    """Batches that are half the expert's transitions, with constant rewards; a `ReplaySource`.

    The expert's steps are in a replay of their own, so that returns of several steps and ends of
    episodes are the same for both halves. It learns nothing, and keeps nothing in a checkpoint.

    Args:
      agent: off-policy, and learns from single transitions.
      demonstrations: of the environment that the agent is in.
    """

    updates = 0
    drawn = 1
    descriptions: Mapping[str, str] = {}
    reported = EXPERT
    charts = CHARTS
    state: Mapping[str, Any] = {}

    def __init__(
        self,
        agent: Any,
        observation_space: Any,
        action_space: Any,
        seed: int,
        demonstrations: Demonstrations,
    ) -> None:
        del seed
        require_single_steps(agent)
        self.agent = agent
        self.expert = Expert(demonstrations, observation_space, action_space)
        self.replay = expert_replay(demonstrations, observation_space, action_space)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Fingerprint of the demonstrations."""
        return self.expert.demonstrations.fingerprint

    def store(self, rollout: Rollout) -> Rollout:
        """Return a rollout with rewards of 0."""
        return rollout._replace(reward=tf.zeros_like(rollout.reward))

    def learn(self, fake: Transitions, number: tf.Tensor, progress: tf.Tensor) -> Scalars:
        """Learn nothing."""
        del fake, number, progress
        return {}

    def own(self, count: int) -> int:
        """Return half of a replica's share of a batch.

        Raises:
          UserError: there is no half.
        """
        if count % 2:
            raise UserError(
                f"trainer.batch_size: a replica's share of it is {count}, and SQIL halves it: "
                "choose an even number."
            )
        return count // 2

    def batch(
        self, replay: Ring, rows: Rows, steps: int, key: tf.Tensor
    ) -> tuple[Transitions, Scalars]:
        """Return the transitions at `rows` of replay, and as many of the expert after them."""
        mine = replay.gather(rows, steps, self.agent.discount)
        key = random.fold(key, replicas.replica_index())
        # The last slot ends an episode, and stops what begins before it: any step may begin
        chosen = self.replay.choose(key, int(rows.slot.shape[0]), 1)
        theirs = self.replay.gather(chosen, steps, self.agent.discount)
        return tf.nest.map_structure(lambda *halves: tf.concat(halves, 0), mine, theirs), {}

    def report(self, found: Evaluation, media: bool) -> None:
        """Add the comparison with the expert."""
        del media
        self.expert.report(found)

    def watch(self, values: Mapping[str, float], step: int) -> None:
        """See nothing to warn of."""


def expert_replay(
    demonstrations: Demonstrations, observation_space: Any, action_space: Any
) -> Ring:
    """Return a replay of an expert's episodes, one after the other, with rewards of 1."""
    first = demonstrations.first.copy()
    first[0] = False  # nothing is before it
    resets = np.flatnonzero(first)  # steps before which a reset is put in, [E - 1]
    ends = np.append(resets, demonstrations.steps)  # [E]

    def with_last(part: np.ndarray, last: np.ndarray) -> tf.Tensor:
        return tf.constant(np.insert(part, ends, last, axis=0)[:, np.newaxis])  # [T + 1, 1, ...]

    def with_resets(values: np.ndarray, of_reset: Any) -> tf.Tensor:
        return tf.constant(
            np.insert(values, resets, of_reset, axis=0)[:, np.newaxis]
        )  # [T, 1, ...]

    observation = nested.map_parts(
        with_last, demonstrations.observation, demonstrations.last_observation
    )
    action = with_resets(demonstrations.action, 0)
    is_reset = with_resets(np.zeros_like(first), True)
    ended = demonstrations.terminated, demonstrations.truncated
    terminated, truncated = (with_resets(flags, False) for flags in ended)
    reward = tf.cast(~is_reset, tf.float32)
    found = Ring(int(action.shape[0]), 1, observation_space, action_space)
    columns = (observation, action, reward, terminated, truncated, is_reset)
    replicas.Replicas().run(found.write, *columns)
    return found
