"""Behaviour cloning: maximum likelihood of the demonstrated actions."""

import functools
import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparring.agents.imitation.cloning import CloningTrainer
from sparring.agents.ppo import PPO
from sparring.agents.training.evaluation import EvaluationSettings
from sparring.envs.compiled.classic_control import CartPole
from sparring.networks.mlp import MLP
from sparring.optim.optimizer import Scheduled
from sparring.training.conformance import check_trainer
from tests.helpers import replicas
from tests.helpers.demonstrations import CARTPOLE, made_up

pytestmark = pytest.mark.long


def make(compile: str = "eager", **settings: Any) -> CloningTrainer:
    tf.keras.utils.set_random_seed(0)
    settings.setdefault("demonstrations", made_up(*CARTPOLE))
    return CloningTrainer(
        functools.partial(PPO, normalize_observations=settings.pop("normalize", True)),
        CartPole(),
        network=functools.partial(MLP, settings.pop("units", (8,))),
        optimizer=Scheduled(tf.keras.optimizers.Adam(epsilon=1e-3), settings.pop("rate", 1e-2)),
        batch_size=8,
        total_steps=4000,
        compile=compile,
        evaluation=EvaluationSettings(episodes=2, video_every=0),
        **settings,
    )


def constant(action: Any) -> Any:
    """Return demonstrations that see zeros alone, with these actions."""
    whole = made_up(*CARTPOLE, episodes=2, length=4)
    changes = {
        "observation": np.zeros_like(whole.observation),
        "last_observation": np.zeros_like(whole.last_observation),
        "action": np.array(action),
    }
    return type(whole)(**{**vars(whole), **changes})


def test_the_policy_becomes_the_share_of_each_action() -> None:
    # Three steps of four go right: the likeliest policy has log odds ln 3, and the entropy of 3/4
    # is 0.5623 nats, the least that the loss can be
    trainer = make(demonstrations=constant([1, 1, 1, 0] * 2), compile="graph", rate=0.03)
    trainer.train(4000)
    logits = trainer.agent.scores(tf.zeros([1, 4]))["logits"][0]
    assert float(logits[1] - logits[0]) == pytest.approx(math.log(3.0), abs=0.35)
    assert trainer.scalars()["loss/cloning"] > 0.5


def test_the_first_loss_is_the_mean_negative_log_likelihood() -> None:
    trainer = make(demonstrations=constant([1] * 8), normalize=False)
    log_prob = trainer.agent.log_probability(tf.zeros([1, 4]), tf.constant([1]))
    trainer.train(8)
    assert trainer.scalars()["loss/cloning"] == pytest.approx(-float(log_prob[0]), rel=1e-5)


def test_the_critic_stays_as_it_is() -> None:
    trainer = make()
    before = [v.numpy() for v in trainer.agent._value_net.trainable_weights]
    actor = [v.numpy() for v in trainer.agent._actor_net.trainable_weights]
    trainer.train(64)
    for old, new in zip(before, trainer.agent._value_net.trainable_weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())
    assert not np.array_equal(actor[0], trainer.agent._actor_net.trainable_weights[0].numpy())


def test_the_contract_is_kept() -> None:
    check_trainer(make, steps=64)


def test_two_replicas_are_one() -> None:
    one, two = replicas.pair(lambda: make(compile="graph"))
    for trainer in (one, two):
        trainer.train(80)
    replicas.assert_alike(one, two, atol=1e-5)
    replicas.assert_same_means(one, two)
