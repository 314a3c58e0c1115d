"""TD3 (Fujimoto et al. 2018, "Addressing function approximation error in actor-critic methods",
algorithm 1).

It follows TF-Agents' `Td3Agent`, which is not its base: the noise is drawn in the middle of its
loss, from TensorFlow's generator, its delayed step of the policy is a branch that replicas cannot
take (tensorflow/agents#882), and it returns no errors, so that all of its methods would be
replaced. What is mended, each with a test in tests/agents/test_td3.py:
1. everything is drawn from keys, one for each row; 2. the targets move when the policy learns, all
three, as in the paper (TF-Agents: at a period of their own); 3. noise is of actions scaled to -1
and 1, so that its size means the same whatever the bounds; 4. gradients are clipped by their global
norm, in the optimizer, not each variable by its own; 5. the policy's gradient is not taken where it
is not due (TF-Agents: its loss is, each time); 6. losses are means over the rows that are
transitions, of all replicas; 7. defaults are the paper's: squared errors, a policy period of 2,
discount 0.99, targets that lag (TF-Agents: Huber, 1, 1.0, copied at every update).

To change the algorithm, subclass `TD3` and override `next_actions` or `policy_step`.
"""

import functools
from collections.abc import Callable
from typing import Any

import gymnasium
import tensorflow as tf

from sparring.agents import requirements
from sparring.agents.agent import Scalars
from sparring.agents.continuous import (
    Batch,
    ContinuousAgent,
    PolicyStep,
    copy_weights,
    follow,
    penalty,
)
from sparring.agents.networks.critics import CriticEnsemble, TanhHead
from sparring.agents.networks.headed import Torso
from sparring.agents.networks.regularized import Learning
from sparring.agents.replay import Transitions
from sparring.optim.optimizer import Scheduled
from sparring.optim.schedules import Schedule, as_schedule
from sparring.xla import random


class TD3(ContinuousAgent):
    """Twin delayed deep deterministic policy gradient for a Box of vectors within bounds.

    `exploration_noise` is the standard deviation of normal noise on actions in training, of actions
    scaled to -1 and 1: a number or a schedule of the run's progress. The next states are valued by
    the target policy's actions with noise of standard deviation `target_noise`, clipped to
    `target_noise_clip`. The policy learns, and all targets move by `target_tau`, at every
    `policy_period`th update. See `ContinuousAgent` for the other settings.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        network: Torso | None = None,
        optimizer: Scheduled | None = None,
        discount: float = 0.99,
        critics: Callable[..., CriticEnsemble] | None = None,
        target_tau: float = 0.005,
        exploration_noise: Schedule | float = 0.1,
        target_noise: float = 0.2,
        target_noise_clip: float = 0.5,
        policy_period: int = 2,
        normalize_observations: bool = False,
        first_actions: str = "uniform",
        memory: Any = None,
    ) -> None:
        size = requirements.require_continuous("TD3", observation_space, action_space, memory)
        if critics is None:
            critics = functools.partial(CriticEnsemble, policy_value="first")
        super().__init__(
            observation_space,
            action_space,
            network,
            functools.partial(TanhHead, size),
            optimizer,
            discount,
            critics,
            target_tau,
            policy_period,
            normalize_observations,
            first_actions,
        )
        self.exploration_noise = as_schedule(exploration_noise)
        self.target_noise = target_noise
        self.target_noise_clip = target_noise_clip
        self.target_policy = self.make_policy()
        self.target_policy(self.prepared(self.example))
        copy_weights(self.policy, self.target_policy)

    def parts(self) -> dict[str, tf.Module]:
        """Return the modules that were learned: enough to act and to bootstrap."""
        return super().parts() | {"target_policy": self.target_policy}

    # ---- acting ----------------------------------------------------------------------------------

    def greedy(self, observation: Any) -> tf.Tensor:
        """Return the policy's actions [B, D], scaled."""
        return self.policy(observation)

    def act_sampled(self, seen: Any, keys: tf.Tensor, progress: tf.Tensor) -> tf.Tensor:
        """The policy's actions [B, D] with noise, kept within the bounds; `keys` [B, 2]."""
        action = self.greedy(self.prepared(seen))
        noise = self.exploration_noise(progress) * random.normal(keys, action.shape[-1])
        return self.unscaled(tf.clip_by_value(action + noise, -1.0, 1.0))

    # ---- learning --------------------------------------------------------------------------------

    def next_actions(
        self, observation: Any, keys: tf.Tensor, progress: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the target policy's actions [M, D] with clipped noise, and nothing to add, [M]."""
        del progress
        action = self.target_policy(observation)
        noise = self.target_noise * random.normal(keys, action.shape[-1])
        noise = tf.clip_by_value(noise, -self.target_noise_clip, self.target_noise_clip)
        return tf.clip_by_value(action + noise, -1.0, 1.0), tf.zeros([keys.shape[0]])

    def policy_step(self, batch: Batch, progress: tf.Tensor, learning: Learning) -> PolicyStep:
        """Return the gradient of minus the value of the policy's actions."""
        del progress
        weights = self.optimizers["policy"].variables
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            action = self.policy(batch.observation, learning)
            value = self.climbed(batch.observation, action, random.fold(batch.keys, 4))
            loss = -tf.reduce_sum(batch.share * value) + penalty(self.policy)
        return PolicyStep({"policy": tape.gradient(loss, weights)}, {"loss/policy": loss})

    def update(
        self, batch: Transitions, key: tf.Tensor, progress: tf.Tensor
    ) -> tuple[Scalars, tf.Tensor]:
        """Take a step of the critics on transitions [M], and of the policy when it is due."""
        scalars, errors = super().update(batch, key, progress)
        return scalars | {"schedule/exploration_noise": self.exploration_noise(progress)}, errors

    def move_targets(self, due: tf.Tensor) -> None:
        """Move all targets, the policy's too, if the policy learned."""
        tau = tf.where(due, self.target_tau, 0.0)
        follow(self.critics, self.target_critics, tau)
        follow(self.policy, self.target_policy, tau)

    descriptions = ContinuousAgent.descriptions | {
        "schedule/exploration_noise": "Standard deviation of the noise on actions scaled to -1 and "
        "1, mean over updates."
    }
