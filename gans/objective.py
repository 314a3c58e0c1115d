"""Mathematics of a GAN: the discriminator's loss and the generator's, of one batch.

Both are functions of tensors, as pure as networks with batch normalisation allow: they compute
logits, one value per example, and reduce these in one place (`Objective.mean`). Gradients,
replicas, accumulation and optimizers are in `sparring.gans.adversarial_step`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow as tf

from sparring.distribute import replicas
from sparring.gans import augmentation
from sparring.gans.adaptive_augmentation import Adaptive
from sparring.gans.augmentation import Augmentation
from sparring.gans.losses import Loss, per_example
from sparring.gans.penalties import Penalty
from sparring.gans.players import (
    KEY_FAKE,
    KEY_PENALTY,
    KEY_REAL,
    Batch,
    DiscriminatorInputs,
    Values,
)
from sparring.gans.settings import GameSettings
from sparring.xla import random


@dataclass(frozen=True)
class Objective:
    """Losses of both players, which share a discriminator.

    M examples are a part of a batch (the share of one replica), packed to M / pack discriminator
    inputs. `penalties` are added up; `augmentations` are applied in order.
    """

    discriminator: tf.keras.layers.Layer
    loss: Loss
    penalties: Mapping[str, Penalty]
    augmentations: Mapping[str, Augmentation]
    rules: GameSettings

    @property
    def adaptive(self) -> dict[str, Adaptive]:
        """Augmentations that follow the logits, by name."""
        return {k: a for k, a in self.augmentations.items() if isinstance(a, Adaptive)}

    @property
    def coupled(self) -> bool:
        """Whether replicas meet inside a loss, penalty or augmentation."""
        parts = (self.loss, *self.penalties.values(), *self.augmentations.values())
        return any(getattr(part, "coupled", False) for part in parts)

    def discriminator_loss(
        self, batch: Batch, inputs: DiscriminatorInputs, progress: tf.Tensor, penalized: bool
    ) -> tuple[tf.Tensor, Values]:
        """Return the discriminator's loss, a scalar, and the scalars to log, by tag.

        `inputs` are the batch's real examples and generated ones, from `discriminator_inputs`.
        Penalties are part of the loss if `penalized`.
        """
        real, fake = self._both_logits(inputs, batch.labels)  # [M / pack] or [M / pack, h, w, 1]
        loss = self.mean(self.loss.discriminator(real, fake))
        adapted = self._adapt(tf.stop_gradient(per_example(real)))
        penalty = tf.zeros([])
        terms: Values = {}
        if penalized:
            penalty, terms = self.penalty(batch, inputs, progress)
        accuracy = _pairwise_accuracy(per_example(real), per_example(fake))
        values = {
            "loss/discriminator": loss,
            "discriminator/accuracy": self.mean(accuracy),
            "discriminator/real_logit": self.mean(per_example(real)),
            "discriminator/fake_logit": self.mean(per_example(fake)),
            **terms,
            **adapted,
        }
        return loss + penalty, values

    def _adapt(self, real_logits: tf.Tensor) -> Values:
        """Have adaptive augmentations see the real logits [M / pack] of a part of a batch."""
        values: Values = {}
        count = self.rules.part * replicas.num_replicas()
        for name, augment in self.adaptive.items():
            augment.observe(real_logits, count)
            # Reduced as a mean over examples is: each part and replica has its share
            shown = self.mean(tf.ones_like(real_logits) * augment.probability)
            values[f"augmentation/{name}_probability"] = shown
        return values

    def generator_loss(self, batch: Batch, fake: tf.Tensor, progress: tf.Tensor) -> tf.Tensor:
        """Return the generator's loss, a scalar, of generated examples `fake` [M, ...]."""
        shown = self.augment(fake, batch.keys[:, KEY_FAKE], progress)  # [M / pack, ...]
        if not (self.loss.relativistic or self.rules.joint):
            logits = self.discriminate(shown, batch.labels)  # [M / pack] or [M / pack, h, w, 1]
            return self.mean(self.loss.generator(logits, None))
        real = self.augment(batch.real, batch.keys[:, KEY_REAL], progress)
        real_logits, logits = self._both_logits(DiscriminatorInputs(real, shown), batch.labels)
        return self.mean(
            self.loss.generator(logits, real_logits if self.loss.relativistic else None)
        )

    def penalty(
        self, batch: Batch, inputs: DiscriminatorInputs, progress: tf.Tensor
    ) -> tuple[tf.Tensor, Values]:
        """Return the sum of the penalties, a scalar, and each of them, weight included, by tag."""

        def critic(examples: tf.Tensor) -> tf.Tensor:
            return self.discriminate(examples, batch.labels)

        keys = batch.keys[:: self.rules.pack, KEY_PENALTY]  # [M / pack, 2]
        terms = {}
        for i, (name, penalty) in enumerate(self.penalties.items()):
            each = penalty(critic, inputs.real, inputs.fake, random.fold(keys, i), progress)
            terms[f"penalty/{name}"] = self.mean(each)  # of [M / pack]
        return tf.add_n([tf.zeros([]), *terms.values()]), terms

    def discriminator_inputs(
        self, batch: Batch, fake: tf.Tensor, progress: tf.Tensor
    ) -> DiscriminatorInputs:
        """Augment and pack real and generated examples [M, ...] -> [M / pack, ...] each."""
        return DiscriminatorInputs(
            self.augment(batch.real, batch.keys[:, KEY_REAL], progress),
            self.augment(fake, batch.keys[:, KEY_FAKE], progress),
        )

    def augment(self, examples: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor) -> tf.Tensor:
        """Augment examples [M, ...] with keys [M, 2], then pack them: [M / pack, ...]."""
        for i, augment in enumerate(self.augmentations.values()):
            examples = augment(examples, random.fold(keys, i), progress)
        return augmentation.pack(examples, self.rules.pack)

    def discriminate(self, inputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Return the logits of inputs [N, ...] in training mode, float32 [N] or [N, h, w, 1]."""
        return tf.cast(self.discriminator(inputs, labels, training=True), tf.float32)

    def diversity(self, batch: Batch, fake: tf.Tensor) -> Values:
        """Return the standard deviation of generated examples [M, ...] over that of real ones.

        Both are plain examples: noise that augments them would hide a collapse. The value is the
        share of this part and replica in the mean over all; replicas meet in it.
        """
        fake_deviation = tf.reduce_mean(replicas.standard_deviation(fake, axis=0))
        real_deviation = tf.reduce_mean(replicas.standard_deviation(batch.real, axis=0))
        parts = self.rules.accumulation * replicas.num_replicas()
        return {"generator/diversity": fake_deviation / tf.maximum(real_deviation, 1e-8) / parts}

    def mean(self, values: tf.Tensor) -> tf.Tensor:
        """Reduce values [M / pack] to their share of the mean over the whole batch, a scalar.

        Every loss, penalty and logit is reduced here: shares of the parts of a batch, and of the
        replicas, add up to the mean. Losses marked `coupled` take statistics of the batch besides.
        """
        return tf.reduce_sum(values) * (self.rules.pack / self.rules.batch_size)

    def _both_logits(
        self, inputs: DiscriminatorInputs, labels: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the logits of real and of generated inputs, in one batch if `rules.joint`."""
        if not self.rules.joint:
            real = self.discriminate(inputs.real, labels)
            fake = self.discriminate(inputs.fake, labels)
            return real, fake
        joint = tf.concat([inputs.real, inputs.fake], axis=0)  # [2 M / pack, ...]
        real, fake = tf.split(self.discriminate(joint, tf.concat([labels, labels], axis=0)), 2)
        return real, fake


def _pairwise_accuracy(real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    """Return 1 where a real logit is above the generated one, 0.5 for a tie, else 0: [M / pack]."""
    above = tf.cast(real > fake, tf.float32)
    return above + 0.5 * tf.cast(tf.equal(real, fake), tf.float32)
