"""Adaptive discriminator augmentation: as much of it as the discriminator overfits.

Karras et al. 2020, "Training generative adversarial networks with limited data", section 3.
"""

from collections.abc import Mapping

import tensorflow as tf

from sparring.distribute import replicas
from sparring.gans.augmentation import Augmentation
from sparring.xla import random


class Adaptive:
    """Augmentations, each of which an example gets with a probability that follows the logits.

    The share of real examples with a logit above 0, less the share below, is held at `target`: the
    probability rises by a step of the discriminator's real examples over `images` while that is
    above, and falls while it is below, from 0 to `most`. It is part of the checkpoint, and the same
    on all replicas.

    Args:
      augmentations: by name, in order.
      target: of the mean sign of real logits.
      images: real examples in which the probability may rise from 0 to 1.
      most: of the probability.
    """

    coupled = True

    def __init__(
        self,
        augmentations: Mapping[str, Augmentation],
        target: float = 0.6,
        images: float = 500_000.0,
        most: float = 1.0,
    ) -> None:
        self.augmentations = dict(augmentations)
        self.target = target
        self.images = images
        self.most = most
        self.probability = replicas.replicated(tf.zeros([]))

    def __call__(self, examples: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor) -> tf.Tensor:
        x = examples
        for i, augment in enumerate(self.augmentations.values()):
            own = random.fold(keys, i)
            chosen = random.uniform(random.fold(own, 0), 1) < self.probability  # [B, 1]
            chosen = tf.reshape(chosen, [-1] + [1] * (x.shape.rank - 1))
            x = tf.where(chosen, augment(x, random.fold(own, 1), progress), x)
        return x

    def observe(self, real_logits: tf.Tensor, count: int) -> None:
        """Move the probability by real logits [N] of a replica, of `count` examples on all."""
        sign = replicas.all_reduce_mean(tf.reduce_mean(tf.sign(real_logits)))
        moved = self.probability + tf.sign(sign - self.target) * (count / self.images)
        replicas.assign(self.probability, tf.clip_by_value(moved, 0.0, self.most))
