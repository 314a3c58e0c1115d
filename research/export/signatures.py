"""What a trainer gives away when its run is over: named functions of named tensors, and how to try
them out.

`trainer.export()` returns an `Export`. `research/export/saved_model.py` writes it as a SavedModel
that needs none of our code, and `research/export/tflite_onnx.py` shrinks one of its functions and
holds the result against the original.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

DEFAULT = (
    "serving_default"  # TensorFlow Serving's name for the signature of a request that names none
)

_PART = 250

Arrays = Mapping[str, np.ndarray]
Function = Callable[
    [Arrays], dict[str, np.ndarray]
]  # named arrays [B, ...] to named arrays [B, ...]


@dataclass(frozen=True)
class Signature:
    """A function to be called from elsewhere.

    `call(**inputs)` takes tensors [B, *shape] by name and returns tensors [B, ...] by name, for any
    B, each member's from its own inputs alone. `inputs` says shape (without the batch) and dtype of
    each, `about` what it is.
    """

    call: Callable[..., dict[str, tf.Tensor]]
    inputs: Mapping[str, tf.TensorSpec]
    about: str

    def trace(self) -> Any:
        """The concrete function, with the batch dimension free, as a plain graph."""
        specs = {
            n: tf.TensorSpec([None, *s.shape], s.dtype, name=n) for n, s in self.inputs.items()
        }
        return tf.function(self.call, autograph=False).get_concrete_function(**specs)


@dataclass(frozen=True)
class Export:
    """What a trained model can be asked.

    Args:
      signatures: by name; the first is also the one of requests that name none.
      edge: the name of the signature that is worth shrinking for small devices.
      samples: count -> that many inputs of `edge`, as they occur in the run: what a quantized
        function is fitted to.
      judge: (function in the place of `edge`, seed) -> scores of it, such as an evaluated return.
      notes: what else the manifest should say, as plain values.
      resources: tables that the signatures look up.
      drawn: whether `judge` says something else under another seed.
    """

    signatures: Mapping[str, Signature]
    edge: str
    samples: Callable[[int], dict[str, np.ndarray]]
    judge: Callable[[Function, int], dict[str, float]]
    notes: Mapping[str, Any] = field(default_factory=dict)
    resources: Sequence[Any] = ()
    drawn: bool = True

    def module(self) -> "Exported":
        """The signatures traced, over the variables they read."""
        return Exported(
            {name: signature.trace() for name, signature in self.signatures.items()}, self.resources
        )


class Exported:
    """Concrete functions by name, and a module of the variables they read: no Keras layer, no class
    of ours.

    Attributes:
      signatures: by name, the first one also by TensorFlow Serving's name for the default.
      module: what the variables and tables belong to.
    """

    def __init__(self, functions: Mapping[str, Any], resources: Sequence[Any] = ()) -> None:
        self.signatures = {DEFAULT: next(iter(functions.values())), **functions}
        variables = {id(v): v for function in functions.values() for v in function.variables}
        self.module = tf.Module(name="exported")
        self.module.weights = list(variables.values())
        self.module.resources = list(resources)

    def save(self, folder: str) -> None:
        """Write the SavedModel."""
        tf.saved_model.save(self.module, folder, signatures=dict(self.signatures))

    def function(self, name: str) -> Function:
        """A signature on arrays."""
        return on_arrays(self.signatures[name])


def on_arrays(concrete: Any) -> Function:
    """A concrete function of named tensors, called with and returning arrays."""

    def call(inputs: Arrays) -> dict[str, np.ndarray]:
        outputs = concrete(**{name: tf.constant(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    return call


def in_parts(function: Function, inputs: Arrays) -> dict[str, np.ndarray]:
    """What `function` makes of arrays [N, ...], a few hundred members at a time."""
    count = len(next(iter(inputs.values())))
    parts = [
        function({n: a[i : i + _PART] for n, a in inputs.items()}) for i in range(0, count, _PART)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def seed_spec() -> tf.TensorSpec:
    """The input from which a member's random numbers follow."""
    return tf.TensorSpec([], tf.int64)
