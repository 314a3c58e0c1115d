"""Policies over a Box's actions that never leave its bounds, or whose spread depends on the state.

A head is a Keras layer from features [B, F] to a distribution, made from the action space, as
`agent.head` names one. Distributions that are sampled from keys derive from `KeyedDistribution`.
"""

import math
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from sparring.agents.networks.distributions import KeyedDistribution, small_orthogonal
from sparring.errors import UserError
from sparring.xla import random

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(16)  # of a standard normal's expectations
_EDGE = 1e-6  # share of the bounds' distance that an action keeps from them in its probability
_ROUNDS = 64  # of rejection; one is enough with a probability above 0.95


class StateNormalHead(tf.keras.layers.Layer):
    """Features [B, F] to a diagonal Normal whose standard deviation depends on the state too.

    The log standard deviation is clipped to `log_std_bounds` (Haarnoja et al. 2018, "Soft
    actor-critic algorithms and applications", appendix C), and is `log_std` at first.
    """

    def __init__(
        self,
        action_space: gymnasium.Space,
        log_std: float = 0.0,
        log_std_bounds: tuple[float, float] = (-20.0, 2.0),
    ) -> None:
        super().__init__()
        size = vector_space(action_space).shape[0]
        self.log_std_bounds = tuple(log_std_bounds)
        self.mean = tf.keras.layers.Dense(size, kernel_initializer=small_orthogonal())
        self.log_std = tf.keras.layers.Dense(
            size,
            kernel_initializer=small_orthogonal(),
            bias_initializer=tf.keras.initializers.Constant(log_std),
        )

    def call(self, features: tf.Tensor) -> tfd.Distribution:
        log_std = tf.clip_by_value(self.log_std(features), *self.log_std_bounds)
        return tfd.MultivariateNormalDiag(self.mean(features), tf.exp(log_std))


class SquashedNormalHead(StateNormalHead):
    """Features [B, F] to such a Normal, squashed by tanh and stretched to the Box's bounds.

    See Haarnoja et al. 2018, appendix C.
    """

    def __init__(self, action_space: gymnasium.Space, **settings: Any) -> None:
        super().__init__(action_space, **settings)
        box = vector_space(action_space)
        self.low = box.low
        self.high = box.high

    def call(self, features: tf.Tensor) -> tfd.Distribution:
        inner = super().call(features)
        return SquashedNormal(inner.mean(), inner.stddev(), self.low, self.high)


class BetaHead(tf.keras.layers.Layer):
    """Features [B, F] to independent Beta distributions stretched to the Box's bounds.

    Both concentrations are 1 + softplus, so that there is one mode (Chou et al. 2017, "Improving
    stochastic policy gradients in continuous control with deep reinforcement learning using the
    Beta distribution", section 4).
    """

    def __init__(self, action_space: gymnasium.Space) -> None:
        super().__init__()
        box = vector_space(action_space)
        self.low = box.low
        self.high = box.high
        self.concentrations = tf.keras.layers.Dense(
            2 * box.shape[0], kernel_initializer=small_orthogonal()
        )

    def call(self, features: tf.Tensor) -> tfd.Distribution:
        alpha, beta = tf.split(1.0 + tf.nn.softplus(self.concentrations(features)), 2, axis=-1)
        return BoxBeta(alpha, beta, self.low, self.high)


class _BoxDistribution(KeyedDistribution):
    """Distribution of vectors [B, D] between bounds [D] each."""

    def __init__(self, low: Any, high: Any, parameters: dict[str, tf.Tensor]) -> None:
        self.low = tf.convert_to_tensor(low, tf.float32)
        self.span = tf.convert_to_tensor(high, tf.float32) - self.low
        super().__init__(
            dtype=tf.float32,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
        )
        self.tensors = parameters
        self._shape = next(iter(parameters.values())).shape

    def _batch_shape(self) -> tf.TensorShape:
        return self._shape[:-1]

    def _event_shape(self) -> tf.TensorShape:
        return self._shape[-1:]

    def _share(self, action: tf.Tensor) -> tf.Tensor:
        """Return how far actions are from low to high, from 0 to 1, a little inside of both."""
        return tf.clip_by_value((action - self.low) / self.span, _EDGE, 1.0 - _EDGE)

    def _stretched(self, share: tf.Tensor) -> tf.Tensor:
        return self.low + self.span * share


