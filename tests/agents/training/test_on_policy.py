"""The on-policy trainer, watched from inside: eager, so that every minibatch of the real PPO can be
looked at.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparring.agents.advantages import Minibatch
from sparring.agents.ppo import PPO
from sparring.agents.training.on_policy import OnPolicyTrainer
from sparring.agents.training.rollout import Rollout
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.errors import UserError
from sparring.networks.mlp import MLP
from sparring.optim.optimizer import Scheduled
from sparring.optim.schedules import Linear
from tests.helpers import replicas
from tests.helpers.rollouts import assert_follows

pytestmark = pytest.mark.long

TOTAL = 200


class Watched(PPO):
    """Keeps what it is asked to learn, and may report divergences of our choice."""

    def __init__(self, *arguments: Any, divergences: Sequence[float] = (), **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.batches: list[Minibatch] = []
        self.progress: list[float] = []
        self.steps = 0
        self.divergences = iter(divergences)

    def gradients(self, batch: Minibatch, key: tf.Tensor, progress: tf.Tensor) -> Any:
        self.batches.append(tf.nest.map_structure(lambda x: x.numpy(), batch))
        self.progress.append(float(progress))
        gradients, values = super().gradients(batch, key, progress)
        divergence = next(self.divergences, None)
        if divergence is not None:
            values |= {"policy/approximate_kl": tf.constant(divergence)}
        return gradients, values

    def step(self, gradients: Sequence[tf.Tensor], progress: tf.Tensor) -> Any:
        self.steps += 1
        return super().step(gradients, progress)


class Trainer(OnPolicyTrainer):
    """Keeps its rollouts."""

    def learn(self, rollout: Rollout, iteration: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        self.__dict__.setdefault("rollouts", []).append(rollout)
        return super().learn(rollout, iteration, total)


def make(
    num_envs: int = 2,
    rollout_steps: int = 6,
    epochs: int = 2,
    minibatches: int = 3,
    seed: int = 0,
    normalize_rewards: bool = False,
    learning_rate: Any = 1e-2,
    compile: str = "eager",
    **agent: Any,
) -> Any:
    tf.keras.utils.set_random_seed(0)
    return (Trainer if compile == "eager" else OnPolicyTrainer)(
        functools.partial(
            PPO if compile != "eager" else Watched, **{"normalize_observations": False, **agent}
        ),
        Gymnasium("tests.helpers.rollouts:toy/Coin-v0"),
        functools.partial(MLP, (4,)),
        Scheduled(tf.keras.optimizers.Adam(), learning_rate),
        num_envs=num_envs,
        rollout_steps=rollout_steps,
        epochs=epochs,
        minibatches=minibatches,
        seed=seed,
        total_steps=TOTAL,
        normalize_rewards=normalize_rewards,
        compile=compile,
    )


def rows(batches: list[Minibatch]) -> np.ndarray:
    """The observations of minibatches, one after the other: no two steps have the same."""
    return np.concatenate([batch.observation for batch in batches])


def numbers(observations: np.ndarray, rollout: Rollout) -> list[int]:
    """Numbers of the rollout's steps that the observations are of, counted row by row."""
    known = np.reshape(rollout.observation[:-1], (-1, 2)).tolist()
    return [known.index(one) for one in observations.tolist()]


# ---- minibatches ---------------------------------------------------------------------------------


def test_each_epoch_uses_each_step_once_in_a_new_order() -> None:
    trainer = make()
    trainer.train(24)  # two iterations of 12 steps: 2 epochs of 3 minibatches of 4
    batches = trainer.agent.batches
    assert [len(batch.observation) for batch in batches] == [4] * 12
    orders = []
    for iteration, rollout in enumerate(trainer.rollouts):
        for epoch in range(2):
            first = 6 * iteration + 3 * epoch
            orders.append(numbers(rows(batches[first : first + 3]), rollout))
    assert [sorted(order) for order in orders] == [list(range(12))] * 4
    assert len({tuple(order) for order in orders}) == 4
    again = make()
    other = make(seed=1)
    again.train(12)
    other.train(12)
    assert numbers(rows(again.agent.batches[:3]), again.rollouts[0]) == orders[0]
    assert numbers(rows(other.agent.batches[:3]), other.rollouts[0]) != orders[0]


