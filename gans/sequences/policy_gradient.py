"""Policy gradient of a generator of sequences, with rewards by completing each prefix.

Yu et al. 2017, "SeqGAN: sequence generative adversarial nets with policy gradient", section 3.1.
"""

from collections.abc import Callable

import tensorflow as tf

from sparring.gans.players import watching
from sparring.gans.sequences.networks import RecurrentGenerator
from sparring.xla import random

_SEQUENCE = 0  # of an example's keys; the rollouts' count from 1


class PolicyGradient:
    """Sequences of a generator, the values of their prefixes, and the gradient that follows.

    Args:
      generator: the policy.
      rollout: the policy that completes prefixes: a delayed copy.
      judge: function from sequences [N, T] to rewards [N].
      length: T.
      rollouts: completions of each prefix.
    """

    def __init__(
        self,
        generator: RecurrentGenerator,
        rollout: RecurrentGenerator,
        judge: Callable[[tf.Tensor], tf.Tensor],
        length: int,
        rollouts: int,
    ) -> None:
        self.generator = generator
        self.rollout = rollout
        self.judge = judge
        self.length = length
        self.rollouts = rollouts

    def play(self, members: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return sequences, int64 [B, T], of keys [B, 2], and the values of their prefixes [B, T].

        The value of the first t tokens is the mean reward of `rollouts` completions by the rollout
        policy (eq. 4); that of all T is the sequence's own reward.
        """
        tokens = self.generator.sample(random.fold(members, _SEQUENCE), self.length)  # [B, T]
        by_time = tf.transpose(tokens)  # [T, B]
        count = tokens.shape[0]
        row = tf.range(self.length, dtype=tf.int64)[:, tf.newaxis]  # [T, 1]
        branches = 1 + tf.range(self.rollouts, dtype=tf.int64)
        keys = tf.reshape(random.fold(members[:, tf.newaxis], branches), [-1, 2])  # [B * R, 2]
        whole = tf.repeat(by_time, self.rollouts, axis=1)  # [T, B * R]

        def body(
            t: tf.Tensor, state: list[tf.Tensor], values: tf.Tensor
        ) -> tuple[tf.Tensor, list[tf.Tensor], tf.Tensor]:
            logits, state = self.rollout.step(by_time[t - 1], state)
            logits, *several = (tf.repeat(x, self.rollouts, axis=0) for x in (logits, *state))
            completed = self.rollout.finish(whole, logits, several, t, random.fold(keys, t))
            rewards = tf.reshape(self.judge(tf.transpose(completed)), [count, self.rollouts])
            values = tf.where(row == t - 1, tf.reduce_mean(rewards, axis=1), values)  # [T, B]
            return t + 1, state, values

        _, state = self.rollout.start(count)
        start = (
            tf.constant(1, tf.int64),
            state,
            tf.tile(self.judge(tokens)[tf.newaxis], [self.length, 1]),
        )
        values = tf.while_loop(
            lambda t, *_: t < self.length,
            body,
            start,
            maximum_iterations=self.length - 1,
            parallel_iterations=1,
        )[2]
        return tokens, tf.transpose(values)

    def gradients(
        self, tokens: tf.Tensor, advantages: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Differentiate -log p of the tokens [B, T] times `advantages` [B, T], the mean over both.

        It is the negative of eq. 8, times 1 / T. Returns the gradients and the loss.
        """
        return weighted_likelihood(self.generator, tokens, advantages)


def weighted_likelihood(
    generator: RecurrentGenerator, tokens: tf.Tensor, weights: tf.Tensor
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Differentiate the mean of -log p of tokens [B, T], each times its weight [B, T].

    Returns the gradients of the generator's weights, and the mean.
    """
    variables = generator.trainable_variables
    with watching(variables) as tape:
        loss = tf.reduce_mean(weights * negative_log_likelihood(generator, tokens))
    gradients = tape.gradient(loss, variables)
    # That of the embedding comes as slices, which replicas cannot add up
    return [tf.convert_to_tensor(gradient) for gradient in gradients], loss


def negative_log_likelihood(generator: RecurrentGenerator, tokens: tf.Tensor) -> tf.Tensor:
    """Return -log p of each token of [B, T], given those before it, in nats [B, T]."""
    logits = generator(tokens)  # [B, T, words]
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tokens, logits=logits)
