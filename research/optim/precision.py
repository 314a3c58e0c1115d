"""Precision of the computation in layers.

Weights, their updates, losses and everything outside of layers are float32 always.
"""

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from sparring.errors import UserError

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def check(name: str, key: str) -> None:
    """Raise UserError, with the config's `key`, if there is no such precision."""
    if name not in POLICIES:
        raise UserError(
            f"{key}={name}: choose one of {', '.join(POLICIES)}. float16 would need loss scaling, "
            "which gradients of "
            "gradients do not survive."
        )


@contextlib.contextmanager
def computing_in(name: str) -> Iterator[None]:
    """Make layers that are created inside the context compute in this precision."""
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(POLICIES[name])
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy(before)
