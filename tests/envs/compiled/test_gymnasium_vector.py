"""Compiled environments under Gymnasium's API: its registry, its checkers, its wrappers."""

import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics

import sparring.envs
from sparring.envs.compiled.gymnasium_vector import CompiledVectorEnv
from sparring.envs.compiled.toys import DeepSea
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.errors import UserError

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[3]
IDS = [f"sparring/{name}" for name in sparring.envs._COMPILED]


def test_importing_registers_without_tensorflow():
    code = """
import sys, envs, gymnasium
assert "tensorflow" not in sys.modules
print(sorted(i for i in gymnasium.registry if i.startswith("sparring/")))
"""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert ran.stdout.strip() == str(sorted(IDS))
    assert "sparring/CartPole-v1" in IDS


@pytest.mark.parametrize("id", IDS)
def test_gymnasiums_own_checker_passes(id):
    """Told of: infinite or unusual bounds, which are the originals', and that no human sees the
    pictures.
    """
    env = gym.make(id, render_mode="rgb_array", compile="graph")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        check_env(env.unwrapped)
    allowed = ("infinity", "symmetric and normalized")
    assert [
        str(w.message) for w in told if not any(text in str(w.message) for text in allowed)
    ] == []


@pytest.mark.parametrize("id", IDS)
def test_a_registration_says_what_the_class_does(id):
    spec = gym.spec(id)
    vector = gym.make_vec(id, num_envs=2)
    assert isinstance(vector, CompiledVectorEnv)
    limit = type(vector.compiled_environment).max_episode_steps
    assert spec.max_episode_steps == limit == vector.compiled_environment.max_episode_steps
    assert gym.make(id).observation_space == vector.single_observation_space


@pytest.mark.parametrize("id", IDS)
def test_a_vector_keeps_gymnasiums_contract(id):
    """Random play under the passive checks of a vector: spaces, dtypes, NEXT_STEP, and limits by
    TimeLimit's rule.
    """
    vector = gym.make_vec(
        id, num_envs=3, max_episode_steps=7, compile="graph" if id > "sparring/C" else "xla"
    )
    assert vector.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    observation, info = vector.reset(seed=5)
    vector.action_space.seed(5)
    assert info == {}
    elapsed = np.zeros(3, int)
    done = np.zeros(3, bool)
    ends = 0
    for _ in range(40):
        assert observation in vector.observation_space
        observation, reward, terminated, truncated, info = vector.step(vector.action_space.sample())
        elapsed = np.where(done, 0, elapsed + 1)
        assert (reward[done] == 0).all()
        assert not (terminated | truncated)[done].any()
        np.testing.assert_array_equal(truncated, elapsed >= 7)
        assert (reward.shape, terminated.shape, terminated.dtype, truncated.dtype) == (
            (3,),
            (3,),
            np.bool_,
            np.bool_,
        )
        done = terminated | truncated
        ends += done.sum()
    assert ends >= 3
    vector.close()


def test_a_seed_decides_and_none_goes_on():
    one, other = (
        gym.make_vec("sparring/CartPole-v1", num_envs=4, compile="graph") for _ in range(2)
    )
    first = one.reset(seed=1)[0]
    again = other.reset(seed=1)[0]
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(one.reset()[0], other.reset()[0])
    assert (one.reset()[0] != first).any()
    assert (one.reset(seed=2)[0] != first).any()
    assert (one.reset(seed=2**70 + 1)[0] == first).all()  # seeds beyond 32 bits wrap round
    assert len(np.unique(first, axis=0)) == 4
    np.testing.assert_array_equal(
        one.reset(seed=3)[0], one.compiled_environment.vector(4, 3, compile="graph").reset()
    )


def test_a_single_environment_plays_like_gymnasiums():
    """One state, the same actions: the observations of Gymnasium's own, and its time
    limit around.
    """
    ours = gym.make("sparring/MountainCar-v0", compile="graph")
    theirs = gym.make("MountainCar-v0")
    observation, _ = ours.reset(seed=0)
    theirs.reset(seed=0)
    theirs.unwrapped.state = observation.astype(np.float64)
    for t in range(200):
        (a, *rest), (b, *others) = ours.step(t // 40 % 3), theirs.step(t // 40 % 3)
        np.testing.assert_allclose(a, b, atol=1e-4)
        assert rest[:3] == others[:3]
    assert rest[2]


def test_box_actions_are_clipped_in_the_single_environment_too():
    env = gym.make(
        "sparring/MountainCarContinuous-v0", compile="graph", disable_env_checker=True
    ).unwrapped
    env.reset(seed=0)
    assert env.step(np.array([30.0], np.float32))[1] == pytest.approx(-0.1)


def test_gymnasiums_statistics_wrapper_counts_episodes_right():
    """Two moves right and 0.99 at the end of each episode, every third step an opening."""
    vector = RecordEpisodeStatistics(
        gym.make_vec("sparring/DeepSea-v0", num_envs=2, size=2, compile="graph")
    )
    vector.reset(seed=0)
    found = []
    for _ in range(9):
        *_, info = vector.step(np.array([1, 1]))
        if "episode" in info:
            found += list(zip(info["episode"]["r"], info["episode"]["l"], strict=True))
    assert found == [(pytest.approx(0.99), 2)] * 6


def test_the_bridge_takes_it_as_an_environment_with_its_own_vector():
    env = Gymnasium("sparring/Catch-v0", vectorization="vector_entry_point")
    vector = env.vector(4, seed=0)
    vector.reset()
    steps = [vector.step(np.ones(4, int)) for _ in range(10)]
    assert [bool(step.terminated.all()) for step in steps] == [False] * 8 + [True, False]
    assert steps[9].first.all()


def test_arguments_reach_the_class_and_pictures_are_of_everyone():
    vector = gym.make_vec(
        "sparring/DeepSea-v0",
        num_envs=3,
        size=5,
        mapping_seed=2,
        render_mode="rgb_array",
        compile="graph",
    )
    assert (vector.compiled_environment.right == DeepSea(5, 2).right).all()
    vector.reset(seed=0)
    right = vector.compiled_environment.right[0, 0]
    vector.step(np.array([1 - right, right, right]))
    stayed, went, other = vector.render()
    assert stayed.dtype == np.uint8
    assert stayed.shape == went.shape
    assert (stayed != went).any()
    np.testing.assert_array_equal(went, other)
    assert gym.make_vec("sparring/DeepSea-v0").render() is None


def test_a_compiled_environment_of_ones_own_needs_no_registration():
    vector = CompiledVectorEnv(DeepSea(3), num_envs=2, compile="graph")
    observation, _ = vector.reset(seed=0)
    assert observation.shape == (2, 9)


def test_what_is_not_there_is_refused():
    with pytest.raises(UserError, match="no render_mode 'human'"):
        gym.make_vec("sparring/CartPole-v1", render_mode="human")
    with pytest.raises(gym.error.ResetNeeded):
        gym.make_vec("sparring/CartPole-v1").step(np.array([0]))
    with pytest.raises(gym.error.ResetNeeded):
        gym.make("sparring/CartPole-v1").unwrapped.step(0)
