"""Munchausen reinforcement learning (Vieillard et al. 2020): the log policy as a reward."""

import tensorflow as tf

from sparring.agents.networks import masks
from sparring.errors import UserError


class Munchausen:
    """Munchausen's reward and soft next value (Vieillard et al. 2020, "Munchausen reinforcement
    learning", eq. 3), of the policy softmax(q / temperature).

    Args:
      temperature: of the policy, and weight of its entropy in the next value.
      weight: of the log policy in the reward.
      lowest: that the log policy, times the temperature, may be there.
    """

    def __init__(
        self, temperature: float = 0.03, weight: float = 0.9, lowest: float = -1.0
    ) -> None:
        if not temperature > 0.0:
            raise UserError(f"agent.munchausen.temperature={temperature}: take one above 0.")
        self.temperature = float(temperature)
        self.weight = float(weight)
        self.lowest = float(lowest)

    def log_policy(self, values: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
        """Return the logarithm of the policy [M, A], times the temperature, of `values` [M, A].

        Of actions that are not allowed it is far below all others.
        """
        return self.temperature * tf.nn.log_softmax(masks.allowed(values, mask) / self.temperature)

    def reward(self, values: tf.Tensor, mask: tf.Tensor | None, action: tf.Tensor) -> tf.Tensor:
        """Return what is added to the rewards [M] of actions [M] in states of `values` [M, A]."""
        taken = tf.gather(self.log_policy(values, mask), action, batch_dims=1)
        return self.weight * tf.clip_by_value(taken, self.lowest, 0.0)

    def mean(self, outputs: tf.Tensor, values: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
        """Return the policy's mean [M, ...] of `outputs` [M, A, ...] less its log policy: with
        values as outputs, the soft value of the state.
        """
        log_policy = self.log_policy(values, mask)  # [M, A]
        policy = tf.exp(log_policy / self.temperature)
        wide = [-1, values.shape[1], *([1] * (outputs.shape.rank - 2))]
        soft = outputs - tf.reshape(tf.where(policy > 0.0, log_policy, 0.0), wide)
        return tf.reduce_sum(tf.reshape(policy, wide) * soft, axis=1)
