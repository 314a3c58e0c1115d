"""Advantages of a rollout's steps: the minibatch that holds them, their sums and their scale."""

from typing import Any, NamedTuple

import tensorflow as tf

from sparring.agents.networks.recurrent import State
from sparring.distribute import replicas


class Minibatch(NamedTuple):
    """Steps of a rollout, in any order: all [M, ...]. `mask` is one where the step counts.

    Of an agent that remembers they are whole sequences, T steps of each of N environments,
    time-major: [T * N, ...]. `first` says which steps opened an episode, and `state` [N, S] is what
    the agent knew before the first steps.

    `policy` are the parameters of the policy that acted, for a KL penalty, and `intrinsic` the
    columns of an intrinsic reward; () without them.
    """

    observation: Any
    action: tf.Tensor
    log_prob: tf.Tensor
    value: tf.Tensor
    returns: tf.Tensor
    advantage: tf.Tensor
    mask: tf.Tensor
    first: Any = ()
    state: State = ()
    policy: Any = ()
    intrinsic: Any = ()


def normalize_advantages(
    advantages: tf.Tensor, mask: tf.Tensor, epsilon: float = 1e-8
) -> tf.Tensor:
    """Advantages [M] to mean 0 and standard deviation 1 over the entries whose mask [M] is one;
    zero elsewhere.

    The mean and the deviation are those of all replicas' entries.
    """
    count, summed = replicas.all_reduce_sum([tf.reduce_sum(mask), tf.reduce_sum(advantages * mask)])
    count = tf.maximum(count, 1.0)
    centred = (advantages - summed / count) * mask
    return centred / tf.sqrt(
        replicas.all_reduce_sum(tf.reduce_sum(tf.square(centred))) / count + epsilon
    )


def reverse_sum(values: tf.Tensor, decay: tf.Tensor) -> tf.Tensor:
    """Return y [B, T], of which y[:, t] = values[:, t] + decay[:, t] * y[:, t + 1] and y[:, T] = 0.

    Both arguments are [B, T] with a static T.
    """
    steps = values.shape[1]
    columns = tf.TensorArray(values.dtype, steps, element_shape=values.shape[:1])

    def body(
        i: tf.Tensor, total: tf.Tensor, columns: tf.TensorArray
    ) -> tuple[tf.Tensor, tf.Tensor, tf.TensorArray]:
        t = steps - 1 - i
        total = values[:, t] + decay[:, t] * total
        return i + 1, total, columns.write(t, total)

    _, _, columns = tf.while_loop(
        lambda i, *_: i < steps,
        body,
        (0, tf.zeros_like(values[:, 0]), columns),
        maximum_iterations=steps,
    )
    return tf.transpose(columns.stack())  # [T, B] -> [B, T]


def share_of_mean(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Return this replica's share of the mean of `values` times `weights`, both [M]."""
    return replicas.share_of_mean(tf.reduce_mean(values * weights))


def mean_of_valid(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Return the mean of the `values` [N] of all replicas whose `mask` [N] is one."""
    summed, count = replicas.all_reduce_sum([tf.reduce_sum(values * mask), tf.reduce_sum(mask)])
    return summed / tf.maximum(count, 1.0)


def explained_variance(batch: Minibatch) -> tf.Tensor:
    """Return 1 - Var(returns - values) / Var(returns) [] over the steps that count."""

    def variance(values: tf.Tensor) -> tf.Tensor:
        centred = values - mean_of_valid(values, batch.mask)
        return mean_of_valid(tf.square(centred), batch.mask)

    unexplained = variance(batch.returns - batch.value)
    return 1.0 - unexplained / tf.maximum(variance(batch.returns), 1e-12)
