"""Building blocks of generators and discriminators.

A generator is a Keras layer made by a factory `make(shape, classes)` and called as `(latents [B,
Z], labels [B], training)`; it returns examples `[B, *shape]`. A discriminator, made the same way,
is called as `(examples, labels, training)` and returns logits, `[B]`, or of patches `[B, h, w, 1]`.
`classes` is 0 for a model that is not conditional, which must ignore labels. The two come as a
`Pair`. Networks of your own need no more than that.
"""

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from sparring.distribute import replicas
from sparring.errors import UserError
from sparring.gans.networks.spectral_norm import SpectralDense

NORMALIZATIONS = ("none", "batch", "layer", "spectral")


class Head(tf.keras.layers.Layer):
    """Linear layer from features [B, F] to logits [B].

    With classes, adds the projection on the label's embedding (Miyato and Koyama 2018).
    """

    def __init__(self, classes: int, normalization: str = "none") -> None:
        super().__init__()
        dense = SpectralDense if normalization == "spectral" else tf.keras.layers.Dense
        self.classes = classes
        self.linear = dense(1)
        # Column i embeds class i
        self.embedding = dense(classes, use_bias=False) if classes else None

    def call(self, features: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        logits = self.linear(features)[:, 0]
        if self.embedding is None:
            return logits
        chosen = tf.one_hot(labels, self.classes, dtype=logits.dtype)  # [B, classes]
        return logits + tf.reduce_sum(chosen * self.embedding(features), axis=-1)


class DenseLayer(tf.keras.layers.Layer):
    """Dense layer, then normalisation and activation."""

    def __init__(
        self, units: int, normalization: str, activation: Callable[[tf.Tensor], tf.Tensor]
    ) -> None:
        super().__init__()
        dense = SpectralDense if normalization == "spectral" else tf.keras.layers.Dense
        self.dense = dense(units, kernel_initializer="he_uniform")
        self.norm = NormalizedLayer(normalization, activation, BatchNorm)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.norm(self.dense(inputs), training=training)


class NormalizedLayer(tf.keras.layers.Layer):
    """Normalisation over the batch, or over each example ("layer"), or none; then activation."""

    def __init__(
        self,
        normalization: str,
        activation: Callable[[tf.Tensor], tf.Tensor],
        batch: Callable[..., tf.keras.layers.Layer] | None = None,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.norm = None
        if normalization == "batch":
            # Keras' fused kernel normalises over one replica's batch only
            fused = (
                tf.keras.layers.BatchNormalization
                if replicas.num_replicas() == 1
                else functools.partial(BatchNorm, bessel=True)
            )
            self.norm = (batch or fused)(momentum=0.9, epsilon=1e-5)
        elif normalization == "layer":
            self.norm = tf.keras.layers.GroupNormalization(groups=1)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.activation(
            inputs if self.norm is None else self.norm(inputs, training=training)
        )


class BatchNorm(tf.keras.layers.Layer):
    """Batch normalisation of [B, ..., F] over all replicas, with a correct second derivative.

    Ioffe and Szegedy 2015. Keras' layer takes its variance from `tf.nn.moments`, which stops the
    gradient of the mean in it: that does not change a first derivative and spoils the second, so
    that the gradient of a penalty is silently wrong. Its fused kernel, which convolutions get on
    one device, is right. `bessel` keeps the unbiased variance, as that kernel does.
    """

    coupled = True  # one example's output depends on the others of its batch

    def __init__(self, momentum: float, epsilon: float, bessel: bool = False) -> None:
        super().__init__()
        self.momentum = momentum
        self.epsilon = epsilon
        self.bessel = bessel

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
        mean = tf.identity(self.moving_mean)
        variance = tf.identity(self.moving_variance)
        if training and self.trainable:
            axes = list(range(x.shape.rank - 1))
            mean = replicas.all_reduce_mean(tf.reduce_mean(x, axis=axes))
            variance = replicas.all_reduce_mean(tf.reduce_mean(tf.square(x - mean), axis=axes))
            size = replicas.num_replicas() * x.shape[:-1].num_elements()
            unbiased = variance * (size / max(size - 1, 1)) if self.bessel else variance
            for kept, now in ((self.moving_mean, mean), (self.moving_variance, unbiased)):
                kept.assign(kept + (1.0 - self.momentum) * (now - kept))
        x = (x - mean) * tf.math.rsqrt(variance + self.epsilon)
        return tf.cast(x, inputs.dtype) * self.gamma + self.beta


def leaky_relu(slope: float) -> Callable[[tf.Tensor], tf.Tensor]:
    return functools.partial(tf.nn.leaky_relu, alpha=slope)


def normal_initializer() -> tf.keras.initializers.Initializer:
    return tf.keras.initializers.RandomNormal(stddev=0.02)  # Radford et al. 2015, section 4


def append_label(latents: tf.Tensor, labels: tf.Tensor, classes: int) -> tf.Tensor:
    """Append one-hot labels: [B, Z] -> [B, Z + classes]."""
    return (
        tf.concat([latents, tf.one_hot(labels, classes, dtype=latents.dtype)], axis=-1)
        if classes
        else latents
    )


def check_choice(normalization: str, known: Sequence[str], key: str) -> None:
    if normalization not in known:
        raise UserError(f"{key}.normalization={normalization}: choose one of {', '.join(known)}.")