def test_a_row_of_a_minibatch_is_one_step_with_all_that_belongs_to_it() -> None:
    trainer = make(rollout_steps=30, discount=0.5, gae_lambda=0.0, learning_rate=0.0)
    trainer.train(60)
    rollout = trainer.rollouts[0]
    value = np.asarray(rollout.extras["value"])  # [T, B]
    # Of the states reached
    after = np.concatenate([value[1:], [trainer.agent.value(rollout.observation[-1])]])
    assert np.any(rollout.terminated)
    assert np.any(rollout.truncated)
    for batch in trainer.agent.batches[:3]:
        for i, number in enumerate(numbers(batch.observation, rollout)):
            t, b = divmod(number, 2)
            assert batch.action[i] == rollout.action[t][b]
            assert batch.log_prob[i] == rollout.extras["log_prob"][t][b]
            assert batch.value[i] == value[t][b]
            assert batch.mask[i] == 1.0 - float(rollout.first[t][b])
            assert batch.returns[i] == pytest.approx(batch.advantage[i] + batch.value[i], abs=1e-5)
            # lambda is 0: one step ahead, gamma is 1/2, and only a termination has nothing ahead
            ahead = 0.0 if rollout.terminated[t][b] else 0.5 * after[t][b]
            assert batch.returns[i] == pytest.approx(float(rollout.reward[t][b]) + ahead, abs=1e-5)


@pytest.mark.parametrize(
    ("num_envs", "rollout_steps", "minibatches", "near"),
    [(2, 6, 5, "3, 4, 6"), (8, 32, 100, "64, 128, 32"), (1, 7, 2, "1, 7"), (2, 6, 24, "4, 6, 12")],
)
def test_minibatches_that_leave_a_remainder_are_refused_with_the_nearest_that_do_not(
    num_envs: int, rollout_steps: int, minibatches: int, near: str
) -> None:
    with pytest.raises(UserError) as refusal:
        make(num_envs=num_envs, rollout_steps=rollout_steps, minibatches=minibatches)
    assert (
        f"trainer.minibatches={minibatches} does not divide the rollout of "
        f"{num_envs * rollout_steps} steps" in str(refusal.value)
    )
    offered = sorted(
        int(word) for word in str(refusal.value).rpartition("take ")[2].rstrip(".").split(", ")
    )
    assert offered == sorted(int(word) for word in near.split(", "))


# ---- the KL limit --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("divergences", "updates"),
    [
        # The limit is 1.5 * 0.02: the third goes past it, and its step is not taken
        ([0.0, 0.029, 0.031, 0.0, 0.0, 0.0], [2, 6]),
        ([0.0] * 6 + [0.5], [6, 0]),  # never, then at once
        ([0.03] * 6, [6, 6]),  # at the limit is not past it
    ],
)
def test_updates_end_before_one_and_a_half_times_the_target(
    divergences: list[float], updates: list[int]
) -> None:
    trainer = make(divergences=divergences, target_kl=0.02)
    made = []
    for _ in range(2):
        before = trainer.agent.steps
        trainer.train(12)
        made.append(trainer.agent.steps - before)
        assert trainer.scalars()["policy/updates_per_iteration"] == made[-1]
    assert made == updates
    # Neither the optimizer nor the agent counts a step that was not taken
    assert int(trainer.agent.scheduled.keras.iterations) == sum(updates)
    assert int(trainer.agent.train_step_counter) == sum(updates)


@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_a_step_that_is_not_taken_changes_nothing(mode: str) -> None:
    """Every variable is as one update left it, when the second's divergence is too large."""
    one = make(compile=mode, epochs=1, minibatches=1, learning_rate=0.1)
    several = make(compile=mode, epochs=4, minibatches=1, learning_rate=0.1, target_kl=1e-4)
    for trainer in (one, several):
        trainer.train(12)
    said = several.scalars()
    assert said["policy/updates_per_iteration"] == 1.0
    # Of two minibatches, the first at the policy that acted; but one step
    assert said["policy/approximate_kl"] > 1e-4
    assert said["gradient/norm"] == pytest.approx(one.scalars()["gradient/norm"], rel=1e-5)
    for name, value in replicas.state(one).items():
        if not name.startswith("means"):
            found = replicas.state(several)[name]
            np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_without_a_target_all_updates_are_made() -> None:
    trainer = make(divergences=[1e9] * 6)
    trainer.train(12)
    assert len(trainer.agent.batches) == 6


# ---- progress ------------------------------------------------------------------------------------


def test_schedules_follow_the_share_of_the_run_that_is_done() -> None:
    trainer = make(
        learning_rate=Linear(0.1, 0.0),
        clip=Linear(0.2, 0.1),
        num_envs=10,
        rollout_steps=5,
        minibatches=1,
        epochs=1,
    )
    said = []
    for _ in range(4):
        trainer.train(50)  # a quarter of the run each
        said.append(trainer.scalars())
    # at the beginning of each iteration: nothing, a quarter, a half, three quarters
    assert trainer.agent.progress == pytest.approx([0.0, 0.25, 0.5, 0.75])
    assert [s["schedule/learning_rate"] for s in said] == pytest.approx([0.1, 0.075, 0.05, 0.025])
    assert [s["schedule/clip"] for s in said] == pytest.approx([0.2, 0.175, 0.15, 0.125])
    trainer.train(100)
    assert trainer.agent.progress[-1] == 1.0  # beyond the end it stays at one
    assert trainer.scalars()["schedule/learning_rate"] == 0.0


