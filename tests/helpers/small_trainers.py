"""Trainers of agents that are small and quick, for tests of what is around them."""

from typing import Any

import tensorflow as tf

from sparring.agents.dqn import DQN
from sparring.agents.training.evaluation import EvaluationSettings
from sparring.agents.training.off_policy import OffPolicyTrainer
from sparring.networks.mlp import MLP


def off_policy(environment: Any, agent: Any = DQN, **settings: Any) -> OffPolicyTrainer:
    """Return a trainer that stores 2 x 4 steps, then learns once, from step 32 of 512 on."""
    tf.keras.utils.set_random_seed(1)
    usual = {
        "network": lambda: MLP([8]),
        "num_envs": 2,
        "rollout_steps": 4,
        "updates": 1,
        "batch_size": 8,
        "capacity": 500,
        "learning_starts": 32,
        "total_steps": 512,
        "evaluation": EvaluationSettings(episodes=2, video_every=0),
    }
    return OffPolicyTrainer(agent, environment, **usual | settings)
