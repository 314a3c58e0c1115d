"""Acting on the values of actions: the best one, or now and then another."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from sparring import nested
from sparring.agents.agent import Estimate
from sparring.agents.networks import masks, noisy
from sparring.agents.networks.headed import HeadedNetwork
from sparring.optim.schedules import Schedule
from sparring.xla import random


class EpsilonGreedy:
    """Mixin of an agent that estimates Q(s, .) of one Discrete action.

    Sampled actions are uniform with probability `epsilon`, and else the best, or with a `boltzmann`
    temperature drawn from softmax(Q / temperature); noisy layers draw for each.
    """

    num_actions: int
    epsilon: Schedule
    boltzmann: Schedule | None
    descriptions: Mapping[str, str]
    _q_network: HeadedNetwork

    def q_values(self, observation: Any) -> tf.Tensor:
        """Q(s, .) [B, A] of observations [B, ...]."""
        return self._q_network(nested.without_mask(observation))[0]

    def act_greedy(self, observation: Any) -> tf.Tensor:
        """The allowed actions [B] of highest value."""
        return masks.best(self.q_values(observation), nested.mask_of(observation))

    def act_random(self, observation: Any, keys: tf.Tensor) -> tf.Tensor:
        """Uniformly random allowed actions [B]; `keys` [B, 2]."""
        mask = nested.mask_of(observation)
        if mask is not None:
            return masks.best(random.gumbel(keys, self.num_actions), mask)
        return tf.cast(random.integers(keys, 1, self.num_actions)[:, 0], tf.int32)

    def act_sampled(self, observation: Any, keys: tf.Tensor, progress: tf.Tensor) -> tf.Tensor:
        """Epsilon-greedy actions [B], or from Boltzmann's distribution; `keys` [B, 2]."""
        explore = random.uniform(random.fold(keys, 0), 1)[:, 0] < self.epsilon(progress)
        with noisy.noise(self._q_network, random.fold(keys, 2)):
            values = self.q_values(observation)
        if self.boltzmann is not None:
            drawn = random.gumbel(random.fold(keys, 3), self.num_actions)
            values = values / self.boltzmann(progress) + drawn
        return tf.where(
            explore,
            self.act_random(observation, random.fold(keys, 1)),
            masks.best(values, nested.mask_of(observation)),
        )

    def scores(self, observation: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the values that the greedy action is chosen by: Q(s, .) [B, A]."""
        return {"q_values": self.q_values(observation)}

    def estimates(self) -> dict[str, Estimate]:
        """Return the values of actions, for export."""
        about = "The greedy action, and what it was chosen by."
        return {"scores": Estimate(self.scores, about, with_action=True)}

    def exploration(self, progress: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return what the schedules of exploration say at a share `progress` [] of the run."""
        values = {"schedule/epsilon": self.epsilon(progress)}
        if self.boltzmann is not None:
            values["schedule/boltzmann"] = self.boltzmann(progress)
        return values

    def describe_exploration(self) -> None:
        """Add what a temperature of exploration is to `descriptions`."""
        if self.boltzmann is not None:
            temperature = "Temperature of Boltzmann exploration, mean over updates."
            self.descriptions = {**self.descriptions, "schedule/boltzmann": temperature}
