"""QR-DQN (Dabney et al. 2018, "Distributional reinforcement learning with quantile regression")."""

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import tensorflow as tf
from tf_agents.agents.dqn.dqn_agent import DqnLossInfo
from tf_agents.agents.tf_agent import LossInfo
from tf_agents.utils import common

from sparring import nested
from sparring.agents.dqn import DQN, of_actions
from sparring.agents.networks.q_heads import DistributionalHead


class QuantileReturns(DistributionalHead):
    """Quantiles [B, A, N] of each action's return."""

    def __init__(self, values: tf.keras.layers.Layer) -> None:
        super().__init__()
        self.values = values

    def call(self, features: tf.Tensor) -> tf.Tensor:
        return self.values(features)

    def expected(self, outputs: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(outputs, axis=-1)


class QRDQN(DQN):
    """DQN of `quantiles` quantiles of the return, at the levels (i + 1/2) / quantiles.

    `settings` are those of `DQN`; its `loss` is of the errors of all pairs of a quantile and a
    quantile of the next state (algorithm 1), each weighted by its level.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        *arguments: Any,
        quantiles: int = 25,
        **settings: Any,
    ) -> None:
        self.quantiles = int(quantiles)
        super().__init__(observation_space, action_space, *arguments, **settings)

    def _make_head(self, head: Callable[..., tf.keras.layers.Layer]) -> tf.keras.layers.Layer:
        return QuantileReturns(head(self.num_actions, self.quantiles))

    def _check_network_output(self, net: Any, label: str) -> None:
        net.create_variables()

    def now(self, observation: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Return quantiles [M, A, N] of observations [M, ...], and their levels [1 or M, N]."""
        return self._q_network.outputs(observation), midpoints(self.quantiles)[tf.newaxis]

    def after(self, observation: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the target network's quantiles [M, A, K], and its values [M, A] of actions."""
        outputs = self._target_q_network.outputs(observation)
        return outputs, tf.reduce_mean(outputs, axis=-1)

    def _loss(
        self,
        experience: Any,
        td_errors_loss_fn: Any = None,
        gamma: float = 1.0,
        reward_scale_factor: float = 1.0,
        weights: tf.Tensor | None = None,
        training: bool = False,
    ) -> LossInfo:
        """The loss of all pairs of quantiles, with errors [M] of their means."""
        del reward_scale_factor, training
        start, step, end = experience
        outputs, values = self.after(nested.without_mask(end.observation))
        after = self._of_next(end.observation, outputs, values)  # [M, K]
        wanted = end.reward[:, tf.newaxis] + gamma * end.discount[:, tf.newaxis] * after
        outputs, levels = self.now(nested.without_mask(start.observation))
        taken = of_actions(outputs, step.action)  # [M, N]
        each = quantile_loss(tf.stop_gradient(wanted), taken, levels, td_errors_loss_fn)
        self._replayed = tf.reduce_mean(taken, axis=1)
        loss = common.aggregate_losses(
            per_example_loss=each, sample_weight=weights, regularization_loss=self._q_network.losses
        ).total_loss
        return LossInfo(loss, DqnLossInfo(each, tf.reduce_mean(wanted, axis=1) - self._replayed))

    descriptions: Mapping[str, str] = {
        **DQN.descriptions,
        "loss/td": "Quantile regression loss, mean over updates.",
        "q/td_error": "Absolute error of the quantiles' mean, mean over the transitions of a "
        "batch.",
    }


def midpoints(count: int) -> tf.Tensor:
    """Return the levels (i + 1/2) / count of quantiles, [count]."""
    return (tf.range(count, dtype=tf.float32) + 0.5) / count


def quantile_loss(
    wanted: tf.Tensor, taken: tf.Tensor, levels: tf.Tensor, loss: Callable[..., tf.Tensor]
) -> tf.Tensor:
    """Return the loss [M] of quantiles `taken` [M, N] at `levels` [1 or M, N] for samples `wanted`
    [M, K]: a sum over quantiles of the mean over samples (Dabney et al. 2018, eq. 10 and 13).
    """
    now = taken[:, :, tf.newaxis]  # [M, N, 1]
    after = wanted[:, tf.newaxis, :]  # [M, 1, K]
    below = tf.cast(after < now, tf.float32)
    slope = tf.abs(levels[:, :, tf.newaxis] - below)
    each = slope * loss(after + tf.zeros_like(now), now + tf.zeros_like(after))
    return tf.reduce_sum(tf.reduce_mean(each, axis=2), axis=1)
