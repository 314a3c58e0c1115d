"""Check that a discriminator can be differentiated: once, and twice if there are penalties.

TensorFlow gives no error where an operation has no gradient of its gradient: depending on its
version it raises in the middle of tracing, or takes the derivative for zero, and a gradient penalty
then does nothing.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.errors import UserError

_EXAMPLES = 2
# Share of the right value below which a second derivative is taken to be missing: rounding in
# bfloat16 leaves more
_LEAST = 0.5


@dataclass
class _Call:
    """Call of a layer: the layer, its first argument, and a function of that argument."""

    layer: tf.keras.layers.Layer
    inputs: tf.Tensor
    function: Callable[[tf.Tensor], Any]


def check(network: tf.keras.layers.Layer, shape: tuple[int, ...], twice: bool) -> None:
    """Refuse a discriminator of inputs `shape` whose logits cannot be differentiated.

    `twice`: a penalty needs the derivative of the gradient.

    Raises:
        UserError: the message names the layer at fault.
    """
    noise = np.random.default_rng(0).uniform(-1.0, 1.0, (_EXAMPLES, *shape))
    examples = tf.constant(noise, tf.float32)
    labels = tf.zeros([_EXAMPLES], tf.int64)

    def logits(inputs: tf.Tensor) -> tf.Tensor:
        return network(inputs, labels, training=False)

    fault = _fault(logits, examples, twice)
    if fault is None:
        return
    with _recorded(network) as calls:
        logits(examples)
    layer = next((c.layer for c in calls if _fault(c.function, c.inputs, twice)), network)
    named = f"{type(layer).__name__} ({layer.name})"
    if fault == "first":
        raise UserError(
            f"network.discriminator: {named} has no gradient, and the generator would learn "
            "nothing: leave out rounding, choices and conversions to NumPy."
        )
    raise UserError(
        f"penalty: a gradient penalty would do nothing, as TensorFlow cannot differentiate the "
        f"gradient of {named} in network.discriminator: set penalty=none, or choose another layer "
        "(resizing has none: give images of the size that is needed)."
    )


def takes_gradient(penalty: Any, shape: tuple[int, ...]) -> bool:
    """Return whether a penalty differentiates the critic it is given; it is traced and not run."""
    if getattr(penalty, "coupled", False):  # replicas meet in it, which they can in a step alone
        return True
    asked = []

    @tf.custom_gradient
    def critic(examples: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            asked.append(True)
            column = tf.reshape(upstream, [-1] + [1] * len(shape))
            return column * tf.ones_like(examples)

        return tf.reduce_sum(examples, axis=list(range(1, len(shape) + 1))), gradient

    def call(examples: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        return penalty(critic, examples, examples, keys, tf.constant(0.5))

    examples = tf.TensorSpec([_EXAMPLES, *shape], tf.float32)
    keys = tf.TensorSpec([_EXAMPLES, 2], tf.uint32)
    tf.function(call, autograph=False).get_concrete_function(examples, keys)
    return bool(asked)


def check_normalization(network: tf.keras.layers.Layer) -> None:
    """Refuse Keras' batch normalization where the gradient of a penalty would be wrong.

    Outside of its fused kernel, Keras stops the gradient of the mean inside the variance: that
    leaves the first derivative as it is, and spoils the second.

    Raises:
        UserError: the message names the layer.
    """
    for layer in network.submodules:
        batch = isinstance(layer, tf.keras.layers.BatchNormalization)
        if batch and layer.trainable and not layer.fused:
            raise UserError(
                f"penalty: the gradient of a penalty would be wrong behind {layer.name} in "
                "network.discriminator, a BatchNormalization of Keras: set penalty=none, or use "
                "sparring.gans.networks.layers.BatchNorm in its place."
            )


def _fault(function: Callable[[tf.Tensor], Any], inputs: tf.Tensor, twice: bool) -> str | None:
    """Return which derivative of a function is missing: "first", "second", or None.

    The gradient g of outputs weighted by c is linear in c, by the Jacobian J: g = c J. So the
    derivative of <g, v> by c is J v, and for v = g its product with c must be <g, g>.
    """
    with tf.GradientTape() as outer:
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            inner.watch(inputs)
            outputs = function(inputs)
        if not isinstance(outputs, tf.Tensor) or not outputs.dtype.is_floating:
            return None
        cotangent = tf.ones_like(outputs)
        outer.watch(cotangent)
        try:
            gradient = inner.gradient(outputs, inputs, output_gradients=cotangent)
        except LookupError:  # an operation without a gradient
            return "first"
        if gradient is None:
            return "first"
        gradient = tf.convert_to_tensor(gradient)
    if not twice:
        return None
    try:
        second = outer.gradient(gradient, cotangent, output_gradients=tf.identity(gradient))
    except LookupError:
        return "second"
    wanted = float(tf.reduce_sum(tf.square(tf.cast(gradient, tf.float32))))
    found = 0.0
    if second is not None:
        product = tf.cast(second, tf.float32) * tf.cast(cotangent, tf.float32)
        found = float(tf.reduce_sum(product))
    return "second" if found < _LEAST * wanted else None


@contextlib.contextmanager
def _recorded(network: tf.keras.layers.Layer) -> Iterator[list[_Call]]:
    """Record the calls of a network's layers on tensors of floats, inner ones first."""
    calls: list[_Call] = []
    layers = [m for m in network.submodules if isinstance(m, tf.keras.layers.Layer)]
    plain = tf.keras.layers.Layer.__call__

    def recording(layer: Any, *arguments: Any, **settings: Any) -> Any:
        outputs = plain(layer, *arguments, **settings)
        inputs = arguments[0] if arguments else None
        known = any(layer is one for one in layers)
        if known and isinstance(inputs, tf.Tensor) and inputs.dtype.is_floating:

            def function(x: tf.Tensor) -> Any:
                return plain(layer, x, *arguments[1:], **settings)

            calls.append(_Call(layer, inputs, function))
        return outputs

    tf.keras.layers.Layer.__call__ = recording
    try:
        yield calls
    finally:
        tf.keras.layers.Layer.__call__ = plain
