"""Supervised training on two replicas is that on one with the whole batch."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from research import random, strategy
from research.data import Arrays
from research.errors import UserError
from research.models import Headed
from research.networks.cnn import CNN
from research.networks.mlp import MLP
from research.optimizers import Scheduled
from research.stages import Stage
from research.tables import linear
from research.tasks import Regression
from research.trainer import check_trainer
from tests import replicas
from tests.test_supervised import norm_net, small


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
    "convolutions": {"data": images, "model": partial(Headed, torso=partial(CNN, (4,), (3,), (2,), (8,)))},
    "regression": {"data": partial(linear, 0, train=50, test=10), "task": Regression},
    "stages": {"stages": {"head": Stage(["head/.*"]), "all": Stage([".*"], at=0.05)}, "compile": "graph"},
}  # fmt: skip


def made(name: str, **more: Any) -> Any:
    tf.keras.utils.set_random_seed(0)
    settings = {**CASES[name], **more}
    if "data" in settings:
        settings["data"] = settings["data"]()
    return small(optimizer=Scheduled(tf.keras.optimizers.Adam(epsilon=1e-3), 1e-2), **settings)


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
        with strategy.inside(strategy.mirrored(2)):
            return made("normalised")

    check_trainer(of_two, steps=100)


def test_a_batch_that_replicas_cannot_share_is_refused() -> None:
    with strategy.mirrored(2).scope(), pytest.raises(UserError, match=r"trainer.batch_size=15 is no multiple of the 2"):
        small(batch_size=15)
