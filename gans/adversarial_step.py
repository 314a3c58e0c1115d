"""Orchestration of one discriminator step and one generator step.

The losses are in `sparring.gans.objective`; here are gradients, replicas, accumulation, lazy
penalties, weight clipping and optimizers.
"""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from sparring.data import dataset
from sparring.distribute import replicas
from sparring.errors import UserError
from sparring.gans import augmentation, differentiability, settings
from sparring.gans.accumulation import Gradients, accumulate
from sparring.gans.augmentation import Augmentation
from sparring.gans.batches import Batches
from sparring.gans.losses import Loss
from sparring.gans.networks import dropout, spectral_norm
from sparring.gans.networks.pair import Pair
from sparring.gans.objective import Objective
from sparring.gans.penalties import Penalty
from sparring.gans.players import (
    KEY_DROPOUT,
    Batch,
    DiscriminatorInputs,
    Player,
    Values,
    hold_statistics,
    unchanged,
    watching,
)
from sparring.gans.settings import GameSettings
from sparring.optim.optimizer import Scheduled

_ZERO = tf.UnconnectedGradients.ZERO
_DISCRIMINATOR_TAGS = (
    "loss/discriminator",
    "discriminator/accuracy",
    "discriminator/real_logit",
    "discriminator/fake_logit",
    "generator/diversity",
)


class DiscriminatorGradients:
    """Discriminator, its objective, and the gradients of its loss on one batch.

    `shape` is that of one input: of packed examples.
    """

    def __init__(
        self,
        discriminator: Player,
        shape: tuple[int, ...],
        loss: Loss,
        penalties: Mapping[str, Penalty],
        augmentations: Mapping[str, Augmentation],
        rules: GameSettings,
    ) -> None:
        self.discriminator = discriminator
        network = discriminator.network
        settings.check_joint(rules, penalties, network)
        twice = any(differentiability.takes_gradient(p, shape) for p in penalties.values())
        differentiability.check(network, shape, twice)
        if twice:
            differentiability.check_normalization(network)
        self.objective = Objective(network, loss, dict(penalties), dict(augmentations), rules)

    def discriminator_gradients(
        self, batch: Batch, inputs: DiscriminatorInputs, progress: tf.Tensor, penalized: bool = True
    ) -> tuple[Gradients, Values]:
        """Differentiate the discriminator's loss, with penalties if `penalized`."""
        weights = self.discriminator.weights
        drawing = dropout.dropping(self.discriminator.network, batch.keys[:, KEY_DROPOUT])
        with drawing, watching(weights) as tape:
            loss, values = self.objective.discriminator_loss(batch, inputs, progress, penalized)
        return tape.gradient(loss, weights, unconnected_gradients=_ZERO), values


