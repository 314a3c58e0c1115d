"""Spectral normalisation: layers that use their kernel divided by its largest singular value.

Miyato et al. 2018. The kernel itself is not overwritten, and the gradient sees the division. The
singular vectors are variables, moved by one power iteration each time `power_step` is called: the
trainer does that once in each step of the player whose layer it is, so that penalties, the other
player's steps and evaluations leave them unchanged.
"""

from typing import Any

import tensorflow as tf


class SpectralNorm:
    """Mixin for a Keras layer with a `kernel` [..., out], replaced in use by `normalized()`.

    The norm is that of the kernel as a matrix [everything else, out]; for a convolution that is not
    quite the norm of the map (Miyato et al. 2018, appendix; Sedghi et al. 2019).
    """

    kernel: tf.Variable

    def build(self, input_shape: tf.TensorShape) -> None:
        super().build(input_shape)  # type: ignore[misc]
        rows, columns = self._matrix().shape
        for name, size in (("left", rows), ("right", columns)):
            vector = self.add_weight(  # type: ignore[attr-defined]
                f"{name}_singular_vector",
                [size],
                tf.float32,
                tf.keras.initializers.RandomNormal(),
                trainable=False,
                # Every replica assigns it, all the same value
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
                experimental_autocast=False,
            )
            vector.assign(_unit(vector))
            setattr(self, name, vector)
        for _ in range(10):  # for an evaluation before training
            self.power_step()

    def _matrix(self) -> tf.Tensor:
        kernel = tf.cast(self.kernel, tf.float32)
        return tf.reshape(kernel, [-1, kernel.shape[-1]])  # [rows, out]

    def power_step(self) -> None:
        """Move the singular vectors by one power iteration."""
        matrix = tf.stop_gradient(self._matrix())
        self.left.assign(_unit(tf.linalg.matvec(matrix, self.right)))  # type: ignore[attr-defined]
        self.right.assign(_unit(tf.linalg.matvec(matrix, self.left, transpose_a=True)))  # type: ignore[attr-defined]

    def sigma(self) -> tf.Tensor:
        """Estimate the largest singular value, a scalar, differentiable in the kernel."""
        left = tf.identity(self.left)  # type: ignore[attr-defined]
        right = tf.identity(self.right)  # type: ignore[attr-defined]
        return tf.reduce_sum(left * tf.linalg.matvec(self._matrix(), right))

    def normalized(self) -> tf.Tensor:
        """Return the kernel over its norm, in the layer's compute dtype."""
        kernel = tf.cast(self.kernel, tf.float32) / self.sigma()
        return tf.cast(kernel, self.compute_dtype)  # type: ignore[attr-defined]

    def _finish(self, outputs: tf.Tensor) -> tf.Tensor:
        layer: Any = self
        outputs = tf.nn.bias_add(outputs, layer.bias) if layer.use_bias else outputs
        return outputs if layer.activation is None else layer.activation(outputs)


class SpectralDense(SpectralNorm, tf.keras.layers.Dense):
    """Dense layer with spectral normalisation: [B, in] -> [B, units]."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self._finish(tf.matmul(inputs, self.normalized()))


class SpectralConv2D(SpectralNorm, tf.keras.layers.Conv2D):
    """Convolution with spectral normalisation: [B, h, w, in] -> [B, h', w', filters]."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self._finish(self.convolution_op(inputs, self.normalized()))


def power_step(network: tf.Module) -> None:
    """Run one power iteration of every spectrally normalised layer in `network`."""
    for layer in (network, *network.submodules):
        if isinstance(layer, SpectralNorm):
            layer.power_step()


def _unit(vector: tf.Tensor) -> tf.Tensor:
    return vector / tf.maximum(tf.norm(vector), 1e-12)
