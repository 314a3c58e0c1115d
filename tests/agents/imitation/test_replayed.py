"""GAIL off-policy: rewards of the discriminator as it is, at the time that a batch is drawn."""

import functools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparring.agents.dqn import DQN
from sparring.agents.imitation import rewards
from sparring.agents.imitation.replayed import ReplayGAIL
from sparring.agents.networks.recurrent import Memory
from sparring.agents.prioritized_replay import PrioritizedRing
from sparring.agents.replay import Ring, Rows, Transitions
from sparring.agents.sac import SAC
from sparring.distribute.replicas import replica_index
from sparring.envs.compiled.classic_control import CartPole, Pendulum
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.errors import UserError
from sparring.training.conformance import check_trainer
from tests.helpers import replicas
from tests.helpers.demonstrations import CARTPOLE, made_up
from tests.helpers.small_imitation import (
    Seen,
    after_rewards_of_two_kinds,
    make_replayed,
    reward_source,
)

pytestmark = pytest.mark.long


def make(environment: Any = None, **settings: Any) -> Any:
    environment = environment or CartPole()
    spaces = environment.observation_space, environment.action_space
    ours = {k: settings.pop(k) for k in ("form", "absorbing", "normalize") if k in settings}
    source = reward_source(ReplayGAIL, made_up(*spaces), **ours)
    return make_replayed(source, environment, **settings)


class Halving:
    """Agent that learns from single transitions at a discount of 0.5."""

    discount = 0.5

    def start(self, batch: int) -> tuple[()]:
        return ()


def source(**settings: Any) -> ReplayGAIL:
    made = reward_source(
        ReplayGAIL, made_up(*CARTPOLE), normalize=False, form=rewards.logit, **settings
    )
    found = made(agent=Halving(), observation_space=CARTPOLE[0], action_space=CARTPOLE[1], seed=0)
    found.discriminator = Seen()
    return found


def replay() -> Ring:
    """Return a replay of one environment: observations 1, 2, 4, an end, then 16, 32."""
    seen = np.repeat(np.array([1, 2, 4, 16, 32], np.float32)[:, None, None], 4, axis=2)
    found = Ring(10, 1, *CARTPOLE)
    ended = tf.constant([[False], [True], [False], [False]])
    first = tf.constant([[False], [False], [True], [False]])
    no = tf.zeros([4, 1], tf.bool)
    found.write(tf.constant(seen), tf.ones([4, 1], tf.int32), tf.zeros([4, 1]), ended, no, first)
    return found


def rows(*slots: int) -> Rows:
    return Rows(tf.constant(slots, tf.int64), tf.zeros([len(slots)], tf.int64))


def test_rewards_of_several_steps_by_hand() -> None:
    # Logits are 1, 2, then an end, and 16: two steps from the first are worth 1 + 0.5 * 2
    batch, scalars = source().batch(replay(), rows(0, 1, 3), 2, tf.constant([0, 0], tf.uint32))
    np.testing.assert_array_equal(batch.reward[:2], [2.0, 2.0])
    np.testing.assert_array_equal(batch.discount[:2], [0.0, 0.0])
    assert float(scalars["imitation/reward"]) == pytest.approx((1 + 2 + 16) / 3)


def test_an_absorbing_state_pays_for_ever() -> None:
    # The discriminator says 7 of the absorbing state: an end is worth 0.5 / (1 - 0.5) * 7 more
    judge = source(absorbing=True)
    judge.discriminator.logits = lambda x: x[:, 0] + 7.0 * x[:, -1]  # type: ignore[method-assign]
    batch, scalars = judge.batch(replay(), rows(0, 1, 3), 1, tf.constant([0, 0], tf.uint32))
    np.testing.assert_array_equal(batch.reward, [1.0, 2.0 + 7.0, 16.0])
    assert float(scalars["imitation/absorbing_reward"]) == 7.0
    assert float(scalars["imitation/reward"]) == pytest.approx((1 + 2 + 16) / 3)


def test_half_of_the_ends_are_shown_as_the_absorbing_state() -> None:
    judge = source(absorbing=True, batch_size=400)
    drawn = replay().gather(rows(*[0, 1] * 200))
    judge.learn(drawn, tf.constant(0, tf.int64), tf.constant(0.0))
    shown = judge.discriminator.fake
    step = [1, 1, 1, 1, 0, 1, 0]
    end = [2, 2, 2, 2, 0, 1, 0]
    absorbed = [0, 0, 0, 0, 0, 0, 1]
    assert {tuple(row) for row in shown.tolist()} == {tuple(step), tuple(end), tuple(absorbed)}
    assert np.all(shown[::2] == step)
    # 200 fair coins: four standard deviations are 0.14
    assert np.mean(shown[1::2, -1]) == pytest.approx(0.5, abs=0.14)
    # Each of the expert's episodes of six steps ends: a twelfth of its steps
    assert np.mean(judge.discriminator.real[:, -1]) == pytest.approx(1 / 12, abs=0.056)


