"""Discriminators whose gradient cannot be differentiated are refused by the layer's name."""

from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from sparring.errors import UserError
from sparring.gans.differentiability import check, check_normalization, takes_gradient
from sparring.gans.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from sparring.gans.networks.layers import BatchNorm
from sparring.gans.networks.mlp import MLPDiscriminator
from sparring.gans.networks.pair import Pair
from sparring.gans.networks.projected import ProjectedDiscriminator
from sparring.gans.penalties import DRAGAN, R1, R2, WGANGP
from sparring.networks.pretrained import Pretrained
from tests.helpers.toy_gans import Images, make

SHAPE = (8, 8, 3)


class Features(tf.keras.layers.Layer):
    """Any function of images in the place of features."""

    def __init__(self, function) -> None:
        super().__init__(name="mine")
        self.function = function

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return tf.reshape(self.function(images), [images.shape[0], -1])


@tf.custom_gradient
def once(x: tf.Tensor):
    """Square of x, with a gradient that hides from the second tape."""

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        return tf.stop_gradient(2.0 * x * upstream)

    return tf.square(x), gradient


def behind(function) -> ProjectedDiscriminator:
    network = ProjectedDiscriminator(SHAPE, partial(Features, function), units=(4,))
    network(tf.zeros([2, *SHAPE]), tf.zeros([2], tf.int64))
    return network


@pytest.mark.parametrize(
    "function",
    [
        partial(tf.image.resize, size=(16, 16)),
        partial(tf.image.resize, size=(4, 4), method="bicubic"),
        once,
    ],
    ids=["bilinear", "bicubic", "custom"],
)
def test_a_gradient_without_a_gradient_is_refused_if_a_penalty_needs_one(function):
    network = behind(function)
    check(network, SHAPE, twice=False)
    with pytest.raises(UserError, match=r"penalty: .* gradient of Features \(mine\)") as said:
        check(network, SHAPE, twice=True)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("twice", [False, True])
def test_what_has_no_gradient_at_all_is_refused_always(twice):
    with pytest.raises(UserError, match=r"Features \(mine\) has no gradient, and the generator"):
        check(behind(tf.round), SHAPE, twice)


@pytest.mark.parametrize(
    "build",
    [
        lambda: behind(tf.nn.relu),
        lambda: behind(lambda x: tf.nn.max_pool2d(x, 2, 2, "VALID")),
        lambda: behind(lambda x: tf.repeat(x, 2, axis=1)),
        partial(MLPDiscriminator, SHAPE, units=(8,)),
        *(
            partial(DCGANDiscriminator, SHAPE, width=4, normalization=n, patches=p)
            for n in ("none", "batch", "layer", "spectral")
            for p in (False, True)
        ),
    ],
)
def test_networks_that_can_be_differentiated_twice_pass_and_are_left_as_they_were(build):
    network = build()
    network(tf.zeros([2, *SHAPE]), tf.zeros([2], tf.int64))
    before = [v.numpy() for v in network.variables]
    called = tf.keras.layers.Layer.__call__
    check(network, SHAPE, twice=True)
    for value, variable in zip(before, network.variables, strict=True):
        np.testing.assert_array_equal(value, variable)
    assert tf.keras.layers.Layer.__call__ is called


def two_sided(critic, real, fake, keys, progress):
    return tf.square(critic(real) - critic(fake))


def of_the_gradient(critic, real, fake, keys, progress):
    with tf.GradientTape() as tape:
        tape.watch(real)
        logits = tf.reduce_sum(critic(real))
    return tf.reduce_sum(tf.square(tape.gradient(logits, real)), axis=[1, 2, 3])


@pytest.mark.parametrize(
    ("penalty", "expected"),
    [
        (R1(1.0), True),
        (R2(1.0), True),
        (WGANGP(1.0), True),
        (DRAGAN(1.0), True),
        (of_the_gradient, True),
        (two_sided, False),
    ],
)
def test_penalties_that_take_a_gradient_are_known(penalty, expected):
    assert takes_gradient(penalty, SHAPE) is expected


def test_a_penalty_behind_a_missing_derivative_is_refused_at_the_start():
    network = Pair(
        partial(DCGANGenerator, width=2),
        partial(
            ProjectedDiscriminator,
            features=partial(Features, partial(tf.image.resize, size=(16, 16))),
        ),
        4,
    )
    data = Images(SHAPE)
    make(data, network)
    make(data, network, penalties={"mine": two_sided})
    with pytest.raises(UserError, match="set penalty=none"):
        make(data, network, penalties={"r1": R1(1.0)})


def test_keras_batch_normalisation_that_spoils_a_penalty_is_refused():
    for norm, refused in (
        (tf.keras.layers.BatchNormalization(), True),  # of vectors, it is not fused
        (tf.keras.layers.BatchNormalization(trainable=False), False),
        (BatchNorm(0.9, 1e-5), False),
        (tf.keras.layers.LayerNormalization(), False),
    ):
        network = tf.keras.Sequential([tf.keras.layers.Dense(3), norm])
        network.build([2, 4])
        with pytest.raises(UserError, match="BatchNorm in its") if refused else nullcontext():
            check_normalization(network)


@pytest.mark.long
def test_a_backbone_that_resizes_is_named():
    features = partial(Pretrained, "MobileNetV2", None, size=(32, 32), settings={"alpha": 0.35})
    network = ProjectedDiscriminator((16, 16, 3), features)
    network(tf.zeros([2, 16, 16, 3]), tf.zeros([2], tf.int64))
    with pytest.raises(UserError, match=r"gradient of Pretrained \(pretrained"):
        check(network, (16, 16, 3), twice=True)
