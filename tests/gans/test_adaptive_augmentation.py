"""Probability of augmentations that follows the discriminator's logits."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparring.gans.adaptive_augmentation import Adaptive
from sparring.gans.trainer import GANTrainer
from sparring.xla import random
from tests.helpers import replicas
from tests.helpers.toy_gans import make

NOW = tf.constant(0.0)


def shift(examples: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor) -> tf.Tensor:
    return examples + 1.0


def scale(examples: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor) -> tf.Tensor:
    return examples * 3.0


def test_the_probability_moves_by_the_sign_of_what_is_observed() -> None:
    adaptive = Adaptive({"shift": shift}, target=0.5, images=1000.0, most=0.1)
    # Signs of 3 of 4 above 0 have a mean of 0.5, which is the target: no move. All above: up.
    seen: list[tuple[list[float], float]] = [
        ([1.0, 2.0, 3.0, -1.0], 0.0),
        ([0.1, 9.0], 0.064),
        ([1.0, 1.0], 0.1),  # 0.128 is more than the most
        ([1.0, -1.0], 0.036),
        ([-1.0, -1.0], 0.0),
    ]
    for logits, expected in seen:
        adaptive.observe(tf.constant(logits), 64)
        np.testing.assert_allclose(adaptive.probability, expected, atol=1e-6)


def test_each_augmentation_is_drawn_for_itself() -> None:
    keys = random.members(random.stream(0, "test"), 2000)
    adaptive = Adaptive({"shift": shift, "scale": scale})
    adaptive.probability.assign(0.25)
    found = adaptive(tf.ones([2000, 2]), keys, NOW).numpy()
    np.testing.assert_array_equal(found[:, 0], found[:, 1])
    counts = [np.mean(found[:, 0] == value) for value in (1.0, 2.0, 3.0, 6.0)]
    np.testing.assert_allclose(counts, [9 / 16, 3 / 16, 3 / 16, 1 / 16], atol=0.04)
    adaptive.probability.assign(0.0)
    np.testing.assert_array_equal(adaptive(tf.ones([2000, 2]), keys, NOW), np.ones((2000, 2)))


def trainer(**settings: Any) -> GANTrainer:
    # Any mean sign is below a target of 2, and the probability falls; above -2, and it rises
    adaptive = Adaptive({"shift": shift}, target=-2.0, images=1600.0)
    return make(augmentations={"ada": adaptive}, **settings)


@pytest.mark.long
@pytest.mark.parametrize("accumulation", [1, 2])
def test_it_follows_the_examples_of_a_run_on_any_replicas(accumulation: int) -> None:
    one, two = replicas.pair(lambda: trainer(accumulation=accumulation))
    for each in (one, two):
        each.train(16 * 3)  # batches of 16: a hundredth each
    for each in (one, two):
        held = each.game.objective.augmentations["ada"].probability
        np.testing.assert_allclose(held.numpy(), 0.03, rtol=1e-5)
    # Mean over the three steps of what it was after each; over parts of a batch, of half of it
    logged = {1: (0.01 + 0.02 + 0.03) / 3, 2: sum(0.005 * i for i in range(1, 7)) / 6}
    found = one.peek()["augmentation/ada_probability"]
    assert found == pytest.approx(logged[accumulation], rel=1e-5)
    assert "augmentation/ada_probability" in one.descriptions
    replicas.assert_alike(one, two)
    replicas.assert_same_means(one, two)
