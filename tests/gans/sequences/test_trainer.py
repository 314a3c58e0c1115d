"""SeqGAN's trainer: its phases, its contract, and two replicas."""

import functools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparring.errors import UserError
from sparring.gans.data.mixtures import ring
from sparring.gans.penalties import R1
from sparring.gans.sequences.networks import RecurrentGenerator, SequencePair, TextCNN
from sparring.gans.sequences.oracle import Oracle
from sparring.gans.sequences.settings import SequenceSettings
from sparring.gans.sequences.trainer import SeqGANTrainer
from sparring.optim.optimizer import Scheduled
from sparring.training.conformance import check_trainer
from tests.helpers import replicas

pytestmark = pytest.mark.long

SMALL = {"words": 6, "length": 4, "train": 40, "test": 30, "embedding": 3, "units": 4}


def make(penalties: Any = None, **rules: Any) -> SeqGANTrainer:
    tf.keras.utils.set_random_seed(0)
    generator = functools.partial(RecurrentGenerator, embedding=4, units=4)
    discriminator = functools.partial(TextCNN, embedding=4, windows=(1, 2), filters=3)
    chosen = {"pretraining": 16, "discriminator_pretraining": 16, **rules}
    # A larger epsilon: Adam makes no full step of a gradient that is zero but for rounding
    adam = [Scheduled(tf.keras.optimizers.Adam(epsilon=1e-3), 1e-2) for _ in range(3)]
    return SeqGANTrainer(
        Oracle(0, **SMALL),
        SequencePair(generator, discriminator),
        None,
        penalties,
        pretraining_optimizer=adam[0],
        generator_optimizer=adam[1],
        discriminator_optimizer=adam[2],
        rules=SequenceSettings(batch_size=8, n_critic=2, rollouts=2, **chosen),
        total_steps=1000,
    )


def weights(trainer: SeqGANTrainer) -> list[np.ndarray]:
    return [v.numpy().copy() for v in trainer.generator.network.trainable_variables]


def test_the_contract_is_kept() -> None:
    # 16 sequences an iteration: one of likelihood, one of the discriminator, two of the game
    check_trainer(functools.partial(make, {"r1": R1(0.1)}), steps=64)


def test_each_phase_trains_whom_it_should() -> None:
    trainer = make()
    assert trainer.phases == (16, 32)
    rollout = trainer.rollout.trainable_variables
    begun = weights(trainer)
    trainer.train(16)
    learned = weights(trainer)
    assert all((a != b).any() for a, b in zip(begun, learned, strict=True))
    for ours, theirs in zip(learned, rollout, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert trainer.scalars().keys() >= {"loss/likelihood"}
    judge = trainer.discriminator.discriminator.weights
    before = [v.numpy() for v in judge]
    trainer.train(16)
    assert "loss/generator" not in trainer.scalars()
    for ours, theirs in zip(learned, weights(trainer), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert any((a != b.numpy()).any() for a, b in zip(before, judge, strict=True))
    trainer.train(16)
    played = weights(trainer)
    assert trainer.scalars().keys() >= {"loss/generator", "generator/reward"}
    # The rollout policy went a fifth of the way: 0.8 old + 0.2 new
    for old, new, delayed in zip(learned, played, rollout, strict=True):
        np.testing.assert_allclose(delayed, 0.8 * old + 0.2 * new, atol=1e-6)


def test_without_a_game_the_discriminator_stays() -> None:
    trainer = make(pretraining=1000)
    before = [v.numpy() for v in trainer.discriminator.discriminator.weights]
    trainer.train(64)
    for ours, theirs in zip(before, trainer.discriminator.discriminator.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_two_replicas_are_one_with_the_whole_batch() -> None:
    one, two = replicas.pair(make)
    for trainer in (one, two):
        trainer.train(80)
    replicas.assert_alike(one, two, atol=1e-5)
    replicas.assert_in_agreement(two)
    replicas.assert_same_means(one, two, rel=1e-3)


def test_samples_are_the_seeds_and_fewer_are_the_first_of_more() -> None:
    trainer = make()
    many = trainer.generate(300, 1).arrays["sequences"]
    assert (many.shape, many.dtype) == ((300, 4), np.int64)
    np.testing.assert_array_equal(trainer.generate(20, 1).arrays["sequences"], many[:20])
    assert (trainer.generate(20, 2).arrays["sequences"] != many[:20]).any()
    with pytest.raises(UserError, match="--class"):
        trainer.generate(1, 0, "2")


def test_other_data_and_networks_are_refused_in_a_line() -> None:
    with pytest.raises(UserError, match="choose data=oracle"):
        SeqGANTrainer(ring())
    with pytest.raises(UserError, match="choose network=sequences"):
        SeqGANTrainer(Oracle(0, **SMALL), TextCNN)
