"""Generators and discriminators.

A generator is a Keras layer made by a factory `make(shape, classes)` and called as `(latents [B, Z], labels [B],
training)`; it returns examples `[B, *shape]`. A discriminator, made alike, is called as `(examples, labels, training)`
and returns logits, `[B]`, or of patches `[B, h, w, 1]`. `classes` is 0 for a model that is not conditional; labels are
then to be ignored. The two come as a `Pair`. What a user writes needs no more than that.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from gans.spectral import SpectralConv2D, SpectralDense
from research import strategy
from research.errors import UserError

Factory = Callable[..., tf.keras.layers.Layer]
NORMALIZATIONS = ("none", "batch", "layer", "spectral")


class Pair:
    """What a GAN consists of: factories of its two networks, and the size of a latent vector."""

    def __init__(self, generator: Factory, discriminator: Factory, latent: int) -> None:
        self.generator, self.discriminator, self.latent = generator, discriminator, latent

    def __call__(self, *arguments: Any) -> Any:
        raise UserError("This network is a GAN's pair of a generator and a discriminator: choose one network, as mlp.")


class MLPGenerator(tf.keras.layers.Layer):
    """Dense layers, rectified: latents [B, Z] -> examples [B, *shape]. A label is appended as a one-hot vector.

    `normalization`: none | batch. `bounded` ends in tanh, for images in [-1, 1].
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int = 0,
        units: Sequence[int] = (128, 128),
        normalization: str = "none",
        bounded: bool = False,
    ) -> None:
        super().__init__()
        _one_of(normalization, ("none", "batch"), "network.generator")
        self.shape, self.classes, self.bounded = tuple(shape), classes, bounded
        self.hidden = [_Dense(n, normalization, tf.nn.relu) for n in units]
        self.out = tf.keras.layers.Dense(tf.TensorShape(self.shape).num_elements())

    def call(self, latents: tf.Tensor, labels: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = _with_label(latents, labels, self.classes)  # [B, Z + classes]
        for layer in self.hidden:
            x = layer(x, training=training)  # [B, units]
        x = tf.reshape(self.out(x), [-1, *self.shape])
        return tf.tanh(x) if self.bounded else x


class MLPDiscriminator(tf.keras.layers.Layer):
    """Dense layers, leaky rectified: examples [B, *shape] -> logits [B]; inputs are flattened.

    `normalization`: none | batch | layer | spectral. A label adds its projection (Miyato and Koyama 2018).
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int = 0,
        units: Sequence[int] = (128, 128),
        normalization: str = "none",
        slope: float = 0.2,
    ) -> None:
        super().__init__()
        _one_of(normalization, NORMALIZATIONS, "network.discriminator")
        self.flatten = tf.keras.layers.Flatten()
        self.hidden = [_Dense(n, normalization, _leaky(slope)) for n in units]
        self.head = Head(classes, normalization)

    def call(self, examples: tf.Tensor, labels: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = self.flatten(examples)  # [B, F]
        for layer in self.hidden:
            x = layer(x, training=training)  # [B, units]
        return self.head(x, labels)


class DCGANGenerator(tf.keras.layers.Layer):
    """Transposed convolutions of stride two (Radford et al. 2015): latents [B, Z] -> images [B, h, w, C] in [-1, 1].

    From a smallest side of 4 to 7 every layer doubles the sides, up to any `shape` whose sides are that times one power
    of two. The last hidden layer has `width` channels, each one before it twice as many, up to `max_width`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int = 0,
        width: int = 64,
        max_width: int = 512,
        normalization: str = "batch",
    ) -> None:
        super().__init__()
        _one_of(normalization, ("none", "batch"), "network.generator")
        doublings = doublings_of(shape)
        widths = [min(width * 2**i, max_width) for i in reversed(range(doublings))]
        self.start = (shape[0] >> doublings, shape[1] >> doublings, widths[0])  # h, w, C of the smallest image
        self.classes = classes
        self.dense = tf.keras.layers.Dense(self.start[0] * self.start[1] * self.start[2], kernel_initializer=_normal())
        self.norms = [_Normalized(normalization, tf.nn.relu) for _ in widths]
        self.ups = [
            tf.keras.layers.Conv2DTranspose(n, 4, 2, "same", kernel_initializer=_normal())
            for n in (*widths[1:], shape[2])
        ]

    def call(self, latents: tf.Tensor, labels: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = tf.reshape(self.dense(_with_label(latents, labels, self.classes)), [-1, *self.start])
        for norm, up in zip(self.norms, self.ups, strict=True):
            x = up(norm(x, training=training))  # [B, 2h, 2w, channels]
        return tf.tanh(x)


class DCGANDiscriminator(tf.keras.layers.Layer):
    """Convolutions of stride two, the generator's mirror image: images [B, h, w, C] -> logits [B].

    `normalization`: none | batch | layer | spectral; the first layer has none but the spectral one. `patches` judges
    every place of the smallest image by itself (Isola et al. 2017): logits [B, h', w', 1].
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int = 0,
        width: int = 64,
        max_width: int = 512,
        normalization: str = "none",
        slope: float = 0.2,
        patches: bool = False,
    ) -> None:
        super().__init__()
        _one_of(normalization, NORMALIZATIONS, "network.discriminator")
        if patches and classes:
            raise UserError("network.discriminator.patches=true judges without a label: set game.conditional=false.")
        conv = SpectralConv2D if normalization == "spectral" else tf.keras.layers.Conv2D
        widths = [min(width * 2**i, max_width) for i in range(doublings_of(shape))]
        self.downs = [conv(n, 4, 2, "same", kernel_initializer=_normal()) for n in widths]
        self.norms = [_Normalized(normalization if i else "none", _leaky(slope)) for i in range(len(widths))]
        self.head = conv(1, 3, 1, "same", kernel_initializer=_normal()) if patches else Head(classes, normalization)
        self.flatten, self.patches = tf.keras.layers.Flatten(), patches

    def call(self, examples: tf.Tensor, labels: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = examples
        for down, norm in zip(self.downs, self.norms, strict=True):
            x = norm(down(x), training=training)  # [B, h / 2, w / 2, channels]
        return self.head(x) if self.patches else self.head(self.flatten(x), labels)


class Head(tf.keras.layers.Layer):
    """Features [B, F] -> logits [B]: linear, plus the projection on the label's embedding if there are classes."""

    def __init__(self, classes: int, normalization: str = "none") -> None:
        super().__init__()
        dense = SpectralDense if normalization == "spectral" else tf.keras.layers.Dense
        self.classes, self.linear = classes, dense(1)
        self.embedding = dense(classes, use_bias=False) if classes else None  # its column i is of class i

    def call(self, features: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        logits = self.linear(features)[:, 0]
        if self.embedding is None:
            return logits
        chosen = tf.one_hot(labels, self.classes, dtype=logits.dtype)  # [B, classes]
        return logits + tf.reduce_sum(chosen * self.embedding(features), axis=-1)


class _Dense(tf.keras.layers.Layer):
    """Dense, normalised, activated."""

    def __init__(self, units: int, normalization: str, activation: Callable[[tf.Tensor], tf.Tensor]) -> None:
        super().__init__()
        dense = SpectralDense if normalization == "spectral" else tf.keras.layers.Dense
        self.dense = dense(units, kernel_initializer="he_uniform")
        self.norm = _Normalized(normalization, activation, BatchNorm)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.norm(self.dense(inputs), training=training)


class _Normalized(tf.keras.layers.Layer):
    """Normalisation over the batch, or over each example ("layer"), or none of these here; then the activation."""

    def __init__(
        self,
        normalization: str,
        activation: Callable[[tf.Tensor], tf.Tensor],
        batch: Callable[..., tf.keras.layers.Layer] | None = None,
    ) -> None:
        super().__init__()
        self.activation, self.norm = activation, None
        if normalization == "batch":
            # Keras' kernel knows one replica's batch alone
            fused = (
                tf.keras.layers.BatchNormalization
                if strategy.count() == 1
                else functools.partial(BatchNorm, bessel=True)
            )
            self.norm = (batch or fused)(momentum=0.9, epsilon=1e-5)
        elif normalization == "layer":
            self.norm = tf.keras.layers.GroupNormalization(groups=1)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.activation(inputs if self.norm is None else self.norm(inputs, training=training))


class BatchNorm(tf.keras.layers.Layer):
    """Batch normalisation of [B, ..., F] over all replicas (Ioffe and Szegedy 2015) with the right second derivative.

    Keras' takes its variance from `tf.nn.moments`, which stops the gradient of the mean in it: that does not change a
    first derivative and spoils the second, so that the gradient of a penalty comes out wrong, silently. Its fused
    kernel, which convolutions get on one device, is right. `bessel` keeps the unbiased variance, as that kernel does.
    """

    coupled = True  # one example's output depends on the others of its batch

    def __init__(self, momentum: float, epsilon: float, bessel: bool = False) -> None:
        super().__init__()
        self.momentum, self.epsilon, self.bessel = momentum, epsilon, bessel

    def build(self, input_shape: tf.TensorShape) -> None:
        size = [input_shape[-1]]
        self.gamma = self.add_weight("gamma", size, initializer="ones")
        self.beta = self.add_weight("beta", size, initializer="zeros")
        self.moving_mean = self._statistic("moving_mean", size, "zeros")  # names as in Keras' layer
        self.moving_variance = self._statistic("moving_variance", size, "ones")

    def _statistic(self, name: str, size: list[int], initial: str) -> tf.Variable:
        where = {
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA,
        }
        return self.add_weight(name, size, initializer=initial, trainable=False, **where)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = tf.cast(inputs, tf.float32)
        mean, variance = tf.identity(self.moving_mean), tf.identity(self.moving_variance)
        if training:
            axes = list(range(x.shape.rank - 1))
            mean = strategy.average(tf.reduce_mean(x, axis=axes))
            variance = strategy.average(tf.reduce_mean(tf.square(x - mean), axis=axes))
            size = strategy.count() * x.shape[:-1].num_elements()
            unbiased = variance * (size / max(size - 1, 1)) if self.bessel else variance
            for kept, now in ((self.moving_mean, mean), (self.moving_variance, unbiased)):
                kept.assign(kept + (1.0 - self.momentum) * (now - kept))
        x = (x - mean) * tf.math.rsqrt(variance + self.epsilon)
        return tf.cast(x, inputs.dtype) * self.gamma + self.beta


def _leaky(slope: float) -> Callable[[tf.Tensor], tf.Tensor]:
    return functools.partial(tf.nn.leaky_relu, alpha=slope)


def _normal() -> tf.keras.initializers.Initializer:
    return tf.keras.initializers.RandomNormal(stddev=0.02)  # Radford et al. 2015, section 4


def _with_label(latents: tf.Tensor, labels: tf.Tensor, classes: int) -> tf.Tensor:
    """[B, Z] -> [B, Z + classes]."""
    return tf.concat([latents, tf.one_hot(labels, classes, dtype=latents.dtype)], axis=-1) if classes else latents


def _one_of(normalization: str, known: Sequence[str], key: str) -> None:
    if normalization not in known:
        raise UserError(f"{key}.normalization={normalization}: choose one of {', '.join(known)}.")


def doublings_of(shape: Sequence[int]) -> int:
    """How often both sides of an image [h, w, C] can be halved, to 4 at the least; UserError if that is no way."""
    sides, count = tuple(shape[:2]), 0
    if len(shape) != 3:
        raise UserError(
            f"network=dcgan makes images [h, w, C]; an example of this data is {list(shape)}: use network=gan_mlp."
        )
    while all(side % 2 == 0 and side >= 8 for side in sides):
        sides, count = (sides[0] // 2, sides[1] // 2), count + 1
    if count == 0 or max(sides) > 7:
        raise UserError(
            f"network=dcgan: {shape[0]}x{shape[1]}: both sides must be 4 to 7 times one power of two, and 8 at least, "
            "as 24x32 is: resize the images to 32x32, say, or use network=gan_mlp."
        )
    return count
