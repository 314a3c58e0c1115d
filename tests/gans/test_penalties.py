"""Penalties: closed forms, where they are taken, and their second-order gradients through every
layer there is.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from sparring.gans.networks import dcgan, layers, mlp
from sparring.gans.networks.dcgan import DCGANDiscriminator
from sparring.gans.networks.mlp import MLPDiscriminator
from sparring.gans.penalties import DRAGAN, R1, R2, WGANGP, Consistency, LeCam, squared_norm
from sparring.optim.schedules import Linear
from sparring.xla import random

pytestmark = pytest.mark.long

NOW = tf.constant(0.0)
SLOPES = np.float32([0.6, -1.0, 0.3, 1.1])  # squared norm 0.36 + 1 + 0.09 + 1.21 = 2.66
NORM = 2.66**0.5


def linear(examples: tf.Tensor) -> tf.Tensor:
    return tf.linalg.matvec(tf.reshape(examples, [-1, 4]), SLOPES) + 5.0


def paraboloid(examples: tf.Tensor) -> tf.Tensor:
    """Its gradient at x is x."""
    flat = tf.reshape(examples, [examples.shape[0], -1])
    return 0.5 * tf.reduce_sum(tf.square(flat), axis=1)


def keys(count: int) -> tf.Tensor:
    return random.members(random.stream(0, "test"), count)


@pytest.mark.parametrize(
    ("penalty", "expected"),
    [
        (R1(3.0), 1.5 * 2.66),
        (R2(3.0), 1.5 * 2.66),
        (R1(Linear(3.0, 1.0)), 1.5 * 2.66),
        (WGANGP(10.0), 10.0 * (NORM - 1.0) ** 2),
        (WGANGP(10.0, target=2.0), 10.0 * (NORM - 2.0) ** 2),
        (WGANGP(10.0, one_sided=True), 10.0 * (NORM - 1.0) ** 2),
        (WGANGP(10.0, target=2.0, one_sided=True), 0.0),
        (DRAGAN(10.0), 10.0 * (NORM - 1.0) ** 2),
    ],
)
@pytest.mark.parametrize("shape", [(4,), (2, 2, 1)])
def test_of_a_linear_discriminator(
    penalty: Callable, expected: float, shape: tuple[int, ...]
) -> None:
    generator = np.random.default_rng(0)
    real, fake = (tf.constant(generator.normal(size=(3, *shape)), tf.float32) for _ in range(2))
    found = penalty(linear, real, fake, keys(3), NOW)
    np.testing.assert_allclose(found, [expected] * 3, rtol=2e-6, atol=1e-9)


def test_a_weight_may_be_a_schedule() -> None:
    points = tf.zeros([1, 4])
    half = tf.constant(0.5)  # of the way from 3 to 1: gamma 2
    np.testing.assert_allclose(
        R1(Linear(3.0, 1.0))(linear, points, points, keys(1), half), [2.66], rtol=1e-6
    )


def test_r1_looks_at_real_and_r2_at_generated_examples() -> None:
    real = tf.constant([[3.0, 4.0], [0.0, 1.0]])
    fake = tf.constant([[1.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(R1(2.0)(paraboloid, real, fake, keys(2), NOW), [25.0, 1.0])
    np.testing.assert_allclose(R2(2.0)(paraboloid, real, fake, keys(2), NOW), [1.0, 0.0])


def test_patches_are_averaged_before_the_gradient() -> None:
    def two(examples: tf.Tensor) -> tf.Tensor:  # logits x and 3x: their mean has slope 2
        return tf.stack([examples, 3.0 * examples], axis=1)[..., tf.newaxis]  # [B, 2, 1, 1]

    np.testing.assert_allclose(squared_norm(two, tf.ones([3, 1])), [4.0] * 3)


def test_wgan_gp_takes_a_point_of_its_own_between_each_pair_uniformly() -> None:
    # gradient at x is x; real 0 and fake 10: with target 0 and weight 1 the penalty is (10 u)^2
    count = 4000
    real = tf.zeros([count, 1])
    fake = tf.fill([count, 1], 10.0)
    share = np.sqrt(WGANGP(1.0, target=0.0)(paraboloid, real, fake, keys(count), NOW)) / 10.0
    assert 0.0 <= share.min() < 0.01
    assert 0.99 < share.max() < 1.0
    assert share.mean() == pytest.approx(0.5, abs=4 * (1 / 12 / count) ** 0.5)
    assert share.var() == pytest.approx(1 / 12, rel=0.1)
    assert len(set(share.tolist())) > count // 2
    # and along one line: both coordinates have the same share
    real = tf.constant([[0.0, 0.0]])
    fake = tf.constant([[6.0, 8.0]])
    # |(y, x)|^2 = 100 u^2
    one = WGANGP(1.0, target=0.0)(lambda x: x[:, 0] * x[:, 1], real, fake, keys(1), NOW)
    # 36 u^2
    other = WGANGP(1.0, target=0.0)(lambda x: 0.5 * x[:, 0] ** 2, real, fake, keys(1), NOW)
    np.testing.assert_allclose(one / other, [100.0 / 36.0], rtol=1e-5)


def test_dragan_moves_real_examples_by_up_to_half_their_spread() -> None:
    # real +2 and -2 have spread 2: moved by share * 0.5 * 2 * noise, a product of two uniforms,
    # mean 1/4, in [0, 1)
    count = 4000
    real = tf.constant([[2.0], [-2.0]] * (count // 2))
    found = np.sqrt(DRAGAN(1.0, target=0.0)(paraboloid, real, real * 0.0, keys(count), NOW))
    moved = np.where(real[:, 0] > 0.0, found - 2.0, 2.0 - found)
    assert moved.min() >= -1e-6
    assert moved.max() < 1.0
    # Variance 1/9 - 1/16
    assert moved.mean() == pytest.approx(0.25, abs=4 * (7 / 144 / count) ** 0.5)


def test_a_gradient_of_nothing_is_penalised_without_nan() -> None:
    weight = tf.Variable([0.0, 0.0])
    for penalty in (WGANGP(10.0), DRAGAN(10.0), R1(1.0)):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(
                penalty(
                    lambda x: tf.linalg.matvec(x, weight),
                    tf.ones([2, 2]),
                    tf.zeros([2, 2]),
                    keys(2),
                    NOW,
                )
            )
        assert np.isfinite(tape.gradient(total, weight).numpy()).all()


# ---- second order --------------------------------------------------------------------------------

IMAGE = partial(DCGANDiscriminator, (8, 8, 2), width=3)
POINT = partial(MLPDiscriminator, (5,), units=(6, 6))
LAYERS = {
    **{f"dense, {n}": partial(POINT, normalization=n) for n in layers.NORMALIZATIONS},
    "convolution, none": IMAGE,
    "convolution, spectral": partial(IMAGE, normalization="spectral"),
    "patches": partial(IMAGE, patches=True),
    "projection": partial(POINT, classes=3),
    "projection, spectral": partial(POINT, classes=3, normalization="spectral"),
    "two layers, batch": partial(MLPDiscriminator, (5,), units=(4, 7), normalization="batch"),
    "two convolutions, batch": partial(
        DCGANDiscriminator, (16, 16, 1), width=2, normalization="batch"
    ),
    "two convolutions, layer": partial(
        DCGANDiscriminator, (16, 16, 1), width=2, normalization="layer"
    ),
    "two convolutions, spectral": partial(
        DCGANDiscriminator, (16, 16, 1), width=2, normalization="spectral"
    ),
}


def shape_of(name: str) -> tuple[int, ...]:
    return (
        (16, 16, 1)
        if name.startswith("two conv")
        else (8, 8, 2)
        if name in ("patches",) or "conv" in name
        else (5,)
    )


@pytest.mark.parametrize("name", LAYERS)
def test_the_gradient_of_a_penalty_is_that_of_finite_differences(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Along a random direction of all weights, with a smooth activation: no tape sees a rectifier's
    gradient jump.
    """
    for module in (mlp, dcgan):
        monkeypatch.setattr(module, "leaky_relu", lambda slope: lambda x: x * tf.sigmoid(x))
    tf.keras.utils.set_random_seed(1)
    generator = np.random.default_rng(0)
    shape = shape_of(name)
    real, fake = (tf.constant(generator.normal(size=(4, *shape)), tf.float32) for _ in range(2))
    labels = tf.constant([0, 1, 2, 0], tf.int64)
    network = LAYERS[name]()
    network(real, labels)
    # Initial weights are too small for much of a curvature
    for weight in network.trainable_variables:
        weight.assign_add(0.3 * generator.normal(size=weight.shape))
    penalties = (R1(2.0), R2(1.0), WGANGP(3.0), DRAGAN(2.0))

    def total() -> tf.Tensor:
        critic = lambda x: network(x, labels, training=True)  # noqa: E731
        return tf.add_n([tf.reduce_mean(p(critic, real, fake, keys(4), NOW)) for p in penalties])

    with tf.GradientTape() as tape:
        value = total()
    weights = network.trainable_variables
    slopes = tape.gradient(value, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    ways = [generator.normal(size=w.shape).astype(np.float32) for w in weights]
    expected = sum(float(np.vdot(s, d)) for s, d in zip(slopes, ways, strict=True))
    before = [w.numpy() for w in weights]

    def at(h: float) -> float:
        for weight, start, way in zip(weights, before, ways, strict=True):
            weight.assign(start + h * way)
        return float(total())

    coarse, fine = ((at(h) - at(-h)) / (2.0 * h) for h in (4e-3, 2e-3))
    # The error is of fourth order in h
    assert (4.0 * fine - coarse) / 3.0 == pytest.approx(expected, rel=3e-3)
    assert abs(expected) > 0.05  # there is something to compare


def test_the_gradient_of_a_penalty_through_leaky_rectifiers() -> None:
    # logit = a * leaky(w x), leaky with slope 1/4 below zero. At x = 1, w = -2, a = 3 its gradient
    # in x is a w / 4, so R1 with gamma 2 is (a w / 4)^2 = 2.25, with slopes 2 a w^2 / 16 = 1.5 in a
    # and 2 a^2 w / 16 = -2.25 in w.
    a = tf.Variable(3.0)
    w = tf.Variable(-2.0)
    leaky = layers.leaky_relu(0.25)
    with tf.GradientTape() as tape:
        found = R1(2.0)(
            lambda x: a * leaky(w * x[:, 0]), tf.ones([1, 1]), tf.ones([1, 1]), keys(1), NOW
        )
    np.testing.assert_allclose(found, [2.25])
    np.testing.assert_allclose(tape.gradient(found, [a, w]), [1.5, -2.25])


def test_batch_normalisation_by_keras_would_be_wrong_there() -> None:
    """The trap that `BatchNorm` is for: should a TensorFlow mend `tf.nn.moments`, this fails and
    the class may go.
    """
    x = tf.constant([[0.3], [1.0], [-2.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            variance = tf.nn.moments(x, [0])[1]
        first = inner.gradient(variance, x)[0]
    # d var / dx_0 = 2 (x_0 - m) / 3, whose derivatives are 2/3 (1 - 1/3), -2/9 and -2/9
    assert not np.allclose(
        tape.gradient(first, x)[:, 0], [4.0 / 9.0, -2.0 / 9.0, -2.0 / 9.0], rtol=1e-2
    )


# ---- of logits, without gradients ----------------------------------------------------------------


def first(examples: tf.Tensor) -> tf.Tensor:
    return examples[:, 0]


def test_lecam_keeps_logits_near_the_running_mean_of_the_other_kind() -> None:
    penalty = LeCam(2.0, decay=0.75)
    real = tf.constant([[4.0], [8.0]])
    fake = tf.constant([[-4.0], [0.0]])
    # Means after the first step: 0.25 * 6 = 1.5 and 0.25 * -2 = -0.5.
    # 2 ((4 + 0.5)^2 + (-4 - 1.5)^2) = 101, 2 ((8 + 0.5)^2 + (0 - 1.5)^2) = 149
    np.testing.assert_allclose(penalty(first, real, fake, keys(2), NOW), [101.0, 149.0])
    # Then 0.75 * 1.5 + 1.5 = 2.625 and 0.75 * -0.5 - 0.5 = -0.875
    penalty(first, real, fake, keys(2), NOW)
    np.testing.assert_allclose([penalty.real_mean, penalty.fake_mean], [2.625, -0.875])


def doubled(examples: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor) -> tf.Tensor:
    return 2.0 * examples


def test_consistency_is_of_logits_before_and_after_augmentations() -> None:
    real = tf.constant([[1.0], [-2.0]])
    fake = tf.constant([[3.0], [0.0]])
    twice = {"one": doubled, "two": doubled}
    # (x - 4 x)^2 = 9 x^2, half of that
    found = Consistency(0.5, twice)(first, real, fake, keys(2), NOW)
    np.testing.assert_allclose(found, [4.5, 18.0])
    found = Consistency(0.5, twice, balanced=True)(first, real, fake, keys(2), NOW)
    np.testing.assert_allclose(found, [4.5 + 40.5, 18.0])
