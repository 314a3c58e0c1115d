"""Exploration noise that depends on the state: gSDE (Raffin et al. 2021).

"Smooth exploration for robotic reinforcement learning", section 3.2.
"""

import gymnasium
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from sparring.agents.networks.box_heads import vector_space
from sparring.agents.networks.distributions import KeyedDistribution, small_orthogonal
from sparring.agents.requirements import refused_noise_steps
from sparring.errors import UserError
from sparring.xla import random


class StateDependentNoiseHead(tf.keras.layers.Layer):
    """Features [B, F] to a Normal whose noise is a random matrix [F, D] times the features.

    The matrix is drawn from the key that the action is drawn from: with the same key, the noise is
    a function of the state. `agent.noise_steps` is for how many steps the key stays. Its entries
    are independent, of standard deviations exp(log_std) [F, D] that are learned, `log_std` at
    first. The features get no gradient by way of the noise.
    """

    def __init__(self, action_space: gymnasium.Space, log_std: float = -1.0) -> None:
        super().__init__()
        self.size = vector_space(action_space).shape[0]
        self.initial = log_std
        self.mean = tf.keras.layers.Dense(self.size, kernel_initializer=small_orthogonal())

    def build(self, shape: tf.TensorShape) -> None:
        self.log_std = self.add_weight(
            "log_std",
            [shape[-1], self.size],
            initializer=tf.keras.initializers.Constant(self.initial),
        )

    def call(self, features: tf.Tensor) -> tfd.Distribution:
        fixed = tf.stop_gradient(features)
        return StateDependentNoise(self.mean(features), fixed, tf.exp(self.log_std))


class StateDependentNoise(KeyedDistribution):
    """Normal [B, D] around `mean`, of variances features^2 [B, F] times scale^2 [F, D].

    Args:
      mean: [B, D].
      features: what the random matrix is multiplied by, [B, F].
      scale: standard deviations of its entries, [F, D].
    """

    def __init__(self, mean: tf.Tensor, features: tf.Tensor, scale: tf.Tensor) -> None:
        self.features = features
        self.scale = scale
        variance = tf.matmul(tf.square(features), tf.square(scale))
        stddev = tf.sqrt(variance + 1e-6)  # which a state without features has too
        self._normal = tfd.MultivariateNormalDiag(mean, stddev)
        super().__init__(
            dtype=tf.float32,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
        )
        self.tensors = {"mean": mean, "stddev": stddev}

    def _batch_shape(self) -> tf.TensorShape:
        return self.tensors["mean"].shape[:-1]

    def _event_shape(self) -> tf.TensorShape:
        return self.tensors["mean"].shape[-1:]

    def sample_from(self, keys: tf.Tensor) -> tf.Tensor:
        inputs, outputs = self.scale.shape
        drawn = tf.reshape(random.normal(keys, inputs * outputs), [-1, inputs, outputs])
        return self.tensors["mean"] + tf.einsum("bf,bfd->bd", self.features, drawn * self.scale)

    def divergence_from(self, parameters: dict[str, tf.Tensor]) -> tf.Tensor:
        old = tfd.MultivariateNormalDiag(parameters["mean"], parameters["stddev"])
        return tfd.kl_divergence(old, self._normal)

    def _log_prob(self, action: tf.Tensor) -> tf.Tensor:
        return self._normal.log_prob(action)

    def _mean(self) -> tf.Tensor:
        return self.tensors["mean"]

    def _stddev(self) -> tf.Tensor:
        return self.tensors["stddev"]

    def _mode(self) -> tf.Tensor:
        return self.tensors["mean"]

    def _entropy(self) -> tf.Tensor:
        return self._normal.entropy()


def require(actor: tf.Module, noise_steps: int) -> None:
    """Raise UserError if noise is to stay for several steps that does not depend on the state."""
    is_noisy = any(isinstance(part, StateDependentNoiseHead) for part in actor.submodules)
    if noise_steps != 1 and not is_noisy:
        raise UserError(refused_noise_steps(noise_steps))
