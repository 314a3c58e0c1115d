"""Spectral normalisation against the singular value decomposition."""

import numpy as np
import pytest
import tensorflow as tf

from sparring.gans.networks import spectral_norm
from sparring.gans.networks.spectral_norm import SpectralConv2D, SpectralDense


def built(
    layer: tf.keras.layers.Layer, shape: tuple[int, ...], spread: float = 3.0
) -> tf.keras.layers.Layer:
    layer.build(tf.TensorShape([None, *shape]))
    values = np.random.default_rng(0).normal(size=layer.kernel.shape) * spread
    layer.kernel.assign(values)
    return layer


def largest(layer: tf.keras.layers.Layer) -> float:
    """The largest singular value of the kernel as a matrix [everything else, out]."""
    kernel = layer.kernel.numpy()
    return float(np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0])


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(SpectralDense(6), (9,)), (SpectralDense(1), (9,)), (SpectralConv2D(5, 3), (8, 8, 2))],
)
def test_power_iteration_finds_the_largest_singular_value(
    layer: tf.keras.layers.Layer, shape: tuple[int, ...]
) -> None:
    built(layer, shape)
    errors = []
    for _ in range(60):
        spectral_norm.power_step(layer)
        errors.append(abs(float(layer.sigma()) - largest(layer)))
    assert errors[-1] < 1e-3 * largest(layer)
    assert errors[-1] <= errors[0]
    matrix = layer.normalized().numpy()
    assert np.linalg.svd(matrix.reshape(-1, matrix.shape[-1]), compute_uv=False)[
        0
    ] == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("settings", [{"dilation_rate": 2}, {"groups": 2}, {"strides": 2}])
def test_a_convolution_is_keras_own_of_the_normalised_kernel(settings: dict[str, int]) -> None:
    layer = built(SpectralConv2D(4, 3, **settings), (9, 9, 2))
    keras = built(tf.keras.layers.Conv2D(4, 3, **settings), (9, 9, 2))
    keras.kernel.assign(layer.kernel / layer.sigma())
    images = tf.constant(np.random.default_rng(1).normal(size=(2, 9, 9, 2)), tf.float32)
    np.testing.assert_allclose(layer(images), keras(images), atol=1e-5)


def test_one_power_step_is_the_one_worked_by_hand() -> None:
    # W = [[3, 0], [0, 1]], right (0.6, 0.8): W right = (1.8, 0.8), of norm 1.9698; W^T left = (5.4,
    # 0.8) / 1.9698
    layer = built(SpectralDense(2), (2,))
    layer.kernel.assign([[3.0, 0.0], [0.0, 1.0]])
    layer.right.assign([0.6, 0.8])
    spectral_norm.power_step(layer)
    left = np.array([1.8, 0.8]) / np.hypot(1.8, 0.8)
    right = np.array([5.4, 0.8]) / np.hypot(5.4, 0.8)
    np.testing.assert_allclose(layer.left, left, rtol=1e-6)
    np.testing.assert_allclose(layer.right, right, rtol=1e-6)
    assert float(layer.sigma()) == pytest.approx(
        3.0 * left[0] * right[0] + left[1] * right[1], rel=1e-6
    )


def test_neither_calls_nor_power_steps_change_the_kernel_and_calls_change_nothing() -> None:
    layer = built(SpectralDense(3), (4,))
    before = [v.numpy() for v in layer.variables]
    for _ in range(3):
        layer(tf.ones([2, 4]))
        layer(tf.ones([2, 4]), training=True)
    for variable, value in zip(layer.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    kernel = layer.kernel.numpy()
    spectral_norm.power_step(layer)
    np.testing.assert_array_equal(layer.kernel, kernel)
    assert not np.array_equal(layer.right, before[-1])


def test_the_gradient_sees_the_division() -> None:
    # d(W / s)/dW along W itself is nothing, since s grows with W; an assigned W / s would say
    # otherwise
    tf.keras.utils.set_random_seed(0)  # of some kernels rounding alone is above the bound
    layer = built(SpectralDense(3), (4,))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(tf.constant([[1.0, 2.0, -1.0, 0.5]])))
    assert np.vdot(
        tape.gradient(total, layer.kernel).numpy(), layer.kernel.numpy()
    ) == pytest.approx(0.0, abs=1e-5)
    assert [v.name for v in layer.trainable_variables] == [layer.kernel.name, layer.bias.name]


def test_what_comes_out_is_what_a_plain_layer_with_the_divided_kernel_gives() -> None:
    x = tf.constant(np.random.default_rng(1).normal(size=(2, 8, 8, 2)), tf.float32)
    ours = built(SpectralConv2D(5, 4, 2, "same", activation="relu"), (8, 8, 2))
    plain = built(tf.keras.layers.Conv2D(5, 4, 2, "same", activation="relu"), (8, 8, 2))
    ours.bias.assign(tf.range(5.0))
    plain.bias.assign(tf.range(5.0))
    plain.kernel.assign(ours.kernel / ours.sigma())
    np.testing.assert_allclose(ours(x), plain(x), rtol=1e-4, atol=1e-5)
