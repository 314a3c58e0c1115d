"""How a step is compiled: XLA, a plain graph, or not at all."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf

from research.errors import UserError

MODES = ("auto", "xla", "graph", "eager")


def resolve(mode: str, variables: Iterable[tf.Variable] = ()) -> str:
    """Turn "auto" into a mode: XLA, except for convolutions on a CPU, which XLA's CPU code runs three times slower.

    `variables` are the weights of what is to be compiled; a kernel of rank four or more is a convolution's.
    """
    if mode not in MODES:
        raise UserError(f"compile={mode}: choose one of {', '.join(MODES)}.")
    if mode != "auto":
        return mode
    accelerated = bool(tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"))
    convolutions = any(v.shape.rank is not None and v.shape.rank >= 4 for v in variables)
    return "graph" if convolutions and not accelerated else "xla"


def function(python_function: Callable[..., Any], mode: str) -> Callable[..., Any]:
    """Compile `python_function` in a resolved mode.

    AutoGraph stays off: rewriting TF-Agents' source costs ten seconds of tracing, so loops and conditions here are
    `tf.while_loop` and `tf.cond` by name. "eager" returns the function as it is, for breakpoints.
    """
    if mode == "eager":
        return python_function
    return tf.function(python_function, jit_compile=True if mode == "xla" else None, autograph=False)


class Direct:
    """A compiled function of one fixed signature, for calls from Python by the thousand.

    `tf.function` takes 0.3 ms to sort out its arguments on every call; this traces at the first call and from then on
    hands flat tensors to the concrete function. Arguments are nests of tensors and arrays of the same shapes and types
    each time; a new signature is traced anew. The concrete function is called by its `_call_flat`, which is private
    (the versions of TensorFlow are locked): its public call binds arguments by name, which takes longer than a small
    network does.
    """

    def __init__(self, python_function: Callable[..., Any], mode: str) -> None:
        self._function, self._mode = python_function, mode
        self._concrete: dict[tuple[Any, ...], Callable[..., Any]] = {}

    def __call__(self, *arguments: Any) -> Any:
        if self._mode == "eager":
            return self._function(*tf.nest.map_structure(tf.convert_to_tensor, arguments))
        # tf.constant copies an array in half the time that tf.convert_to_tensor takes to find out that it may
        flat = [a if isinstance(a, tf.Tensor) else tf.constant(a) for a in tf.nest.flatten(arguments)]
        signature = tuple((a.shape.rank, *a.shape.as_list(), a.dtype) for a in flat)
        concrete = self._concrete.get(signature)
        if concrete is None:
            concrete = self._concrete[signature] = self._trace(arguments, flat)
        return concrete(flat)

    def _trace(self, arguments: Any, flat: list[tf.Tensor]) -> Callable[..., Any]:
        def of_flat(*values: tf.Tensor) -> Any:
            return self._function(*tf.nest.pack_sequence_as(arguments, values))

        compiled: Any = function(of_flat, self._mode)
        concrete = compiled.get_concrete_function(*map(tf.TensorSpec.from_tensor, flat))
        return functools.partial(concrete._call_flat, captured_inputs=concrete.captured_inputs)
