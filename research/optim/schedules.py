"""Values that change as a run progresses: learning rates, exploration, clip ranges.

A schedule is a callable from progress, a float32 scalar in [0, 1] (the share of `run.steps` that is
done), to a float32 scalar. It is evaluated inside the compiled step. Any callable of that kind
serves; a plain number is a constant.
"""

from collections.abc import Callable

import tensorflow as tf

from sparring.errors import UserError

Schedule = Callable[[tf.Tensor], tf.Tensor]


class Linear:
    """Linear schedule from `start` to `end` over the first `fraction` of the run, then `end`."""

    def __init__(self, start: float, end: float, fraction: float = 1.0) -> None:
        self.start = float(start)
        self.end = float(end)
        self.fraction = _span("Linear", fraction)

    def __call__(self, progress: tf.Tensor) -> tf.Tensor:
        share = tf.clip_by_value(progress / self.fraction, 0.0, 1.0)
        return self.start + (self.end - self.start) * share


class Cosine:
    """Half a cosine from `start` to `end` over the first `fraction` of the run, then `end`.

    SGDR, Loshchilov 2016, eq. 5.
    """

    def __init__(self, start: float, end: float = 0.0, fraction: float = 1.0) -> None:
        self.start = float(start)
        self.end = float(end)
        self.fraction = _span("Cosine", fraction)

    def __call__(self, progress: tf.Tensor) -> tf.Tensor:
        share = tf.clip_by_value(progress / self.fraction, 0.0, 1.0)
        return self.end + (self.start - self.end) * 0.5 * (1.0 + tf.cos(3.141592653589793 * share))


class Warmup:
    """Linear rise from zero over the first `fraction` of the run, then `then`.

    The progress of `then` starts at the end of the rise.
    """

    def __init__(self, then: Schedule | float, fraction: float) -> None:
        self.then = as_schedule(then)
        self.fraction = _span("Warmup", fraction)
        if self.fraction >= 1.0:
            raise UserError(
                f"Warmup: fraction={fraction} leaves nothing of the run to follow: take one below "
                "1."
            )

    def __call__(self, progress: tf.Tensor) -> tf.Tensor:
        rise = tf.minimum(progress / self.fraction, 1.0)
        return rise * self.then(tf.maximum(progress - self.fraction, 0.0) / (1.0 - self.fraction))


def as_schedule(value: Schedule | float) -> Schedule:
    """Return `value` itself if it is callable, else the schedule that always returns it."""
    if callable(value):
        return value
    number = float(value)
    return lambda progress: tf.constant(number, tf.float32)


def _span(name: str, fraction: float) -> float:
    if not float(fraction) > 0.0:  # not a number is refused too
        raise UserError(
            f"{name}: fraction={fraction} is no part of a run to change over: take one above 0."
        )
    return float(fraction)
