"""Residual networks: their shapes, what labels, attention and groups do, by hand."""

import numpy as np
import pytest
import tensorflow as tf

from sparring.errors import UserError
from sparring.gans import differentiability
from sparring.gans.networks.attention import SelfAttention
from sparring.gans.networks.minibatch_deviation import MinibatchDeviation
from sparring.gans.networks.residual import (
    ConditionalBatchNorm,
    DiscriminatorBlock,
    ResidualDiscriminator,
    ResidualGenerator,
    doubled,
    halved,
)
from sparring.gans.networks.spectral_norm import SpectralConv2D, SpectralDense

NO_LABELS = tf.zeros([4], tf.int64)


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3), (16, 24, 2)])
@pytest.mark.parametrize("normalization", ["batch", "spectral"])
def test_images_of_any_size_that_halves(shape: tuple[int, int, int], normalization: str) -> None:
    generator = ResidualGenerator(shape, width=2, normalization=normalization)
    judge = "spectral" if normalization == "spectral" else "none"
    discriminator = ResidualDiscriminator(shape, width=2, normalization=judge)
    images = generator(tf.random.stateless_normal([4, 5], [0, 0]), NO_LABELS, training=True)
    assert images.shape == (4, *shape)
    assert float(tf.reduce_max(tf.abs(images))) <= 1.0
    assert discriminator(images, NO_LABELS).shape == (4,)


def test_spectral_networks_have_no_other_kernels() -> None:
    generator = ResidualGenerator((16, 16, 1), width=4, normalization="spectral", attention=16)
    generator(tf.zeros([4, 5]), NO_LABELS)
    discriminator = ResidualDiscriminator((16, 16, 1), width=4, attention=8, deviation_group=2)
    discriminator(tf.zeros([4, 16, 16, 1]), NO_LABELS)
    for network in (generator, discriminator):
        kinds = (tf.keras.layers.Conv2D, tf.keras.layers.Dense)
        found = [layer for layer in network.submodules if isinstance(layer, kinds)]
        assert len(found) > 10
        assert all(isinstance(layer, SpectralConv2D | SpectralDense) for layer in found)


def test_pixels_are_doubled_and_halved() -> None:
    x = tf.constant([[[[1.0], [2.0]], [[3.0], [6.0]]]])
    big = [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 6, 6], [3, 3, 6, 6]]
    np.testing.assert_array_equal(doubled(x)[0, :, :, 0], big)
    np.testing.assert_array_equal(halved(x), [[[[3.0]]]])  # (1 + 2 + 3 + 6) / 4


def test_a_block_is_its_inputs_and_what_is_learned() -> None:
    block = DiscriminatorBlock(2, "none", down=False)
    x = tf.random.stateless_normal([1, 4, 4, 2], [0, 1])
    block(x)
    block.convs[1].kernel.assign(tf.zeros_like(block.convs[1].kernel))
    np.testing.assert_array_equal(block(x), x)
    down = DiscriminatorBlock(2, "none", down=True)
    down(x)
    for conv in down.convs:
        conv.kernel.assign(tf.zeros_like(conv.kernel))
    down.shortcut.kernel.assign(tf.eye(2)[tf.newaxis, tf.newaxis])
    np.testing.assert_allclose(down(x), halved(x), rtol=1e-6)


def test_a_class_has_a_scale_and_an_offset_of_its_own() -> None:
    norm = ConditionalBatchNorm(2)
    x = tf.constant([[[[-1.0]]], [[[1.0]]]])  # mean 0, variance 1
    labels = tf.constant([0, 1], tf.int64)
    plain = norm(x, labels, training=True)
    np.testing.assert_allclose(plain[:, 0, 0, 0], [0.0, 1.0], atol=1e-4)  # rectified
    norm.scale.assign([[2.0], [0.5]])
    norm.offset.assign([[4.0], [0.25]])
    # -1 * (1 + 2) + 4 = 1 and 1 * (1 + 0.5) + 0.25 = 1.75
    np.testing.assert_allclose(norm(x, labels, training=True)[:, 0, 0, 0], [1.0, 1.75], atol=1e-4)


