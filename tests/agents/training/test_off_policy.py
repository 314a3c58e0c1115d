"""The off-policy trainer, watched from inside: eager, so that every batch of the real DQN can be
looked at.
"""

import functools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparring.agents.dqn import DQN
from sparring.agents.replay import Transitions
from sparring.agents.training.off_policy import OffPolicyTrainer
from sparring.agents.training.rollout import Rollout
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.errors import UserError
from sparring.networks.mlp import MLP
from sparring.optim.optimizer import Scheduled
from sparring.optim.schedules import Linear
from sparring.processes import resources
from tests.helpers.rollouts import assert_follows

pytestmark = pytest.mark.long

TOTAL = 200


class Watched(DQN):
    """Keeps what it is asked to learn."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.batches: list[Transitions] = []

    def update(self, batch: Transitions, key: tf.Tensor, progress: tf.Tensor) -> Any:
        self.batches.append(tf.nest.map_structure(lambda x: x.numpy(), batch))
        return super().update(batch, key, progress)


class Trainer(OffPolicyTrainer):
    """Keeps its rollouts."""

    def learn(self, rollout: Rollout, iteration: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        self.__dict__.setdefault("rollouts", []).append(rollout)
        return super().learn(rollout, iteration, total)


def make(
    learning_rate: Any = 0.0,
    seed: int = 0,
    prefers: int | None = 1,
    agent: Any = None,
    **settings: Any,
) -> Any:
    """`prefers`: the action that Q values higher, whatever is seen."""
    tf.keras.utils.set_random_seed(0)
    sizes = {
        "num_envs": 2,
        "rollout_steps": 3,
        "updates": 2,
        "batch_size": 5,
        "capacity": 400,
        "learning_starts": 20,
    }
    trainer = Trainer(
        functools.partial(Watched, **{"epsilon": 0.0, "discount": 0.5, **(agent or {})}),
        Gymnasium("tests.helpers.rollouts:toy/Coin-v0"),
        functools.partial(MLP, (4,)),
        Scheduled(tf.keras.optimizers.Adam(), learning_rate),
        seed=seed,
        total_steps=TOTAL,
        compile="eager",
        **{**sizes, **settings},
    )
    if prefers is not None:
        for weight in trainer.agent.trainable:
            weight.assign(tf.zeros_like(weight))
        trainer.agent.trainable[-1].assign(tf.one_hot(prefers, 2))
    return trainer


def actions(trainer: Any) -> np.ndarray:
    """[vector steps, B]."""
    return np.concatenate([np.asarray(rollout.action) for rollout in trainer.rollouts])


# ---- the beginning -------------------------------------------------------------------------------


def test_learning_starts_when_it_should_and_is_the_same_each_iteration() -> None:
    trainer = make()
    updates = []
    for _ in range(6):
        trainer.train(6)  # an iteration: 2 environments x 3 steps
        updates.append(len(trainer.agent.batches))
    assert updates == [0, 0, 0, 2, 4, 6]  # after 6, 12, 18, then 24 steps: the first at or past 20
    exactly = make(learning_starts=12)
    exactly.train(12)
    assert len(exactly.agent.batches) == 2


def test_the_first_steps_act_at_random_whatever_epsilon_says() -> None:
    trainer = make(learning_starts=200, num_envs=10, rollout_steps=5, updates=1)
    trainer.train(250)
    chosen = actions(trainer)  # [25, 10]
    assert np.mean(chosen[:20]) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(200))  # 200 fair coins
    assert np.all(chosen[20:] == 1)  # vector step 20 is environment step 200
    # No pattern of two rows repeats
    assert len({tuple(row) for row in chosen[:20].reshape(-1, 20)}) == 10
    assert len({tuple(column) for column in chosen[:20].T}) == 10


def test_before_it_starts_there_is_enough_to_sample_from() -> None:
    trainer = make(learning_starts=0, rollout_steps=1, n_step=4, updates=1)
    updates = []
    for _ in range(5):
        trainer.train(2)
        updates.append(len(trainer.agent.batches))
    assert updates == [0, 0, 0, 1, 2]  # four slots make the first sum of four steps


# ---- schedules -----------------------------------------------------------------------------------


def test_epsilon_and_learning_rate_follow_the_share_of_the_run_that_is_done() -> None:
    trainer = make(
        Linear(0.1, 0.0),
        learning_starts=0,
        num_envs=10,
        rollout_steps=5,
        updates=3,
        agent={"epsilon": Linear(1.0, 0.0)},
        prefers=None,
    )
    said = []
    for _ in range(4):
        trainer.train(50)  # a quarter of the run each, and the updates come at its end
        said.append(trainer.scalars())
    assert [s["schedule/epsilon"] for s in said] == pytest.approx([0.75, 0.5, 0.25, 0.0])
    assert [s["schedule/learning_rate"] for s in said] == pytest.approx([0.075, 0.05, 0.025, 0.0])


def test_acting_explores_by_the_epsilon_of_its_own_step() -> None:
    # all random in the first half of the run, and in the second half none
    trainer = make(
        learning_starts=0,
        num_envs=10,
        rollout_steps=5,
        updates=0,
        agent={"epsilon": lambda p: tf.cast(p < 0.5, tf.float32)},
    )
    trainer.train(TOTAL)
    chosen = actions(trainer)  # [20, 10]
    assert np.mean(chosen[:10]) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(100))
    assert np.all(chosen[10:] == 1)  # vector step 10 is environment step 100 of 200


# ---- rollouts and what is kept of them -----------------------------------------------------------


def test_rollouts_are_what_the_environment_gives_when_it_is_stepped_alone() -> None:
    trainer = make(num_envs=3, rollout_steps=7, seed=11, learning_starts=100)
    trainer.train(3 * 7 * 8)
    assert_follows(trainer.rollouts, seed=trainer.source.seed)
    # observations, actions and rewards lie in the ring in that order, the state reached in the open
    # slot behind them
    seen = np.concatenate([np.asarray(r.observation)[:-1] for r in trainer.rollouts])  # [56, 3, 2]
    np.testing.assert_array_equal(trainer.replay.observation.numpy()[: 56 * 3], seen.reshape(-1, 2))
    np.testing.assert_array_equal(
        trainer.replay.observation.numpy()[56 * 3 : 57 * 3],
        np.asarray(trainer.rollouts[-1].observation)[-1],
    )
    np.testing.assert_array_equal(
        trainer.replay.action.numpy()[: 56 * 3], actions(trainer).reshape(-1)
    )
    rewards = np.concatenate([np.asarray(r.reward) for r in trainer.rollouts])
    np.testing.assert_array_equal(trainer.replay.reward.numpy()[: 56 * 3], rewards.reshape(-1))


def test_batches_are_steps_that_were_made_summed_over_n() -> None:
    trainer = make(n_step=2, learning_starts=30, batch_size=50)
    trainer.train(60)
    seen, _, reward, dead, cut, first = (
        np.concatenate([np.asarray(r[column])[:3] for r in trainer.rollouts]) for column in range(6)
    )
    over = dead | cut
    known = {tuple(seen[t, b]): (t, b) for t in range(len(seen)) for b in range(2)}
    batch = trainer.agent.batches[-1]
    assert len(batch.reward) == 50
    for i in range(50):
        t, b = known[tuple(batch.observation[i])]
        assert batch.mask[i] == 1.0 - first[t, b] == 1.0
        if over[t, b]:  # ends at once
            expected = (reward[t, b], 0.0 if dead[t, b] else 1.0)
        else:
            expected = (reward[t, b] + 0.5 * reward[t + 1, b], 0.0 if dead[t + 1, b] else 0.5)
        assert (batch.reward[i], batch.discount[i]) == pytest.approx(expected, abs=1e-6)
    assert len(set(batch.reward.tolist())) > 10
    other = trainer.agent.batches[-2]
    assert not np.array_equal(batch.observation, other.observation)  # each update draws its own


# ---- what cannot be ------------------------------------------------------------------------------


def test_a_replay_that_holds_less_than_a_rollout_is_refused_with_the_least_that_does() -> None:
    with pytest.raises(
        UserError, match=r"trainer.capacity=9 holds less than one rollout: it must be at least 10 "
    ):
        make(capacity=9, n_step=2)  # 2 environments x (3 + 2)
    make(capacity=10, n_step=2).train(60)


def test_no_updates_are_no_updates() -> None:
    trainer = make(updates=0)
    trainer.train(60)
    assert trainer.agent.batches == []
    assert trainer.peek().keys() <= {"rollout/episode_return", "rollout/episode_length"}


def test_a_replay_that_cannot_fit_is_refused_before_it_is_allocated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Coin's observation is two floats, an action and a reward take 4 bytes, two flags one each: 18
    monkeypatch.setattr(resources, "memory", lambda: 400 * 18 / 2**20)
    make(capacity=400)
    with pytest.raises(
        UserError, match=r"trainer.capacity=401: a replay of 18 bytes a transition needs 0.0 GB"
    ):
        make(capacity=401)


def test_a_run_that_ends_before_it_learns_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    make(learning_starts=TOTAL - 1)
    assert caplog.text == ""
    make(learning_starts=TOTAL + 1)
    assert f"trainer.learning_starts={TOTAL + 1} is not before the end of the run" in caplog.text


def test_runs_of_neighbouring_seeds_share_no_environment() -> None:
    environment = make(seed=3).environment
    assert make(seed=3).source.seed == environment.first_seed(3)
    seeds = [{environment.first_seed(seed) + i for i in range(50)} for seed in range(20)]
    assert len(set.union(*seeds)) == 20 * 50