# ---- rollouts ------------------------------------------------------------------------------------


def test_rollouts_are_what_the_environment_gives_when_it_is_stepped_alone() -> None:
    trainer = make(num_envs=3, rollout_steps=20, minibatches=1, epochs=1, seed=7)
    trainer.train(180)
    assert_follows(trainer.rollouts, seed=trainer.source.seed)
    rollout = trainer.rollouts[0]
    flags = np.concatenate([np.asarray(r.terminated) for r in trainer.rollouts])
    assert flags.any()
    assert np.concatenate([np.asarray(r.truncated) for r in trainer.rollouts]).any()
    # The same first weights: what was said while acting is what they say of it
    fresh = make(seed=7)
    values = fresh.agent.value(tf.reshape(rollout.observation[:-1], [-1, 2]))
    np.testing.assert_allclose(np.reshape(rollout.extras["value"], -1), values, rtol=1e-5)


def test_two_environments_and_two_steps_draw_their_actions_apart() -> None:
    trainer = make(num_envs=8, rollout_steps=64, minibatches=1, epochs=1, learning_rate=0.0)
    trainer.train(8 * 64)
    actions = np.asarray(trainer.rollouts[0].action)  # [64, 8], nearly fair coins
    assert len({tuple(column) for column in actions.T}) == 8
    # Of 256 possible rows, 64 draws repeat about 7 times
    assert len({tuple(row) for row in actions}) > 50
    assert np.mean(actions) == pytest.approx(0.5, abs=0.25)


# ---- what is normalised, and what is said --------------------------------------------------------


def test_observation_statistics_move_after_the_updates_and_leave_out_resets() -> None:
    trainer = make(normalize_observations=True, rollout_steps=20, minibatches=2, epochs=1)
    seen = []
    counted = []
    for _ in range(2):
        before = len(trainer.agent.batches)
        trainer.train(40)
        rollout = trainer.rollouts[-1]
        seen.append(np.reshape(rollout.observation[:-1], (-1, 2)))
        counted.append(~np.reshape(rollout.first, -1))
        batch = trainer.agent.batches[
            before
        ]  # the first of the iteration: nothing has been learned since acting
        log_prob = trainer.agent.distribution(batch.observation).log_prob(batch.action)
        assert not np.allclose(log_prob, batch.log_prob, atol=1e-6)  # but now something has
    moments = trainer.agent.observation_normalizer.moments
    valid = np.concatenate(seen)[np.concatenate(counted)]
    assert 0 < len(valid) < 80
    assert float(moments.count) == len(valid)
    np.testing.assert_allclose(moments.mean, valid.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(moments.variance(), valid.var(axis=0), rtol=1e-4)


def test_the_first_update_of_an_iteration_finds_the_policy_that_acted() -> None:
    trainer = make(
        normalize_observations=True, rollout_steps=20, minibatches=1, epochs=1, clip=1e-4
    )
    for _ in range(3):
        trainer.train(40)
        said = trainer.scalars()
        assert said["policy/approximate_kl"] == pytest.approx(0.0, abs=1e-6)
        assert said["policy/clip_fraction"] == 0.0  # with so narrow a clip, the ratio is one


def test_rewards_are_scaled_for_learning_and_not_for_the_log() -> None:
    plain, scaled = (
        make(normalize_rewards=n, gae_lambda=1.0, learning_rate=0.0, epochs=1)
        for n in (False, True)
    )
    for trainer in (plain, scaled):
        trainer.train(12 * 8)
    spread = np.sqrt(float(scaled.rewards.moments.variance()))
    assert spread > 2.0
    assert plain.scalars()["rollout/episode_return"] == scaled.scalars()["rollout/episode_return"]
    ours, theirs = (
        np.concatenate([b.returns for b in t.agent.batches[-3:]]) for t in (plain, scaled)
    )
    assert np.ptp(theirs) < 0.6 * np.ptp(ours)


def test_what_is_said_of_an_iteration() -> None:
    trainer = make(rollout_steps=20, minibatches=1, epochs=1)
    trainer.train(40)
    said = trainer.scalars()
    batch = trainer.agent.batches[0]
    valid = batch.mask > 0
    assert not valid.all()
    returns = batch.returns[valid]
    value = batch.value[valid]
    assert said["value/explained_variance"] == pytest.approx(
        1.0 - np.var(returns - value) / np.var(returns), abs=1e-4
    )
    assert said["value/mean"] == pytest.approx(value.mean(), abs=1e-5)
    assert said["rollout/reset_share"] == pytest.approx(1.0 - valid.mean())
    assert set(said) <= set(trainer.descriptions)
