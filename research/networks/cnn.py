"""Convolutional networks for small boards and images."""

from collections.abc import Sequence

import tensorflow as tf

from sparring.errors import UserError
from sparring.networks.mlp import MLP, LayerNorm, fresh


class PatchConvolution(tf.keras.layers.Layer):
    """Convolution without padding, computed from patches: [B, H, W, C] -> [B, H', W', filters].

    It equals tf.nn.conv2d, as one matrix product with a kernel kept as a matrix [size * size * C,
    filters], rows ordered by patch row, patch column, channel. On a CPU XLA compiles matrix
    products well and convolutions badly; the patches take size * size times the input's memory.
    """

    def __init__(
        self,
        filters: int,
        size: int,
        stride: int,
        kernel_initializer: tf.keras.initializers.Initializer,
    ) -> None:
        super().__init__()
        self.filters = filters
        self.size = size
        self.stride = stride
        self._initializer = kernel_initializer

    def build(self, input_shape: tf.TensorShape) -> None:
        height, width, channels = input_shape[1:]
        self.rows, self.columns = (
            (side - self.size) // self.stride + 1 for side in (height, width)
        )
        self.kernel = self.add_weight(
            "kernel", [self.size**2 * channels, self.filters], None, self._initializer
        )
        self.bias = self.add_weight("bias", [self.filters], None, "zeros")
        super().build(input_shape)

    def patches(self, inputs: tf.Tensor) -> tf.Tensor:
        """Extract patches: [B, H, W, C] -> [B, H', W', size * size * C]."""
        step = self.stride
        height = step * (self.rows - 1) + 1
        width = step * (self.columns - 1) + 1
        found = []
        for top in range(self.size):
            for left in range(self.size):
                found.append(inputs[:, top : top + height : step, left : left + width : step])
        return tf.concat(found, axis=-1)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        patches = self.patches(inputs)
        products = tf.reshape(patches, [-1, patches.shape[-1]]) @ self.kernel + self.bias
        return tf.reshape(products, [-1, self.rows, self.columns, self.filters])


class CNN(tf.keras.layers.Layer):
    """Convolutions and then dense layers of `units`: [B, H, W, C] -> [B, units[-1]].

    The defaults are MinAtar's network (Young and Tian 2019, section 4): 16 filters of 3 x 3, then
    128 units. The initialisation is orthogonal with gain sqrt(2) and zero biases, as the MLP's.

    Args:
        filters: filters of each convolution.
        kernel_sizes: width and height of each convolution's kernels.
        strides: strides of each convolution.
        units: of the dense layers.
        activation: after every layer.
        convolution: "patches" for a matrix product of patches, "conv2d" for TensorFlow's own
            operation.
        layer_norm: whether each layer is normalised (Ba et al. 2016) before its activation, over
            its filters or units.
    """

    def __init__(
        self,
        filters: Sequence[int] = (16,),
        kernel_sizes: Sequence[int] = (3,),
        strides: Sequence[int] = (1,),
        units: Sequence[int] = (128,),
        activation: str = "relu",
        convolution: str = "conv2d",
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        if not len(filters) == len(kernel_sizes) == len(strides):
            raise UserError(
                f"network.filters={list(filters)}, network.kernel_sizes={list(kernel_sizes)}, "
                f"network.strides={list(strides)}: give as many of each, one per convolution."
            )
        if convolution not in CONVOLUTIONS:
            raise UserError(
                f"network.convolution={convolution}: choose one of {', '.join(CONVOLUTIONS)}."
            )
        make = CONVOLUTIONS[convolution]
        self._sizes = tuple(kernel_sizes)
        self.convolutions = [
            make(*sizes, fresh(tf.keras.initializers.Orthogonal(2.0**0.5)))
            for sizes in zip(filters, kernel_sizes, strides, strict=True)
        ]
        self.activation = tf.keras.activations.get(activation)
        self.norms = [LayerNorm(activation) for _ in filters] if layer_norm else []
        self.dense = MLP(units, activation, layer_norm=layer_norm)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        x = inputs  # [B, H, W, C]
        for number, convolution in enumerate(self.convolutions):
            _check_looks(x.shape, self._sizes[number])
            x = convolution(x)
            x = self.norms[number](x) if self.norms else self.activation(x)
        return self.dense(x)


def _check_looks(shape: tf.TensorShape, size: int) -> None:
    if shape.rank != 4:
        raise UserError(
            f"network=cnn looks at boards [H, W, C], and this observation is {shape[1:]}: take "
            "network=mlp."
        )
    height, width = shape[1:3]
    if min(height, width) < size:
        told = f"a kernel of size {size} is larger than what it looks at: {height} x {width}"
        raise UserError(f"network.kernel_sizes: {told}.")


def _conv2d(
    filters: int, size: int, stride: int, kernel_initializer: tf.keras.initializers.Initializer
) -> tf.keras.layers.Layer:
    return tf.keras.layers.Conv2D(filters, size, stride, kernel_initializer=kernel_initializer)


CONVOLUTIONS = {"patches": PatchConvolution, "conv2d": _conv2d}
