"""Dropout of a discriminator: masks from keys, in learning steps alone."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from sparring.errors import UserError
from sparring.gans.discriminator_step import DiscriminatorStep
from sparring.gans.losses import NonSaturating
from sparring.gans.networks.dropout import Dropout, dropping, layers
from sparring.gans.networks.mlp import MLPDiscriminator, MLPGenerator
from sparring.gans.networks.pair import Pair
from sparring.gans.penalties import R1
from sparring.optim.optimizer import Scheduled
from sparring.xla import random
from tests.helpers import replicas, toy_gans
from tests.helpers.small_imitation import make

KEYS = random.members(random.stream(0, "test"), 2000)
network = functools.partial(MLPDiscriminator, units=[8], dropout=0.5)


def test_a_share_of_features_is_zero_and_the_mean_stays() -> None:
    layer = Dropout(0.25)
    ones = tf.ones([2000, 5])
    with dropping(layer, KEYS):
        found = layer(ones, training=True).numpy()
        again = layer(ones, training=True).numpy()
        resting = layer(ones, training=False)
    assert set(np.unique(found)) == {0.0, np.float32(1.0 / 0.75)}
    # 10 000 draws: four standard deviations of a share of 0.25 are 0.017
    assert np.mean(found == 0.0) == pytest.approx(0.25, abs=0.017)
    assert np.mean((found == 0.0) & (again == 0.0)) == pytest.approx(0.0625, abs=0.01)
    np.testing.assert_array_equal(resting, ones)
    np.testing.assert_array_equal(layer(ones, training=True), ones)  # nobody gave keys


def test_a_row_is_dropped_by_its_own_key_alone() -> None:
    layer = Dropout(0.5)
    ones = tf.ones([8, 6])
    with dropping(layer, KEYS[:8]):
        whole = layer(ones, training=True).numpy()
    with dropping(layer, KEYS[4:8]):
        half = layer(ones[4:], training=True)
    np.testing.assert_array_equal(whole[4:], half)


def test_layers_of_a_network_have_masks_of_their_own() -> None:
    built = MLPDiscriminator((3,), units=[16, 16], dropout=0.5)
    built(tf.zeros([1, 3]), tf.zeros([1], tf.int64))
    first, second = layers(built)
    with dropping(built, KEYS[:50]):
        masks = [layer(tf.ones([50, 16]), training=True).numpy() for layer in (first, second)]
    assert not np.array_equal(*masks)


def step(**settings: float) -> DiscriminatorStep:
    tf.keras.utils.set_random_seed(0)
    optimizer = Scheduled(tf.keras.optimizers.AdamW(epsilon=1e-3, **settings), 0.5)
    return DiscriminatorStep(3, 8, network, NonSaturating(), optimizer, {"r1": R1(0.1)})


def test_steps_of_one_key_are_one_and_of_another_are_not() -> None:
    real = tf.random.stateless_normal([8, 3], [0, 0])
    fake = tf.random.stateless_normal([8, 3], [0, 1])
    found = []
    for first in (0, 0, 8):
        made = step(weight_decay=0.0)
        made.update(real, fake, KEYS[first : first + 8], tf.constant(0.0))
        found.append(made.discriminator.weights[0].numpy())
        logits = made.logits(real)
        np.testing.assert_array_equal(logits, made.logits(real))  # at rest nothing is dropped
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_weight_decay_takes_its_share_of_the_weights() -> None:
    # Beside the step without it: a rate of 0.5 times a decay of 0.1 takes a twentieth
    before = step().discriminator.weights[0].numpy()
    after = []
    for decay in (0.0, 0.1):
        made = step(weight_decay=decay)
        made.update(tf.ones([8, 3]), tf.zeros([8, 3]), KEYS[:8], tf.constant(0.0))
        after.append(made.discriminator.weights[0].numpy())
    np.testing.assert_allclose(after[0] - after[1], 0.05 * before, atol=1e-6)


@pytest.mark.long
def test_two_replicas_are_one() -> None:
    one, two = replicas.pair(lambda: make(network=network, compile="graph"))
    for trainer in (one, two):
        trainer.train(32)
    replicas.assert_alike(one, two, atol=1e-5)


def test_a_gan_refuses_it() -> None:
    with pytest.raises(UserError, match=r"^network.discriminator.dropout: the generator's step"):
        toy_gans.make(network=Pair(functools.partial(MLPGenerator, units=[4]), network, 2))
