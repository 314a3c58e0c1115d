"""A discriminator alone: it finds the ratio of two densities, and keeps what a GAN's keeps."""

import functools
import math

import numpy as np
import pytest
import tensorflow as tf

from sparring.gans.discriminator_step import DiscriminatorStep
from sparring.gans.losses import Hinge, LeastSquares, NonSaturating
from sparring.gans.networks.mlp import MLPDiscriminator
from sparring.gans.penalties import R1
from sparring.optim.optimizer import Scheduled
from sparring.xla import random

SIZE = 8
# One-hots of A and B: three quarters of the real ones are A, a quarter of the fakes
REAL = tf.constant([[1.0, 0.0]] * 6 + [[0.0, 1.0]] * 2)
FAKE = tf.constant([[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 6)
BOTH = tf.constant([[1.0, 0.0], [0.0, 1.0]])
END = tf.constant(1.0)


def make(loss, penalties=None, rate=0.5, **network) -> DiscriminatorStep:
    tf.keras.utils.set_random_seed(0)
    factory = functools.partial(MLPDiscriminator, **{"units": [], **network})
    optimizer = Scheduled(tf.keras.optimizers.SGD(), rate)
    return DiscriminatorStep(2, SIZE, factory, loss, optimizer, penalties)


def trained(step: DiscriminatorStep, count: int = 300) -> np.ndarray:
    keys = random.members(random.stream(0, "test"), SIZE)
    update = tf.function(step.update, autograph=False)
    for _ in range(count):
        update(REAL, FAKE, keys, END)
    return step.logits(BOTH).numpy()


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        # The optimum is log p / q: log 3 of A, -log 3 of B (Goodfellow et al. 2014, prop. 1)
        (NonSaturating(), [math.log(3.0), -math.log(3.0)]),
        # p / (p + q): 3/4 of A, 1/4 of B (Mao et al. 2017, eq. 5, with a = 0, b = 1)
        (LeastSquares(), [0.75, 0.25]),
        # The sign of p - q (Lim and Ye 2017)
        (Hinge(), [1.0, -1.0]),
    ],
)
def test_the_optimum_is_the_losss_own(loss, expected) -> None:
    np.testing.assert_allclose(trained(make(loss, rate=0.1), 600), expected, atol=0.1)


def test_a_penalty_flattens_it_and_is_told() -> None:
    step = make(NonSaturating(), {"mine": R1(1.0)}, rate=0.1)
    assert "penalty/mine" in step.descriptions
    flat = trained(step)
    assert 0.0 < flat[0] < 0.7 * math.log(3.0)


def test_scalars_have_descriptions_and_variables_a_place_in_the_checkpoint(tmp_path) -> None:
    step = make(Hinge(), {"mine": R1(1.0)}, units=[4], normalization="spectral")
    keys = random.members(random.stream(0, "test"), SIZE)
    values = step.update(REAL, FAKE, keys, END)
    assert set(values) <= set(step.descriptions)
    saved = tf.train.Checkpoint(**step.state).save(str(tmp_path / "a"))
    names = [name for name, _ in tf.train.list_variables(saved)]
    assert any("/left_singular_vector/" in name for name in names)  # of the singular vectors
    assert any("discriminator_optimizer" in name for name in names)
