"""Batches of a GAN: real examples, labels, latents and random keys.

Everything random comes from keys folded from the step's number, one per example, so that an
example's numbers depend neither on the size of the batch nor on how it is split.
"""

from typing import Any

import tensorflow as tf

from sparring.distribute import replicas
from sparring.gans.players import KEY_DATA, KEY_LATENT, KEYS, Batch
from sparring.gans.settings import GameSettings
from sparring.xla import random


class Batches:
    """Batches of `data` (a `sparring.data.dataset.Data`) with latents of size `latent`."""

    def __init__(self, data: Any, latent: int, rules: GameSettings, seed: int) -> None:
        self.data = data
        self.latent = latent
        self.size = rules.part
        self._keys = random.stream(seed, "game")

    def __call__(self, step: tf.Tensor, rows: tf.Tensor, part: tf.Tensor) -> Batch:
        """Return part `part` of the batch of discriminator step `step`.

        `rows` [B] are the whole batch's examples in the data. Replicas share a part.
        """
        # Number of this replica's first example in the batch
        first = (part * replicas.num_replicas() + replicas.replica_index()) * self.size
        members = random.members(random.fold(self._keys, step), self.size, first)  # [M, 2]
        # [M, KEYS, 2]
        keys = random.fold(members[:, tf.newaxis], tf.range(KEYS, dtype=tf.int64))
        rows = tf.slice(rows, tf.reshape(tf.cast(first, tf.int32), [1]), [self.size])  # [M]
        real, labels = self.data.take(rows, keys[:, KEY_DATA])
        latents = random.normal(keys[:, KEY_LATENT], self.latent)
        return Batch(tf.ensure_shape(real, [self.size, *self.data.shape]), labels, latents, keys)
