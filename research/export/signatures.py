"""Signatures of a trained model: named functions of named tensors, and calls of them on arrays.

`trainer.export()` returns an `Export`. `research/export/saved_model.py` writes it as a SavedModel
that needs none of this package's code, and `research/export/tflite_onnx.py` converts one of its
functions and compares the result with the original.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

# TensorFlow Serving's name for the signature of a request that names none
DEFAULT = "serving_default"

_PART = 250
_TOLERANCE = 0.01  # of a score: rounding alone moves it by less

# Named arrays [B, ...], and functions from these to others
Arrays = Mapping[str, np.ndarray]
Function = Callable[[Arrays], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Signature:
    """Function for callers outside of this package.

    `call(**inputs)` takes tensors [B, *shape] by name and returns tensors [B, ...] by name, for any
    B, each member's from its own inputs alone. `inputs` gives shape (without the batch) and dtype
    of each, `about` a description.
    """

    call: Callable[..., dict[str, tf.Tensor]]
    inputs: Mapping[str, tf.TensorSpec]
    about: str

    def trace(self) -> Any:
        """Return the concrete function, with the batch dimension free, as a plain graph."""
        specs = {
            n: tf.TensorSpec([None, *s.shape], s.dtype, name=n) for n, s in self.inputs.items()
        }
        return tf.function(self.call, autograph=False).get_concrete_function(**specs)


@dataclass(frozen=True)
class Export:
    """Exported functions of a trained model.

    Args:
        signatures: by name; the first is also the default one.
        edge: the name of the signature that is converted for small devices.
        samples: count -> that many inputs of `edge`, as they occur in the run, to which a quantized
            function is fitted.
        judge: (function in the place of `edge`, seed) -> its scores, such as an evaluated return.
        notes: further content of the manifest, as plain values.
        resources: tables that the signatures look up.
        drawn: whether the scores of `judge` depend on the seed.
        expected: the scores that the trainer itself gives the model, where `judge` measures the
            same; None if it measures something else.
    """

    signatures: Mapping[str, Signature]
    edge: str
    samples: Callable[[int], dict[str, np.ndarray]]
    judge: Callable[[Function, int], dict[str, float]]
    notes: Mapping[str, Any] = field(default_factory=dict)
    resources: Sequence[Any] = ()
    drawn: bool = True
    expected: Callable[[], Mapping[str, float]] | None = None

    def module(self) -> "Exported":
        """Return the signatures traced, with the variables they read."""
        return Exported(
            {name: signature.trace() for name, signature in self.signatures.items()}, self.resources
        )


def objections(export: Export, module: "Exported") -> list[str]:
    """Return a sentence for each score that the exported function and the trainer disagree in."""
    if export.expected is None:
        return []
    found = export.judge(module.function(export.edge), 0)
    sentences = []
    expected = export.expected()
    for name in sorted(found.keys() & expected.keys()):
        trained = expected[name]
        distance = abs(found[name] - trained)
        if not distance <= max(_TOLERANCE * abs(trained), _TOLERANCE):
            sentences.append(
                f"The exported model is not quite the trained one: on the test split its {name} is "
                f"{found[name]:.4g}, the trained one's {trained:.4g}."
            )
    return sentences


class Exported:
    """Concrete functions by name, and a module of the variables they read.

    It holds no Keras layer and no class of this package.

    Attributes:
        signatures: by name, the first one also under TensorFlow Serving's name for the default.
        module: the owner of variables and tables.
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
        """Return a signature on arrays."""
        return on_arrays(self.signatures[name])


def on_arrays(concrete: Any) -> Function:
    """Return a concrete function of named tensors as a function of named arrays."""

    def call(inputs: Arrays) -> dict[str, np.ndarray]:
        outputs = concrete(**{name: tf.constant(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    return call


def in_parts(function: Function, inputs: Arrays) -> dict[str, np.ndarray]:
    """Return `function` of arrays [N, ...], computed a few hundred members at a time."""
    count = len(next(iter(inputs.values())))
    parts = [
        function({n: a[i : i + _PART] for n, a in inputs.items()}) for i in range(0, count, _PART)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def seed_spec() -> tf.TensorSpec:
    """Return the specification of the seed from which a member's random numbers follow."""
    return tf.TensorSpec([], tf.int64)
