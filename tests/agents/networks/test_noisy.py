"""Noisy layers by hand."""

import numpy as np
import pytest
import tensorflow as tf

from sparring.agents.networks import noisy
from sparring.agents.networks.noisy import NoisyDense
from sparring.xla import random

KEYS = random.members(random.stream(0, "policy"), 3)
FEATURES = tf.constant([[1.0, 2.0, 3.0, 4.0]])


def layer(units: int = 2) -> NoisyDense:
    made = NoisyDense(units)
    made(FEATURES)
    return made


def test_without_keys_it_is_a_dense_layer_of_the_mean_weights() -> None:
    one = layer()
    one.bias.assign([0.5, 0.0])
    expected = FEATURES @ one.kernel + [0.5, 0.0]
    np.testing.assert_allclose(one(FEATURES), expected, rtol=1e-6)


def test_it_begins_as_the_paper_says() -> None:
    one = layer(400)
    # With 4 inputs: uniform within 1/2 of zero, whose variance is 1/12; deviations 0.5 / 2
    for mean in (one.kernel, one.bias):
        assert np.abs(mean).max() <= 0.5
        assert np.var(mean) == pytest.approx(1 / 12, rel=0.2)
    for std in (one.kernel_std, one.bias_std):
        np.testing.assert_array_equal(std, np.full(std.shape, 0.25, np.float32))


def test_the_noise_of_a_weight_is_its_inputs_times_its_outputs() -> None:
    one = layer()
    with noisy.noise(one_in_a_model(one), KEYS[:1]):
        found = one(FEATURES)
    drawn = random.normal(random.fold(KEYS[:1], 0), 6)[0].numpy()  # of 4 inputs and 2 outputs
    scaled = np.sign(drawn) * np.sqrt(np.abs(drawn))
    kernel = one.kernel + one.kernel_std * np.outer(scaled[:4], scaled[4:])
    bias = one.bias + one.bias_std * scaled[4:]
    np.testing.assert_allclose(found, FEATURES @ kernel + bias, rtol=1e-5)
    np.testing.assert_allclose(one(FEATURES), FEATURES @ one.kernel + one.bias, rtol=1e-6)


def one_in_a_model(one: NoisyDense) -> tf.keras.Sequential:
    return tf.keras.Sequential([one])


def test_each_member_has_a_noise_of_its_own_and_one_key_is_for_all() -> None:
    one = layer()
    model = one_in_a_model(one)
    same = tf.repeat(FEATURES, 3, axis=0)
    with noisy.noise(model, KEYS):
        each = one(same).numpy()
        again = one(same).numpy()
    with noisy.noise(model, KEYS[1:2]):
        shared = one(same).numpy()
    np.testing.assert_array_equal(each, again)
    assert len(np.unique(each[:, 0])) == 3
    np.testing.assert_allclose(shared, np.repeat(each[1:2], 3, axis=0), rtol=1e-6)


def test_the_mean_over_noise_is_the_mean_weights() -> None:
    one = layer(1)
    keys = random.members(random.stream(1, "policy"), 20_000)
    with noisy.noise(one_in_a_model(one), keys):
        drawn = one(tf.repeat(FEATURES, 20_000, axis=0)).numpy()[:, 0]
    # f(x) = sign(x) sqrt(|x|) has mean 0 and variance E|x| = sqrt(2 / pi): the output's variance is
    # 0.25^2 (30 (2 / pi) + sqrt(2 / pi)), with 1 + 4 + 9 + 16 = 30
    variance = 0.0625 * (30 * 2 / np.pi + np.sqrt(2 / np.pi))
    assert abs(drawn.mean() - float(one(FEATURES)[0, 0])) < 5 * np.sqrt(variance / 20_000)
    assert np.var(drawn) == pytest.approx(variance, rel=0.05)


def test_two_layers_have_different_noise() -> None:
    model = tf.keras.Sequential([NoisyDense(4), NoisyDense(4)])
    model(FEATURES)
    first, second = noisy.layers(model)
    second.set_weights(first.get_weights())
    with noisy.noise(model, KEYS[:1]):
        assert not np.allclose(first(FEATURES), second(FEATURES))
