"""Minari's episodes as demonstrations: by hand, and of a data set where Minari is installed."""

import importlib.util
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest

from sparring.agents.imitation import minari_episodes
from sparring.agents.imitation.demonstrations import Demonstrations, load
from sparring.errors import UserError
from tests.helpers.demonstrations import CARTPOLE


def episode(observations: Any, ends: str) -> SimpleNamespace:
    shown = observations["a"] if isinstance(observations, dict) else observations
    steps = len(shown) - 1
    flags = np.zeros(steps, bool)
    last = np.arange(steps) == steps - 1
    return SimpleNamespace(
        observations=observations,
        actions=np.arange(steps) + 3,
        rewards=np.arange(steps, dtype=np.float64),
        terminations=last if ends == "terminated" else flags,
        truncations=last if ends == "truncated" else flags,
    )


def test_columns_by_hand(caplog: pytest.LogCaptureFixture) -> None:
    several = [
        episode(np.array([[0.0], [1.0], [2.0]]), "terminated"),
        episode(np.array([[5.0], [6.0]]), "broken off"),
    ]
    with caplog.at_level(logging.WARNING, "sparring"):
        found = Demonstrations(**minari_episodes.columns(several, 3, "here"))
    assert "here: 1 of 2 episodes break off without an end" in caplog.text
    np.testing.assert_array_equal(found.observation, np.float32([[0], [1], [5]]))
    np.testing.assert_array_equal(found.last_observation, np.float32([[2], [6]]))
    np.testing.assert_array_equal(found.transitions().following, np.float32([[1], [2], [6]]))
    np.testing.assert_array_equal(found.action, [0, 1, 0])  # choices counted from 3
    np.testing.assert_array_equal(found.first, [True, False, True])
    np.testing.assert_array_equal(found.terminated, [False, True, False])
    np.testing.assert_array_equal(found.truncated, [False, False, True])
    np.testing.assert_array_equal(found.returns, [1.0, 0.0])
    assert found.observation.dtype == np.float32


def test_observations_by_name_and_other_things() -> None:
    named = {"a": np.zeros((3, 2), np.uint8), "b": np.ones((3, 1))}
    found = minari_episodes.columns([episode(named, "truncated")], 0, "here")
    assert {k: v.shape for k, v in found["observation"].items()} == {"a": (2, 2), "b": (2, 1)}
    assert found["observation"]["a"].dtype == np.uint8
    with pytest.raises(UserError, match="its observations a are of type tuple"):
        minari_episodes.columns([episode({"a": (1, 2, 3)}, "truncated")], 0, "here")


@pytest.mark.skipif(importlib.util.find_spec("minari") is not None, reason="it is installed")
def test_minari_is_asked_for_where_it_is_not_installed() -> None:
    with pytest.raises(UserError, match=r"expert=minari:x: Minari is not installed: pip install"):
        load("minari:x")


def test_a_data_set_of_minaris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("minari")
    pytest.importorskip("jax")  # which recording asks for, and reading does not
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    from minari import DataCollector

    env = DataCollector(gymnasium.make("CartPole-v1"))
    lengths = []
    for seed in range(3):
        env.reset(seed=seed)
        ended = False
        lengths.append(0)
        while not ended:
            _, _, terminated, truncated, _ = env.step(1)
            ended = terminated or truncated
            lengths[-1] += 1
    env.create_dataset("cartpole/right-v0")
    found = load("minari:cartpole/right-v0", episodes=2)
    found.check_spaces(*CARTPOLE)
    assert (found.episodes, found.steps) == (2, sum(lengths[:2]))
    np.testing.assert_array_equal(found.returns, lengths[:2])
    with pytest.raises(UserError, match="expert=minari:none/here-v0: Minari cannot load it"):
        load("minari:none/here-v0")
