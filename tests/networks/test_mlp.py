"""Fully connected networks: shapes, initial weights, and layers that do not start alike."""

import numpy as np
import pytest
import tensorflow as tf

from sparring.networks.mlp import MLP, fresh


def kernels(layer: tf.keras.layers.Layer, inputs: list[int]) -> list[np.ndarray]:
    layer(tf.zeros(inputs))
    return [v.numpy() for v in layer.trainable_weights if v.shape.rank == 2]


def test_the_default_is_orthogonal_with_gain_root_two_and_no_bias():
    layer = MLP((5, 5))
    first, second = kernels(layer, [1, 5])
    for kernel in (first, second):  # W^T W = 2 I
        np.testing.assert_allclose(kernel.T @ kernel, 2.0 * np.eye(5), atol=1e-5)
    assert [v.numpy().tolist() for v in layer.trainable_weights if v.shape.rank == 1] == [
        [0.0] * 5
    ] * 2


@pytest.mark.parametrize(
    "initializer", [None, "glorot_uniform", tf.keras.initializers.Orthogonal(1.0)]
)
def test_layers_of_one_shape_start_with_different_weights(initializer):
    # legacy Keras gives every layer the same numbers when they share one unseeded initializer
    first, second = kernels(MLP((4, 4), kernel_initializer=initializer), [1, 4])
    assert np.abs(first - second).max() > 0.1
    other = kernels(MLP((4, 4), kernel_initializer=initializer), [1, 4])[0]
    assert np.abs(first - other).max() > 0.1


def test_a_fresh_initializer_keeps_its_settings():
    a = tf.keras.initializers.RandomUniform(-3.0, -2.0, seed=5)
    b = fresh(a)
    assert b is not a
    np.testing.assert_array_equal(
        b([4]), tf.keras.initializers.RandomUniform(-3.0, -2.0, seed=5)([4])
    )
    assert fresh("ones")([2]).numpy().tolist() == [1.0, 1.0]


def test_numbers_by_hand():
    # inputs flattened: 1 + 2 - 3 - 4 = -4, + 1 = -3; tanh(-3) = -0.995055; two of those + 1:
    # -0.990110; tanh: -0.757409
    layer = MLP((2, 1), "tanh", kernel_initializer="ones", bias_initializer="ones")
    np.testing.assert_allclose(
        layer(tf.constant([[[1.0, 2.0], [-3.0, -4.0]]])), [[-0.757409]], atol=1e-5
    )


def test_the_activation_follows_every_layer():
    layer = MLP((1, 1), "relu", kernel_initializer=tf.keras.initializers.Constant(-1.0))
    assert layer(tf.constant([[2.0], [-2.0]])).numpy().tolist() == [
        [0.0],
        [0.0],
    ]  # -2 -> 0 -> 0; 2 -> -2 -> 0


def test_no_layers_only_flatten():
    assert MLP(())(tf.ones([3, 2, 2])).shape == (3, 4)
