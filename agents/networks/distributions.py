"""Action distributions: heads that make them, and sampling them from keys."""

import gymnasium
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from sparring.errors import UserError
from sparring.xla import random

# A logit no action is sampled from; finite, so that 0 * log(0) stays 0 in the entropy
IMPOSSIBLE = -1e9


def small_orthogonal() -> tf.keras.initializers.Initializer:
    # gain 0.01: the first policy is nearly uniform (Huang et al. 2022, detail 2)
    return tf.keras.initializers.Orthogonal(0.01)


class KeyedDistribution(tfd.Distribution):
    """Base of distributions that are sampled from keys, one for each member of the batch.

    `tensors` are the parameters that say what the distribution is, by name, each [B, ...].
    """

    tensors: dict[str, tf.Tensor]

    def sample_from(self, keys: tf.Tensor) -> tf.Tensor:
        """Return a sample for each member of the batch, member i's from keys[i] [2] alone."""
        raise NotImplementedError

    def divergence_from(self, parameters: dict[str, tf.Tensor]) -> tf.Tensor:
        """Return KL(old || this) [B], where old is of the same kind with `parameters` as its
        `tensors`.
        """
        raise UserError(
            f"agent.kl_penalty: {type(self).__name__} has no divergence_from, which tells its KL "
            "divergence: write it, or choose agent=ppo."
        )


class CategoricalHead(tf.keras.layers.Layer):
    """Features [B, F] to a Categorical over `count` actions."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.logits = tf.keras.layers.Dense(count, kernel_initializer=small_orthogonal())

    def call(self, features: tf.Tensor) -> tfd.Distribution:
        return tfd.Categorical(logits=self.logits(features))  # [B] over A


class MultiCategoricalHead(tf.keras.layers.Layer):
    """Features [B, F] to K independent Categoricals of possibly different sizes, padded to the
    widest.
    """

    def __init__(self, counts: np.ndarray) -> None:
        super().__init__()
        widest = int(counts.max())
        self.shape = (len(counts), widest)
        # [K, A]
        self.blocked = np.where(np.arange(widest) < counts[:, None], 0.0, IMPOSSIBLE).astype(
            np.float32
        )
        self.logits = tf.keras.layers.Dense(
            len(counts) * widest, kernel_initializer=small_orthogonal()
        )

    def call(self, features: tf.Tensor) -> tfd.Distribution:
        logits = tf.reshape(self.logits(features), [-1, *self.shape]) + self.blocked  # [B, K, A]
        return tfd.Independent(tfd.Categorical(logits=logits), reinterpreted_batch_ndims=1)


class NormalHead(tf.keras.layers.Layer):
    """Features [B, F] to a diagonal Normal over `size` numbers whose spread does not depend on the
    state.

    The mean is not squashed: actions are stored as sampled and clipped only on their way to the
      environment.
    """

    def __init__(self, size: int, log_std: float = 0.0) -> None:
        super().__init__()
        self.mean = tf.keras.layers.Dense(size, kernel_initializer=small_orthogonal())
        self.log_std = self.add_weight(
            "log_std", [size], initializer=tf.keras.initializers.Constant(log_std)
        )

    def call(self, features: tf.Tensor) -> tfd.Distribution:
        mean = self.mean(features)  # [B, D]
        scale = tf.zeros_like(mean) + tf.exp(self.log_std)
        return tfd.MultivariateNormalDiag(mean, scale)


def head(action_space: gymnasium.Space, log_std: float = 0.0) -> tf.keras.layers.Layer:
    """The head for an adapted action space. Box actions of any shape are refused unless they are
    vectors.
    """
    spaces = gymnasium.spaces
    if isinstance(action_space, spaces.Discrete):
        return CategoricalHead(int(action_space.n))  # type: ignore[arg-type]
    if isinstance(action_space, spaces.MultiDiscrete) and action_space.nvec.ndim == 1:
        return MultiCategoricalHead(np.asarray(action_space.nvec))
    if isinstance(action_space, spaces.Box) and len(action_space.shape) == 1:
        return NormalHead(action_space.shape[0], log_std)
    raise UserError(
        f"No policy head for the action space {action_space}: offer Discrete, MultiDiscrete or a "
        "Box vector."
    )


def sample(distribution: tfd.Distribution, keys: tf.Tensor) -> tf.Tensor:
    """Sample once per member of the batch, from `keys` uint32 [B, 2]; batch shape [B].

    Member i's sample depends on its own key only. A distribution of another kind than those here
    and `KeyedDistribution` is sampled by TensorFlow Probability from the first key, for the whole
    batch at once.
    """
    if isinstance(distribution, KeyedDistribution):
        return distribution.sample_from(keys)
    if isinstance(distribution, tfd.Independent) and isinstance(
        distribution.distribution, tfd.Categorical
    ):
        logits = distribution.distribution.logits  # [B, K, A]
        noise = tf.reshape(random.gumbel(keys, logits.shape[1] * logits.shape[2]), tf.shape(logits))
        return tf.argmax(logits + noise, axis=-1, output_type=tf.int32)
    if isinstance(distribution, tfd.Categorical):
        logits = distribution.logits  # [B, A]
        return tf.argmax(
            logits + random.gumbel(keys, logits.shape[-1]), axis=-1, output_type=tf.int32
        )
    if isinstance(distribution, tfd.MultivariateNormalDiag):
        mean = distribution.mean()  # [B, D]
        return mean + distribution.stddev() * random.normal(keys, mean.shape[-1])
    return distribution.sample(seed=tf.bitcast(keys[0], tf.int32))


def parameters(distribution: tfd.Distribution) -> dict[str, tf.Tensor]:
    """The tensors that say what the distribution is, by name; none of one of a kind
    unknown here.
    """
    if isinstance(distribution, KeyedDistribution):
        return distribution.tensors
    if isinstance(distribution, tfd.Independent) and isinstance(
        distribution.distribution, tfd.Categorical
    ):
        return {"logits": distribution.distribution.logits}  # [B, K, A]
    if isinstance(distribution, tfd.Categorical):
        return {"logits": distribution.logits}  # [B, A]
    if isinstance(distribution, tfd.MultivariateNormalDiag):
        return {"mean": distribution.mean(), "stddev": distribution.stddev()}  # [B, D]
    return {}


def kl_divergence(old: dict[str, tf.Tensor], new: tfd.Distribution) -> tf.Tensor:
    """Return KL(old || new) [B] in nats, where `old` are the `parameters` of a distribution of the
    same kind.
    """
    if isinstance(new, KeyedDistribution):
        return new.divergence_from(old)
    if isinstance(new, tfd.MultivariateNormalDiag):
        return tfd.kl_divergence(tfd.MultivariateNormalDiag(old["mean"], old["stddev"]), new)
    before = tf.nn.log_softmax(old["logits"])  # [B, A] or [B, K, A]
    change = before - tf.nn.log_softmax(parameters(new)["logits"])
    each = tf.reduce_sum(tf.exp(before) * change, axis=-1)
    return tf.reduce_sum(tf.reshape(each, [each.shape[0], -1]), axis=-1)
