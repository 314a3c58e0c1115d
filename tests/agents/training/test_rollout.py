"""Statistics of episodes that begin in one rollout and end in another."""

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from sparring.agents.ppo import PPO
from sparring.agents.training.evaluation import EvaluationSettings
from sparring.agents.training.on_policy import OnPolicyTrainer
from sparring.agents.training.rollout import EpisodeStatistics, Rollout
from sparring.envs.compiled.base import CompiledEnvironment


def rollout(reward, terminated, truncated, first) -> Rollout:
    """[T, B] rows from rows of numbers, one row per environment."""

    def rows(values, dtype):
        return np.array(values, dtype).T

    nothing = np.zeros(0, np.float32)
    ended, broken, reset = (rows(x, np.bool_) for x in (terminated, truncated, first))
    return Rollout(nothing, nothing, rows(reward, np.float32), ended, broken, reset, extras={})


# Two environments. The first ends after two steps (return 1 + 2 = 3), spends a step on the reset,
# gains 5, and in the next rollout 1 more: return 6, length 2. The second ends in the second
# rollout: return 4 + 2 = 6, length 6; its reset step and the 0.5 after it are of an episode that
# has not ended.
FIRST = rollout(
    [[1, 2, 0, 5], [1, 1, 1, 1]],
    [[0, 1, 0, 0], [0, 0, 0, 0]],
    [[0, 0, 0, 0], [0, 0, 0, 0]],
    [[0, 0, 1, 0], [0, 0, 0, 0]],
)
SECOND = rollout(
    [[1, 0, 10, 10], [1, 1, 0, 0.5]],
    [[1, 0, 0, 0], [0, 0, 0, 0]],
    [[0, 0, 0, 0], [0, 1, 0, 0]],
    [[0, 1, 0, 0], [0, 0, 1, 0]],
)


def plain(result) -> dict[str, tuple[float, float]]:
    return {
        tag.split("_")[-1]: (float(total), float(count)) for tag, (total, count) in result.items()
    }


@pytest.mark.parametrize("mode", ["eager", "xla"])
def test_returns_and_lengths_across_rollouts(mode):
    statistics = EpisodeStatistics(2)
    update = (
        statistics.update
        if mode == "eager"
        else tf.function(statistics.update, jit_compile=True, autograph=False)
    )
    assert plain(update(FIRST)) == {"return": (3.0, 1.0), "length": (2.0, 1.0)}
    np.testing.assert_array_equal(statistics.running, [[5.0, 4.0], [1.0, 4.0]])
    assert plain(update(SECOND)) == {"return": (12.0, 2.0), "length": (8.0, 2.0)}
    np.testing.assert_array_equal(statistics.running, [[20.0, 0.5], [2.0, 1.0]])


def test_several_episodes_of_one_environment_in_one_rollout():
    statistics = EpisodeStatistics(1)
    # 1 | reset | 2 + 3 | reset | 4: ended returns 1, 5; lengths 1, 2
    steps = rollout(
        [[1, 0, 2, 3, 0, 4]], [[1, 0, 0, 0, 0, 0]], [[0, 0, 0, 1, 0, 0]], [[0, 1, 0, 0, 1, 0]]
    )
    assert plain(statistics.update(steps)) == {"return": (6.0, 2.0), "length": (3.0, 2.0)}
    np.testing.assert_array_equal(statistics.running, [[4.0], [1.0]])


def test_an_episode_that_a_restart_broke_off_is_not_counted():
    statistics = EpisodeStatistics(1)
    # 1 + 2, broken off; 4, broken off between two rollouts; 8 + 16, terminated
    steps = rollout([[1, 2, 0, 4]], [[0] * 4], [[0] * 4], [[0, 0, 1, 0]])
    assert plain(statistics.update(steps)) == {"return": (0.0, 0.0), "length": (0.0, 0.0)}
    steps = rollout([[0, 8, 16]], [[0, 0, 1]], [[0] * 3], [[1, 0, 0]])
    assert plain(statistics.update(steps)) == {"return": (24.0, 1.0), "length": (2.0, 1.0)}


def test_an_episode_ends_by_termination_truncation_or_a_reset_that_follows():
    steps = rollout([[0] * 6], [[1, 0, 0, 0, 0, 0]], [[0, 0, 1, 0, 0, 0]], [[0, 1, 0, 1, 0, 1]])
    assert steps.ended[:, 0].numpy().tolist() == [True, False, True, False, True, False]


def test_nothing_ended_is_nothing_counted():
    statistics = EpisodeStatistics(1)
    steps = rollout([[1, 1]], [[0, 0]], [[0, 0]], [[0, 0]])
    assert plain(statistics.update(steps)) == {"return": (0.0, 0.0), "length": (0.0, 0.0)}


def test_every_scalar_is_described():
    assert set(EpisodeStatistics(2).update(FIRST)) == set(EpisodeStatistics.descriptions)


class Walk(CompiledEnvironment):
    """A walk to the right by the action, whose episodes end at the fourth step or beyond place 3;
    it measures the place, and whether that is beyond 3.
    """

    name = "Walk"
    observation_space = spaces.Box(0.0, 10.0, (1,), np.float32)
    action_space = spaces.Discrete(3)
    max_episode_steps = 4
    info = ("place", "is_success")

    def initial(self, keys: tf.Tensor) -> tf.Tensor:
        return tf.zeros(keys.shape[:1], tf.int32)

    def observe(self, state: tf.Tensor) -> tf.Tensor:
        return tf.cast(state, tf.float32)[:, tf.newaxis]

    def transition(self, state: tf.Tensor, action: tf.Tensor, keys: tf.Tensor):
        state = tf.minimum(state + action, 9)
        return state, tf.ones(state.shape), state > 3

    def measure(self, state: tf.Tensor) -> dict[str, tf.Tensor]:
        place = tf.cast(state, tf.float32)
        return {"place": place, "is_success": tf.cast(state > 3, tf.float32)}


@pytest.mark.parametrize("rollout_steps", [1, 5])
def test_what_an_environment_measures_is_logged_from_the_ends_of_episodes(rollout_steps) -> None:
    """Ten steps that always go by 2: 2, 4 and the end, and a reset; by 1: 1, 2, 3, 4, and so on."""

    class Steady(PPO):
        going = 2

        def act(self, observation, keys, progress):
            action, kept = super().act(observation, keys, progress)
            return tf.fill(action.shape, self.going), kept

        def act_greedy(self, observation):
            return tf.fill(observation.shape[:1], 1)

    trainer = OnPolicyTrainer(
        Steady,
        Walk(),
        num_envs=2,
        rollout_steps=rollout_steps,
        minibatches=1,
        total_steps=20,
        compile="graph",
        evaluation=EvaluationSettings(episodes=3, sampled=False, video_every=0),
    )
    trainer.train(20)
    found = trainer.scalars()
    assert (found["rollout/place"], found["rollout/is_success"]) == (4.0, 1.0)
    assert found["rollout/episode_length"] == 2.0
    # Greedily by 1: at the fourth step at 4, beyond 3 and at the limit
    evaluated = trainer.evaluate(media=False).scalars
    assert (evaluated["eval/place"], evaluated["eval/is_success"]) == (4.0, 1.0)
    assert "rollout/place" in trainer.descriptions
