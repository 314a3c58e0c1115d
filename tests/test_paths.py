"""The two ways to drive an environment learn the same: one program on the device, or step by step
from the host.
"""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hydra.utils import instantiate
from omegaconf import OmegaConf

from sparring.config.composer import Composer
from sparring.envs.compiled.classic_control import CartPole

PPO = (
    "agent=ppo",
    "trainer.num_envs=3",
    "trainer.rollout_steps=40",
    "trainer.minibatches=4",
    "trainer.epochs=2",
    "agent.normalize_observations=true",
    "trainer.normalize_rewards=true",
)
DQN = (
    "agent=dqn",
    "trainer.num_envs=3",
    "trainer.rollout_steps=5",
    "trainer.updates=2",
    "trainer.n_step=2",
    "trainer.learning_starts=60",
    "agent.target_period=7",
    "trainer.capacity=500",
)
REMEMBERING = (
    *PPO,
    "memory=gru",
    "agent.memory.units=[8]",
    "trainer.minibatches=3",
    "trainer.rollout_steps=15",
)


class Stepped:
    """A compiled environment that says it is not: the trainer steps its host vector, compiled as
    the rest.
    """

    def __init__(self, environment: Any) -> None:
        self.environment = environment
        self.compiled = False

    def vector(self, num_envs: int, seed: int) -> Any:
        return self.environment.vector(num_envs, seed, compile="graph")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.environment, name)


def build(overrides: tuple[str, ...], environment: Any, compile: str) -> Any:
    cfg = Composer("rl").compose([*overrides, "run.name=x", f"compile={compile}", "run.steps=5000"])
    del cfg.trainer.environment
    OmegaConf.set_struct(cfg, False)
    tf.keras.utils.set_random_seed(0)
    return instantiate(cfg.trainer, environment=environment)


def state(trainer: Any) -> list[np.ndarray]:
    variables = [
        *trainer.agent.trainable,
        trainer.means.total,
        trainer.episodes.running,
        trainer.iterations,
    ]
    return [v.numpy() for v in variables]


@pytest.mark.parametrize("overrides", [PPO, DQN, REMEMBERING], ids=["ppo", "dqn", "remembering"])
def test_both_paths_learn_the_same_from_the_same_keys(overrides: tuple[str, ...]) -> None:
    compiled, host = (build(overrides, e, "graph") for e in (CartPole(), Stepped(CartPole())))
    for trainer in (compiled, host):
        trainer.train(3 * 5 * 60)  # several episodes end, and with DQN the learning has begun
    assert compiled.peek()["rollout/episode_return"] > 5
    for ours, theirs in zip(state(compiled), state(host), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5)


def test_two_seeds_roll_out_differently_and_one_seed_the_same() -> None:
    def returns(seed: int) -> dict[str, float]:
        trainer = build((*PPO, f"seed={seed}"), CartPole(), "xla")
        trainer.train(3 * 40 * 3)
        return trainer.peek()

    first = returns(1)
    again = returns(1)
    other = returns(2)
    assert first == again
    assert first["rollout/episode_return"] != other["rollout/episode_return"]
