"""Rewards from a discriminator's logits: functions of tensors, [N] -> [N].

D = sigmoid(logit) is the probability that a step is the expert's. Each form is written by
softplus(x) = log(1 + exp(x)), which neither overflows nor takes the logarithm of zero. A form of
yours is such a function: name it in a YAML of the group `reward`.
"""

import tensorflow as tf


def positive(logits: tf.Tensor) -> tf.Tensor:
    """Return -log(1 - D) = softplus(logit), above 0: an episode that lasts gains.

    The form of most programs of GAIL (Ho and Ermon 2016). Where episodes can end, it pays for
    surviving alone.
    """
    return tf.nn.softplus(logits)


def negative(logits: tf.Tensor) -> tf.Tensor:
    """Return log D = -softplus(-logit), below 0: an episode that ends early loses least."""
    return -tf.nn.softplus(-logits)


def logit(logits: tf.Tensor) -> tf.Tensor:
    """Return log D - log(1 - D), the logit itself, of either sign (Fu et al. 2018, section 3)."""
    return tf.identity(logits)
