"""AIRL finds a known reward, up to the shaping that no behaviour tells, on a ring of five cells."""

import functools
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from sparring.agents.imitation.adversarial import AIRL
from sparring.agents.imitation.airl import AIRLNetwork
from sparring.agents.imitation.demonstrations import Demonstrations
from sparring.agents.imitation.recording import record
from sparring.agents.ppo import PPO
from sparring.agents.training.evaluation import EvaluationSettings
from sparring.agents.training.on_policy import OnPolicyTrainer
from sparring.envs.compiled.base import CompiledEnvironment
from sparring.gans.discriminator_step import DiscriminatorStep
from sparring.gans.losses import NonSaturating
from sparring.gans.networks.mlp import MLPDiscriminator
from sparring.networks.mlp import MLP
from sparring.optim.optimizer import Scheduled
from sparring.xla import random

REWARD = np.array([0.0, 1.0, -1.0, 0.5, -0.5])  # of standing on each cell; their mean is 0
FOLLOWING = (np.arange(5)[:, np.newaxis] + np.array([-1, 0, 1])) % 5  # [cell, action]
DISCOUNT = 0.9


class RingState(NamedTuple):
    """Cell int64 [B]."""

    cell: tf.Tensor


class Ring(CompiledEnvironment):
    """Five cells in a ring, between which one goes back, stays, or goes on, without chance."""

    name = "Ring"
    observation_space = spaces.Box(0.0, 1.0, (5,), np.float32)
    action_space = spaces.Discrete(3)
    max_episode_steps = 50

    def initial(self, keys: tf.Tensor) -> RingState:
        return RingState(random.integers(keys, 1, 5)[:, 0])

    def observe(self, state: RingState) -> tf.Tensor:
        return tf.one_hot(state.cell, 5)

    def transition(
        self, state: RingState, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[RingState, tf.Tensor, tf.Tensor]:
        reward = tf.gather(tf.constant(REWARD, tf.float32), state.cell)
        cell = (state.cell + tf.cast(action, tf.int64) - 1) % 5
        return RingState(cell), reward, tf.zeros_like(reward, tf.bool)


def soft_optimum() -> tuple[np.ndarray, np.ndarray]:
    """Return the values [5] and log probabilities [5, 3] of the policy of greatest entropy that is
    best: V = log sum exp Q, log pi = Q - V (Fu et al. 2018, section 3).
    """
    value = np.zeros(5)
    for _ in range(500):  # 0.9^500 is below 1e-22
        q = REWARD[:, np.newaxis] + DISCOUNT * value[FOLLOWING]  # [cell, action]
        value = np.log(np.exp(q).sum(axis=1))
    return value, q - value[:, np.newaxis]


def expert(episodes: int) -> Demonstrations:
    _, log_pi = soft_optimum()
    rng = np.random.default_rng(0)

    def act(observation: np.ndarray, t: int) -> np.ndarray:
        del t
        return np.array([rng.choice(3, p=np.exp(log_pi[cell])) for cell in observation.argmax(1)])

    return record(Ring(), act, episodes, seed=0)


class Table(tf.keras.layers.Layer):
    """A number for each cell, given."""

    def __init__(self, values: np.ndarray) -> None:
        super().__init__()
        self.values = tf.constant(values, tf.float32)

    def call(self, rows: tf.Tensor, labels: tf.Tensor, training: bool = False) -> tf.Tensor:
        return tf.linalg.matvec(rows, self.values)


@pytest.mark.parametrize("level", [0.0, 3.0])
def test_the_true_reward_and_values_leave_nothing_to_tell(level: float) -> None:
    # At g = r + c and h = V + c / (1 - discount), f = Q - V = log pi: the logit is 0 everywhere.
    value, log_pi = soft_optimum()
    cells, actions = (x.ravel() for x in np.mgrid[:5, :3])
    tables = iter([Table(REWARD + level), Table(value + level / (1.0 - DISCOUNT))])
    network = AIRLNetwork(lambda shape, classes: next(tables), (5, 3), DISCOUNT, state_only=True)
    rows = np.concatenate(
        [
            np.eye(5)[cells],
            np.eye(3)[actions],
            np.eye(5)[FOLLOWING[cells, actions]],
            np.zeros([15, 1]),
            log_pi[cells, actions][:, np.newaxis],
        ],
        axis=1,
    )
    logits = network(tf.constant(rows, tf.float32), tf.zeros([15], tf.int64))
    np.testing.assert_allclose(logits, np.zeros(15), atol=1e-4)


def imitator(seed: int) -> OnPolicyTrainer:
    """Return AIRL whose g and h are tables: linear in one-hots."""
    tf.keras.utils.set_random_seed(seed)
    discriminator = functools.partial(
        DiscriminatorStep,
        loss=NonSaturating(),
        penalties={},
        optimizer=Scheduled(tf.keras.optimizers.Adam(), 5e-3),
    )
    source: Any = functools.partial(
        AIRL,
        demonstrations=expert(200),
        discriminator=discriminator,
        network=functools.partial(MLPDiscriminator, units=[]),
        state_only=True,
        normalize=False,
        batch_size=512,
    )
    return OnPolicyTrainer(
        functools.partial(PPO, discount=DISCOUNT, normalize_observations=False),
        Ring(),
        functools.partial(MLP, (32,)),
        Scheduled(tf.keras.optimizers.Adam(), 3e-3),
        num_envs=16,
        rollout_steps=51,
        epochs=4,
        minibatches=4,
        seed=seed,
        total_steps=300_000,
        normalize_rewards=False,
        evaluation=EvaluationSettings(episodes=2, video_every=0),
        reward_source=source,
    )


@pytest.mark.long
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))]
)
def test_the_reward_is_found_up_to_its_level_and_the_shaping_is_the_value(seed: int) -> None:
    trainer = imitator(seed)
    trainer.train(300_000)
    network = trainer.reward_source.discriminator.discriminator.network
    g = network.reward(tf.eye(5), tf.zeros([5, 3])).numpy()
    h = network.shaping_network(tf.eye(5), tf.zeros([5], tf.int64)).numpy()
    value, _ = soft_optimum()
    np.testing.assert_allclose(g - g.mean(), REWARD, atol=0.15)
    np.testing.assert_allclose(h - h.mean(), value - value.mean(), atol=0.15)