def test_labels_count_in_conditional_networks_only() -> None:
    images = tf.random.stateless_normal([4, 8, 8, 1], [0, 2])
    latents = tf.random.stateless_normal([4, 5], [0, 3])
    others = tf.ones([4], tf.int64)
    for classes in (0, 3):
        discriminator = ResidualDiscriminator((8, 8, 1), classes, width=2)
        generator = ResidualGenerator((8, 8, 1), classes, width=2)
        generator(latents, NO_LABELS)
        for block in generator.blocks if classes else []:
            for norm in block.norms:
                norm.offset.assign(tf.random.stateless_normal(norm.offset.shape, [0, 4]))
        for network, given in ((discriminator, images), (generator, latents)):
            same = np.allclose(network(given, NO_LABELS), network(given, others))
            assert same == (classes == 0)


def test_attention_gathers_by_likeness() -> None:
    # Two places high, two wide: one pooled place, which has the whole weight of the softmax, so
    # that each gathers the mean value
    layer = SelfAttention(spectral=False)
    x = tf.random.stateless_normal([2, 2, 2, 8], [0, 5])
    np.testing.assert_array_equal(layer(x), x)  # the weight is at first zero
    layer.weight.assign(0.5)
    value = tf.reduce_mean(layer.value(x), axis=[1, 2], keepdims=True)
    np.testing.assert_allclose(layer(x), x + 0.5 * layer.out(value), atol=1e-5)
    # Keys that differ greatly: all of what a place gathers is the value of the like one
    layer = SelfAttention(spectral=False)
    x = np.zeros((1, 2, 4, 8), np.float32)
    x[0, :, :2, 0] = 1.0
    x[0, :, 2:, 0] = -1.0
    layer(tf.constant(x))
    layer.query.kernel.assign(np.eye(8)[:, :1].reshape(1, 1, 8, 1) * 50.0)
    layer.key.kernel.assign(np.eye(8)[:, :1].reshape(1, 1, 8, 1))
    layer.value.kernel.assign(np.eye(8)[:, :4].reshape(1, 1, 8, 4))
    layer.out.kernel.assign(np.eye(8)[:4].reshape(1, 1, 4, 8))
    layer.weight.assign(1.0)
    np.testing.assert_allclose(layer(tf.constant(x)), 2.0 * x, atol=1e-5)


def test_the_deviation_of_a_group_by_hand() -> None:
    # Two groups of two. First: values 0 and 2 in one channel, equal in the other: deviations 1 and
    # 0, mean 0.5. Second: equal examples, 0.
    x = np.zeros((4, 1, 1, 2), np.float32)
    x[1, 0, 0, 0] = 2.0
    x[2:] = 7.0
    shown = MinibatchDeviation(2)(tf.constant(x))
    np.testing.assert_array_equal(shown[..., :2], x)
    np.testing.assert_allclose(shown[:, 0, 0, 2], [0.5, 0.5, 0.0, 0.0], atol=2e-4)
    with pytest.raises(UserError, match="deviation_group=3 must divide a replica's part"):
        MinibatchDeviation(3)(tf.constant(x))


def test_gradients_of_gradients_are_there() -> None:
    network = ResidualDiscriminator((16, 16, 1), width=2, attention=8)
    network(tf.zeros([2, 16, 16, 1]), NO_LABELS[:2])
    network.attention.weight.assign(0.5)
    differentiability.check(network, (16, 16, 1), twice=True)


def test_a_side_that_no_map_has_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"attention=20: .* the nearest is 16 \(of 16, 8, 4\)"):
        ResidualDiscriminator((32, 32, 3), attention=20)
    with pytest.raises(UserError, match=r"attention=4: .* the nearest is 8 \(of 8, 16, 32\)"):
        ResidualGenerator((32, 32, 3), attention=4)
    with pytest.raises(UserError, match="network=residual: 30x30: both sides must be"):
        ResidualGenerator((30, 30, 3))
