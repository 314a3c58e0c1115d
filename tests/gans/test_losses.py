"""GAN losses against numbers worked by hand."""

import math

import numpy as np
import pytest
import tensorflow as tf

from sparring.gans import losses

LN2 = math.log(2.0)
# Logits that make cross-entropies plain: softplus(ln 3) = ln(1 + 3) = ln 4, softplus(-ln 3) =
# ln(4/3).
REAL = [0.0, math.log(3.0)]
FAKE = [math.log(3.0), 0.0]
LN4 = math.log(4.0)
LN43 = math.log(4.0 / 3.0)

CASES = {
    # -log D(x) - log(1 - D(G(z))): softplus(-0) + softplus(ln 3); softplus(-ln 3) + softplus(0)
    "NonSaturating": ([LN2 + LN4, LN43 + LN2], [LN43, LN2]),
    "Minimax": ([LN2 + LN4, LN43 + LN2], [-LN4, -LN2]),
    # max(0, 1 - 0) + max(0, 1 + ln 3); 1 - ln 3 < 0, so 0, + max(0, 1 + 0)
    "Hinge": ([1.0 + 1.0 + math.log(3.0), 1.0], [-math.log(3.0), 0.0]),
    # half of (0 - 1)^2 + (ln 3)^2; half of (ln 3 - 1)^2 + 0; the generator's: half of (ln 3 - 1)^2,
    # and of (0 - 1)^2
    "LeastSquares": (
        [0.5 + 0.5 * math.log(3.0) ** 2, 0.5 * (math.log(3.0) - 1.0) ** 2],
        [0.5 * (math.log(3.0) - 1.0) ** 2, 0.5],
    ),
    "Wasserstein": ([math.log(3.0), -math.log(3.0)], [-math.log(3.0), 0.0]),
    # softplus(fake - real) = softplus(ln 3), softplus(-ln 3); the generator's are the other way
    # round
    "RelativisticPairing": ([LN4, LN43], [LN43, LN4]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_loss_is_what_its_paper_says(name: str) -> None:
    loss, (discriminator, generator) = getattr(losses, name)(), CASES[name]
    real = tf.constant(REAL)
    fake = tf.constant(FAKE)
    np.testing.assert_allclose(loss.discriminator(real, fake), discriminator, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(loss.generator(fake, real), generator, rtol=1e-6, atol=1e-6)


def test_ragan_compares_with_the_mean_of_the_others() -> None:
    # real 1, 3 (mean 2); fake 0, 2 (mean 1). Against the mean fake: real 0, 2. Against the mean
    # real: fake -2, 0. discriminator: softplus(-0) + softplus(-2); softplus(-2) + softplus(0): both
    # ln 2 + ln(1 + e^-2) generator: fake's part softplus(2), softplus(-0); real's part softplus(0),
    # softplus(2)
    loss = losses.RelativisticAverage()
    real = tf.constant([1.0, 3.0])
    fake = tf.constant([0.0, 2.0])
    low = math.log1p(math.exp(-2.0))
    high = math.log1p(math.exp(2.0))
    np.testing.assert_allclose(loss.discriminator(real, fake), [LN2 + low, low + LN2], rtol=1e-6)
    np.testing.assert_allclose(loss.generator(fake, real), [high + LN2, LN2 + high], rtol=1e-6)


@pytest.mark.parametrize("name", [*CASES, "RelativisticAverage"])
def test_patches_are_averaged_per_example(name: str) -> None:
    loss = getattr(losses, name)()
    generator = np.random.default_rng(0)
    real, fake = (tf.constant(generator.normal(size=(3, 2, 2, 1)), tf.float32) for _ in range(2))
    found = loss.discriminator(real, fake), loss.generator(fake, real)
    for each in found:
        assert each.shape == (3,)
    if name != "RelativisticAverage":  # whose means are over all
        flat = [tf.reshape(x, [-1]) for x in (real, fake)]
        np.testing.assert_allclose(
            found[0], tf.reduce_mean(tf.reshape(loss.discriminator(*flat), [3, 4]), 1), rtol=1e-5
        )
        swapped = loss.generator(flat[1], flat[0])
        np.testing.assert_allclose(
            found[1], tf.reduce_mean(tf.reshape(swapped, [3, 4]), 1), rtol=1e-5
        )


@pytest.mark.parametrize("name", [*CASES, "RelativisticAverage"])
def test_signs_and_finiteness(name: str) -> None:
    """A discriminator gains by raising real and lowering fake logits, a generator by raising its
    own; far out too.
    """
    loss = getattr(losses, name)()
    for scale in (0.5, 200.0):
        real = tf.constant([-scale, -0.25 * scale])
        fake = tf.constant([scale, 0.25 * scale])
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([real, fake])
            first = loss.discriminator(real, fake)
            second = loss.generator(real, fake)
        assert np.isfinite([*first, *second]).all()
        up, down = tape.gradient(first, [real, fake])
        assert (up.numpy() < 0.0).all() or name == "LeastSquares"
        assert (down.numpy() > 0.0).all() or name == "LeastSquares"
        assert (tape.gradient(second, real).numpy() <= 0.0).all()


def test_only_relativistic_generators_look_at_real_logits() -> None:
    for name in CASES:
        loss = getattr(losses, name)()
        assert loss.relativistic == name.startswith("Relativistic")
        if not loss.relativistic:
            assert loss.generator(tf.constant(FAKE), None).shape == (2,)
