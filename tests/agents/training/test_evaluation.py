"""Evaluation against environments whose returns are known, and against Gymnasium stepped one at a
time.
"""

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from sparring.agents.training import evaluation
from sparring.agents.training.evaluation import EvaluationSettings
from sparring.envs.compiled.classic_control import CartPole
from sparring.envs.compiled.toys import PointMass
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.errors import UserError
from sparring.tensorboard import gif
from tests.helpers.toy_envs import Chain, Closes, Dice

pytestmark = pytest.mark.long


def right(observation: np.ndarray, t: int) -> np.ndarray:
    return np.ones(len(observation), np.int64)


def stay(observation: np.ndarray, t: int) -> np.ndarray:
    return np.zeros(len(observation), np.int64)


def test_returns_and_lengths_are_those_of_whole_episodes() -> None:
    chain = Gymnasium("tests.helpers.toy_envs:Chain", max_episode_steps=5)
    # to the right: 10 * 0 + 1, 10 * 1 + 1, 10 * 2 + 1, and position 3 ends it
    returns, lengths, _ = evaluation.episodes(chain, right, 7, seed=0, at_once=3)
    np.testing.assert_array_equal(returns, [33.0] * 7)
    np.testing.assert_array_equal(lengths, [3] * 7)
    # standing still pays nothing, until the clock runs out after five steps
    returns, lengths, _ = evaluation.episodes(chain, stay, 2, seed=0)
    np.testing.assert_array_equal(returns, [0.0] * 2)
    np.testing.assert_array_equal(lengths, [5] * 2)


def play_alone(seed: int, count: int) -> list[tuple[float, int]]:
    """Episodes of one Dice after the other, through Gymnasium alone."""
    env = gym.make("toy/Dice-v0")
    found = []
    observation, _ = env.reset(seed=seed)
    for _ in range(count):
        total = 0.0
        length = 0
        over = False
        while not over:
            observation, reward, terminated, truncated, _ = env.step(np.tanh(observation[:1]))
            total = total + float(np.float32(reward))
            length = length + 1
            over = terminated or truncated
        found.append((total, length))
        observation, _ = env.reset()
    return found


def test_every_environment_plays_its_share_whatever_the_lengths_of_its_episodes() -> None:
    dice = Gymnasium("tests.helpers.toy_envs:toy/Dice-v0")
    returns, lengths, _ = evaluation.episodes(
        dice, lambda o, t: np.tanh(o[:, :1]), 10, seed=5, at_once=4
    )
    shares = [play_alone(5 + i, share) for i, share in enumerate((3, 3, 2, 2))]
    expected = [shares[i][k] for k in range(3) for i in range(4) if k < len(shares[i])]
    np.testing.assert_allclose(returns, [r for r, _ in expected], rtol=1e-6)
    np.testing.assert_array_equal(lengths, [n for _, n in expected])
    assert len(set(lengths.tolist())) > 2  # or the shares would not matter


def test_the_seed_decides_and_the_step_number_is_handed_on() -> None:
    dice = Gymnasium("tests.helpers.toy_envs:toy/Dice-v0")
    seen = []

    def act(observation: np.ndarray, t: int) -> np.ndarray:
        seen.append(t)
        return np.zeros((len(observation), 1), np.float32)

    first = evaluation.episodes(dice, act, 4, seed=1)
    assert seen == list(range(len(seen)))
    np.testing.assert_array_equal(first, evaluation.episodes(dice, act, 4, seed=1))
    assert not np.array_equal(first[0], evaluation.episodes(dice, act, 4, seed=2)[0])


class Endless(Chain):
    def step(self, action: int) -> Any:
        observation, reward, _, truncated, info = super().step(0)
        return observation, reward, False, truncated, info


def evaluator(trained_in: Any, mode: str = "graph", **settings: Any) -> evaluation.Evaluator:
    """Evaluator of an agent that always takes action 1."""
    chosen = EvaluationSettings(sampled=False, video_every=0, **settings)
    return evaluation.Evaluator(Right(trained_in), trained_in, mode, 0, chosen)


