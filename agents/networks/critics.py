"""Critics of continuous control: values of an observation and an action, and the policy's network.

Both are built of a torso: any Keras layer from [B, ...] to features [B, F], made by a factory.
Observations arrive prepared (see sparring.agents.networks.headed.prepare), and actions within -1
and 1.
"""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from sparring.agents.networks.distributions import small_orthogonal
from sparring.agents.networks.headed import Torso, require_parts
from sparring.agents.networks.regularized import ACTING, Learning, features
from sparring.errors import UserError
from sparring.networks.mlp import MLP
from sparring.xla import random

_REDUCTIONS = {  # of values [N, B] to [B]
    "min": lambda values: tf.reduce_min(values, axis=0),
    "mean": lambda values: tf.reduce_mean(values, axis=0),
    "first": lambda values: values[0],
}


def is_vector(spec: Any) -> bool:
    """Return whether observations of `spec` are vectors, which an action can be joined to."""
    return not isinstance(spec, Mapping) and len(spec.shape) == 1


class Policy(tf.keras.layers.Layer):
    """torso -> head: observations [B, ...] to what `head` makes of features [B, F]."""

    def __init__(self, spec: Any, torso: Torso, head: Callable[[], tf.keras.layers.Layer]) -> None:
        super().__init__(name="policy")
        self.input_tensor_spec = prepared_spec(spec)
        self.torso = torso()
        require_parts(self.torso, spec)
        self.head = head()

    def call(self, observation: Any, learning: Learning = ACTING) -> Any:
        return self.head(features(self.torso, observation, learning))


class Critic(tf.keras.layers.Layer):
    """Observations [B, ...] and actions [B, D] to values [B].

    An observation that is a vector is joined to the action, and `torso` sees both. Of pictures and
    of several parts, `encoder` makes a vector first, which is joined to the action.
    """

    def __init__(self, spec: Any, size: int, torso: Torso, encoder: Torso | None) -> None:
        super().__init__(name="critic")
        action = tf.TensorSpec([size], tf.float32)
        self.input_tensor_spec = (prepared_spec(spec), action)
        self.encoder = None if encoder is None else encoder()
        if self.encoder is not None:
            require_parts(self.encoder, spec)
        self.torso = torso()
        self.value = tf.keras.layers.Dense(1, kernel_initializer=tf.keras.initializers.Orthogonal())

    def call(self, inputs: tuple[Any, tf.Tensor], learning: Learning = ACTING) -> tf.Tensor:
        observation, action = inputs
        if self.encoder is not None:
            observation = features(self.encoder, observation, learning)
        joined = tf.concat([observation, action], axis=1)
        return tf.squeeze(self.value(features(self.torso, joined, learning)), axis=-1)


class CriticEnsemble(tf.keras.layers.Layer):
    """`count` critics, each with weights of its own.

    The least of them is the value that is learned from (Fujimoto et al. 2018, "Addressing function
    approximation error in actor-critic methods", section 4.2). The policy climbs what
    `policy_value` makes of them: "min", "mean" (DroQ), or "first" (TD3). `network` is a factory of
    their torso; None: of vectors the policy's, else two layers of 256 rectified units behind the
    encoder, which is the policy's network.
    """

    def __init__(
        self,
        spec: Any,
        size: int,
        torso: Torso,
        count: int = 2,
        network: Torso | None = None,
        policy_value: str = "min",
    ) -> None:
        super().__init__()
        if policy_value not in _REDUCTIONS:
            raise UserError(
                f"agent.critics.policy_value={policy_value}: choose one of "
                f"{', '.join(_REDUCTIONS)}."
            )
        encoder = None if is_vector(spec) else torso
        if network is None:
            network = torso if encoder is None else (lambda: MLP((256, 256), "relu"))
        self.critics = [Critic(spec, size, network, encoder) for _ in range(count)]
        self.policy_value = policy_value

    def call(self, inputs: tuple[Any, tf.Tensor], learning: Learning = ACTING) -> tf.Tensor:
        """Return the values [N, B] of all critics."""
        values = []
        for i, critic in enumerate(self.critics):
            keys = None if learning.keys is None else random.fold(learning.keys, i)
            values.append(critic(inputs, learning._replace(keys=keys)))
        return tf.stack(values)

    def climbed(self, values: tf.Tensor) -> tf.Tensor:
        """Return what the policy climbs of values [N, B]: [B]."""
        return _REDUCTIONS[self.policy_value](values)


class TanhHead(tf.keras.layers.Dense):
    """Features [B, F] to actions [B, D] within -1 and 1."""

    def __init__(self, size: int) -> None:
        super().__init__(size, "tanh", kernel_initializer=small_orthogonal())


def prepared_spec(spec: Any) -> Any:
    """Return the spec of observations as networks are given them: float32."""
    return tf.nest.map_structure(lambda part: tf.TensorSpec(part.shape, tf.float32), spec)
