"""Gradient penalties: terms of the discriminator's loss that keep it smooth.

A penalty is called as `penalty(critic, real, fake, keys, progress)` and returns one value per
example, `[B]`, its weight included. `critic` maps examples `[B, ...]` to logits `[B]` or `[B, h, w,
1]`; `keys` are uint32 `[B, 2]`; `progress` is the share of the run that is done, for weights that
are schedules. `real` and `fake` are the discriminator's inputs: augmented and packed. With batch
normalisation in the discriminator, an example's gradient depends on the rest of the batch.

State that a penalty keeps in `tf.Variable`s, created in its constructor, is part of the checkpoint.
With several replicas such a variable must be assigned the same value on all of them
(`sparring.distribute.replicas.assign`), and the penalty must have `coupled = True`.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import tensorflow as tf

from sparring.distribute import replicas
from sparring.gans.augmentation import Augmentation
from sparring.gans.losses import per_example
from sparring.optim.schedules import Schedule, as_schedule
from sparring.xla import random

Critic = Callable[[tf.Tensor], tf.Tensor]
_EPSILON = 1e-10  # inside the root of a norm, whose derivative at zero is not a number


class Penalty(Protocol):
    """Term of the discriminator's loss."""

    def __call__(
        self, critic: Critic, real: tf.Tensor, fake: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor
    ) -> tf.Tensor:
        """Return one value per example, `[B]`."""


def squared_norm(critic: Critic, examples: tf.Tensor) -> tf.Tensor:
    """Compute the squared norm of the logits' gradient at `examples` [B, ...], float32 `[B]`.

    Differentiable. Logits of patches are averaged per example first, as in the losses.
    """
    with tf.GradientTape() as tape:
        tape.watch(examples)
        total = tf.reduce_sum(per_example(critic(examples)))
    gradient = tf.cast(tape.gradient(total, examples), tf.float32)  # [B, ...]
    return tf.reduce_sum(tf.square(gradient), axis=list(range(1, gradient.shape.rank)))


class R1:
    """R1: gamma / 2 times the squared gradient norm at real examples.

    Mescheder et al. 2018, eq. 9.
    """

    def __init__(self, gamma: Schedule | float) -> None:
        self.gamma = as_schedule(gamma)

    def __call__(
        self, critic: Critic, real: tf.Tensor, fake: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor
    ) -> tf.Tensor:
        return 0.5 * self.gamma(progress) * squared_norm(critic, real)


class R2(R1):
    """R2: gamma / 2 times the squared gradient norm at generated examples.

    Mescheder et al. 2018, eq. 10.
    """

    def __call__(
        self, critic: Critic, real: tf.Tensor, fake: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor
    ) -> tf.Tensor:
        return 0.5 * self.gamma(progress) * squared_norm(critic, fake)


class WGANGP:
    """WGAN-GP: weight times (gradient norm - target)^2 between real and generated examples.

    Gulrajani et al. 2017, eq. 3, at random points of the lines between pairs. With `one_sided`,
    norms below the target cost nothing.
    """

    def __init__(
        self, weight: Schedule | float, target: float = 1.0, one_sided: bool = False
    ) -> None:
        self.weight = as_schedule(weight)
        self.target = target
        self.one_sided = one_sided

    def __call__(
        self, critic: Critic, real: tf.Tensor, fake: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor
    ) -> tf.Tensor:
        # [B, 1, ...]: one number per example, in [0, 1)
        share = _like(random.uniform(keys, 1), real)
        return self.weight(progress) * self._distance(critic, real + share * (fake - real))

    def _distance(self, critic: Critic, examples: tf.Tensor) -> tf.Tensor:
        over = tf.sqrt(squared_norm(critic, examples) + _EPSILON) - self.target  # [B]
        return tf.square(tf.nn.relu(over) if self.one_sided else over)


class DRAGAN(WGANGP):
    """DRAGAN: weight times (gradient norm - target)^2 near real examples.

    Real examples are moved by noise of up to half the batch's standard deviation (Kodali et al.
    2017, section 2.3). As in the authors' program: one standard deviation over all numbers of a
    batch, noise uniform in [0, 1), and a random share of the way.
    """

    coupled = True

    def __call__(
        self, critic: Critic, real: tf.Tensor, fake: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor
    ) -> tf.Tensor:
        size = real.shape[1:].num_elements()
        numbers = random.uniform(keys, size + 1)  # [B, 1 + size]
        share = _like(numbers[:, :1], real)
        noise = tf.reshape(numbers[:, 1:], tf.shape(real))
        moved = real + share * 0.5 * replicas.standard_deviation(real) * noise
        return self.weight(progress) * self._distance(critic, moved)


class LeCam:
    """LeCam: weight times the squared distance of logits from where the other kind's have been.

    Tseng et al. 2021, "Regularizing generative adversarial networks under limited data", eq. 5:
    real logits from the running mean of generated ones, and generated from that of real ones. The
    means are over all replicas, and move by 1 - `decay` at each step of the discriminator.
    """

    coupled = True

    def __init__(self, weight: Schedule | float, decay: float = 0.99) -> None:
        self.weight = as_schedule(weight)
        self.decay = decay
        self.real_mean = replicas.replicated(tf.zeros([]))
        self.fake_mean = replicas.replicated(tf.zeros([]))

    def __call__(
        self, critic: Critic, real: tf.Tensor, fake: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor
    ) -> tf.Tensor:
        real_logits = per_example(critic(real))  # [B]
        fake_logits = per_example(critic(fake))
        for kept, logits in ((self.real_mean, real_logits), (self.fake_mean, fake_logits)):
            now = replicas.all_reduce_mean(tf.reduce_mean(tf.stop_gradient(logits)))
            replicas.assign(kept, self.decay * kept + (1.0 - self.decay) * now)
        apart = tf.square(real_logits - self.fake_mean) + tf.square(fake_logits - self.real_mean)
        return self.weight(progress) * apart


class Consistency:
    """Consistency: weight times the squared difference that augmentations make to a logit.

    Of real examples, Zhang et al. 2020, "Consistency regularization for generative adversarial
    networks", eq. 3; with `balanced` of generated ones too, Zhao et al. 2021, "Improved consistency
    regularization for GANs", section 3.1.
    """

    def __init__(
        self,
        weight: Schedule | float,
        augmentations: Mapping[str, Augmentation],
        balanced: bool = False,
    ) -> None:
        self.weight = as_schedule(weight)
        self.augmentations = dict(augmentations)
        self.balanced = balanced

    def __call__(
        self, critic: Critic, real: tf.Tensor, fake: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor
    ) -> tf.Tensor:
        total = self._difference(critic, real, random.fold(keys, 0), progress)
        if self.balanced:
            total = total + self._difference(critic, fake, random.fold(keys, 1), progress)
        return self.weight(progress) * total

    def _difference(
        self, critic: Critic, examples: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor
    ) -> tf.Tensor:
        moved = examples
        for i, augment in enumerate(self.augmentations.values()):
            moved = augment(moved, random.fold(keys, i), progress)
        return tf.square(per_example(critic(examples)) - per_example(critic(moved)))  # [B]


def _like(column: tf.Tensor, examples: tf.Tensor) -> tf.Tensor:
    """Reshape [B, 1] -> [B, 1, ...], to be multiplied with examples [B, ...]."""
    return tf.reshape(column, [-1] + [1] * (examples.shape.rank - 1))
