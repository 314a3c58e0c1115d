"""Compile modes of a step: XLA, a plain graph, or eager."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context

from sparring.errors import UserError
from sparring.xla import native_log

MODES = ("auto", "xla", "graph", "eager")


def resolve(mode: str, variables: Iterable[tf.Variable] = ()) -> str:
    """Resolve "auto" to a mode: XLA, except for convolutions on a CPU.

    XLA's CPU code runs convolutions three times slower than TensorFlow. `variables` are the weights
    of the program to be compiled; a kernel of rank four or more is a convolution's.

    Raises:
        UserError: there is no such mode.
    """
    if mode not in MODES:
        raise UserError(f"compile={mode}: choose one of {', '.join(MODES)}.")
    if mode != "auto":
        return mode
    accelerated = bool(
        tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU")
    )
    convolutions = any(v.shape.rank is not None and v.shape.rank >= 4 for v in variables)
    return "graph" if convolutions and not accelerated else "xla"


def function(python_function: Callable[..., Any], mode: str) -> Callable[..., Any]:
    """Compile `python_function` in a resolved mode.

    AutoGraph stays off: rewriting TF-Agents' source costs ten seconds of tracing, so loops and
    conditions here are written as `tf.while_loop` and `tf.cond`. "eager" returns the function
    unchanged, for breakpoints.
    """
    if mode == "eager":
        return python_function
    if mode == "xla":
        _have_xla_say_that_it_compiles()
    return tf.function(
        python_function, jit_compile=True if mode == "xla" else None, autograph=False
    )


@functools.cache
def _have_xla_say_that_it_compiles() -> None:
    """Have XLA say so, which it does once in a process, where nobody sees it."""
    with native_log.held_back(), tf.init_scope():
        tf.function(lambda: tf.constant(0.0) + 1.0, jit_compile=True)()


class CachedCall:
    """Compiled function of a fixed signature, for thousands of calls from Python.

    `tf.function` takes 0.3 ms to sort its arguments on every call, and a concrete function 0.04 ms
    to bind names and pack results, as long as a small network takes. This class traces at the first
    call and from then on hands flat tensors to the runtime. Arguments are nests of tensors and
    arrays of equal shapes and dtypes each time; a new signature is traced anew. Nothing is recorded
    for a gradient outside. The runtime call is a private API, identical in both supported versions
    of TensorFlow, which are locked.
    """

    def __init__(self, python_function: Callable[..., Any], mode: str) -> None:
        self._function = python_function
        self._mode = mode
        self._programs: dict[tuple[Any, ...], Callable[[list[Any]], Any]] = {}

    def __call__(self, *arguments: Any) -> Any:
        if self._mode == "eager":
            return self._function(*tf.nest.map_structure(tf.convert_to_tensor, arguments))
        flat = tf.nest.flatten(arguments)
        signature = tuple(
            [(a._shape_tuple() if isinstance(a, tf.Tensor) else a.shape, a.dtype) for a in flat]
        )
        program = self._programs.get(signature)
        if program is None:
            program = self._programs[signature] = self._trace(arguments, flat)
        return program(flat)

    def _trace(self, arguments: Any, flat: list[Any]) -> Callable[[list[Any]], Any]:
        def of_flat(*values: tf.Tensor) -> Any:
            return self._function(*tf.nest.pack_sequence_as(arguments, values))

        compiled: Any = function(of_flat, self._mode)
        specs = [tf.TensorSpec(a.shape, a.dtype) for a in flat]
        concrete = compiled.get_concrete_function(*specs)
        packed = _packer(concrete.structured_outputs)
        name = concrete.inference_fn.name
        captured = list(concrete.captured_inputs)
        count = len(concrete.outputs)
        call = context.context().call_function

        def program(values: list[Any]) -> Any:
            # tf.constant copies an array in half the time that tf.convert_to_tensor takes to decide
            # to copy it
            given = [a if isinstance(a, tf.Tensor) else tf.constant(a) for a in values]
            return packed(iter(call(name, given + captured, count)))

        program.concrete = concrete  # type: ignore[attr-defined]  # the function lives as long as its concrete one
        return program


def direct(concrete: Any) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return a fast call of a loaded signature on arrays by name.

    It skips the sorting of arguments, as `CachedCall` does for functions. Inputs are arrays of the
    signature's dtypes, outputs are arrays; the model's variables live as long as the returned
    function. The runtime call is a private API.
    """
    names = list(concrete._arg_keywords)
    outputs = sorted(concrete.structured_outputs)
    name = concrete.inference_fn.name
    captured = list(concrete.captured_inputs)
    count = len(concrete.outputs)
    invoke = context.context().call_function

    def call(inputs: Mapping[str, Any]) -> dict[str, Any]:
        found = invoke(name, [*(tf.constant(inputs[key]) for key in names), *captured], count)
        return {key: value.numpy() for key, value in zip(outputs, found, strict=True)}

    call.concrete = concrete  # type: ignore[attr-defined]  # the function lives as long as its concrete one
    return call


def _packer(structure: Any) -> Callable[[Iterator[Any]], Any]:
    """Return a function that packs values into a structure of tuples, lists and dicts.

    It takes a tenth of the time of `tf.nest.pack_sequence_as`.
    """
    if isinstance(structure, Mapping):
        # Sorted, as TensorFlow flattens
        named = {key: _packer(structure[key]) for key in sorted(structure)}
        return lambda values: {key: packed(values) for key, packed in named.items()}
    if isinstance(structure, tuple | list):
        parts = [_packer(part) for part in structure]
        make = type(structure)._make if hasattr(structure, "_make") else type(structure)
        return lambda values: make([packed(values) for packed in parts])
    return next if structure is not None else lambda values: None
