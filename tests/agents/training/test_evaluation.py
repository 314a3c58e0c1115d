"""Evaluation: its limit, its environments, its end by a signal, and all that it may leave out."""

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from sparring.agents.agent import Memoryless
from sparring.agents.drivers.on_host import Collector
from sparring.agents.training import episodes, evaluation
from sparring.agents.training.evaluation import EvaluationSettings
from sparring.agents.training.rollout import RolloutSpec
from sparring.envs.compiled.classic_control import CartPole
from sparring.envs.compiled.toys import PointMass
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.errors import UserError
from tests.helpers.toy_envs import Chain, Closes

pytestmark = pytest.mark.long


class Endless(Chain):
    def step(self, action: int) -> Any:
        observation, reward, _, truncated, info = super().step(0)
        return observation, reward, False, truncated, info


def evaluator(trained_in: Any, mode: str = "graph", **settings: Any) -> evaluation.Evaluator:
    """Evaluator of an agent that always takes action 1."""
    chosen = EvaluationSettings(sampled=False, video_every=0, **settings)
    return evaluation.Evaluator(Right(trained_in), trained_in, mode, 0, chosen)


class Right(Memoryless):
    def __init__(self, environment: Any) -> None:
        self.spec = environment.action_space

    def act_greedy(self, seen: tf.Tensor) -> tf.Tensor:
        return tf.ones([seen.shape[0], *(self.spec.shape or ())], tf.int32)


def evaluated(found: evaluation.Evaluator, step: int = 1) -> Any:
    return found(step, tf.constant(0.5), episodes=3)


ENDLESS = "tests.agents.training.test_evaluation:Endless"


def test_an_episode_without_an_end_is_cut_and_told_of(caplog: pytest.LogCaptureFixture) -> None:
    endless = Gymnasium(ENDLESS)
    assert endless.max_episode_steps is None
    assert evaluator(endless).environment.max_episode_steps == 10_000
    for own, asked, lasts in ((None, 50, 50), (40, 50, 40), (60, 50, 50), (60, None, 60)):
        environment = Gymnasium(ENDLESS, max_episode_steps=own)
        found = evaluated(evaluator(environment, max_episode_steps=asked))
        assert found.scalars["eval/episode_length"] == lasts
        ours = lasts == asked
        assert found.notes == ({"episodes_cut": {"steps": 50, "share": 1.0}} if ours else {})
        assert environment.max_episode_steps == own  # training's is as it was
    assert "3 of 3 episodes had no end within 50 steps and were cut there" in caplog.text


@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_compiled_episodes_are_cut_alike(mode: str) -> None:
    # The mass that is not pushed stays where it is, and its episode has no end but the clock
    found = evaluated(evaluator(PointMass(max_episode_steps=70), mode, max_episode_steps=50))
    assert found.scalars["eval/episode_length"] == 50
    assert found.notes == {"episodes_cut": {"steps": 50, "share": 1.0}}
    assert evaluated(evaluator(PointMass(max_episode_steps=50), mode)).scalars == found.scalars


def test_long_compiled_evaluations_are_played_in_parts_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = evaluated(evaluator(CartPole()))
    monkeypatch.setattr(episodes, "FIRST_CALL", 3)
    said: list[str] = []
    monkeypatch.setattr(episodes.activity, "say", said.append)
    parts = evaluated(evaluator(CartPole()))
    assert len(said) > 1
    assert said[0] == "evaluating, 0 of 3 episodes"  # pushed to the right, a pole stays up longer
    np.testing.assert_array_equal(
        parts.histograms["eval/episode_returns"], whole.histograms["eval/episode_returns"]
    )
    assert whole.scalars["eval/episode_length"] > 3


@pytest.mark.parametrize("compiled", [True, False])
def test_a_signal_breaks_an_evaluation_off(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episodes, "FIRST_CALL", 3)
    found = evaluator(CartPole() if compiled else Gymnasium("tests.helpers.toy_envs:Chain"))
    evaluated(found)
    monkeypatch.setattr(episodes.signals, "asked", lambda: True)
    with pytest.raises(episodes.signals.StoppedError):
        evaluated(found)
    monkeypatch.undo()
    evaluated(found)  # as before


def test_environments_of_the_host_are_built_once_and_only_if_there_is_an_evaluation(
    tmp_path: Path,
) -> None:
    environment = Gymnasium(f"{Closes.__module__}:Closes", kwargs={"folder": str(tmp_path)})
    found = evaluator(environment)
    assert found(1, tf.constant(0.5), episodes=0).scalars == {}
    for path in tmp_path.iterdir():
        path.unlink()  # of the one that was tried when it was named
    first = evaluated(found)
    assert evaluated(found).scalars == first.scalars
    assert list(tmp_path.iterdir()) == []  # none was closed
    found.close()
    assert len(list(tmp_path.iterdir())) == 3


def test_another_environment_may_judge_what_was_trained_in_this_one() -> None:
    # Clipped to 1, the rewards 1, 11 and 21 of a chain's three steps add up to 3 and not to 33
    clip = partial(gym.wrappers.ClipReward, min_reward=0, max_reward=1)
    chain = "tests.helpers.toy_envs:Chain"
    clipped = Gymnasium(chain, wrappers=[clip])
    plain = Gymnasium(chain)
    assert evaluated(evaluator(clipped)).scalars["eval/episode_return"] == 3.0
    judged = evaluated(evaluator(clipped, environment=plain))
    assert judged.scalars["eval/episode_return"] == 33.0
    with pytest.raises(UserError, match=r"trainer.evaluation.environment: its observation space"):
        evaluator(clipped, environment=Gymnasium("CartPole-v1"))


def test_numbers_in_the_info_of_last_steps_are_logged_and_what_is_not_there_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    chain = Gymnasium("tests.helpers.toy_envs:Chain", info=["position", "speed"])
    found = evaluated(evaluator(chain)).scalars
    assert found["eval/position"] == 3.0  # where a chain ends
    assert "eval/speed" not in found
    assert "none of 3 evaluation episodes ended with a number under speed" in caplog.text


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_numbers_in_the_info_of_training_episodes_are_noted_with_their_count(
    vectorization: str,
) -> None:
    noted: list[Any] = []
    chain = Gymnasium(
        "tests.helpers.toy_envs:Chain", info=["position"], vectorization=vectorization
    )

    def right(observation: Any, known: Any, t: Any) -> Any:
        return tf.ones([2], tf.int32), {}, known

    collector = Collector(RolloutSpec(chain, 2, 8, 0), right, note=noted.append)
    collector.open()
    collector.collect(0)
    collector.close()
    # Three steps and a reset, twice: both chains end at position 3 in steps 3 and 7
    assert noted == [{"rollout/position": (6.0, 2.0)}] * 2


@pytest.mark.parametrize("name", ["episode_return", "a b"])
def test_a_name_that_cannot_be_part_of_a_tag_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} cannot be part of a tag"):
        Gymnasium("tests.helpers.toy_envs:Chain", info=[name])
