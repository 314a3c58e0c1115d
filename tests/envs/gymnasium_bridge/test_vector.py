"""Vector steps of environments whose every number is known, against the table, and against
Gymnasium itself.
"""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from sparring.envs.gymnasium_bridge import vector
from sparring.envs.gymnasium_bridge.bridge import Gymnasium, HostVector, Step
from sparring.errors import UserError


def play(vector: HostVector, actions: np.ndarray) -> list[Step]:
    return [vector.step(row) for row in actions]


def assert_steps_equal(left: list[Step], right: list[Step]) -> None:
    assert len(left) == len(right)
    for number, (one, other) in enumerate(zip(left, right, strict=True)):
        for field, a, b in zip(Step._fields, one, other, strict=True):
            assert a.dtype == b.dtype
            assert a.tobytes() == b.tobytes(), f"step {number}, {field}: {a} is not {b}"


# A chain pays 10 * (position before) + action, ends at position 3, is truncated after 5 steps.
# Environment 0 goes right always; environment 1 waits three steps; environment 2 reaches position 3
# exactly at step 5: both flags at once.
ACTIONS = [[1, 0, 0], [1, 0, 0], [1, 0, 1], [1, 1, 1], [1, 0, 1], [1, 1, 1], [1, 1, 1], [1, 1, 0]]
POSITIONS = [[1, 0, 0], [2, 0, 0], [3, 0, 1], [0, 1, 2], [1, 1, 3], [2, 0, 0], [3, 1, 1], [0, 2, 1]]
REWARDS = [
    [1, 0, 0],
    [11, 0, 0],
    [21, 0, 1],
    [0, 1, 11],
    [1, 10, 21],
    [11, 0, 0],
    [21, 1, 1],
    [0, 11, 10],
]
TERMINATED = [
    [0, 0, 0],
    [0, 0, 0],
    [1, 0, 0],
    [0, 0, 0],
    [0, 0, 1],
    [0, 0, 0],
    [1, 0, 0],
    [0, 0, 0],
]
TRUNCATED = [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
FIRST = [[0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 1, 1], [0, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_chain_goes_step_for_step_as_written_down(vectorization):
    vector = Gymnasium("tests.helpers.toy_envs:toy/Chain-v0", vectorization=vectorization).vector(
        3, seed=0
    )
    first = vector.reset()
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, np.zeros((3, 1)))
    steps = play(vector, np.array(ACTIONS))
    vector.close()
    table = zip(steps, POSITIONS, REWARDS, TERMINATED, TRUNCATED, FIRST, strict=True)
    for step, position, reward, terminated, truncated, opened in table:
        assert [array.dtype for array in step] == [np.float32, np.float32, bool, bool, bool]
        np.testing.assert_array_equal(step.observation, np.array(position)[:, None])
        np.testing.assert_array_equal(step.reward, reward)
        np.testing.assert_array_equal(step.terminated, terminated)
        np.testing.assert_array_equal(step.truncated, truncated)
        np.testing.assert_array_equal(step.first, opened)


def test_what_was_handed_over_is_not_changed_by_an_environment_that_reuses_its_array():
    vector = Gymnasium("tests.helpers.toy_envs:SameArray").vector(2, seed=0)
    seen = [vector.reset(), *(step.observation for step in play(vector, np.ones((3, 2), int)))]
    np.testing.assert_array_equal(np.array(seen)[:, :, 0], [[0, 0], [1, 1], [2, 2], [3, 3]])


def test_changing_what_was_handed_over_changes_nothing_behind_it():
    one, other = (
        Gymnasium("tests.helpers.toy_envs:toy/Dice-v0").vector(2, seed=5) for _ in range(2)
    )
    one.reset()
    other.reset()[:] = 7
    other.observation[:] = 8
    assert one.snapshot()["observation"].tobytes() == other.snapshot()["observation"].tobytes()
    actions = np.random.default_rng(0).uniform(-1, 1, (30, 2, 1)).astype(np.float32)
    kept = []
    for row in actions:
        step = other.step(row)
        kept.append(Step(*(array.copy() for array in step)))
        for array in step:
            array[...] = 1
    assert_steps_equal(play(one, actions), kept)
    assert one.snapshot()["observation"].tobytes() == other.snapshot()["observation"].tobytes()


RECEIVED = {  # an action space, an agent's action, and what the environment then receives
    "discrete": (spaces.Discrete(3, start=-1), [2], [1]),
    "multi discrete": (spaces.MultiDiscrete([2, 3], start=[1, 5]), [[1, 2]], [[2, 7]]),
    "binary": (spaces.MultiBinary(3), [[0, 1, 1]], [[0, 1, 1]]),
    "clipped": (spaces.Box(-1, 2, (3,), np.float32), [[-8, 0.5, 8]], [[-1, 0.5, 2]]),
    "clipped wide": (
        spaces.Box(-1, 2, (2, 2), np.float64),
        [[[-8, 0.5], [1, 8]]],
        [[[-1, 0.5], [1, 2]]],
    ),
}


@pytest.mark.parametrize(("space", "action", "received"), RECEIVED.values(), ids=RECEIVED)
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_an_environment_receives_members_of_its_own_action_space(
    space, action, received, vectorization
):
    """Echo raises at an action outside its space, and observes the action it received."""
    vector = Gymnasium(
        "tests.helpers.toy_envs:Echo", {"action_space": space}, vectorization=vectorization
    ).vector(1, seed=0)
    np.testing.assert_array_equal(
        vector.reset().ravel(), np.full(np.prod(space.shape, dtype=int), -1)
    )
    seen = vector.step(np.array(action, np.float32)).observation
    vector.close()
    np.testing.assert_array_equal(seen.ravel(), np.ravel(received))


def test_the_agents_spaces_are_the_vectors_and_hold_what_it_gives():
    space = spaces.Dict(where=spaces.Discrete(3), bits=spaces.MultiBinary(2))
    env = Gymnasium("tests.helpers.toy_envs:Shows", {"observation_space": space})
    vector = env.vector(4, seed=1)
    assert env.observation_space == vector.observation_space == spaces.Box(0, 1, (5,), np.float32)
    assert env.action_space == vector.action_space == spaces.Discrete(2)
    for observation in (vector.reset(), vector.step(np.zeros(4, int)).observation):
        assert observation.shape == (4, 5)
        assert all(env.observation_space.contains(row) for row in observation)


def by_hand(env_id: str, seeds: list[int], actions: np.ndarray) -> list[Step]:
    """Single environments from gymnasium.make, stepped and reset one by one."""
    envs = [gym.make(env_id) for _ in seeds]
    for env, seed in zip(envs, seeds, strict=True):
        env.reset(seed=seed)
    done = [False] * len(envs)
    steps = []
    for row in actions:
        first = np.array(done)
        rows = [
            (*env.reset()[:1], 0.0, False, False) if ended else env.step(action)[:4]
            for env, ended, action in zip(envs, done, row, strict=True)
        ]
        observation, reward, terminated, truncated = map(np.array, zip(*rows, strict=True))
        done = list(terminated | truncated)
        steps.append(
            Step(
                observation.astype(np.float32),
                reward.astype(np.float32),
                terminated,
                truncated,
                first,
            )
        )
    return steps


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_cartpole_is_gymnasiums_own_for_500_random_steps(vectorization):
    actions = np.random.default_rng(1).integers(0, 2, (500, 4))
    vector = Gymnasium("CartPole-v1", vectorization=vectorization).vector(4, seed=11)
    vector.reset()
    steps = play(vector, actions)
    vector.close()
    assert sum(step.first.sum() for step in steps) > 40  # random play lasts about 22 steps
    assert_steps_equal(steps, by_hand("CartPole-v1", [11, 12, 13, 14], actions))


def test_an_environments_own_vectorised_version_is_stepped_as_it_is():
    actions = np.random.default_rng(1).integers(0, 2, (200, 4))
    vector = Gymnasium(
        "CartPole-v1", vectorization="vector_entry_point", max_episode_steps=20
    ).vector(4, seed=3)
    theirs = gym.make_vec("CartPole-v1", 4, "vector_entry_point", max_episode_steps=20)
    np.testing.assert_array_equal(vector.reset(), theirs.reset(seed=3)[0])
    done = np.zeros(4, bool)
    truncations = 0
    for row in actions:
        step = vector.step(row)
        observation, reward, terminated, truncated, _ = theirs.step(row)
        assert_steps_equal([step], [Step(observation, reward, terminated, truncated, done)])
        assert not step.reward[step.first].any()
        done = terminated | truncated
        truncations += truncated.sum()
    assert truncations > 0


def test_the_first_environment_is_drawn_when_asked():
    vector = Gymnasium("tests.helpers.toy_envs:toy/Chain-v0").vector(2, seed=0, render=True)
    vector.reset()
    vector.step(np.array([1, 0]))
    picture = vector.render()
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, np.ones((4, 6, 3)))  # the colour is the position


@pytest.mark.parametrize("vectorization", ["sync", "async", "vector_entry_point"])
def test_cartpole_gives_pictures_in_every_mode(vectorization):
    vector = Gymnasium("CartPole-v1", vectorization=vectorization).vector(2, seed=0, render=True)
    vector.reset()
    picture = vector.render()
    vector.close()
    assert picture.shape == (400, 600, 3)
    assert picture.dtype == np.uint8
    assert 0 < (picture < 255).any(axis=-1).mean() < 0.2  # a cart, a pole and a track on white


@pytest.mark.parametrize(
    ("frame", "drawn"),
    [
        (np.full((2, 3, 3), 0.2), 51),  # 0.2 * 255
        (np.full((2, 3, 3), 130.4, np.float32), 130),
        (np.full((2, 3), 7, np.uint8), 7),
        (np.full((2, 3, 1), 7, np.uint8), 7),
        (np.full((2, 3, 4), 7, np.uint8), 7),
        ([np.zeros((2, 3, 3), np.uint8), np.full((2, 3, 3), 9, np.uint8)], 9),
    ],
)
def test_frames_of_other_kinds_are_drawn_as_they_are_meant(frame, drawn):
    picture = vector._picture(frame, "toy")
    assert (picture.dtype, picture.shape) == (np.uint8, (2, 3, 3))
    assert (picture == drawn).all()


def test_a_frame_that_is_no_picture_is_refused_by_what_it_is():
    with pytest.raises(
        UserError, match=r"toy cannot be drawn: render\(\) gave an array \[2, 3, 7\]"
    ):
        vector._picture(np.zeros((2, 3, 7)), "toy")
