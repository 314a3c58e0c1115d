"""Breakdown of an iteration's time: each part as a program of its own beside the whole."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from sparring.xla import compilation, loops

# (index of the iteration, a sum so far) -> the sum with its result
Part = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def shares(
    whole: Callable[[int], Any],
    parts: Mapping[str, Part],
    mode: str,
    seconds: float,
    rest: str = "rest",
) -> dict[str, float]:
    """Measure each part's share of an iteration's time, and the `rest`.

    `whole(n)` runs n iterations. Every program runs for about `seconds`. The parts may write to the
    trainer's variables, so the trainer cannot be used afterwards. Parts that XLA fuses with their
    neighbours in the whole program cost less there: shares are close, not exact.
    """
    total = _seconds(whole, seconds)
    found = {name: _alone(part, mode, seconds) / total for name, part in parts.items()}
    return {**found, rest: 1.0 - sum(found.values())}


def _alone(part: Part, mode: str, seconds: float) -> float:
    def iterations(count: tf.Tensor) -> tf.Tensor:
        return loops.repeated(part, tf.constant(0.0), count)

    program = compilation.function(iterations, mode)
    return _seconds(lambda count: program(tf.constant(count, tf.int64)).numpy(), seconds)


def _seconds(run: Callable[[int], Any], seconds: float) -> float:
    """Return the seconds of one iteration, from a run of about `seconds`."""
    run(1)
    count = 1
    while True:
        started = time.perf_counter()
        run(count)
        elapsed = time.perf_counter() - started
        if elapsed > seconds / 2:
            return elapsed / count
        count = max(2 * count, int(count * seconds / max(elapsed, 1e-6)))
