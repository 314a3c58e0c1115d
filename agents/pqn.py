"""PQN (Gallici et al. 2024, "Simplifying deep temporal difference learning"): Q-learning without
replay and without a target network, by lambda returns of many environments' rollouts.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gymnasium
import tensorflow as tf

from sparring import nested
from sparring.agents import requirements
from sparring.agents.advantages import mean_of_valid, reverse_sum, share_of_mean
from sparring.agents.agent import Memoryless, OneOptimizer, Scalars
from sparring.agents.dqn import of_actions
from sparring.agents.epsilon_greedy import EpsilonGreedy
from sparring.agents.networks import headed, masks, specs
from sparring.agents.networks.headed import HeadedNetwork, Torso
from sparring.agents.networks.normalizers import observation_normalizer
from sparring.agents.networks.q_heads import QHead
from sparring.agents.training.rollout import Rollout
from sparring.distribute import replicas
from sparring.networks.mlp import MLP
from sparring.optim import optimizer as optim_optimizer
from sparring.optim.schedules import Schedule, as_schedule


class Steps(NamedTuple):
    """Steps of a rollout, in any order: all [M, ...]. `mask` is one where the step counts."""

    observation: Any
    action: tf.Tensor
    returns: tf.Tensor
    mask: tf.Tensor
    state: Any = ()


class PQN(EpsilonGreedy, Memoryless, OneOptimizer, tf.Module):
    """Q-learning of rollouts for one Discrete action.

    Without a `network` it is two layers of 128 rectified units with layer normalisation, which
    stands in for the target network; without an `optimizer`, Adam at 5e-4 with gradients
    clipped to a norm of 10. `trace` is lambda of the returns. `epsilon`,
    `boltzmann` and `head` are as those of sparring.agents.dqn.DQN.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        network: Torso | None = None,
        optimizer: optim_optimizer.Scheduled | None = None,
        discount: float = 0.99,
        trace: float = 0.65,
        epsilon: Schedule | float = 0.1,
        boltzmann: Schedule | float | None = None,
        normalize_observations: bool = False,
        head: Callable[[int], tf.keras.layers.Layer] | None = None,
        memory: Any = None,
    ) -> None:
        super().__init__(name="pqn")
        requirements.refuse_memory(memory)
        self.num_actions = requirements.require_discrete(action_space)
        masks.require(observation_space, action_space)
        self.discount = discount
        self.trace = trace
        self.epsilon = as_schedule(epsilon)
        self.boltzmann = None if boltzmann is None else as_schedule(boltzmann)
        space = nested.without_mask(observation_space)
        self.observation_normalizer = (
            observation_normalizer(space) if normalize_observations else None
        )
        self._q_network = HeadedNetwork(
            specs.time_step_spec(space).observation,
            network or functools.partial(MLP, (128, 128), "relu", layer_norm=True),
            functools.partial(head or QHead, self.num_actions),
            self.observation_normalizer,
            name="q_network",
        )
        self._q_network.create_variables()
        headed.check_layers([self._q_network])
        self.scheduled = optimizer or optim_optimizer.adam(5e-4, global_clipnorm=10.0)
        self.trainable = headed.unique(self._q_network.trainable_weights)
        self.scheduled.build(self.trainable)
        self.describe_exploration()

    def parts(self) -> dict[str, tf.Module]:
        """Return the modules that were learned: enough to act and to bootstrap."""
        normalizer = self.observation_normalizer
        network = {"q_network": self._q_network}
        return network if normalizer is None else network | {"normalizer": normalizer}

    def value(self, observation: Any) -> tf.Tensor:
        """The value [B] of the best allowed action at observations [B, ...]."""
        values = masks.allowed(self.q_values(observation), nested.mask_of(observation))
        return tf.reduce_max(values, axis=1)

    def act(
        self, observation: Any, keys: tf.Tensor, progress: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Actions [B] as in training, and the values [B] of the best ones; `keys` [B, 2]."""
        action = self.act_sampled(observation, keys, progress)
        return action, {"value": self.value(observation)}

    def examples(self, rollout: Rollout, reward: tf.Tensor) -> Steps:
        """The rollout's steps [T, B, ...] with lambda returns (section 3.3).

        G_t = r_t + discount * ((1 - trace) max Q(s_t+1) + trace G_t+1). At the end of an episode,
        and of the rollout, it bootstraps from the observation reached alone; a termination has
        value zero.
        """
        after = self.value(rollout.reached)  # [B]
        values = tf.concat([rollout.extras["value"], after[tf.newaxis]], axis=0)  # [T + 1, B]
        discount = self.discount * tf.where(rollout.terminated, 0.0, 1.0)  # [T, B]
        errors = reward + discount * values[1:] - values[:-1]
        decay = tf.where(rollout.ended, 0.0, self.trace * discount)
        summed = tf.transpose(reverse_sum(tf.transpose(errors), tf.transpose(decay)))
        return Steps(
            nested.map_parts(lambda x: x[:-1], rollout.observation),
            rollout.action,
            summed + values[:-1],
            tf.cast(~rollout.first, tf.float32),
        )

    def gradients(
        self, batch: Steps, key: tf.Tensor, progress: tf.Tensor
    ) -> tuple[list[tf.Tensor], Scalars]:
        """Return the gradients of a minibatch [M, ...], in which nothing is drawn, and scalars."""
        del key
        count = replicas.all_reduce_sum(tf.reduce_sum(batch.mask))
        size = batch.mask.shape[0] * replicas.num_replicas()
        weights = batch.mask * (float(size) / tf.maximum(count, 1.0))  # mean 1 over valid
        gradients, values = replicas.compile_in_replica(self._gradients)(batch, weights)
        return gradients, replicas.all_reduce_sum(values) | self.exploration(progress)

    def _gradients(self, batch: Steps, weights: tf.Tensor) -> tuple[list[tf.Tensor], Scalars]:
        """A replica's share of the gradients and of the scalars."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.trainable)
            values = self.q_values(batch.observation)[:, :, tf.newaxis]
            taken = of_actions(values, batch.action)[:, 0]  # [M]
            error = batch.returns - taken
            loss = share_of_mean(0.5 * tf.square(error), weights)
            added = self._q_network.losses
            total = loss + tf.nn.scale_regularization_loss(tf.add_n(added)) if added else loss
        return tape.gradient(total, self.trainable), {
            "loss/td": loss,
            "q/mean": share_of_mean(taken, weights),
            "q/td_error": share_of_mean(tf.abs(error), weights),
        }

    def goes_on(self, scalars: Scalars) -> tf.Tensor:
        """Return that updates always go on."""
        del scalars
        return tf.constant(True)

    def finish(self, batch: Steps, progress: tf.Tensor) -> Scalars:
        """Update the statistics of observations; return the mean of the returns."""
        del progress
        if self.observation_normalizer is not None:
            seen = nested.without_mask(batch.observation)
            self.observation_normalizer.update(seen, batch.mask)
        return {"q/returns": mean_of_valid(batch.returns, batch.mask)}

    descriptions: Mapping[str, str] = optim_optimizer.DESCRIPTIONS | {
        "loss/td": "Half the squared error of the values of actions, mean over minibatches.",
        "q/mean": "Value of the actions taken, mean over the steps of a minibatch.",
        "q/td_error": "Absolute error of these values, mean over the steps of a minibatch.",
        "q/returns": "Lambda return, mean over the steps of a rollout.",
        "schedule/epsilon": "Share of random actions, mean over updates.",
    }
