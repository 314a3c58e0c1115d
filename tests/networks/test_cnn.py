"""Convolutional networks: both ways of convolving are TensorFlow's convolution, in value and
gradient.
"""

import numpy as np
import pytest
import tensorflow as tf

from sparring.errors import UserError
from sparring.networks.cnn import CNN, PatchConvolution
from sparring.xla import compilation

# height, width, channels, filters, size, stride
SHAPES = [
    (10, 10, 4, 16, 3, 1),
    (9, 7, 3, 5, 3, 2),
    (6, 8, 2, 4, 1, 1),
    (8, 8, 1, 3, 4, 3),
    (5, 5, 2, 2, 5, 1),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_patches_give_what_conv2d_gives(shape, mode):
    height, width, channels, filters, size, stride = shape
    rng = np.random.default_rng(0)
    inputs = tf.constant(rng.normal(size=(6, height, width, channels)), tf.float32)
    layer = PatchConvolution(filters, size, stride, tf.keras.initializers.Orthogonal())
    # Makes every gradient another
    weight = tf.constant(rng.normal(size=layer(inputs).shape), tf.float32)
    layer.bias.assign(rng.normal(size=filters))

    def ours(inputs, kernel, bias):
        return layer(inputs)

    def theirs(inputs, kernel, bias):
        return (
            tf.nn.conv2d(
                inputs, tf.reshape(kernel, [size, size, channels, filters]), stride, "VALID"
            )
            + bias
        )

    def with_gradients(convolve):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = convolve(inputs, layer.kernel, layer.bias)
            loss = tf.reduce_sum(outputs * weight)
        return outputs, *tape.gradient(loss, [inputs, layer.kernel, layer.bias])

    found = compilation.function(lambda: with_gradients(ours), mode)()
    expected = with_gradients(theirs)
    assert np.abs(expected[0]).max() > 1.0
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-5)


def test_both_networks_are_one_function():
    inputs = tf.constant(np.random.default_rng(0).normal(size=(3, 12, 10, 2)), tf.float32)
    settings = {
        "filters": (4, 3),
        "kernel_sizes": (3, 2),
        "strides": (1, 2),
        "units": (5,),
        "activation": "tanh",
    }
    patches = CNN(**settings, convolution="patches")
    conv2d = CNN(**settings)
    assert patches(inputs).shape == conv2d(inputs).shape == (3, 5)
    for one, other in zip(patches.trainable_weights, conv2d.trainable_weights, strict=True):
        one.assign(tf.reshape(other, one.shape))
    np.testing.assert_allclose(patches(inputs), conv2d(inputs), atol=1e-5)


def test_numbers_by_hand():
    # 2 x 2 ones over 1..9: 1 + 2 + 4 + 5 = 12, 16, 24, 28; minus 20: -8, -4, 4, 8; rectified 0, 0,
    # 4, 8; summed 12
    for convolution in ("patches", "conv2d"):
        layer = CNN((1,), (2,), (1,), (1,), convolution=convolution)
        board = tf.reshape(tf.range(1.0, 10.0), [1, 3, 3, 1])
        layer(board)
        kernel, bias, dense, _ = layer.trainable_weights
        kernel.assign(tf.ones_like(kernel))
        bias.assign([-20.0])
        dense.assign(tf.ones_like(dense))
        assert layer(board).numpy().tolist() == [[12.0]]


@pytest.mark.parametrize("convolution", ["patches", "conv2d"])
def test_the_defaults_are_minatars_network_started_orthogonally(convolution):
    layer = CNN(convolution=convolution)
    assert layer(tf.zeros([2, 10, 10, 4])).shape == (2, 128)
    kernel, bias, dense, dense_bias = (weight.numpy() for weight in layer.trainable_weights)
    assert kernel.size == 3 * 3 * 4 * 16
    assert dense.shape == (8 * 8 * 16, 128)
    flat = kernel.reshape(36, 16)
    np.testing.assert_allclose(flat.T @ flat, 2.0 * np.eye(16), atol=1e-5)
    np.testing.assert_allclose(dense.T @ dense, 2.0 * np.eye(128), atol=1e-4)
    assert not bias.any()
    assert not dense_bias.any()


def test_layers_of_one_shape_start_with_different_weights():
    layer = CNN((2, 2), (2, 2), (1, 1), (4,), convolution="patches")
    layer(tf.zeros([1, 6, 6, 2]))
    first, second = (weight.numpy() for weight in layer.trainable_weights if weight.shape == [8, 2])
    assert np.abs(first - second).max() > 0.1


def test_auto_is_xla_for_patches_and_a_graph_for_conv2d_on_a_cpu():
    for convolution, mode in (("patches", "xla"), ("conv2d", "graph")):
        layer = CNN(convolution=convolution)
        layer(tf.zeros([1, 10, 10, 4]))
        assert compilation.resolve("auto", layer.trainable_weights) == mode


def test_what_does_not_fit_is_refused():
    with pytest.raises(
        UserError, match=r"filters=\[16\], network.kernel_sizes=\[3, 3\].* as many of each"
    ):
        CNN(kernel_sizes=(3, 3))
    with pytest.raises(UserError, match="convolution=fft: choose one of patches, conv2d"):
        CNN(convolution="fft")
    for convolution in ("patches", "conv2d"):
        with pytest.raises(UserError, match="size 5 is larger than what it looks at: 4 x 9"):
            CNN((1,), (5,), (1,), convolution=convolution)(tf.zeros([1, 4, 9, 1]))
        with pytest.raises(
            UserError, match=r"looks at boards \[H, W, C\], and this observation is \(4,\)"
        ):
            CNN(convolution=convolution)(tf.zeros([1, 4]))
