"""DAgger: who acts, what the expert is asked, and what is kept of it."""

import functools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparring.agents.imitation.dagger import DAggerTrainer, RunExpert
from sparring.agents.networks.recurrent import Memory
from sparring.agents.ppo import PPO
from sparring.agents.training.evaluation import EvaluationSettings
from sparring.agents.training.rollout import Rollout
from sparring.distribute import strategies
from sparring.envs.compiled.classic_control import CartPole, Pendulum
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.errors import UserError
from sparring.networks.mlp import MLP
from sparring.optim.optimizer import Scheduled
from sparring.training.conformance import check_trainer
from sparring.xla import random
from tests.helpers import replicas

pytestmark = pytest.mark.long


def balance(environment: Any) -> Any:
    """Return a script that pushes where the pole leans."""
    del environment
    return lambda seen: tf.cast(seen[:, 2] + 0.3 * seen[:, 3] > 0.0, tf.int32)


class Trainer(DAggerTrainer):
    """Keeps its rollouts."""

    def learn(self, rollout: Rollout, iteration: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        self.__dict__.setdefault("rollouts", []).append(rollout)
        return super().learn(rollout, iteration, total)


def make(environment: Any = None, compile: str = "graph", **settings: Any) -> Any:
    tf.keras.utils.set_random_seed(0)
    usual = {"num_envs": 4, "rollout_steps": 16, "updates": 2, "batch_size": 8, "expert": balance}
    kind = settings.pop("kind", DAggerTrainer)
    return kind(
        settings.pop("agent", functools.partial(PPO, normalize_observations=True)),
        environment or CartPole(),
        network=functools.partial(MLP, (4,)),
        optimizer=Scheduled(tf.keras.optimizers.Adam(epsilon=1e-3), 1e-2),
        total_steps=settings.pop("total_steps", 256),
        compile=compile,
        evaluation=EvaluationSettings(episodes=2, video_every=0),
        **usual | settings,
    )


def test_the_expert_acts_in_the_first_round_and_the_imitator_afterwards() -> None:
    trainer = make(kind=Trainer, compile="eager")
    trainer.train(128)
    first, second = trainer.rollouts
    np.testing.assert_array_equal(first.action, first.extras["label"])
    np.testing.assert_array_equal(second.action, second.extras["own"])
    assert not np.array_equal(second.extras["own"], second.extras["label"])
    for rollout in (first, second):  # asked at what was visited, whoever acted
        asked = balance(None)(tf.reshape(rollout.observation[:-1], [-1, 4]))
        np.testing.assert_array_equal(tf.reshape(rollout.extras["label"], [-1]), asked)


def test_beta_is_the_probability_that_the_expert_acts() -> None:
    trainer = make(beta=0.25, num_envs=400, rollout_steps=1, total_steps=4000)
    observation = tf.random.stateless_normal([400, 4], [0, 1])
    keys = random.members(random.stream(0, "test"), 400)
    action, extras = trainer.act(observation, keys, tf.constant(400, tf.int64))
    differs = (extras["label"] != extras["own"]).numpy()
    followed = (action == extras["label"]).numpy()[differs]
    assert len(followed) > 100
    # Four standard deviations of a share of 0.25
    assert followed.mean() == pytest.approx(0.25, abs=4 * np.sqrt(0.1875 / len(followed)))
    assert float(trainer._beta(tf.constant(399, tf.int64))) == 1.0
    assert float(trainer._beta(tf.constant(400, tf.int64))) == 0.25


def test_all_rounds_are_kept_with_the_experts_actions() -> None:
    trainer = make(kind=Trainer, compile="eager")
    trainer.train(192)
    kept = trainer.aggregate
    labels = np.concatenate([r.extras["label"].numpy().reshape(-1) for r in trainer.rollouts])
    seen = np.concatenate([r.observation[:-1].numpy().reshape(-1, 4) for r in trainer.rollouts])
    assert int(kept.written) == 48  # three rounds of 16 steps
    np.testing.assert_array_equal(kept.action[:192], labels)
    np.testing.assert_array_equal(kept.observation[:192], seen)
    assert int(kept.observation.shape[0]) >= 256 + 4  # a run's steps, and the open slot


def test_agreement_is_the_share_of_steps_that_both_would_do_alike() -> None:
    trainer = make(kind=Trainer, compile="eager")
    trainer.train(64)
    rollout = trainer.rollouts[0]
    counts = ~rollout.first.numpy()
    alike = (rollout.extras["label"] == rollout.extras["own"]).numpy()
    assert trainer.scalars()["imitation/agreement"] == pytest.approx(alike[counts].mean())


def test_it_comes_to_agree_and_the_critic_stays() -> None:
    trainer = make(updates=100, total_steps=2048, compile="auto")
    before = [v.numpy() for v in trainer.agent._value_net.trainable_weights]
    trainer.train(64)
    first = trainer.scalars()["imitation/agreement"]
    trainer.train(1984)
    last = trainer.scalars()["imitation/agreement"]
    assert last > max(0.9, first)
    for old, new in zip(before, trainer.agent._value_net.trainable_weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


def test_vectors_of_actions_are_cloned_too() -> None:
    def still(environment: Any) -> Any:
        return lambda seen: tf.zeros([seen.shape[0], 1])

    trainer = make(Pendulum(max_episode_steps=15), expert=still)
    trainer.train(128)
    assert "imitation/agreement" not in trainer.scalars()
    assert float(tf.reduce_max(tf.abs(trainer.aggregate.action))) == 0.0


def test_the_contract_is_kept() -> None:
    check_trainer(make, steps=64)


def test_the_contract_is_kept_by_environments_on_the_host() -> None:
    def alternate(environment: Any) -> Any:
        return lambda seen: tf.cast(seen[:, 0] > 0.5, tf.int32)

    environment = "tests.helpers.rollouts:toy/Coin-v0"
    check_trainer(lambda: make(Gymnasium(environment), expert=alternate), steps=64)


def test_xla_computes_what_eager_code_does() -> None:
    eager = make(compile="eager")
    xla = make(compile="xla")
    for trainer in (eager, xla):
        trainer.train(128)
    replicas.assert_same_means(eager, xla, rel=1e-3)


def test_replicas_keep_what_they_visited_and_learn_the_same_weights() -> None:
    one, two = replicas.pair(make)
    for trainer in (one, two):
        trainer.train(64)
    for weight in two.agent.trainable:
        ours, theirs = two.replicas.strategy.experimental_local_results(weight)
        np.testing.assert_array_equal(ours, theirs)
    # In the first round the expert acts, so that both visit the same
    parts = two.replicas.strategy.experimental_local_results(two.aggregate.observation)
    halves = [part.numpy()[: 16 * 2].reshape(16, 2, 4) for part in parts]
    whole = one.aggregate.observation.numpy()[: 16 * 4].reshape(16, 4, 4)
    np.testing.assert_allclose(np.concatenate(halves, axis=1), whole, atol=1e-6)


def test_a_run_as_expert_is_refused_on_several_replicas() -> None:
    said = r"^expert=mine: a run's policy is on one device"
    with strategies.variable_scope(strategies.mirrored(2)), pytest.raises(UserError, match=said):
        RunExpert(CartPole(), "mine")


def test_a_memory_is_refused() -> None:
    agent = functools.partial(PPO, memory=functools.partial(Memory, units=[4]))
    with pytest.raises(UserError, match=r"^memory: demonstrations are learned from step by step"):
        make(agent=agent)
