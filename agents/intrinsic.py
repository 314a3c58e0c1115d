"""Reward for what is new: random network distillation (Burda et al. 2019).

"Exploration by random network distillation", sections 2.2 to 2.4.
"""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from sparring import nested
from sparring.agents.advantages import Minibatch, reverse_sum, share_of_mean
from sparring.agents.networks import specs
from sparring.agents.networks.headed import HeadedNetwork, Torso
from sparring.agents.networks.normalizers import Moments, observation_normalizer
from sparring.agents.training.rollout import Rollout
from sparring.distribute import replicas

_CLIP = 5.0  # of normalised observations (section 2.4)


class Novelty(NamedTuple):
    """Columns of a rollout's steps, each [T, B]: rewards, value targets, and returns so far.

    `reward` is normalised, `so_far` is the discounted sum of the errors up to the step, which is
    what they are normalised by.
    """

    reward: tf.Tensor
    returns: tf.Tensor
    so_far: tf.Tensor


class RND(tf.Module):
    """Error of a predictor of a random network's features: large where little was learned.

    The reward of a step is the error at the observation reached, divided by the running standard
    deviation of its discounted returns. It has a critic of its own and a discount of its own, and
    its return goes on over the ends of episodes (section 2.3). Its advantage is added to that of
    the environment's rewards.

    Args:
      observation_space: without a mask.
      agent_network: torso of the agent, which target and predictor take if `network` is None.
      critic: network of the intrinsic return's value.
      network: factory of their torso.
      features: of the random network.
      discount: of intrinsic rewards.
      coefficient: of their advantage; that of the environment's is one.
    """

    def __init__(
        self,
        observation_space: Any,
        agent_network: Torso,
        critic: HeadedNetwork,
        network: Torso | None = None,
        features: int = 64,
        discount: float = 0.99,
        coefficient: float = 0.5,
    ) -> None:
        super().__init__(name="intrinsic")
        self.discount = discount
        self.coefficient = coefficient
        self.critic = critic
        is_bytes = getattr(observation_space, "dtype", None) == np.uint8
        self.normalizer = None if is_bytes else observation_normalizer(observation_space, _CLIP)
        spec = specs.time_step_spec(observation_space).observation

        def head() -> tf.keras.layers.Layer:
            return tf.keras.layers.Dense(features, kernel_initializer="orthogonal")

        torso = network or agent_network
        self.target = HeadedNetwork(spec, torso, head, self.normalizer, "random_target")
        self.predictor = HeadedNetwork(spec, torso, head, self.normalizer, "predictor")
        for each in (self.critic, self.target, self.predictor):
            each.create_variables()
        self.returns = Moments((), "intrinsic_returns")

    @property
    def networks(self) -> list[HeadedNetwork]:
        """The networks that are this module's alone."""
        return [self.target, self.predictor]

    @property
    def trainable(self) -> list[tf.Variable]:
        """Trainable weights: the critic's and the predictor's, not the target's."""
        return [*self.critic.trainable_weights, *self.predictor.trainable_weights]

    def value(self, seen: Any) -> tf.Tensor:
        """V(s) [B] of the intrinsic return, at what the agent sees [B, ...]."""
        return self.critic(nested.without_mask(seen))[0]

    def error(self, observation: Any) -> tf.Tensor:
        """Mean squared error of the predicted features, [N], at observations [N, ...]."""
        observation = nested.without_mask(observation)
        aim = tf.stop_gradient(self.target(observation)[0])  # [N, F]
        found = self.predictor(observation)[0]
        return tf.reduce_mean(tf.math.squared_difference(aim, found), axis=-1)

    def examples(
        self, rollout: Rollout, reached: Any, gae_lambda: float
    ) -> tuple[Novelty, tf.Tensor]:
        """Return the columns of a rollout, and what its advantages [T, B] gain.

        `reached` is what the agent sees of the last states. Resets are steps like others here: the
        observation that an episode began with may be new too.
        """
        after = nested.map_parts(lambda x: x[1:], nested.without_mask(rollout.observation))
        shape = rollout.reward.shape  # [T, B]
        flat = nested.map_parts(lambda x: tf.reshape(x, [-1, *x.shape[2:]]), after)
        error = tf.reshape(self.error(flat), shape)
        reward = error * tf.math.rsqrt(self.returns.variance() + 1e-8)
        value = tf.concat([rollout.extras["intrinsic_value"], self.value(reached)[None]], axis=0)
        delta = reward + self.discount * value[1:] - value[:-1]
        advantage = _sums(delta, self.discount * gae_lambda)
        so_far = tf.reverse(_sums(tf.reverse(error, [0]), self.discount), [0])
        columns = Novelty(reward, advantage + value[:-1], so_far)
        return columns, self.coefficient * advantage

    def losses(self, seen: Any, batch: Minibatch, value_coefficient: float) -> dict[str, tf.Tensor]:
        """Return a replica's shares of the critic's and of the predictor's loss, by their tags.

        They are means over all steps, resets too.
        """
        every = tf.ones_like(batch.mask)
        wrong = tf.math.squared_difference(batch.intrinsic.returns, self.value(seen))
        return {
            "loss/intrinsic_value": value_coefficient * share_of_mean(wrong, every),
            "loss/predictor": share_of_mean(self.error(batch.observation), every),
        }

    def finish(self, batch: Minibatch) -> dict[str, tf.Tensor]:
        """Update the running statistics by all steps [N]; return the mean reward."""
        every = tf.ones_like(batch.mask)
        self.returns.update(batch.intrinsic.so_far, every)
        if self.normalizer is not None:
            self.normalizer.update(nested.without_mask(batch.observation), every)
        reward = replicas.all_reduce_mean(tf.reduce_mean(batch.intrinsic.reward))
        return {"rollout/intrinsic_reward": reward}


def _sums(values: tf.Tensor, decay: float) -> tf.Tensor:
    """Return the discounted sums of what follows, [T, B], of `values` [T, B]."""
    rows = tf.transpose(values)
    return tf.transpose(reverse_sum(rows, decay * tf.ones_like(rows)))


DESCRIPTIONS = {
    "loss/intrinsic_value": "Squared error of the intrinsic return's value, times the coefficient "
    "of the value's loss, mean over minibatches.",
    "loss/predictor": "Mean squared error of the predicted features of random network "
    "distillation, mean over minibatches.",
    "rollout/intrinsic_reward": "Intrinsic reward of a step, normalised, mean over a rollout.",
}
