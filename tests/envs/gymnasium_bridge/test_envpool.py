"""EnvPool's environments behind the bridge: their resets, seeds, ends and refusals."""

import itertools
import sys
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium import spaces

from sparring.config.composer import Composer
from sparring.config.targets import instantiate
from sparring.envs.gymnasium_bridge.envpool import EnvPool
from sparring.errors import UserError

CLOSED = []


class Pretend:
    """A pool as EnvPool makes them: environment i counts from its seed, and ends after 3 steps."""

    single_observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)
    single_action_space = spaces.Discrete(2)

    def __init__(self, task_id, num_envs, seed, max_episode_steps=3, **settings):
        self.settings = settings
        self.seeds = seed + np.arange(num_envs)
        self.limit = max_episode_steps
        self.ages = np.zeros(num_envs, int)

    def reset(self):
        self.ages[:] = 0
        return self._seen(), {}

    def step(self, actions):
        self.ages = np.where(self.ages == self.limit, 0, self.ages + 1)
        ended = self.ages == self.limit
        return self._seen(), np.float32(self.ages > 0), ended & False, ended, {"age": self.ages}

    def _seen(self):
        return (self.seeds + self.ages)[:, None].astype(np.float64)

    def render(self):
        return np.zeros((1, 4, 4, 3), np.uint8)

    def close(self):
        CLOSED.append(self)


@pytest.fixture
def pretended(monkeypatch):
    """A package of that name with one game of Atari's kind and one of another."""
    plain = namedtuple("Config", ["max_episode_steps", "frame_skip"])(3, 4)
    atari = namedtuple("Config", ["max_episode_steps", "episodic_life", "reward_clip"])(
        3, False, False
    )
    made = []

    def make_gymnasium(**arguments):
        made.append(arguments)
        return Pretend(**arguments)

    package = SimpleNamespace(
        list_all_envs=lambda: ["Pong-v5", "Hopper-v4"],
        make_spec=lambda task: SimpleNamespace(config=atari if task == "Pong-v5" else plain),
        make_gymnasium=make_gymnasium,
    )
    monkeypatch.setitem(sys.modules, "envpool", package)
    return made


def test_a_pool_is_made_for_each_seed_and_the_last_one_is_closed(pretended):
    vector = EnvPool("Hopper-v4").vector(2, seed=7)
    assert vector.reset().tolist() == [[7.0], [8.0]]
    assert vector.reset(seed=20).tolist() == [[20.0], [21.0]]
    before = len(CLOSED)
    vector.close()
    assert len(CLOSED) == before + 1
    assert {arguments["num_envs"] for arguments in pretended} == {1, 2}


def test_the_step_after_an_end_opens_an_episode(pretended):
    environment = EnvPool("Hopper-v4", info=["age"])
    assert environment.max_episode_steps == 3
    vector = environment.vector(2, seed=0)
    vector.reset()
    steps = [vector.step(np.zeros(2, int)) for _ in range(5)]
    assert [step.truncated.all() for step in steps] == [False, False, True, False, False]
    assert [step.first.all() for step in steps] == [False, False, False, True, False]
    assert [step.reward[0] for step in steps] == [1, 1, 1, 0, 1]
    assert vector.info["age"].tolist() == [1, 1]
    assert environment.limited(2).vector(1, seed=0).reset().shape == (1, 1)
    assert pretended[-1]["max_episode_steps"] == 2


def test_what_a_resumed_run_cannot_put_back_is_said_once(pretended):
    vector = EnvPool("Hopper-v4").vector(3, seed=0)
    vector.reset()
    again = EnvPool("Hopper-v4").vector(3, seed=0)
    (sentence,) = again.restore(vector.snapshot())
    assert sentence.startswith("All 3 environments (Hopper-v4) start new episodes: ")
    assert again.step(np.zeros(3, int)).first.all()


def test_an_atari_game_is_trained_by_lives_and_judged_whole(pretended):
    cfg = Composer("rl").compose(["env=envpool", "env.id=Pong-v5"])
    trained = instantiate(cfg.env)
    assert (pretended[-1]["episodic_life"], pretended[-1]["reward_clip"]) == (True, True)
    assert trained.renders
    judged = instantiate(cfg.trainer.evaluation.environment)
    assert (pretended[-1]["episodic_life"], pretended[-1]["reward_clip"]) == (False, False)
    assert judged.name == trained.name == "Pong-v5"
    assert not EnvPool("Hopper-v4").renders
    assert "episodic_life" not in pretended[-1]


def test_what_envpool_has_not_is_refused_with_what_is_near(pretended):
    with pytest.raises(UserError, match=r"^env.id=Hoper-v4 is not .* mean Hopper-v4\?"):
        EnvPool("Hoper-v4")
    with pytest.raises(UserError, match=r"^env.kwargs.frameskip: .* Did you mean frame_skip\?$"):
        EnvPool("Hopper-v4", {"frameskip": 2})


def test_without_the_package_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(
        UserError, match=r"env.id=Pong-v5 needs .*pip install 'sparring\[envpool\]'"
    ):
        EnvPool("Pong-v5")


@pytest.mark.parametrize("name", ["Pong-v5", "Hopper-v4"])
def test_the_real_package_plays_by_its_seeds_and_resets_on_the_next_step(name):
    pytest.importorskip("envpool")
    environment = EnvPool(name, max_episode_steps=20)
    vector = environment.vector(3, seed=5)
    opening = vector.reset()
    action = environment.action_space.sample()
    steps = [vector.step(np.stack([action] * 3)) for _ in range(25)]
    played = np.stack([step.observation for step in steps])
    others = environment.vector(2, seed=6)
    np.testing.assert_array_equal(others.reset(), opening[1:])
    again = np.stack([others.step(np.stack([action] * 2)).observation for _ in range(25)])
    np.testing.assert_array_equal(again, played[:, 1:])
    for before, after in itertools.pairwise(steps):
        ended = before.terminated | before.truncated
        np.testing.assert_array_equal(after.first, ended)
        assert not after.reward[ended].any()
    assert any(step.first.any() for step in steps)
