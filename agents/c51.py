"""C51 (Bellemare et al. 2017, "A distributional perspective on reinforcement learning").

TF-Agents' CategoricalDqnAgent, made anew on sparring.agents.dqn.DQN. What is mended beside DQN's
own list, each with a test in tests/agents/test_distributional.py: 1. transitions weigh by their
mask and importance, which TF-Agents' loss ignores; 2. returns over several steps stop at the end of
an episode, also where they are projected; 3. the next action may be chosen by the online network;
4. what lies beyond the support is logged; 5. the projection takes time in proportion to the atoms,
not to their square.
"""

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import tensorflow as tf
from tf_agents.agents.dqn.dqn_agent import DqnLossInfo
from tf_agents.agents.tf_agent import LossInfo
from tf_agents.utils import common

from sparring import nested
from sparring.agents import requirements
from sparring.agents.dqn import DQN, of_actions
from sparring.agents.networks.q_heads import DistributionalHead


class CategoricalReturns(DistributionalHead):
    """Logits [B, A, N] of each action's return over the N values `support`."""

    def __init__(self, values: tf.keras.layers.Layer, support: tf.Tensor) -> None:
        super().__init__()
        self.values = values
        self.support = support

    def call(self, features: tf.Tensor) -> tf.Tensor:
        return self.values(features)

    def expected(self, outputs: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.nn.softmax(outputs) * self.support, axis=-1)


class C51(DQN):
    """DQN of the distribution of returns over `atoms` values from `lowest` to `highest`.

    `settings` are those of `DQN` but `munchausen`; its `loss` is "cross_entropy".
    """

    def __init__(
        self,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        *arguments: Any,
        loss: str = "cross_entropy",
        atoms: int = 51,
        lowest: float = -10.0,
        highest: float = 10.0,
        **settings: Any,
    ) -> None:
        requirements.refuse_munchausen(settings.get("munchausen"))
        requirements.require_cross_entropy(loss)
        requirements.require_support(lowest, highest)
        self.support = tf.linspace(float(lowest), float(highest), int(atoms))  # [N]
        super().__init__(observation_space, action_space, *arguments, **settings)

    def _make_head(self, head: Callable[..., tf.keras.layers.Layer]) -> tf.keras.layers.Layer:
        values = head(self.num_actions, int(self.support.shape[0]))
        return CategoricalReturns(values, self.support)

    def _check_network_output(self, net: Any, label: str) -> None:
        net.create_variables()

    def target(self, end: Any, gamma: float) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the distribution [M, N] that transitions ending in `end` are to have, and the
        share [M] of it that lay beyond the support.
        """
        outputs = self._target_q_network.outputs(nested.without_mask(end.observation))  # [M, A, N]
        values = self._target_q_network._head.expected(outputs)
        after = tf.nn.softmax(self._of_next(end.observation, outputs, values))  # [M, N]
        moved = end.reward[:, tf.newaxis] + gamma * end.discount[:, tf.newaxis] * self.support
        beyond = (moved < self.support[0]) | (moved > self.support[-1])
        share = tf.reduce_sum(tf.where(beyond, after, 0.0), axis=1)
        return projected(moved, after, self.support), share

    def _loss(
        self,
        experience: Any,
        td_errors_loss_fn: Any = None,
        gamma: float = 1.0,
        reward_scale_factor: float = 1.0,
        weights: tf.Tensor | None = None,
        training: bool = False,
    ) -> LossInfo:
        """The cross entropy, and Kullback-Leibler divergences [M] with errors [M] of the means."""
        del td_errors_loss_fn, reward_scale_factor, training
        start, step, end = experience
        wanted, beyond = self.target(end, gamma)
        wanted = tf.stop_gradient(wanted)
        outputs = self._q_network.outputs(nested.without_mask(start.observation))
        taken = of_actions(outputs, step.action)  # [M, N]
        each = tf.nn.softmax_cross_entropy_with_logits(labels=wanted, logits=taken)
        self._replayed = tf.reduce_sum(tf.nn.softmax(taken) * self.support, axis=1)
        self._measured = {"q/beyond_support": beyond}
        loss = common.aggregate_losses(
            per_example_loss=each, sample_weight=weights, regularization_loss=self._q_network.losses
        ).total_loss
        entropy = -tf.reduce_sum(tf.math.xlogy(wanted, wanted), axis=1)
        error = tf.reduce_sum(wanted * self.support, axis=1) - self._replayed
        return LossInfo(loss, DqnLossInfo(each - entropy, error))

    def _errors(self, info: LossInfo) -> tf.Tensor:
        """Kullback-Leibler divergences [M], as Rainbow's priorities (Hessel et al. 2018)."""
        return tf.maximum(info.extra.td_loss, 0.0)

    descriptions: Mapping[str, str] = {
        **DQN.descriptions,
        "loss/td": "Cross entropy of the distribution of returns, mean over updates.",
        "q/td_error": "Absolute error of the distribution's mean, mean over the transitions of a "
        "batch.",
        "q/beyond_support": "Share of the wanted distribution that lay beyond agent.lowest and "
        "agent.highest and was moved to them, mean over the transitions of a batch.",
    }


def projected(values: tf.Tensor, probabilities: tf.Tensor, support: tf.Tensor) -> tf.Tensor:
    """Return the distribution over `support` [N] of `values` [M, K] with `probabilities` [M, K].

    Each value's probability is shared by its two neighbours, by their distances from it
    (algorithm 1); beyond the support it is all the last one's. Returns [M, N].
    """
    count = support.shape[0]
    step = support[1] - support[0]
    place = (tf.clip_by_value(values, support[0], support[-1]) - support[0]) / step
    below = tf.clip_by_value(tf.floor(place), 0.0, count - 2.0)
    upper = probabilities * (place - below)
    row = tf.range(values.shape[0])[:, tf.newaxis] * count
    lower_index = row + tf.cast(below, tf.int32)
    indices = tf.concat([lower_index, lower_index + 1], axis=1)
    shares = tf.concat([probabilities - upper, upper], axis=1)
    flat = tf.math.unsorted_segment_sum(shares, indices, values.shape[0] * count)
    return tf.reshape(flat, [-1, count])
