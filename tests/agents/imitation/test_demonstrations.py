"""Demonstrations: their file, what training is shown of them, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from sparring.agents.imitation.demonstrations import Demonstrations, load
from sparring.envs.compiled.acrobot import Acrobot
from sparring.envs.compiled.classic_control import CartPole, Pendulum
from sparring.errors import UserError
from tests.helpers.demonstrations import CARTPOLE, made_up


def two_episodes(**changes: Any) -> Demonstrations:
    """Return episodes of two steps and of three, which see 0, 1, (2) and 10, 11, 12, (13)."""
    columns: dict[str, Any] = {
        "observation": np.array([[0], [1], [10], [11], [12]], np.float32),
        "action": np.array([0, 1, 1, 0, 1]),
        "reward": np.array([1, 2, 4, 8, 16], np.float32),
        "terminated": np.array([False, True, False, False, False]),
        "truncated": np.array([False, False, False, False, True]),
        "first": np.array([True, False, True, False, False]),
        "last_observation": np.array([[2], [13]], np.float32),
        "metadata": {"seed": 3},
    }
    return Demonstrations(**columns | changes)


def test_transitions_lead_to_the_next_observation_and_at_an_end_to_the_last() -> None:
    steps = two_episodes().transitions()
    np.testing.assert_array_equal(steps.following[:, 0], [1, 2, 11, 12, 13])
    np.testing.assert_array_equal(steps.terminated, [False, True, False, False, False])
    assert "reward" not in steps._fields
    np.testing.assert_array_equal(two_episodes().returns, [3, 28])


def test_the_first_episodes_alone() -> None:
    one = two_episodes().limited(1)
    assert (one.episodes, one.steps) == (1, 2)
    np.testing.assert_array_equal(one.last_observation, [[2]])
    with pytest.raises(UserError, match=r"^demonstrations.episodes=3: demonstrations has 2\."):
        two_episodes().limited(3)


def test_parts_of_an_observation_have_names() -> None:
    whole = two_episodes()
    parts = {"a": whole.observation, "b": whole.observation.astype(np.uint8)}
    last = {"a": whole.last_observation, "b": whole.last_observation.astype(np.uint8)}
    found = two_episodes(observation=parts, last_observation=last)
    np.testing.assert_array_equal(found.transitions().following["b"][:, 0], [1, 2, 11, 12, 13])


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    whole = two_episodes()
    parts = {"a": whole.observation, "b": whole.observation.astype(np.uint8)}
    last = {"a": whole.last_observation, "b": whole.last_observation.astype(np.uint8)}
    for saved in (whole, two_episodes(observation=parts, last_observation=last)):
        saved.save(path)
        found = load(str(path))
        for name in ("observation", "last_observation"):
            ours = getattr(saved, name)
            theirs = getattr(found, name)
            pairs = (
                [(ours[k], theirs[k]) for k in ours] if isinstance(ours, dict) else [(ours, theirs)]
            )
            for mine, yours in pairs:
                assert mine.dtype == yours.dtype
                np.testing.assert_array_equal(mine, yours)
        assert found.metadata["seed"] == 3
        assert "tensorflow" in found.metadata["written_by"]["versions"]
        assert found.fingerprint == saved.fingerprint
    assert load(str(path), episodes=1).episodes == 1


def test_another_action_is_another_fingerprint_and_another_reward_is_not() -> None:
    whole = two_episodes().fingerprint
    assert two_episodes(action=np.array([0, 1, 1, 0, 0])).fingerprint != whole
    assert two_episodes(reward=np.zeros(5, np.float32)).fingerprint == whole


BAD = {
    "nothing": (
        {
            "observation": np.zeros((0, 1), np.float32),
            **dict.fromkeys(("action", "reward", "terminated", "truncated", "first"), np.zeros(0)),
        },
        "there is no step in it",
    ),
    "a short column": ({"reward": np.zeros(4, np.float32)}, "5 actions and 4 of another column"),
    "no end": ({"truncated": np.zeros(5, bool)}, "its episodes are not whole"),
    "a lost beginning": (
        {"first": np.array([True, False, False, False, False])},
        "its episodes are not whole",
    ),
    "too few last observations": (
        {"last_observation": np.zeros((1, 1), np.float32)},
        "its episodes are not whole",
    ),
    "NaN": (
        {"observation": np.array([[0], [1], [np.nan], [11], [12]], np.float32)},
        "observation is NaN or infinite at row 2",
    ),
    "infinite last": (
        {"last_observation": np.array([[2], [np.inf]], np.float32)},
        "last_observation is NaN or infinite at row 1",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_columns_are_refused_in_a_line(name: str) -> None:
    changes, said = BAD[name]
    with pytest.raises(UserError, match=f"^demonstrations: {said}|^demonstrations: it has {said}"):
        two_episodes(**changes)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    with pytest.raises(UserError, match=r"^expert=.*mine.npz: there is no such file. Record one"):
        load(str(path))
    path.write_text("no arrays")
    with pytest.raises(UserError, match=r"this is no npz file"):
        load(str(path))
    np.savez(path, a=np.zeros(3))
    with pytest.raises(UserError, match="its schema is absent, and this version of Sparring reads"):
        load(str(path))
    np.savez(path, schema=np.int64(1), metadata=np.array("{}"), action=np.zeros(3))
    with pytest.raises(UserError, match="it lacks 'observation'"):
        load(str(path))
    two_episodes(metadata={"memory": True}).save(path)
    with pytest.raises(UserError, match="its expert has a memory"):
        load(str(path))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, schema=np.array([{"a": 1}], object), metadata=np.array("{}"))
    with pytest.raises(UserError, match="cannot be read as demonstrations"):
        load(str(path))


def test_spaces_must_be_the_environments() -> None:
    upright = made_up(*CARTPOLE)
    upright.check(CartPole())
    with pytest.raises(UserError, match="its observations are float32 \\[4\\], which do not fit"):
        upright.check(Acrobot())
    said = Demonstrations(**{**vars(upright), "metadata": {"observation_space": "Box(2)"}})
    with pytest.raises(UserError, match=r"its observation space is Box\(2\), and the environment"):
        said.check(CartPole())
    pendulum = Pendulum()
    far = made_up(pendulum.observation_space, pendulum.action_space)
    far.check(pendulum)
    with pytest.raises(UserError, match=r"its actions, float32 \[1\], are not all in Box\(-0.1"):
        far.check_spaces(pendulum.observation_space, spaces.Box(-0.1, 0.1, (1,)))
    with pytest.raises(UserError, match=r"its actions, int64 \[\], are not all in Discrete\(1\)"):
        upright.check_spaces(CARTPOLE[0], spaces.Discrete(1))


def test_settings_that_differ_are_named() -> None:
    config = {"_target_": "a.CartPole", "max_episode_steps": None, "inner": {"gravity": 9.8}}
    found = made_up(*CARTPOLE, environment=json.loads(json.dumps(config)))
    found.check(CartPole(), config)
    other = {**config, "inner": {"gravity": 20.0}}
    said = "env.inner.gravity was 9.8 where it was recorded, and is 20.0 here"
    with pytest.raises(UserError, match=said):
        found.check(CartPole(), other)
    accepted = Demonstrations(**{**vars(found), "other_settings": True})
    accepted.check(CartPole(), other)
