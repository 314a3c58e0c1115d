"""Evaluations of a conditional GAN: classes by their names, and labels without their images."""

from functools import partial

import numpy as np
import pytest

from sparring.data.dataset import Arrays
from sparring.data.splits import SPLITS
from sparring.gans.evaluation import EvaluationSettings
from sparring.gans.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from sparring.gans.networks.pair import Pair
from sparring.gans.trainer import GANTrainer
from tests.helpers.toy_gans import make

NAMES = ("ant", "bee", "cow")
NETWORK = Pair(partial(DCGANGenerator, width=2), partial(DCGANDiscriminator, width=2), 4)
SETTINGS = EvaluationSettings(columns=3, points=16, embedded=12, batch_size=16)


class Watched(Arrays):
    """Data that remembers how many examples were asked for at once."""

    asked: tuple[int, ...] = ()

    def examples(self, split, limit=None):
        found = super().examples(split, limit)
        self.asked = (*self.asked, len(found[0]))
        return found


@pytest.fixture(scope="module")
def trainer() -> GANTrainer:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1)).astype(np.uint8)
    data = Watched(
        dict.fromkeys(SPLITS, images), dict.fromkeys(SPLITS, np.arange(60) % 3), 0, NAMES
    )
    return make(data, NETWORK, conditional=True, metrics={"one": One}, evaluation=SETTINGS)


class One:
    """Score without data."""

    descriptions = {"gan/one": "One."}  # noqa: RUF012
    smaller = ()
    samples = 4
    notes = {}  # noqa: RUF012

    def __init__(self, data) -> None:
        pass

    def __call__(self, sample) -> dict[str, float]:
        return {"gan/one": 1.0}


def test_labels_are_read_without_scaling_all_images(trainer: GANTrainer) -> None:
    assert max(trainer.game.data.asked, default=0) < 60
    assert trainer.sampler._labels.numpy().tolist() == [i % 3 for i in range(60)]


def test_classes_are_named_in_the_projector_the_grid_and_the_manifest(trainer: GANTrainer) -> None:
    found = trainer.evaluate(step=0)
    labels = found.embeddings["samples/features"].labels["label"]
    assert set(labels) == set(NAMES)
    assert trainer.export().notes["names"] == list(NAMES)
    # three columns, with a line of names above them
    height, width, _ = found.images["samples/classes"].shape
    assert height == width + 14
    head = found.images["samples/classes"][:14, :, 0]
    for column in np.split(head[:, : width // 3 * 3], 3, axis=1):
        assert (column < 128).any()


def test_a_preview_is_the_grid_of_the_evaluation(trainer: GANTrainer) -> None:
    images = trainer.evaluate(step=0).images
    np.testing.assert_array_equal(trainer.preview()["generated"], images["samples/generated"])