class AdversarialStep(DiscriminatorGradients):
    """Generator and discriminator with their optimizers, and the steps that train them.

    `discriminator_step`, `generator_step` and `both_steps` run the `_update_*` methods on every
    replica. `data` is a `sparring.data.dataset.Data`; `penalties` and `augmentations` are by name,
    applied in order.
    """

    def __init__(
        self,
        data: Any,
        network: Pair,
        loss: Loss,
        penalties: Mapping[str, Penalty],
        augmentations: Mapping[str, Augmentation],
        optimizers: tuple[Scheduled, Scheduled],
        rules: GameSettings,
        seed: int,
    ) -> None:
        self.replicas = replicas.Replicas()
        dataset.check(data, rules.batch_size, labelled=rules.conditional, key="game.batch_size")
        self.data = data
        self.rules = rules
        self.latent = network.latent
        self.penalties = dict(penalties)
        self._penalty_tags = [f"penalty/{name}" for name in penalties]
        self.lazy = bool(penalties) and rules.penalty_interval > 1
        if self.lazy:
            settings.correct_for_interval(optimizers[1], rules.penalty_interval)
        self.batch = Batches(data, network.latent, rules, seed)
        self._network = network
        self._classes = data.classes if rules.conditional else 0
        self.generator = Player("generator", self.make_generator(), optimizers[0])
        shape = (*data.shape[:-1], data.shape[-1] * rules.pack)
        discriminator = network.build_discriminator(
            shape, self._classes, rules.discriminator_precision
        )
        if dropout.layers(discriminator):
            raise UserError(
                "network.discriminator.dropout: the generator's step has no keys for it; it is for "
                "discriminators of sparring imitation. Leave it at 0."
            )
        player = Player("discriminator", discriminator, optimizers[1])
        super().__init__(player, shape, loss, self.penalties, augmentations, rules)

    def make_generator(self) -> tf.keras.layers.Layer:
        """Build a generator with weights of its own."""
        shape = tuple(self.data.shape)
        return self._network.build_generator(shape, self._classes, self.rules.generator_precision)

    def hold_frozen_statistics(self, average: tf.keras.layers.Layer) -> None:
        """Have batch normalisation whose parameters are frozen keep its statistics.

        `average` is the generator's average, which has the same layers.
        """
        hold_statistics(self.generator.network, average)
        hold_statistics(self.discriminator.network)

    def generate(self, batch: Batch) -> tf.Tensor:
        """Return generated examples [M, ...], float32, with this batch's own statistics."""
        fake = self.generator.network(batch.latents, batch.labels, training=True)
        return tf.cast(fake, tf.float32)

    def logits(self, examples: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Return the discriminator's logits of plain examples [M, ...] in inference mode."""
        packed = augmentation.pack(examples, self.rules.pack)
        return tf.cast(self.discriminator.network(packed, labels, training=False), tf.float32)

    # ---- steps -----------------------------------------------------------------------------------

    def discriminator_step(self, step: tf.Tensor, rows: tf.Tensor, progress: tf.Tensor) -> Values:
        """Train the discriminator on real examples and generated ones; return scalars to log."""
        update = self.replicas.agreed(self._update_discriminator)
        return update(step, rows, progress) | self._finish_discriminator(step, rows, progress)

    def generator_step(self, step: tf.Tensor, rows: tf.Tensor, progress: tf.Tensor) -> Values:
        """Train the generator against the discriminator as it is; return scalars to log."""
        return self.replicas.agreed(self._update_generator)(step, rows, progress)

    def both_steps(self, step: tf.Tensor, rows: tf.Tensor, progress: tf.Tensor) -> Values:
        """Train both players on the same generated examples, which are generated once."""
        if self.lazy and self.replicas.count > 1:
            # The condition on lazy penalties must stand outside of what runs on replicas
            values = self.discriminator_step(step, rows, progress)
            return values | self.generator_step(step, rows, progress)
        return self.replicas.agreed(self._update_both)(step, rows, progress)

    def _finish_discriminator(
        self, step: tf.Tensor, rows: tf.Tensor, progress: tf.Tensor
    ) -> dict[str, Any]:
        """Complete a discriminator update: lazy penalties, then weight clipping."""
        values = self._lazy_penalties(step, rows, progress) if self.lazy else {}
        limit = self.rules.weight_clip
        if limit is not None:
            for weight in self.discriminator.weights:
                replicas.assign(weight, tf.clip_by_value(weight, -limit, limit))
        return values

    def _lazy_penalties(
        self, step: tf.Tensor, rows: tf.Tensor, progress: tf.Tensor
    ) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        """Step on the penalties alone if it is due.

        Returns each value as a pair with its weight in a running mean, 1 if it was due, else 0.
        """
        tags = self._penalty_tags

        def due() -> list[tf.Tensor]:
            values = self.replicas.agreed(self._update_on_penalties)(step, rows, progress)
            return [*(values[tag] for tag in tags), tf.ones([])]

        def not_due() -> list[tf.Tensor]:
            return [tf.zeros([])] * (len(tags) + 1)

        is_due = tf.equal(step % self.rules.penalty_interval, 0)
        *found, weight = tf.cond(is_due, due, not_due)
        return {tag: (value, weight) for tag, value in zip(tags, found, strict=True)}

    # ---- on each replica -------------------------------------------------------------------------

    def _update_discriminator(
        self, step: tf.Tensor, rows: tf.Tensor, progress: tf.Tensor
    ) -> Values:
        spectral_norm.power_step(self.discriminator.network)
        learn = self._compiled(self.discriminator_gradients)
        penalized = not self.lazy

        def of_part(part: tf.Tensor) -> tuple[Gradients, Values]:
            batch, fake, inputs = self._discriminator_batch(step, rows, part, progress)
            gradients, values = learn(batch, inputs, progress, penalized)
            return gradients, values | self.objective.diversity(batch, fake)

        tags = [*_DISCRIMINATOR_TAGS, *([] if self.lazy else self._penalty_tags)]
        tags += [f"augmentation/{name}_probability" for name in self.objective.adaptive]
        gradients, values = accumulate(
            of_part, self.rules.accumulation, self.discriminator.weights, tags
        )
        return self.discriminator.apply(gradients, values, progress)

    def _update_on_penalties(self, step: tf.Tensor, rows: tf.Tensor, progress: tf.Tensor) -> Values:
        learn = self._compiled(self.penalty_gradients)

        def of_part(part: tf.Tensor) -> tuple[Gradients, Values]:
            batch, _, inputs = self._discriminator_batch(step, rows, part, progress)
            return learn(batch, inputs, progress)

        gradients, values = accumulate(
            of_part, self.rules.accumulation, self.discriminator.weights, self._penalty_tags
        )
        return self.discriminator.apply(gradients, values, progress)

    def _update_generator(self, step: tf.Tensor, rows: tf.Tensor, progress: tf.Tensor) -> Values:
        spectral_norm.power_step(self.generator.network)

        def of_part(part: tf.Tensor) -> tuple[Gradients, Values]:
            batch = self.batch(step, rows, part)
            with watching(self.generator.weights) as tape:
                fake = self.generate(batch)
            return self.generator_gradients(batch, tape, fake, progress)

        learn = self._compiled(of_part)
        gradients, values = accumulate(
            learn, self.rules.accumulation, self.generator.weights, ["loss/generator"]
        )
        return self.generator.apply(gradients, values, progress)

    def _update_both(self, step: tf.Tensor, rows: tf.Tensor, progress: tf.Tensor) -> Values:
        spectral_norm.power_step(self.generator.network)
        batch = self.batch(step, rows, tf.constant(0, tf.int64))
        with watching(self.generator.weights) as tape:
            fake = self.generate(batch)
        spectral_norm.power_step(self.discriminator.network)
        learn = self._compiled(self.discriminator_gradients)
        constant = tf.stop_gradient(fake)
        inputs = self.objective.discriminator_inputs(batch, constant, progress)
        gradients, found = learn(batch, inputs, progress, not self.lazy)
        found |= self.objective.diversity(batch, constant)
        values = self.discriminator.apply(gradients, found, progress)
        values |= self._finish_discriminator(step, rows, progress)
        gradients, found = self.generator_gradients(batch, tape, fake, progress)
        return values | self.generator.apply(gradients, found, progress)

    def _discriminator_batch(
        self, step: tf.Tensor, rows: tf.Tensor, part: tf.Tensor, progress: tf.Tensor
    ) -> tuple[Batch, tf.Tensor, DiscriminatorInputs]:
        """Return a part of a batch, generated examples [M, ...] for it, and both as inputs.

        Generating them leaves no trace in the generator's buffers or its gradient.
        """
        batch = self.batch(step, rows, part)
        with unchanged(self.generator.network):
            fake = tf.stop_gradient(self.generate(batch))
        return batch, fake, self.objective.discriminator_inputs(batch, fake, progress)

    # ---- gradients -------------------------------------------------------------------------------

    def penalty_gradients(
        self, batch: Batch, inputs: DiscriminatorInputs, progress: tf.Tensor
    ) -> tuple[Gradients, Values]:
        """Differentiate the penalties alone, times the interval at which they are taken."""
        weights = self.discriminator.weights
        with watching(weights) as tape:
            penalty, values = self.objective.penalty(batch, inputs, progress)
            loss = penalty * float(self.rules.penalty_interval)
        return tape.gradient(loss, weights, unconnected_gradients=_ZERO), values

    def generator_gradients(
        self, batch: Batch, generation: tf.GradientTape, fake: tf.Tensor, progress: tf.Tensor
    ) -> tuple[Gradients, Values]:
        """Differentiate the generator's loss through `fake` and the tape that recorded it."""
        with unchanged(self.discriminator.network), watching(fake) as tape:
            loss = self.objective.generator_loss(batch, fake, progress)
        slope = tape.gradient(loss, fake)  # [M, ...]
        gradients = generation.gradient(fake, self.generator.weights, slope, _ZERO)
        return gradients, {"loss/generator": loss}

    def _compiled(self, python_function: Callable[..., Any]) -> Callable[..., Any]:
        """Have XLA compile a replica's work, unless replicas meet inside of it."""
        players = (self.generator, self.discriminator)
        coupled = self.objective.coupled or any(player.coupled for player in players)
        return python_function if coupled else replicas.compile_in_replica(python_function)
