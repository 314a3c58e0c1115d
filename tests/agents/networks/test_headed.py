"""Networks around a torso: what is done to observations, and copies with weights of their own."""

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from tf_agents.specs import tensor_spec

from sparring.agents.networks.headed import HeadedNetwork, Squeeze, prepare
from sparring.agents.networks.normalizers import ObservationNormalizer
from sparring.agents.networks.specs import time_step_spec
from sparring.networks.mlp import MLP


def headed(
    units=(4,), dtype=tf.float32, size=3, normalizer=None, head=lambda: tf.keras.layers.Dense(2)
):
    spec = tensor_spec.TensorSpec([size], dtype)
    return HeadedNetwork(spec, lambda: MLP(units), head, normalizer)


def summing():
    """The sum of the observation, as one value."""
    return tf.keras.layers.Dense(1, kernel_initializer="ones")


def test_bytes_are_scaled_to_one():
    network = headed((), tf.uint8, 3, head=summing)
    value, state = network(tf.constant([[255, 0, 51]], tf.uint8))  # 1 + 0 + 0.2
    np.testing.assert_allclose(value, [[1.2]], rtol=1e-6)
    assert state == ()


def test_bytes_are_scaled_by_the_highest_that_their_space_allows():
    """A board's 0 and 1 arrive as they are; of a space up to 4, a 1 is a quarter."""
    for highest, scaled in ((1, [0.0, 1.0]), (4, [0.0, 0.25]), (255, [0.0, 1.0 / 255.0])):
        spec = time_step_spec(spaces.Box(0, highest, (2,), np.uint8)).observation
        network = HeadedNetwork(spec, lambda: MLP(()), lambda: tf.keras.layers.Lambda(lambda x: x))
        for one in (network, network.copy()):
            np.testing.assert_allclose(one(tf.constant([[0, 1]], tf.uint8))[0], [scaled], rtol=1e-6)


def test_other_observations_are_taken_as_they_are_or_normalised():
    assert prepare(tf.constant([[255, -3]], tf.int32), None).numpy().tolist() == [[255.0, -3.0]]
    normalizer = ObservationNormalizer((2,))
    # two observations: means 2 and 10, spreads 1 and 5
    normalizer.update(tf.constant([[1.0, 5.0], [3.0, 15.0]]), tf.ones([2]))
    np.testing.assert_allclose(
        prepare(tf.constant([[4.0, 0.0]]), normalizer), [[2.0, -2.0]], rtol=1e-6
    )
    network = headed((), size=2, normalizer=normalizer, head=summing)
    np.testing.assert_allclose(network(tf.constant([[4.0, 5.0]]))[0], [[2.0 - 1.0]], rtol=1e-5)


def test_bytes_are_not_normalised_twice():
    normalizer = ObservationNormalizer((1,))
    normalizer.update(tf.constant([[100.0], [200.0]]), tf.ones([2]))
    assert prepare(tf.constant([[255]], tf.uint8), normalizer).numpy().tolist() == [[1.0]]


def test_a_batch_of_arrays_is_a_batch_of_tensors():
    network = headed((), np.uint8, 2, head=summing)
    np.testing.assert_allclose(network(np.array([[255, 255]], np.uint8))[0], [[2.0]], rtol=1e-6)


def test_a_copy_has_weights_of_its_own():
    normalizer = ObservationNormalizer((3,))
    network = headed(normalizer=normalizer)
    copy = network.copy(name="other")
    x = tf.constant([[1.0, -2.0, 0.5]])
    before = network(x)[0].numpy()
    # Drawn anew, not shared and not repeated
    assert np.abs(copy(x)[0].numpy() - before).max() > 1e-3
    mine = network.trainable_weights
    theirs = copy.trainable_weights
    assert [v.shape for v in mine] == [v.shape for v in theirs] == [(3, 4), (4,), (4, 2), (2,)]
    assert not {id(v) for v in mine} & {id(v) for v in theirs}
    for a, b in zip(mine, theirs, strict=True):
        b.assign(a)
    np.testing.assert_array_equal(copy(x)[0], before)
    theirs[0].assign_add(tf.ones([3, 4]))
    np.testing.assert_array_equal(network(x)[0], before)
    normalizer.update(tf.constant([[1.0, -2.0, 0.5], [3.0, 2.0, 1.0]]), tf.ones([2]))
    theirs[0].assign(mine[0])
    np.testing.assert_array_equal(copy(x)[0], network(x)[0])  # the statistics are shared


@pytest.mark.parametrize("gain", [1.0, 0.01])
def test_squeeze_is_a_dense_layer_of_one_output_as_a_vector(gain):
    layer = Squeeze(gain)
    assert layer(tf.ones([5, 4])).shape == (5,)
    # Orthogonal: a unit vector
    np.testing.assert_allclose(np.linalg.norm(layer.dense.kernel), gain, rtol=1e-5)
    layer.dense.kernel.assign([[1.0], [2.0], [3.0], [4.0]])
    assert layer(tf.constant([[1.0, 0.0, 0.0, 1.0]])).numpy().tolist() == [5.0]