class Right:
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
    monkeypatch.setattr(evaluation, "FIRST_CALL", 3)
    said: list[str] = []
    monkeypatch.setattr(evaluation.activity, "say", said.append)
    parts = evaluated(evaluator(CartPole()))
    assert len(said) > 1
    assert said[0] == "evaluating, 0 of 3 episodes"  # pushed to the right, a pole stays up longer
    np.testing.assert_array_equal(
        parts.histograms["eval/episode_returns"], whole.histograms["eval/episode_returns"]
    )
    assert whole.scalars["eval/episode_length"] > 3


@pytest.mark.parametrize("compiled", [True, False])
def test_a_signal_breaks_an_evaluation_off(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "FIRST_CALL", 3)
    found = evaluator(CartPole() if compiled else Gymnasium("tests.helpers.toy_envs:Chain"))
    evaluated(found)
    monkeypatch.setattr(evaluation.signals, "asked", lambda: True)
    with pytest.raises(evaluation.signals.StoppedError):
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


def test_environments_are_closed_even_when_acting_fails(tmp_path: Path) -> None:
    env = Gymnasium(f"{Closes.__module__}:Closes", kwargs={"folder": str(tmp_path)})
    for path in tmp_path.iterdir():
        path.unlink()  # of the one that was tried when it was named

    def fail(observation: np.ndarray, t: int) -> np.ndarray:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        evaluation.episodes(env, fail, 3, seed=0)
    assert len(list(tmp_path.iterdir())) == 3


# ---- video ---------------------------------------------------------------------------------------


def test_a_video_shows_one_episode_from_its_first_state_to_its_last() -> None:
    chain = Gymnasium("tests.helpers.toy_envs:Chain", max_episode_steps=5)
    frames = evaluation.video(chain, right, seed=0, longest=100)
    assert frames is not None
    assert frames.shape == (4, 4, 6, 3)
    np.testing.assert_array_equal(frames[:, 0, 0, 0], [0, 1, 2, 3])  # a frame shows the position
    cut = evaluation.video(chain, right, seed=0, longest=2)
    assert cut is not None
    np.testing.assert_array_equal(cut[:, 0, 0, 0], [0, 1, 2])
    timed_out = evaluation.video(chain, stay, seed=0, longest=100)
    assert timed_out is not None
    assert len(timed_out) == 6


class Poster(Chain):
    def render(self) -> np.ndarray:
        return np.random.default_rng(self.position).integers(0, 255, (400, 600, 3), np.uint8)


def test_large_frames_are_kept_at_the_size_they_are_shown_in_and_make_the_same_gif() -> None:
    frames = evaluation.video(
        Gymnasium("tests.agents.training.test_evaluation:Poster"), right, seed=0, longest=100
    )
    assert frames is not None
    assert frames.shape == (4, 200, 300, 3)
    env = Poster()
    env.reset()
    whole = [env.render()]
    for _ in range(3):
        env.step(1)
        whole.append(env.render())
    counts = np.ones(4, int)
    assert gif.encode(frames, counts, 30) == gif.encode(np.stack(whole), counts, 30)


class Blind(Chain):
    def render(self) -> Any:
        return None


def test_no_video_of_what_draws_nothing_and_one_warning_of_what_cannot(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def still(observation: np.ndarray, t: int) -> np.ndarray:
        return np.zeros((len(observation), 1), np.float32)

    assert Dice.metadata["render_modes"] == []
    assert (
        evaluation.video(Gymnasium("tests.helpers.toy_envs:toy/Dice-v0"), still, seed=0, longest=5)
        is None
    )
    assert caplog.messages == []
    blind = Gymnasium("tests.agents.training.test_evaluation:Blind")
    for _ in range(2):
        assert evaluation.video(blind, right, seed=0, longest=5) is None
    assert caplog.messages == [
        "No videos: Blind cannot be drawn: render() gave NoneType, not a colour picture."
    ]
