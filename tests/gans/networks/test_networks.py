"""The generators and discriminators: shapes, labels, normalisation, and what they refuse."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparring.errors import UserError
from sparring.gans.networks.dcgan import DCGANDiscriminator, DCGANGenerator, doublings_of
from sparring.gans.networks.layers import NORMALIZATIONS, BatchNorm
from sparring.gans.networks.mlp import MLPDiscriminator, MLPGenerator
from sparring.gans.networks.pair import Pair

pytestmark = pytest.mark.long

NO_LABELS = tf.zeros([3], tf.int64)


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3), (16, 24, 2), (64, 64, 3)])
def test_dcgan_makes_and_judges_images_of_any_size_that_halves(shape: tuple[int, int, int]) -> None:
    generator = DCGANGenerator(shape, width=2)
    discriminator = DCGANDiscriminator(shape, width=2)
    images = generator(tf.random.stateless_normal([3, 5], [0, 0]), NO_LABELS, training=True)
    assert images.shape == (3, *shape)
    assert float(tf.reduce_max(tf.abs(images))) <= 1.0
    assert discriminator(images, NO_LABELS).shape == (3,)


def test_widths_double_towards_the_small_end() -> None:
    # 32x32 halves three times, to 4x4: 4, 8 and 16 channels, no more than 10
    discriminator = DCGANDiscriminator((32, 32, 3), width=4, max_width=10)
    discriminator(tf.zeros([3, 32, 32, 3]), NO_LABELS)
    assert [d.kernel.shape.as_list() for d in discriminator.downs] == [
        [4, 4, 3, 4],
        [4, 4, 4, 8],
        [4, 4, 8, 10],
    ]
    generator = DCGANGenerator((32, 32, 3), width=4, max_width=10)
    generator(tf.zeros([3, 7]), NO_LABELS)
    assert generator.dense.kernel.shape == (7, 4 * 4 * 10)
    assert [u.kernel.shape.as_list()[2:] for u in generator.ups] == [
        [8, 10],
        [4, 8],
        [3, 4],
    ]  # out, in


def test_patches_are_judged_where_they_are() -> None:
    network = DCGANDiscriminator((32, 32, 1), width=2, patches=True)
    image = np.zeros((1, 32, 32, 1), np.float32)
    flat = network(tf.constant(image), NO_LABELS[:1])
    assert flat.shape == (1, 4, 4, 1)
    image[0, :4, :4] = 1.0
    moved = np.abs(network(tf.constant(image), NO_LABELS[:1]) - flat)[0, :, :, 0]
    assert moved[0, 0] > 0.0
    assert moved[3, 3] == 0.0


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("make", [MLPDiscriminator, DCGANDiscriminator])
def test_labels_count_in_a_conditional_discriminator_only(make: Any, normalization: str) -> None:
    images = tf.constant(np.random.default_rng(0).normal(size=(3, 16, 16, 2)), tf.float32)
    for classes in (0, 4):
        network = make((16, 16, 2), classes, normalization=normalization)
        ones, twos = (network(images, tf.fill([3], tf.constant(i, tf.int64))) for i in (1, 2))
        assert np.allclose(ones, twos) == (classes == 0)


@pytest.mark.parametrize("make", [MLPGenerator, DCGANGenerator])
def test_labels_count_in_a_conditional_generator_only(make: Any) -> None:
    latents = tf.ones([3, 5])
    for classes in (0, 4):
        network = make((8, 8, 2), classes)
        ones, twos = (network(latents, tf.fill([3], tf.constant(i, tf.int64))) for i in (1, 2))
        assert np.allclose(ones, twos) == (classes == 0)


def test_the_projection_is_the_class_vector_s_product_with_the_features() -> None:
    network = MLPDiscriminator((2,), classes=3, units=(4,))
    x = tf.constant([[1.0, -2.0]])
    plain = MLPDiscriminator((2,), units=(4,))
    plain(x, NO_LABELS[:1])
    network(x, NO_LABELS[:1])
    for theirs, ours in zip(plain.trainable_variables, network.trainable_variables, strict=False):
        theirs.assign(ours)  # the embedding comes last
    features = network.hidden[0](x)
    added = network(x, tf.constant([2], tf.int64)) - plain(x, NO_LABELS[:1])
    np.testing.assert_allclose(
        added, tf.linalg.matvec(features, network.head.embedding.kernel[:, 2]), rtol=1e-5
    )


def test_batch_normalisation_by_hand() -> None:
    # columns (1, 3) and (0, 8): means 2 and 4, variances 1 and 16
    layer = BatchNorm(momentum=0.9, epsilon=0.0)
    x = tf.constant([[1.0, 0.0], [3.0, 8.0]])
    np.testing.assert_allclose(layer(x, training=True), [[-1.0, -1.0], [1.0, 1.0]], rtol=1e-6)
    np.testing.assert_allclose(layer.moving_mean, [0.2, 0.4], rtol=1e-6)  # 0.9 * 0 + 0.1 * mean
    # 0.9 * 1 + 0.1 * variance
    np.testing.assert_allclose(layer.moving_variance, [1.0, 2.5], rtol=1e-6)
    np.testing.assert_allclose(layer(x), (x - [0.2, 0.4]) / np.sqrt([1.0, 2.5]), rtol=1e-6)
    layer.gamma.assign([2.0, 1.0])
    layer.beta.assign([0.0, 5.0])
    np.testing.assert_allclose(layer(x, training=True), [[-2.0, 4.0], [2.0, 6.0]], rtol=1e-6)
    theirs = tf.keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    ours = BatchNorm(0.9, 1e-5)
    wide = tf.constant(np.random.default_rng(0).normal(size=(7, 3)), tf.float32)
    np.testing.assert_allclose(
        ours(wide, training=True), theirs(wide, training=True), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((30, 30, 1), "30x30: both sides must be"),
        ((16, 32, 1), "one power of two"),
        ((4, 4, 1), "8 at least"),
        ((2,), r"is \[2\]: use network=gan_mlp"),
    ],
)
def test_images_that_do_not_halve_are_refused(shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        doublings_of(shape)


def test_what_else_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"network.discriminator.normalization=bach: choose one of none, batch"
    ):
        MLPDiscriminator((2,), normalization="bach")
    with pytest.raises(UserError, match=r"network.generator.normalization=spectral"):
        DCGANGenerator((8, 8, 1), normalization="spectral")
    with pytest.raises(
        UserError, match=r"patches=true judges without a label: set game\.conditional=false"
    ):
        DCGANDiscriminator((8, 8, 1), classes=2, patches=True)
    with pytest.raises(UserError, match="choose one network, as mlp"):
        Pair(MLPGenerator, MLPDiscriminator, 2)()
