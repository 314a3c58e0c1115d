"""Policies for observations as an environment gives them."""

from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest

import sparring
from sparring.agents.networks.recurrent import Memory

pytestmark = pytest.mark.long


class Shifted(gymnasium.Env):
    """Observations of a Dict, actions that count from 3."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Dict(
            {
                "place": gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32),
                "kind": gymnasium.spaces.Discrete(3),
            }
        )
        self.action_space = gymnasium.spaces.Discrete(2, start=3)

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        return {"place": np.zeros(2, np.float32), "kind": np.int64(1)}, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert action in (3, 4)
        return self.reset()[0], 0.0, False, False, {}


def policy(environment: Any, **settings: Any) -> sparring.Policy:
    agent = partial(sparring.PPO, **settings)
    return sparring.Policy(sparring.OnPolicyTrainer(agent, environment, compile="graph"))


def test_one_observation_and_a_batch_get_the_same_actions() -> None:
    found = policy(sparring.CartPole())
    observations = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    actions, state = found.predict(observations)
    assert actions.shape == (5,)
    assert state is None
    assert [int(found.predict(o)[0]) for o in observations] == actions.tolist()
    assert found.predict(observations[0].tolist())[0] == actions[0]


def test_actions_are_those_of_the_original_environment() -> None:
    name = f"{__name__}:Shifted"
    found = policy(sparring.Gymnasium(name, max_episode_steps=5))
    env = Shifted()
    observation, _ = env.reset()
    for deterministic in (True, False):
        action, _ = found.predict(observation, deterministic=deterministic)
        assert env.action_space.contains(action)
        env.step(action)


def test_sampled_actions_differ_and_follow_from_the_seed() -> None:
    trainer = sparring.OnPolicyTrainer(sparring.PPO, sparring.CartPole(), compile="graph")
    observation = np.zeros(4, np.float32)
    drawn = []
    for seed in (1, 1, 2):
        found = sparring.Policy(trainer, seed=1000 * seed)
        drawn.append([int(found.predict(observation, deterministic=False)[0]) for _ in range(30)])
    assert drawn[0] == drawn[1] != drawn[2]
    assert set(drawn[0]) == {0, 1}


def test_a_memory_goes_on_from_the_state_it_is_given() -> None:
    trainer = sparring.OnPolicyTrainer(
        partial(sparring.PPO, memory=Memory), sparring.CartPole(), minibatches=4, compile="graph"
    )
    found = sparring.Policy(trainer)
    observation = np.ones(4, np.float32)
    _, first = found.predict(observation)
    _, second = found.predict(observation, first)
    _, again = found.predict(observation)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, again)


def test_a_run_without_a_config_needs_its_trainer(tmp_path: Any) -> None:
    with pytest.raises(sparring.UserError, match="not a run's folder"):
        sparring.load_policy(tmp_path)
    trainer = sparring.OnPolicyTrainer(sparring.PPO, sparring.CartPole(), compile="graph")
    with pytest.raises(sparring.UserError, match="holds no checkpoint"):
        sparring.load_policy(tmp_path, trainer)
