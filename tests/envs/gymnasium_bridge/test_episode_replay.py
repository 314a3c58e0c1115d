"""A restored environment goes on as the one it was taken from, bit for bit; one that cannot says so
and starts anew.
"""

import re

import numpy as np
import pytest
from gymnasium import spaces

from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.envs.gymnasium_bridge.episode_replay import History, Start
from sparring.errors import UserError
from tests.envs.gymnasium_bridge.test_vector import assert_steps_equal, play

pytestmark = pytest.mark.long

# Draws from np_random at every step, ends at random, at most 12 steps long
DICE = "tests.helpers.toy_envs:toy/Dice-v0"
# And keeps a number from its seeded reset, and overwrites the actions it is given
STUBBORN = "tests.helpers.toy_envs:Stubborn"


def plain(value) -> bool:
    """Whether `value` can be written down without pickling."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(plain, value))
    return (
        value is None
        or type(value) in (str, int, float, bool)
        or (isinstance(value, np.ndarray) and value.dtype != object)
    )


def dice_actions(steps: int, num_envs: int = 3) -> np.ndarray:
    return np.random.default_rng(9).uniform(-1, 1, (steps, num_envs, 1)).astype(np.float32)


@pytest.mark.parametrize("env_id", [DICE, STUBBORN])
def test_dice_restored_at_each_of_sixty_moments_go_on_as_if_nothing_happened(env_id):
    env = Gymnasium(env_id)
    actions = dice_actions(90)
    vector = env.vector(3, seed=4)
    vector.reset()
    snapshots = [vector.snapshot()]
    steps = []
    for row in actions:
        steps.append(vector.step(row))
        snapshots.append(vector.snapshot())
    waiting = 0
    for moment in range(60):
        resumed = env.vector(3, seed=777)
        assert plain(snapshots[moment])
        assert resumed.restore(snapshots[moment]) == []
        waiting += int(snapshots[moment]["done"].any())
        assert_steps_equal(
            play(resumed, actions[moment : moment + 30]), steps[moment : moment + 30]
        )
    assert waiting > 5  # some moments had an environment that awaited its reset
    assert 0 in [len(one["actions"]) for one in snapshots[0]["environments"]]


@pytest.mark.parametrize("env_id", [DICE, "CartPole-v1"])
def test_workers_are_restored_like_environments_at_hand(env_id):
    env = Gymnasium(env_id, vectorization="async")
    rng = np.random.default_rng(2)
    discrete = isinstance(env.action_space, spaces.Discrete)
    actions = rng.integers(0, 2, (60, 3)) if discrete else dice_actions(60)
    vector = env.vector(3, seed=4)
    resumed = env.vector(3, seed=5)
    vector.reset()
    moments = [0]
    snapshots = [vector.snapshot()]
    steps = []
    for number, row in enumerate(actions, start=1):
        steps.append(vector.step(row))
        if steps[-1].terminated.any() and len(moments) < 4 and number < 40:
            moments.append(number)
            snapshots.append(vector.snapshot())
    assert len(moments) > 2
    # The second time on, `resumed` is a used vector
    for moment, snapshot in zip(moments, snapshots, strict=True):
        assert resumed.restore(snapshot) == []
        assert_steps_equal(
            play(resumed, actions[moment : moment + 20]), steps[moment : moment + 20]
        )
    vector.close()
    resumed.close()


@pytest.mark.parametrize("env_id", [DICE, STUBBORN])
def test_a_snapshot_of_a_restored_vector_equals_that_of_one_never_interrupted(env_id):
    env = Gymnasium(env_id)
    actions = dice_actions(80)
    straight = env.vector(3, seed=4)
    resumed = env.vector(3, seed=4)
    straight.reset()
    resumed.reset()
    for row in actions:
        straight.step(row)
        resumed.step(row)
        snapshot = resumed.snapshot()
        resumed = env.vector(3, seed=0)
        assert resumed.restore(snapshot) == []
        np.testing.assert_equal(resumed.snapshot(), straight.snapshot())
    assert straight.snapshot()["environments"][0]["episodes"] > 3


def test_a_vector_taken_away_mid_run_does_not_share_its_snapshot():
    vector = Gymnasium(DICE).vector(2, seed=4)
    vector.reset()
    actions = dice_actions(600, 2)
    play(vector, actions[:3])
    snapshot = vector.snapshot()
    seen = [
        snapshot["observation"].copy(),
        [one["actions"].copy() for one in snapshot["environments"]],
    ]
    play(vector, actions[3:])
    np.testing.assert_equal(
        [snapshot["observation"], [one["actions"] for one in snapshot["environments"]]], seen
    )


def test_an_environment_that_is_not_deterministic_starts_a_new_episode_and_the_log_says_so():
    env = Gymnasium("tests.helpers.toy_envs:Restless")
    vector = env.vector(2, seed=0)
    vector.reset()
    play(vector, np.array([[0, 0], [1, 0], [0, 0]]))
    resumed = env.vector(2, seed=0)
    sentences = resumed.restore(vector.snapshot())
    # One reward in 256 comes out right by chance: any of the three steps
    for index, text in enumerate(sentences):
        assert re.fullmatch(
            rf"Environment {index} \(Restless\) starts a new episode: "
            r"step [123] of 3 came out differently: it is not deterministic\.",
            text,
        )
    assert len(sentences) == 2
    step = resumed.step(np.array([1, 1]))  # ignored: this step opens the new episodes
    np.testing.assert_array_equal(step.observation, [[0], [0]])
    np.testing.assert_array_equal(step.reward, [0, 0])
    np.testing.assert_array_equal(step.first, [True, True])
    assert not step.terminated.any()
    assert not step.truncated.any()
    step = resumed.step(np.array([1, 0]))
    np.testing.assert_array_equal(step.observation, [[1], [0]])
    np.testing.assert_array_equal(step.first, [False, False])


def test_an_observation_that_comes_out_differently_is_noticed_when_all_rewards_agree():
    env = Gymnasium("tests.helpers.toy_envs:Elsewhere")
    vector = env.vector(1, seed=0)
    vector.reset()
    vector.step(np.array([0]))
    (sentence,) = env.vector(1, seed=0).restore(vector.snapshot())
    assert sentence.startswith(
        "Environment 0 (Elsewhere) starts a new episode: its actions led to another observation"
    )


def test_an_episode_that_ended_then_and_not_now_is_noticed():
    vector = Gymnasium("tests.helpers.toy_envs:Chain").vector(1, seed=0)
    vector.reset()
    play(vector, np.array([[1], [0]]))
    snapshot = vector.snapshot()
    assert vector.restore(snapshot) == []
    snapshot["done"][0] = True
    (sentence,) = vector.restore(snapshot)
    assert "step 2 of 2 came out differently" in sentence


def test_a_long_episode_is_restored_and_recorded_whole():
    env = Gymnasium("tests.helpers.toy_envs:Chain")
    vector = env.vector(2, seed=0)
    vector.reset()
    # The first ends nowhere, the second at 505
    play(vector, np.array([[0, 0]] * 500 + [[1, 0]] * 2 + [[0, 1]] * 200))
    resumed = env.vector(2, seed=0)
    assert resumed.restore(vector.snapshot()) == []
    np.testing.assert_equal(resumed.snapshot(), vector.snapshot())
    np.testing.assert_array_equal(resumed.observation, vector.observation)
    assert len(resumed.snapshot()["environments"][0]["actions"]) == 702
    np.testing.assert_array_equal(resumed.step(np.array([1, 0])).observation[0], [3])


def test_a_reset_by_hand_takes_the_place_of_one_left_due():
    env = Gymnasium("tests.helpers.toy_envs:Chain")
    vector = env.vector(1, seed=0)
    vector.reset()
    play(vector, np.array([[1], [1], [1]]))
    resumed = env.vector(1, seed=0)
    resumed.restore(vector.snapshot())  # it awaits its reset
    resumed.reset()
    step = resumed.step(np.array([1]))
    np.testing.assert_array_equal(step.observation, [[1]])
    assert not step.first.any()


def test_only_the_environment_that_cannot_be_restored_restarts():
    env = Gymnasium(DICE)
    actions = dice_actions(40)
    vector = env.vector(3, seed=4)
    vector.reset()
    play(vector, actions[:7])
    snapshot = vector.snapshot()
    snapshot["environments"][1]["rewards"][0] += 1  # as if it had paid something else then
    resumed = env.vector(3, seed=4)
    (sentence,) = resumed.restore(snapshot)
    assert sentence.startswith("Environment 1 (Dice-v0) starts a new episode: step 1 of ")
    straight = play(vector, actions[7:])
    restarted = play(resumed, actions[7:])
    for index in (0, 2):
        for one, other in zip(straight, restarted, strict=True):
            np.testing.assert_equal(
                [field[index] for field in other], [field[index] for field in one]
            )
    assert restarted[0].first[1]
    assert not straight[0].first[1]


def test_new_episodes_after_a_failed_restore_are_new_and_the_same_at_every_resume():
    env = Gymnasium(DICE)
    vector = env.vector(2, seed=4)
    opening = vector.reset()
    play(vector, dice_actions(3, 2))
    snapshot = vector.snapshot()
    for one in snapshot["environments"]:
        one["actions"] = one["rewards"] = None
    twice = []
    for _ in range(2):
        resumed = env.vector(2, seed=4)
        assert "beginning is unknown, or too long ago to be kept." in resumed.restore(snapshot)[0]
        twice.append(play(resumed, dice_actions(5, 2)))
    assert_steps_equal(*twice)
    assert not np.isin(
        twice[0][0].observation[:, 1], opening[:, 1]
    ).any()  # column 0 opens with 0 always


def test_a_replay_that_takes_too_long_is_given_up():
    env = Gymnasium("CartPole-v1", replay_limit=0.0)
    vector = env.vector(1, seed=0)
    vector.reset()
    play(vector, np.array([[0], [1], [0]]))
    (sentence,) = env.vector(1, seed=0).restore(vector.snapshot())
    assert sentence == (
        "Environment 0 (CartPole-v1) starts a new episode: replaying its 3 actions takes longer "
        "than env.replay_limit."
    )


def test_an_own_vectorised_version_opens_new_episodes_together():
    env = Gymnasium("CartPole-v1", vectorization="vector_entry_point")
    vector = env.vector(3, seed=0)
    opening = vector.reset()
    play(vector, np.zeros((4, 3), int))
    snapshot = vector.snapshot()
    assert plain(snapshot)
    twice = []
    for _ in range(2):
        resumed = env.vector(3, seed=0)
        sentences = resumed.restore(snapshot)
        assert sentences == [
            "All 3 environments (CartPole-v1) start new episodes: its own vectorised version "
            "cannot be replayed."
        ]
        twice.append(play(resumed, np.zeros((3, 3), int)))
    assert_steps_equal(*twice)
    assert [step.first.all() for step in twice[0]] == [True, False, False]
    assert not np.isin(twice[0][0].observation, opening).any()
    assert not twice[0][0].reward.any()


def test_another_number_of_environments_is_refused():
    vector = Gymnasium("CartPole-v1").vector(3, seed=0)
    vector.reset()
    with pytest.raises(
        UserError, match="holds 3 environments of CartPole-v1, this run has 2 of CartPole-v1"
    ):
        Gymnasium("CartPole-v1").vector(2, seed=0).restore(vector.snapshot())


@pytest.mark.parametrize("limit", [1_000_000, 400])
def test_history_keeps_what_a_list_per_environment_would(limit):
    """Against plain lists; an episode is forgotten only when it fills half of the rows its limit
    allows.
    """
    rng = np.random.default_rng(0)
    history = History(2, spaces.Box(-1, 1, (3,), np.float64), limit)
    rows = limit // 2
    lists = [[], []]
    forgotten = 0
    for index in (0, 1):
        history.begin(index, Start(index, None))
    for _ in range(2000):
        actions = rng.normal(size=(2, 3))
        rewards = rng.normal(size=2).astype(np.float32)
        history.propose(actions)
        history.confirm(rewards)
        for index in (0, 1):
            lists[index].append((actions[index], rewards[index]))
            if rng.random() < (0.002 if index else 0.05):  # episodes of 500 and of 20 steps
                history.begin(index, Start(None, {"state": 1}))
                lists[index] = []
        for kept, saved in zip(lists, history.snapshot(), strict=True):
            if saved["actions"] is None:
                assert len(kept) >= rows // 2
                forgotten += 1
                continue
            np.testing.assert_array_equal(
                saved["actions"], np.array([a for a, _ in kept]).reshape(-1, 3)
            )
            np.testing.assert_array_equal(
                saved["rewards"], np.array([r for _, r in kept], np.float32)
            )
    assert (forgotten > 0) == (limit == 400)


def test_fresh_seeds_differ_by_environment_and_by_episode():
    history = History(2, spaces.Discrete(2))
    seeds = set()
    for _ in range(3):
        for index in (0, 1):
            history.begin(index, Start(index + 40, None))
            seeds.add(history.fresh_seed(index))
    assert len(seeds) == 6


def test_histories_memory_is_bounded():
    history = History(4, spaces.Discrete(2), limit=4000)  # 1000 rows of 4
    for index in range(4):
        history.begin(index, Start(index, None))
    for _ in range(5000):
        history.propose(np.zeros(4, int))
        history.confirm(np.zeros(4, np.float32))
    assert len(history._actions) == 1000
    assert [one["actions"] for one in history.snapshot()] == [None] * 4
