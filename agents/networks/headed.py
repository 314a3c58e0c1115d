"""TF-Agents networks around a torso: any Keras layer from observations [B, ...] to features [B, F].

A torso arrives as a factory, since every network (actor, critic, target) needs weights of its own.
Bytes (pictures, boards) are scaled to [0, 1] here, and observations normalised, so that what acts,
what trains and what is exported agree.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.networks import network
from tf_agents.specs import tensor_spec

from sparring import nested
from sparring.agents.networks.normalizers import Normalizer, ObservationNormalizer, PartsNormalizer
from sparring.agents.networks.part_encoders import PartEncoders
from sparring.agents.networks.q_heads import DistributionalHead
from sparring.errors import UserError, warn_once

_OURS = ("keras", "tf_keras", "sparring", "tf_agents", "tensorflow")  # draw numbers as known here
_RANDOM = ("Random", "TruncatedNormal", "Multinomial", "Stateful", "Rng", "ParameterizedTruncated")

Torso = Callable[[], tf.keras.layers.Layer]


def highest_bytes(spec: Any) -> Any:
    """Return the highest that bytes can be, for each part of observations of `spec`."""
    return nested.map_parts(lambda part: int(np.max(getattr(part, "maximum", 255))), spec)


def prepare(observation: Any, normalizer: Normalizer | None, highest: Any = 255) -> Any:
    """Return what networks are given of observations [B, ...], as float32.

    Bytes are divided by the `highest` they can be, the rest is normalised if asked. So the 0 and 1
    of a board arrive as they are, and take a byte each wherever they are stored. Of observations
    of several parts (see sparring.nested) that is done for each.
    """
    if not isinstance(observation, Mapping):
        assert not isinstance(normalizer, PartsNormalizer)
        return _prepare_part(observation, normalizer, highest)
    seen = {}
    for name, part in observation.items():
        own = normalizer.parts.get(name) if isinstance(normalizer, PartsNormalizer) else None
        seen[name] = _prepare_part(part, own, highest[name])
    return seen


def _prepare_part(
    observation: tf.Tensor, normalizer: ObservationNormalizer | None, highest: int
) -> tf.Tensor:
    if observation.dtype == tf.uint8:
        return tf.cast(observation, tf.float32) / float(max(highest, 1))
    observation = tf.cast(observation, tf.float32)
    return observation if normalizer is None else normalizer.normalize(observation)


class HeadedNetwork(network.Network):
    """torso -> head, as TF-Agents calls networks: (observation, step_type, state) -> (output,
    state).

    `head` is a factory too: `copy()`, which makes the target network, calls both again.
    """

    def __init__(
        self,
        input_tensor_spec: Any,
        torso: Torso,
        head: Callable[[], tf.keras.layers.Layer],
        normalizer: Normalizer | None = None,
        name: str = "HeadedNetwork",
    ) -> None:
        super().__init__(input_tensor_spec, state_spec=(), name=name)
        self._normalizer = normalizer
        self._highest = highest_bytes(input_tensor_spec)
        self._torso = torso()
        require_parts(self._torso, input_tensor_spec)
        self._head = head()

    def create_variables(self, input_tensor_spec: Any = None, **arguments: Any) -> Any:
        """Draw random bytes up to 254.

        TF-Agents draws them up to 255 by way of 256, which numpy 2 does not fit into a byte.
        """
        whole: Any = self.input_tensor_spec
        self._input_tensor_spec = tf.nest.map_structure(_drawable, whole)
        try:
            return super().create_variables(input_tensor_spec, **arguments)
        finally:
            self._input_tensor_spec = whole

    def call(
        self,
        observation: tf.Tensor,
        step_type: Any = None,
        network_state: Any = (),
        training: bool = False,
    ) -> tuple[Any, Any]:
        del step_type, training
        outputs = self.outputs(observation)
        if isinstance(self._head, DistributionalHead):
            outputs = self._head.expected(outputs)
        return outputs, network_state

    def outputs(self, observation: Any) -> Any:
        """Return what the head gives at observations [B, ...]."""
        return self._head(self.features(observation))

    def features(self, observation: Any) -> tf.Tensor:
        """Return what the head is given of observations [B, ...]: [B, F]."""
        return self._torso(prepare(observation, self._normalizer, self._highest))


def _drawable(spec: Any) -> Any:
    if getattr(spec, "dtype", None) != tf.uint8:
        return spec
    highest = min(int(np.max(getattr(spec, "maximum", 255))), 254)
    return tensor_spec.BoundedTensorSpec(spec.shape, spec.dtype, 0, highest)


def require_parts(torso: tf.keras.layers.Layer, spec: Any) -> None:
    """Raise UserError for a network of one observation where there are several parts."""
    if isinstance(spec, Mapping) and not isinstance(torso, PartEncoders):
        named = ", ".join(f"{name} {list(part.shape)}" for name, part in spec.items())
        raise UserError(
            f"network: the observations are of several parts ({named}), which "
            f"{type(torso).__name__} does not join. Choose network=parts, or a network of yours "
            "that derives from sparring.agents.networks.part_encoders.PartEncoders; "
            "env.parts=flat makes them one vector."
        )


class Squeeze(tf.keras.layers.Layer):
    """A dense layer with one output, as a vector: features [B, F] -> [B]."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.dense = tf.keras.layers.Dense(
            1, kernel_initializer=tf.keras.initializers.Orthogonal(gain)
        )

    def call(self, features: tf.Tensor) -> tf.Tensor:
        return tf.squeeze(self.dense(features), axis=-1)


def unique(variables: Iterable[tf.Variable]) -> list[tf.Variable]:
    """Return variables in their order, each once, however many networks share it."""
    return list({variable.ref(): variable for variable in variables}.values())


def check_layers(networks: Sequence[HeadedNetwork]) -> None:
    """Refuse layers that act at random, and tell of those that do nothing here.

    A run goes on exactly where it was stopped, which a layer that draws from TensorFlow's own
    generator would not.

    Raises:
      UserError: a layer draws random numbers.
    """
    layers = {id(m): m for n in networks for m in n.submodules}.values()
    for layer in layers:
        if isinstance(layer, tf.keras.__internal__.layers.BaseRandomLayer):
            raise _refused(f"the layer {layer.name} ({type(layer).__name__})")
        if isinstance(layer, tf.keras.layers.BatchNormalization) and layer.trainable:
            warn_once(
                f"network: the batch normalisation {layer.name} stays at the statistics it begins "
                "with, as an agent's networks act and learn in inference mode; "
                "tf.keras.layers.LayerNormalization has none."
            )
    for one in networks:
        if all(type(m).__module__.split(".")[0] in _OURS for m in one.submodules):
            continue
        spec = tf.nest.map_structure(
            lambda s: tf.TensorSpec([1, *s.shape], s.dtype), one.input_tensor_spec
        )
        graph = tf.function(one.call, autograph=False).get_concrete_function(spec).graph
        for operation in graph.get_operations():
            if operation.type.startswith(_RANDOM):
                raise _refused(f"{operation.type} in {one.name}")


def _refused(what: str) -> UserError:
    return UserError(
        f"network: {what} draws random numbers from TensorFlow's own generator, so that a run that "
        "was stopped could not go on as it would have: leave it out."
    )
