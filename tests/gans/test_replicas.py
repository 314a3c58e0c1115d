"""A GAN on two replicas is the GAN on one, whatever is coupled over a batch."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparring.distribute import strategies
from sparring.errors import UserError
from sparring.gans.augmentation import InstanceNoise
from sparring.gans.losses import Hinge, RelativisticAverage, RelativisticPairing, Wasserstein
from sparring.gans.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from sparring.gans.networks.pair import Pair
from sparring.gans.penalties import DRAGAN, R1, WGANGP, LeCam
from sparring.optim.optimizer import Scheduled
from sparring.training.conformance import check_trainer
from tests.helpers import replicas
from tests.helpers.toy_gans import Images, make, mlp

pytestmark = pytest.mark.long

CASES = {
    "coupled": {
        "loss": RelativisticAverage(),
        "penalties": {"dragan": DRAGAN(1.0)},
        "network": mlp(normalization="batch"),
        "accumulation": 2,
        "weight_clip": 0.1,
    },
    "lazy": {
        "loss": RelativisticPairing(),
        "penalties": {"r1": R1(1.0)},
        "penalty_interval": 3,
        "compile": "xla",
        "network": mlp(normalization="spectral"),
        "augmentations": {"noise": InstanceNoise(0.1)},
    },
    "lecam": {"loss": Hinge(), "state": lambda: {"penalties": {"lecam": LeCam(1.0)}}},
    "critic": {"loss": Wasserstein(), "penalties": {"gp": WGANGP(1.0)}, "n_critic": 2, "pack": 2},
}


def steady() -> Scheduled:
    """Adam that makes no full step of a gradient that is zero but for rounding, as before a
    normalisation.
    """
    return Scheduled(tf.keras.optimizers.Adam(beta_1=0.0, beta_2=0.9, epsilon=1e-3), 1e-3)


@pytest.mark.parametrize("name", CASES)
def test_two_replicas_are_one_with_the_whole_batch(name: str) -> None:
    case = dict(CASES[name])
    state = case.pop("state", dict)  # made under each strategy
    one, two = replicas.pair(lambda: make(optimizers=(steady(), steady()), **case, **state()))
    for trainer in (one, two):
        trainer.train(10 * one.steps_per_iteration)
    replicas.assert_alike(one, two)
    replicas.assert_in_agreement(two)
    replicas.assert_same_means(one, two)


def test_convolutions_with_batch_normalisation_on_two_replicas_are_those_on_one() -> None:
    network = Pair(
        partial(DCGANGenerator, width=2),
        partial(DCGANDiscriminator, width=2, normalization="batch"),
        4,
    )
    one, two = replicas.pair(
        lambda: make(
            Images((8, 8, 1)), network, Hinge(), batch_size=8, optimizers=(steady(), steady())
        )
    )
    for trainer in (one, two):
        trainer.train(10 * 8)
    replicas.assert_alike(one, two, atol=2e-6)


class Normalized(tf.keras.layers.Layer):
    """Dense network of a user's own, with Keras' batch normalisation, as either player."""

    def __init__(self, shape: tuple[int, ...], classes: int, units: int) -> None:
        super().__init__()
        self.hidden = tf.keras.layers.Dense(8)
        self.norm = tf.keras.layers.BatchNormalization(momentum=0.9)
        self.out = tf.keras.layers.Dense(units)

    def call(self, inputs: tf.Tensor, labels: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = tf.nn.relu(self.norm(self.hidden(inputs), training=training))
        return self.out(x) if self.out.units > 1 else self.out(x)[:, 0]


def test_a_users_own_batch_normalisation_is_over_all_replicas() -> None:
    network = Pair(partial(Normalized, units=2), partial(Normalized, units=1), 4)
    one, two = replicas.pair(lambda: make(network=network, optimizers=(steady(), steady())))
    for trainer in (one, two):
        trainer.train(10 * 16)
    replicas.assert_alike(one, two, atol=1e-5)
    replicas.assert_in_agreement(two)


@pytest.mark.slow
def test_the_contract_is_kept_by_two_replicas() -> None:
    def made() -> Any:
        with strategies.mirrored(2).scope():
            return make(**CASES["lazy"])

    check_trainer(made, steps=100)


def test_replicas_see_examples_of_their_own() -> None:
    with strategies.mirrored(2).scope():
        game = make().game
    rows = tf.range(16, dtype=tf.int64)

    def part() -> tf.Tensor:
        return game.batch(tf.constant(0, tf.int64), rows, tf.constant(0, tf.int64)).latents

    both = game.replicas.strategy.experimental_local_results(
        game.replicas.function(game.replicas.run, "graph")(part)
    )
    whole = make().game.batch(tf.constant(0, tf.int64), rows, tf.constant(0, tf.int64)).latents
    np.testing.assert_array_equal(tf.concat(both, axis=0), whole)
    assert not np.intersect1d(*both).size


def test_a_batch_that_replicas_cannot_share_is_refused() -> None:
    with (
        strategies.mirrored(2).scope(),
        pytest.raises(UserError, match=r"batch_size=15 is no multiple .* 2 replicas"),
    ):
        make(batch_size=15)
