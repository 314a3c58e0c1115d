"""Supervised training on two replicas is that on one with the whole batch."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparring.data.dataset import Arrays
from sparring.data.tabular import linear
from sparring.distribute import strategies
from sparring.errors import UserError
from sparring.networks.cnn import CNN
from sparring.networks.mlp import MLP
from sparring.optim.fine_tuning import Stage
from sparring.optim.optimizer import Scheduled
from sparring.optim.pruning import Magnitude
from sparring.supervised.models import Headed
from sparring.supervised.tasks import Regression
from sparring.training.conformance import check_trainer
from sparring.xla import random
from tests.helpers import replicas
from tests.supervised.test_trainer import norm_net, small

pytestmark = pytest.mark.long


class Flipped(Arrays):
    """Images, half of them mirrored: by the keys of examples."""

    def take(self, rows: tf.Tensor, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        inputs, labels = super().take(rows, keys)
        flip = random.uniform(keys, 1)[:, 0] < 0.5
        return tf.where(flip[:, None, None, None], inputs[:, :, ::-1], inputs), labels


def images() -> Arrays:
    rng = np.random.default_rng(0)
    pictures = {s: rng.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8) for s in ("train", "test")}
    return Flipped(pictures, {s: np.arange(40) % 3 for s in pictures}, 0)


CASES = {
    "plain": {"compile": "xla", "model": partial(Headed, torso=partial(MLP, (8,)))},
    "normalised": {"compile": "xla", "model": partial(Headed, torso=norm_net)},
    "convolutions": {
        "data": images,
        "model": partial(Headed, torso=partial(CNN, (4,), (3,), (2,), (8,))),
    },
    "regression": {"data": partial(linear, 0, train=50, test=10), "task": Regression},
    "stages": {
        "stages": {"head": Stage(["head/.*"]), "all": Stage([".*"], at=0.05)},
        "compile": "graph",
    },
    "pruned": {"optimizer": lambda: adam(PRUNE), "total_steps": 320, "compile": "xla"},
}


PRUNE = Magnitude(0.75, every=3)  # complete after half of the run: at the tenth of 20 updates


def adam(prune: Magnitude | None = None) -> Scheduled:
    return Scheduled(tf.keras.optimizers.Adam(epsilon=1e-3), 1e-2, prune=prune)


def made(name: str) -> Any:
    tf.keras.utils.set_random_seed(0)
    settings = {"optimizer": adam, **CASES[name]}
    for key in {"data", "optimizer"} & settings.keys():  # made anew for every trainer
        settings[key] = settings[key]()
    return small(**settings)


@pytest.mark.parametrize("name", CASES)
def test_two_replicas_are_one_with_the_whole_batch(name: str) -> None:
    one, two = replicas.pair(lambda: made(name))
    for trainer in (one, two):
        trainer.train(10 * 16)
    replicas.assert_alike(one, two)
    replicas.assert_in_agreement(two)
    replicas.assert_same_means(one, two)
    scores = (trainer.evaluate(media=False).scalars for trainer in (one, two))
    for ours, theirs in zip(*(found.values() for found in scores), strict=True):
        assert theirs == pytest.approx(ours, abs=1e-5)


def test_replicas_prune_the_same_weights() -> None:
    one, two = replicas.pair(lambda: made("pruned"))
    for trainer in (one, two):
        trainer.train(20 * 16)
    # kernels of 2 x 8 and 8 x 3 weights; a quarter of each is left, the same quarter on one replica
    # and on both
    for kernel, other in zip(one.network.get_weights(), two.network.get_weights(), strict=True):
        if kernel.ndim == 2:
            assert np.count_nonzero(kernel) == kernel.size // 4
            np.testing.assert_array_equal(other == 0, kernel == 0)
    replicas.assert_alike(one, two)
    replicas.assert_in_agreement(two)


def test_replicas_that_normalise_alone_would_be_another_run() -> None:
    one, two = replicas.pair(lambda: made("normalised"))
    two.network.torso.layers[1].synchronized = False
    for trainer in (one, two):
        trainer.train(10 * 16)
    ours, theirs = (trainer.network.torso.layers[1].moving_mean.numpy() for trainer in (one, two))
    assert np.abs(ours - theirs).max() > 1e-5


@pytest.mark.slow
def test_the_contract_is_kept_by_two_replicas() -> None:
    def of_two() -> Any:
        with strategies.variable_scope(strategies.mirrored(2)):
            return made("normalised")

    check_trainer(of_two, steps=100)


def test_a_batch_that_replicas_cannot_share_is_refused() -> None:
    with (
        strategies.mirrored(2).scope(),
        pytest.raises(UserError, match=r"trainer.batch_size=15 is no multiple of the 2"),
    ):
        small(batch_size=15)
