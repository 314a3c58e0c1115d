"""Recurrent networks: Keras' own layers, in value and gradient; a step at a time as in one loop."""

import numpy as np
import pytest
import tensorflow as tf

from sparring.errors import UserError
from sparring.networks.rnn import RNN
from sparring.xla import compilation

LAYERS = {"lstm": tf.keras.layers.LSTM, "gru": tf.keras.layers.GRU}
INPUTS = np.random.default_rng(0).normal(size=(3, 5, 2)).astype(np.float32)


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_it_is_keras_layer_in_value_and_gradient(cell, mode):
    network = RNN(cell, (4, 6))
    theirs = tf.keras.Sequential([LAYERS[cell](4, return_sequences=True), LAYERS[cell](6)])
    network(INPUTS), theirs(INPUTS)
    theirs.set_weights(network.get_weights())
    weight = tf.constant(np.random.default_rng(1).normal(size=(3, 6)), tf.float32)

    def with_gradients(model):
        with tf.GradientTape() as tape:
            outputs = model(INPUTS)
            loss = tf.reduce_sum(outputs * weight)
        return [outputs, *tape.gradient(loss, model.trainable_variables)]

    found = compilation.function(lambda: with_gradients(network), mode)()
    for ours, expected in zip(found, with_gradients(theirs), strict=True):
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("cell", LAYERS)
def test_steps_come_to_the_same_as_the_loop(cell):
    network = RNN(cell, (4, 3))
    whole = network(INPUTS)
    state = network.start(3)
    for t in range(5):
        said, state = network.step(tf.constant(INPUTS[:, t]), state)
    np.testing.assert_allclose(said, whole, atol=1e-6)


def test_masked_steps_are_passed_over():
    network = RNN("lstm", (4,))
    mask = tf.constant([[True, True, False, True, False]] * 3)
    np.testing.assert_allclose(network(INPUTS, mask=mask), network(INPUTS[:, [0, 1, 3]]), atol=1e-6)


def test_what_is_no_sequence_and_no_cell_is_refused():
    with pytest.raises(
        UserError, match=r"goes through sequences \[T, F\], and an input here is \[4\]"
    ):
        RNN()(tf.zeros([2, 4]))
    with pytest.raises(UserError, match=r"network\.cell=elman: choose one of lstm, gru"):
        RNN("elman")
    with pytest.raises(UserError, match="one layer at least"):
        RNN(units=())