class SquashedNormal(_BoxDistribution):
    """tanh of a Normal [B, D], stretched to bounds [D].

    The mode given is that of the Normal, squashed. The entropy is exact but for an expectation over
    each number, which is summed over 16 points (Gauss and Hermite).
    """

    def __init__(self, mean: tf.Tensor, stddev: tf.Tensor, low: Any, high: Any) -> None:
        self._normal = tfd.Normal(mean, stddev)
        super().__init__(low, high, {"mean": mean, "stddev": stddev})

    def sample_from(self, keys: tf.Tensor) -> tf.Tensor:
        return self.sample_with_log_prob(keys)[0]

    def sample_with_log_prob(self, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return samples [B, D] and their log probabilities [B], both with gradients.

        They are of the numbers before tanh, and so exact however near a bound the action is.
        """
        mean = self._normal.loc
        x = mean + self._normal.scale * random.normal(keys, mean.shape[-1])
        log_prob = self._normal.log_prob(x) - self._log_slope(x)
        return self._squashed(x), tf.reduce_sum(log_prob, axis=-1)

    def divergence_from(self, parameters: dict[str, tf.Tensor]) -> tf.Tensor:
        # That of the numbers before tanh: squashing both alike changes nothing
        old = tfd.Normal(parameters["mean"], parameters["stddev"])
        return tf.reduce_sum(tfd.kl_divergence(old, self._normal), axis=-1)

    def _squashed(self, x: tf.Tensor) -> tf.Tensor:
        return self._stretched(0.5 * (tf.tanh(x) + 1.0))

    def _log_slope(self, x: tf.Tensor) -> tf.Tensor:
        """Return the logarithm of the derivative of `_squashed`.

        log(1 - tanh(x)^2) is 2 (log 2 - x - softplus(-2 x)), which is exact for large x too.
        """
        tanh = 2.0 * (math.log(2.0) - x - tf.nn.softplus(-2.0 * x))
        return tanh + tf.math.log(0.5 * self.span)

    def _log_prob(self, action: tf.Tensor) -> tf.Tensor:
        x = tf.atanh(2.0 * self._share(action) - 1.0)
        return tf.reduce_sum(self._normal.log_prob(x) - self._log_slope(x), axis=-1)

    def _mode(self) -> tf.Tensor:
        return self._squashed(self._normal.loc)

    def _entropy(self) -> tf.Tensor:
        slope = tf.zeros_like(self._normal.loc)
        total = float(_WEIGHTS.sum())
        for node, weight in zip(_NODES, _WEIGHTS, strict=True):
            x = self._normal.loc + self._normal.scale * float(node)
            slope += float(weight) / total * self._log_slope(x)
        return tf.reduce_sum(self._normal.entropy() + slope, axis=-1)


class BoxBeta(_BoxDistribution):
    """Independent Beta distributions [B, D] stretched to bounds [D]; concentrations above 1."""

    def __init__(self, alpha: tf.Tensor, beta: tf.Tensor, low: Any, high: Any) -> None:
        self._beta = tfd.Beta(alpha, beta)
        super().__init__(low, high, {"alpha": alpha, "beta": beta})

    def sample_from(self, keys: tf.Tensor) -> tf.Tensor:
        one = _gamma(random.fold(keys, 0), self._beta.concentration1)
        other = _gamma(random.fold(keys, 1), self._beta.concentration0)
        return self._stretched(one / (one + other))

    def divergence_from(self, parameters: dict[str, tf.Tensor]) -> tf.Tensor:
        old = tfd.Beta(parameters["alpha"], parameters["beta"])
        return tf.reduce_sum(tfd.kl_divergence(old, self._beta), axis=-1)

    def _log_prob(self, action: tf.Tensor) -> tf.Tensor:
        density = self._beta.log_prob(self._share(action)) - tf.math.log(self.span)
        return tf.reduce_sum(density, axis=-1)

    def _mode(self) -> tf.Tensor:
        alpha = self._beta.concentration1
        return self._stretched((alpha - 1.0) / (alpha + self._beta.concentration0 - 2.0))

    def _entropy(self) -> tf.Tensor:
        return tf.reduce_sum(self._beta.entropy() + tf.math.log(self.span), axis=-1)


def _gamma(keys: tf.Tensor, concentration: tf.Tensor) -> tf.Tensor:
    """Return gamma variates [B, D] of concentrations [B, D] above 1, from keys [B, 2].

    By rejection (Marsaglia and Tsang 2000, "A simple method for generating gamma variables"),
    which TensorFlow's own sampler does as well, in an operation that XLA has not.
    """
    size = concentration.shape[-1]
    d = concentration - 1.0 / 3.0
    c = tf.math.rsqrt(9.0 * d)

    def draw(i: tf.Tensor, found: tf.Tensor, done: tf.Tensor) -> tuple[tf.Tensor, ...]:
        fresh = random.fold(keys, i)
        x = random.normal(random.fold(fresh, 0), size)
        u = random.open_uniform(random.fold(fresh, 1), size)
        v = tf.pow(1.0 + c * x, 3.0)
        positive = v > 0.0
        safe = tf.where(positive, v, 1.0)
        bound = 0.5 * tf.square(x) + d - d * safe + d * tf.math.log(safe)
        accepted = positive & (tf.math.log(u) < bound)
        found = tf.where(accepted & ~done, d * safe, found)
        return i + 1, found, done | accepted

    start = (tf.constant(0), d, tf.zeros_like(d, tf.bool))
    _, found, _ = tf.while_loop(
        lambda i, found, done: ~tf.reduce_all(done), draw, start, maximum_iterations=_ROUNDS
    )
    return found


def vector_space(space: gymnasium.Space) -> gymnasium.spaces.Box:
    """Return a space of action vectors; raise UserError for another."""
    if isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1:
        return space
    raise UserError(f"agent.head: it is of a Box of vectors, and the actions are {space}.")
