"""The game: one step of the discriminator and one of the generator, as pure as variables allow.

A step is parts that every replica does with its share of the batch, and what has to stand around
them. Everything random comes from keys folded from the step's number, one per example, so that an
example's numbers depend neither on the size of the batch nor on how it is split. Every term of a
loss is summed over examples and divided by the whole batch, here and nowhere else.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from sparring.data import dataset
from sparring.distribute import replicas
from sparring.gans import augmentation
from sparring.gans.augmentation import Augmentation
from sparring.gans.losses import Loss, per_example
from sparring.gans.networks import spectral_norm
from sparring.gans.networks.pair import Pair
from sparring.gans.penalties import Penalty
from sparring.gans.players import Batch, DiscriminatorInputs, Player, Values, unchanged, watching
from sparring.gans.settings import GameSettings, correct_for_interval
from sparring.optim.optimizer import Scheduled
from sparring.optim.precision import computing_in
from sparring.xla import loops, random

_DATA, _LATENT, _REAL, _FAKE, _PENALTY = range(5)  # the purposes that an example has a key for
_PURPOSES = 5
_OF_DISCRIMINATOR = (
    "loss/discriminator",
    "discriminator/accuracy",
    "discriminator/real_logit",
    "discriminator/fake_logit",
)


class AdversarialStep:
    """Two players, their losses, and what lies between a generated example and the discriminator.

    `data` is a `sparring.data.dataset.Data`; `penalties` and `augmentations` are by name, applied
    in order.
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
        self.loss = loss
        self.rules = rules
        self.latent = network.latent
        self.penalties = dict(penalties)
        self.augmentations = list(augmentations.values())
        self.lazy = bool(penalties) and rules.penalty_interval > 1
        if self.lazy:
            correct_for_interval(optimizers[1], rules.penalty_interval)
        self._network = network
        self._keys = random.stream(seed, "game")
        self.generator = Player(self.make_generator(), optimizers[0])
        self.discriminator = Player(self._make_discriminator(), optimizers[1])

    def make_generator(self) -> tf.keras.layers.Layer:
        """A generator with weights of its own."""
        with computing_in(self.rules.generator_precision):
            network = self._network.generator(shape=tuple(self.data.shape), classes=self._classes)
            network(tf.zeros([2, self.latent]), tf.zeros([2], tf.int64), training=False)
        return network

    def _make_discriminator(self) -> tf.keras.layers.Layer:
        shape = (*self.data.shape[:-1], self.data.shape[-1] * self.rules.pack)
        with computing_in(self.rules.discriminator_precision):
            network = self._network.discriminator(shape=shape, classes=self._classes)
            network(tf.zeros([2, *shape]), tf.zeros([2], tf.int64), training=False)
        return network

    @property
    def _penalty_tags(self) -> list[str]:
        return [f"penalty/{name}" for name in self.penalties]

    @property
    def _classes(self) -> int:
        return self.data.classes if self.rules.conditional else 0

    # ---- what both players look at ---------------------------------------------------------------

    def batch(self, step: tf.Tensor, rows: tf.Tensor, part: tf.Tensor) -> Batch:
        """Part `part` of the batch of the discriminator's step `step`; `rows` [B] are its examples
        in the data.
        """
        size = self.rules.part
        first = (
            part * replicas.num_replicas() + replicas.replica_index()
        ) * size  # replicas share a part of the batch
        members = random.members(random.fold(self._keys, step), size, first)  # [M, 2]
        # [M, purposes, 2]
        keys = random.fold(members[:, tf.newaxis], tf.range(_PURPOSES, dtype=tf.int64))
        rows = tf.slice(rows, tf.reshape(tf.cast(first, tf.int32), [1]), [size])
        real, labels = self.data.take(rows, keys[:, _DATA])
        latents = random.normal(keys[:, _LATENT], self.latent)
        return Batch(tf.ensure_shape(real, [size, *self.data.shape]), labels, latents, keys)

    def generate(self, batch: Batch) -> tf.Tensor:
        """Generated examples [M, ...], float32, by the statistics of this batch."""
        return tf.cast(
            self.generator.network(batch.latents, batch.labels, training=True), tf.float32
        )

    def show(self, examples: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor) -> tf.Tensor:
        """Examples [M, ...] as the discriminator sees them: augmented, then packed, [M / pack,
        ...].
        """
        for i, augment in enumerate(self.augmentations):
            examples = augment(examples, random.fold(keys, i), progress)
        return augmentation.pack(examples, self.rules.pack)

    def _shown(self, batch: Batch, fake: tf.Tensor, progress: tf.Tensor) -> DiscriminatorInputs:
        return DiscriminatorInputs(
            self.show(batch.real, batch.keys[:, _REAL], progress),
            self.show(fake, batch.keys[:, _FAKE], progress),
        )

    def judge(self, examples: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Logits of examples [M / pack, ...] as they are shown, float32: [M / pack] or [M / pack,
        h, w, 1].
        """
        return tf.cast(self.discriminator.network(examples, labels, training=True), tf.float32)

    def judge_at_rest(self, examples: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """The same of plain examples [M, ...], by the statistics of training."""
        packed = augmentation.pack(examples, self.rules.pack)
        return tf.cast(self.discriminator.network(packed, labels, training=False), tf.float32)

    def _judge_both(
        self, shown: DiscriminatorInputs, labels: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if not self.rules.joint:
            return self.judge(shown.real, labels), self.judge(shown.fake, labels)
        real, fake = tf.split(
            self.judge(tf.concat(shown, axis=0), tf.concat([labels, labels], axis=0)), 2
        )
        return real, fake

    def _reduce(self, values: tf.Tensor) -> tf.Tensor:
        """The one place where values per example [M / pack] become a scalar.

        What the parts of a batch, and the replicas, find adds up to the batch's mean.
        """
        return tf.reduce_sum(values) * (self.rules.pack / self.rules.batch_size)

    # ---- the discriminator -----------------------------------------------------------------------

    def discriminator_step(
        self, step: tf.Tensor, rows: tf.Tensor, progress: tf.Tensor, fake: tf.Tensor | None = None
    ) -> Values:
        """One step on real examples and generated ones (`fake` [B, ...], if the whole batch is
        there already).
        """
        values = self.replicas.first(
            self.replicas.run(self._learn_discriminator, step, rows, progress, fake)
        )
        if self.lazy:
            values |= self._lazily(step, rows, progress)
        self._clip()
        return values

    def _learn_discriminator(
        self, step: tf.Tensor, rows: tf.Tensor, progress: tf.Tensor, fake: tf.Tensor | None
    ) -> Values:
        spectral_norm.power_step(self.discriminator.network)
        learn = self._compiled(self._discriminator_gradients)

        def of_part(part: tf.Tensor) -> tuple[list[tf.Tensor], Values]:
            batch = self.batch(step, rows, part)
            made = self._made(batch) if fake is None else fake
            gradients, values = learn(batch, self._shown(batch, made, progress), progress)
            return gradients, values | {"generator/diversity": self._diversity(batch.real, made)}

        names = [
            *_OF_DISCRIMINATOR,
            "generator/diversity",
            *([] if self.lazy else self._penalty_tags),
        ]
        gradients, values = self._over_parts(of_part, self.discriminator, names)
        return replicas.all_reduce_sum(values) | self.discriminator.step(
            gradients, progress, "discriminator"
        )

    def _made(self, batch: Batch) -> tf.Tensor:
        """Generated examples [M, ...] for the discriminator, which leave no trace in the
        generator.
        """
        with unchanged(self.generator.network):
            return tf.stop_gradient(self.generate(batch))

    def _discriminator_gradients(
        self, batch: Batch, shown: DiscriminatorInputs, progress: tf.Tensor
    ) -> tuple[list[tf.Tensor], Values]:
        with self._tape() as tape:
            real, fake = self._judge_both(shown, batch.labels)
            loss = self._reduce(self.loss.discriminator(real, fake))
            penalty, values = (0.0, {}) if self.lazy else self._penalty(batch, shown, progress)
            total = loss + penalty
        values |= {
            "loss/discriminator": loss,
            **self._watched(per_example(real), per_example(fake)),
        }
        return self._gradients(tape, total), values

    def _penalty(
        self, batch: Batch, shown: DiscriminatorInputs, progress: tf.Tensor
    ) -> tuple[tf.Tensor, Values]:
        keys = batch.keys[:: self.rules.pack, _PENALTY]  # [M / pack, 2]
        values = {}
        for i, (name, penalty) in enumerate(self.penalties.items()):
            # [M / pack]
            each = penalty(
                lambda examples: self.judge(examples, batch.labels),
                *shown,
                random.fold(keys, i),
                progress,
            )
            values[f"penalty/{name}"] = self._reduce(each)
        return tf.add_n([tf.zeros([]), *values.values()]), values

    def _lazily(self, step: tf.Tensor, rows: tf.Tensor, progress: tf.Tensor) -> Any:
        """A step on the penalties alone, if it is due; each value a pair with its weight in a mean,
        1 or 0.
        """
        names = self._penalty_tags

        def now() -> list[tf.Tensor]:
            values = self.replicas.first(
                self.replicas.run(self._learn_penalties, step, rows, progress)
            )
            return [*(values[name] for name in names), tf.ones([])]

        def not_now() -> list[tf.Tensor]:
            return [tf.zeros([])] * (len(names) + 1)

        *found, due = tf.cond(tf.equal(step % self.rules.penalty_interval, 0), now, not_now)
        return {name: (value, due) for name, value in zip(names, found, strict=True)}

    def _learn_penalties(self, step: tf.Tensor, rows: tf.Tensor, progress: tf.Tensor) -> Values:
        learn = self._compiled(self.penalty_gradients)

        def of_part(part: tf.Tensor) -> tuple[list[tf.Tensor], Values]:
            batch = self.batch(step, rows, part)
            return learn(batch, self._shown(batch, self._made(batch), progress), progress)

        gradients, values = self._over_parts(of_part, self.discriminator, self._penalty_tags)
        self.discriminator.step(gradients, progress, "discriminator")
        return replicas.all_reduce_sum(values)

    def penalty_gradients(
        self, batch: Batch, shown: DiscriminatorInputs, progress: tf.Tensor
    ) -> tuple[list[tf.Tensor], Values]:
        """The discriminator's gradients of the penalties alone, as strong as they are where an
        interval is between.
        """
        with self._tape() as tape:
            total, values = self._penalty(batch, shown, progress)
            total *= float(self.rules.penalty_interval)
        return self._gradients(tape, total), values

    def _watched(self, real: tf.Tensor, fake: tf.Tensor) -> Values:
        right = tf.cast(real > fake, tf.float32) + 0.5 * tf.cast(tf.equal(real, fake), tf.float32)
        return {
            "discriminator/accuracy": self._reduce(right),
            "discriminator/real_logit": self._reduce(real),
            "discriminator/fake_logit": self._reduce(fake),
        }

    def _diversity(self, real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
        """Of examples [M, ...] as they are: what noise adds to either would hide a collapse."""
        real, fake = (tf.reduce_mean(replicas.standard_deviation(x, axis=0)) for x in (real, fake))
        return fake / tf.maximum(real, 1e-8) / (self.rules.accumulation * replicas.num_replicas())

    def _clip(self) -> None:
        limit = self.rules.weight_clip
        if limit is not None:
            for weight in self.discriminator.weights:
                replicas.assign(weight, tf.clip_by_value(weight, -limit, limit))

    # ---- the generator ---------------------------------------------------------------------------

    def generator_step(self, step: tf.Tensor, rows: tf.Tensor, progress: tf.Tensor) -> Values:
        """One step of the generator against the discriminator as it is."""
        return self.replicas.first(self.replicas.run(self._learn_generator, step, rows, progress))

    def _learn_generator(self, step: tf.Tensor, rows: tf.Tensor, progress: tf.Tensor) -> Values:
        def learn(part: tf.Tensor) -> tuple[list[tf.Tensor], Values]:
            batch = self.batch(step, rows, part)
            tape, fake = self._generated(batch)
            return self._generator_gradients(batch, tape, fake, progress)

        gradients, values = self._over_parts(
            self._compiled(learn), self.generator, ["loss/generator"]
        )
        return replicas.all_reduce_sum(values) | self.generator.step(
            gradients, progress, "generator"
        )

    def both_steps(self, step: tf.Tensor, rows: tf.Tensor, progress: tf.Tensor) -> Values:
        """A step of either player on the same generated examples, which are generated once."""
        # A condition that the replicas meet in stands around their parts
        if self.lazy and self.replicas.count > 1:
            return self.discriminator_step(step, rows, progress) | self.generator_step(
                step, rows, progress
            )
        return self.replicas.first(self.replicas.run(self._learn_both, step, rows, progress))

    def _learn_both(self, step: tf.Tensor, rows: tf.Tensor, progress: tf.Tensor) -> Values:
        batch = self.batch(step, rows, tf.constant(0, tf.int64))
        tape, fake = self._generated(batch)
        values = self.discriminator_step(step, rows, progress, tf.stop_gradient(fake))
        gradients, more = self._generator_gradients(batch, tape, fake, progress)
        return (
            values
            | replicas.all_reduce_sum(more)
            | self.generator.step(gradients, progress, "generator")
        )

    def _generated(self, batch: Batch) -> tuple[tf.GradientTape, tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.generator.weights)
            fake = self.generate(batch)
        return tape, fake

    def _generator_gradients(
        self, batch: Batch, generated: tf.GradientTape, fake: tf.Tensor, progress: tf.Tensor
    ) -> tuple[list[tf.Tensor], Values]:
        with unchanged(self.discriminator.network):
            real = None
            if self.loss.relativistic:
                real = self.judge(
                    self.show(batch.real, batch.keys[:, _REAL], progress), batch.labels
                )
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(fake)
                logits = self.judge(self.show(fake, batch.keys[:, _FAKE], progress), batch.labels)
                loss = self._reduce(self.loss.generator(logits, real))
            slope = tape.gradient(loss, fake)  # [M, ...]
        gradients = generated.gradient(
            fake, self.generator.weights, slope, tf.UnconnectedGradients.ZERO
        )
        return gradients, {"loss/generator": loss}

    # ---- gradients -------------------------------------------------------------------------------

    def _compiled(self, python_function: Callable[..., Any]) -> Callable[..., Any]:
        """What XLA may compile of a replica's part: nothing if replicas meet inside, as in batch
        normalisation.
        """
        coupled = any(getattr(thing, "coupled", False) for thing in self._things())
        return python_function if coupled else replicas.compile_in_replica(python_function)

    def _things(self) -> Iterator[Any]:
        yield from (self.loss, *self.penalties.values(), *self.augmentations)
        for player in (self.generator, self.discriminator):
            yield from player.network.submodules

    def _tape(self) -> tf.GradientTape:
        return watching(self.discriminator.weights)

    def _gradients(self, tape: tf.GradientTape, total: tf.Tensor) -> list[tf.Tensor]:
        return tape.gradient(
            total, self.discriminator.weights, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )

    def _over_parts(
        self,
        learn: Callable[[tf.Tensor], tuple[list[tf.Tensor], Values]],
        player: Player,
        names: list[str],
    ) -> tuple[list[tf.Tensor], Values]:
        """The gradients and values (of these names) of a whole batch: those of its parts, added."""
        parts = self.rules.accumulation
        if parts == 1:
            return learn(tf.constant(0, tf.int64))
        # Which may meet in each part, as they cannot in a loop of the program
        if self.replicas.count > 1:
            found = [learn(tf.constant(part, tf.int64)) for part in range(parts)]
            return functools.reduce(functools.partial(tf.nest.map_structure, tf.add), found)

        def body(part: tf.Tensor, sums: Any) -> Any:
            return tf.nest.map_structure(tf.add, sums, learn(part))

        nothing = (
            [tf.zeros(w.shape) for w in player.weights],
            {name: tf.zeros([]) for name in names},
        )
        return loops.repeated(body, nothing, parts, most=parts)
