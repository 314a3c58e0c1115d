"""SAC (Haarnoja et al. 2018, "Soft actor-critic algorithms and applications", algorithm 1).

It follows TF-Agents' `SacAgent`: two critics with targets, a squashed normal policy, a temperature
that learns. That class is not its base: it draws from TensorFlow's generator in the middle of its
losses, makes its three optimizers legacy ones, has exactly two critics and returns no errors, so
that all of its methods would be replaced. What is mended, each with a test in
tests/agents/test_sac.py:
1. everything is drawn from keys, one for each row; 2. an action at a bound has a finite log
probability and gradient; 3. gradients are clipped by their global norm, in the optimizer, not each
variable by its own; 4. the target entropy is minus the number of actions, as in the paper, and of
actions scaled to -1 and 1, so that it means the same whatever the bounds (TF-Agents: half of it, in
the environment's units); 5. losses are means over the rows that are transitions, of all replicas;
6. the policy and the temperature learn from the same draw (TF-Agents: from two); 7. defaults:
discount 0.99, targets that lag (TF-Agents: 1.0, copied at every update).

Two published variants are settings of it. DroQ (Hiraoka et al. 2022, "Dropout Q-functions for
doubly efficient reinforcement learning", algorithm 2) has critics with dropout and layer
normalisation, many updates for each of the policy's, which climbs their mean. CrossQ (Bhatt et al.
2024, "CrossQ: batch normalization in deep reinforcement learning for greater sample efficiency and
simplicity", section 4) has batch renormalisation and no targets.

To change the algorithm, subclass `SAC` and override `next_actions` or `policy_step`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf

from sparring.agents import requirements
from sparring.agents.continuous import Batch, ContinuousAgent, PolicyStep, penalty
from sparring.agents.networks.box_heads import SquashedNormalHead
from sparring.agents.networks.critics import CriticEnsemble
from sparring.agents.networks.headed import Torso
from sparring.agents.networks.regularized import Learning
from sparring.distribute import replicas
from sparring.optim import optimizer as optim_optimizer
from sparring.optim.optimizer import Scheduled
from sparring.optim.schedules import Schedule, as_schedule
from sparring.xla import random


class SAC(ContinuousAgent):
    """Soft actor-critic for a Box of vectors within bounds.

    `temperature` weighs the entropy: a number, a schedule of the run's progress, or None, in which
    case it is 1 at first and learns to hold the policy's entropy at `target_entropy`, in nats;
    None: minus the number of actions. With `target_tau` None there are no target networks
    (CrossQ). The policy learns at every `policy_period`th update. See `ContinuousAgent` for the
    other settings.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        network: Torso | None = None,
        optimizer: Scheduled | None = None,
        discount: float = 0.99,
        critics: Callable[..., CriticEnsemble] | None = None,
        target_tau: float | None = 0.005,
        temperature: Schedule | float | None = None,
        target_entropy: float | None = None,
        policy_period: int = 1,
        normalize_observations: bool = False,
        first_actions: str = "uniform",
        memory: Any = None,
    ) -> None:
        size = requirements.require_continuous("SAC", observation_space, action_space, memory)
        super().__init__(
            observation_space,
            action_space,
            network,
            functools.partial(SquashedNormalHead, _scaled_box(size)),
            optimizer,
            discount,
            critics,
            target_tau,
            policy_period,
            normalize_observations,
            first_actions,
        )
        self.target_entropy = -float(size) if target_entropy is None else float(target_entropy)
        self.learned_temperature: Temperature | None = None
        if temperature is None:
            self.learned_temperature = Temperature()
            another = self.optimizers["policy"].another()
            self.learn_by("temperature", another, self.learned_temperature)
        else:
            self._temperature = as_schedule(temperature)

    def parts(self) -> dict[str, tf.Module]:
        """Return the modules that were learned: enough to act and to bootstrap."""
        if self.learned_temperature is None:
            return super().parts()
        return super().parts() | {"temperature": self.learned_temperature}

    @property
    def descriptions(self) -> Mapping[str, str]:  # type: ignore[override]
        """Tag -> what it measures; a temperature that is given has no optimizer."""
        found = ContinuousAgent.descriptions | {
            "policy/entropy": "Minus the log probability of the policy's draws, of actions scaled "
            "to -1 and 1, in nats, mean over its updates.",
            "policy/temperature": "Weight of the entropy, mean over the policy's updates.",
        }
        if self.learned_temperature is None:
            return found
        return found | optim_optimizer.descriptions(["temperature"])

    policy_tags = ("loss/policy", "policy/entropy", "policy/temperature")

    # ---- acting ----------------------------------------------------------------------------------

    def greedy(self, observation: Any) -> tf.Tensor:
        """Return the mean of the normal, squashed: [B, D]."""
        return self.policy(observation).mode()

    def act_sampled(self, seen: Any, keys: tf.Tensor, progress: tf.Tensor) -> tf.Tensor:
        """Actions [B, D] drawn from the policy; `keys` [B, 2]."""
        del progress
        return self.unscaled(self.policy(self.prepared(seen)).sample_from(keys))

    # ---- learning --------------------------------------------------------------------------------

    def temperature(self, progress: tf.Tensor) -> tf.Tensor:
        """Return the weight of the entropy, []."""
        if self.learned_temperature is None:
            return self._temperature(progress)
        return tf.exp(self.learned_temperature.log)

    def next_actions(
        self, observation: Any, keys: tf.Tensor, progress: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return drawn actions [M, D], and their entropy's worth: minus the temperature times the
        log probability, [M].
        """
        action, log_prob = self.policy(observation).sample_with_log_prob(keys)
        return action, -self.temperature(progress) * log_prob

    def policy_step(self, batch: Batch, progress: tf.Tensor, learning: Learning) -> PolicyStep:
        """Return gradients of temperature * log probability - value, and of the temperature.

        The temperature's is of its logarithm: the entropy of the draws minus the one wanted.
        """
        keys = random.fold(batch.keys, 3)
        temperature = self.temperature(progress)
        weights = self.optimizers["policy"].variables
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            policy = self.policy(batch.observation, learning)
            action, log_prob = policy.sample_with_log_prob(keys)
            value = self.climbed(batch.observation, action, random.fold(batch.keys, 4))
            loss = tf.reduce_sum(batch.share * (temperature * log_prob - value))
            loss += penalty(self.policy)
        entropy = -tf.reduce_sum(batch.share * log_prob)
        share = tf.reduce_sum(batch.share)  # of the mean's weight, this replica's
        sums = {
            "loss/policy": loss,
            "policy/entropy": entropy,
            "policy/temperature": temperature / replicas.num_replicas(),
        }
        gradients = {"policy": tape.gradient(loss, weights)}
        if self.learned_temperature is not None:
            gradients["temperature"] = [entropy - self.target_entropy * share]
        return PolicyStep(gradients, sums)


class Temperature(tf.Module):
    """Weight of the entropy that learns, by its logarithm `log` []: 1 at first."""

    def __init__(self) -> None:
        super().__init__(name="temperature")
        self.log = tf.Variable(0.0, name="log_temperature")


def _scaled_box(size: int) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(-1.0, 1.0, (size,), np.float32)
