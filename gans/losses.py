"""Losses of discriminator and generator, functions of logits.

A loss has two methods, `discriminator(real, fake)` and `generator(fake, real)`, from the logits of
real and of generated examples to one value per example, `[B]`; `sparring.gans.objective` reduces
them to a scalar. Logits are `[B]`, or those of patches `[B, h, w, 1]`, whose values are averaged
per example. `relativistic` says that the generator's loss depends on `real` too. Optional
attributes: `coupled = True` of a loss in which replicas meet, `unbounded = True` of a critic's
loss without a lower bound. `tf.Variable`s that a loss creates in its constructor are part of the
checkpoint. Any such class serves, in any package: name it in a YAML.
"""

from typing import Protocol

import tensorflow as tf

from sparring.distribute import replicas


class Loss(Protocol):
    """Losses of both players."""

    relativistic: bool  # whether the generator's loss needs the logits of real examples

    def discriminator(self, real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
        """Return the discriminator's loss, `[B]`, of logits `[B]` or `[B, h, w, 1]`."""

    def generator(self, fake: tf.Tensor, real: tf.Tensor | None) -> tf.Tensor:
        """Return the generator's loss, `[B]`; `real` is None unless the loss is relativistic."""


def per_example(values: tf.Tensor) -> tf.Tensor:
    """Average over every axis but the first, in float32: `[B, ...]` -> `[B]`."""
    values = tf.cast(values, tf.float32)
    return (
        tf.reduce_mean(values, axis=list(range(1, values.shape.rank)))
        if values.shape.rank > 1
        else values
    )


class NonSaturating:
    """Cross-entropy; the generator maximises log D(G(z)) (Goodfellow et al. 2014, section 3)."""

    relativistic = False

    def discriminator(self, real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
        return per_example(tf.nn.softplus(-real)) + per_example(tf.nn.softplus(fake))

    def generator(self, fake: tf.Tensor, real: tf.Tensor | None) -> tf.Tensor:
        return per_example(tf.nn.softplus(-fake))


class Minimax(NonSaturating):
    """Cross-entropy; the generator minimises log(1 - D(G(z))) (Goodfellow et al. 2014, eq. 1)."""

    def generator(self, fake: tf.Tensor, real: tf.Tensor | None) -> tf.Tensor:
        return per_example(-tf.nn.softplus(fake))


class Hinge:
    """Hinge loss with margins of one (Lim and Ye 2017; Miyato et al. 2018, eqs. 16 and 17)."""

    relativistic = False

    def discriminator(self, real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
        return per_example(tf.nn.relu(1.0 - real)) + per_example(tf.nn.relu(1.0 + fake))

    def generator(self, fake: tf.Tensor, real: tf.Tensor | None) -> tf.Tensor:
        return per_example(-fake)


class LeastSquares:
    """Squared distance to 1 for real, 0 for generated examples (Mao et al. 2017, eq. 9)."""

    relativistic = False

    def discriminator(self, real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
        return 0.5 * (per_example(tf.square(real - 1.0)) + per_example(tf.square(fake)))

    def generator(self, fake: tf.Tensor, real: tf.Tensor | None) -> tf.Tensor:
        return 0.5 * per_example(tf.square(fake - 1.0))


class Wasserstein:
    """Difference of means (Arjovsky et al. 2017, eqs. 2 and 3).

    Needs a gradient penalty or clipped weights.
    """

    relativistic = False
    unbounded = True

    def discriminator(self, real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
        return per_example(fake) - per_example(real)

    def generator(self, fake: tf.Tensor, real: tf.Tensor | None) -> tf.Tensor:
        return per_example(-fake)


class RelativisticPairing:
    """RpGAN: each real example against a generated one.

    Jolicoeur-Martineau 2018, section 4; Huang et al. 2024, eq. 2.
    """

    relativistic = True

    def discriminator(self, real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
        return per_example(tf.nn.softplus(fake - real))

    def generator(self, fake: tf.Tensor, real: tf.Tensor | None) -> tf.Tensor:
        assert real is not None
        return per_example(tf.nn.softplus(real - fake))


class RelativisticAverage:
    """RaGAN: each example against the mean of the other kind.

    Jolicoeur-Martineau 2018, eqs. 11 and 12. Means are over all replicas' examples of the batch;
    with accumulation, over each part of it.
    """

    relativistic = True
    coupled = True

    def discriminator(self, real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
        above = real - _mean(fake)
        below = fake - _mean(real)
        return per_example(tf.nn.softplus(-above)) + per_example(tf.nn.softplus(below))

    def generator(self, fake: tf.Tensor, real: tf.Tensor | None) -> tf.Tensor:
        assert real is not None
        return self.discriminator(fake, real)


def _mean(logits: tf.Tensor) -> tf.Tensor:
    """Average over the batch, patches and replicas; differentiable."""
    return replicas.all_reduce_mean(tf.reduce_mean(logits))