class Watched(DQN):
    """Keeps what it is asked to learn."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, epsilon=0.5, **settings)
        self.batches: list[Transitions] = []

    def update(self, batch: Transitions, key: tf.Tensor, progress: tf.Tensor) -> Any:
        self.batches.append(tf.nest.map_structure(lambda x: x.numpy(), batch))
        return super().update(batch, key, progress)


def test_old_steps_are_paid_by_the_present_discriminator() -> None:
    trainer = make(agent=Watched, n_step=1, form=rewards.logit)
    for _ in range(8):
        trainer.train(8)
        judge = trainer.reward_source
        for batch in trainer.agent.batches[-2:]:
            seen = judge._encoded(tf.nest.map_structure(tf.constant, batch))
            now = judge.discriminator.logits(judge.shown(seen))
            np.testing.assert_allclose(batch.reward, now, rtol=1e-5)
    assert len(trainer.agent.batches) == 14


def test_the_environments_reward_reaches_no_weight() -> None:
    found = after_rewards_of_two_kinds(make)
    assert any(name.startswith("reward_source/discriminator/") for name in found)


# ---- the trainer's contract ----------------------------------------------------------------------


def test_the_contract_is_kept() -> None:
    check_trainer(lambda: make(absorbing=True, compile="graph"), steps=32)


def test_the_contract_is_kept_by_environments_on_the_host() -> None:
    check_trainer(
        lambda: make(Gymnasium("tests.helpers.rollouts:toy/Coin-v0"), compile="graph"), steps=32
    )


def test_sac_and_priorities_go_with_it() -> None:
    for settings in (
        {"environment": Pendulum(max_episode_steps=15), "agent": SAC, "n_step": 1},
        {"replay": PrioritizedRing},
    ):
        trainer = make(**settings)
        trainer.train(64)
        assert np.isfinite(trainer.scalars()["imitation/reward"])


def test_xla_computes_what_eager_code_does() -> None:
    eager = make(absorbing=True)
    xla = make(absorbing=True, compile="xla")
    for trainer in (eager, xla):
        trainer.train(64)
    replicas.assert_same_means(eager, xla, rel=1e-3)


def test_replicas_hold_the_same_discriminator_and_statistics() -> None:
    _, two = replicas.pair(lambda: make(compile="graph"))
    two.train(32)
    judge = two.reward_source
    moments = judge.normalizer.moments
    held = [*two.agent.trainable, judge.kept, moments.count, moments.mean]
    for variable in [*held, *judge.discriminator.discriminator.network.trainable_variables]:
        ours, theirs = two.replicas.strategy.experimental_local_results(variable)
        np.testing.assert_array_equal(ours, theirs)


def test_two_replicas_learn_from_halves_as_one_from_the_whole() -> None:
    one, two = replicas.pair(lambda: make(compile="graph", absorbing=True))
    drawn = replay().gather(rows(0, 1, 3, 0, 1, 3, 1, 0))
    found = []
    for trainer in (one, two):
        judge = trainer.reward_source

        def part(judge: Any = judge, trainer: Any = trainer) -> Any:
            first = replica_index() * judge.share
            mine = tf.nest.map_structure(lambda x: x[first : first + judge.share], drawn)
            values = judge.learn(mine, tf.constant(5, tf.int64), tf.constant(0.0))
            return {**values, **judge.judged(*[tf.ones([judge.share])] * 3)}

        values = trainer.replicas.function(trainer.replicas.agreed(part), "graph")()
        weights = judge.discriminator.discriminator.network.trainable_variables
        found.append(({k: v.numpy() for k, v in values.items()}, [w.numpy() for w in weights]))
    (values, weights), (theirs, their_weights) = found
    assert values.keys() == theirs.keys()
    for tag, value in values.items():
        assert theirs[tag] == pytest.approx(value, rel=1e-4, abs=1e-6), tag
    for ours, other in zip(weights, their_weights, strict=True):
        np.testing.assert_allclose(other, ours, atol=1e-6)


def test_a_memory_is_refused() -> None:
    agent = functools.partial(DQN, memory=functools.partial(Memory, units=[4]), burn_in=1, unroll=2)
    with pytest.raises(UserError, match=r"^memory: demonstrations are learned from step by step"):
        make(agent=agent)
