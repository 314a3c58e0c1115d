"""How a step is compiled: XLA, a plain graph, or not at all."""

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
