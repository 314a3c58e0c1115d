"""Network of AIRL's discriminator: a reward, shaping, and the policy's log probability.

Fu et al. 2018, "Learning robust rewards with adversarial inverse reinforcement learning", eq. 4.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


class AIRLNetwork(tf.keras.layers.Layer):
    """Logit f(s, a, s') - log pi(a | s), with f = g(s, a) + discount h(s') - h(s).

    Then D = exp(f) / (exp(f) + pi). A terminated episode has no s': h(s') is 0 there, so that the
    shaping telescopes to -h of the episode's first observation. A truncated one has its s'. Inputs
    are rows [N, 2 O + A + 2]: observation, action, the next observation, whether the step
    terminated, and log pi(a | s). The last two are constants to penalties: no gradient reaches
    them.

    Args:
      factory: of g and of h, called as a GAN's discriminator is.
      widths: O and A.
      discount: that of the agent.
      state_only: whether g sees the observation alone.
    """

    def __init__(
        self,
        factory: Callable[..., Any],
        widths: tuple[int, int],
        discount: float,
        state_only: bool = False,
    ) -> None:
        super().__init__()
        self.widths = widths
        self.discount = discount
        self.state_only = state_only
        seen = widths[0] if state_only else sum(widths)
        self.reward_network = factory(shape=(seen,), classes=0)
        self.shaping_network = factory(shape=(widths[0],), classes=0)

    def call(self, rows: tf.Tensor, labels: tf.Tensor, training: bool = False) -> tf.Tensor:
        wide, narrow = self.widths
        sizes = [wide, narrow, wide, 1, 1]
        observation, action, following, terminated, log_prob = tf.split(rows, sizes, axis=-1)
        reward = self.reward(observation, action, training)  # [N]
        before = self.shaping_network(observation, labels, training=training)
        after = self.shaping_network(following, labels, training=training)
        goes_on = 1.0 - tf.stop_gradient(terminated[:, 0])
        shaped = reward + self.discount * goes_on * after - before
        return shaped - tf.stop_gradient(log_prob[:, 0])

    def reward(
        self, observation: tf.Tensor, action: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Return g [N] of observations [N, O] and actions [N, A]."""
        seen = observation if self.state_only else tf.concat([observation, action], axis=-1)
        labels = tf.zeros([tf.shape(seen)[0]], tf.int64)
        return tf.cast(self.reward_network(seen, labels, training=training), tf.float32)
