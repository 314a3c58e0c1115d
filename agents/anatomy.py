"""Where an iteration's time goes, for `sparring benchmark`: each part as a program of its own beside the whole."""

import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from agents.compiled import CompiledDriver
from research import compile as compilation

Part = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # (number of the iteration, a sum so far) -> the sum with its result


def shares(trainer: Any, parts: dict[str, Part], seconds: float) -> dict[str, float]:
    """Each part's share of an iteration's time, and the "rest": forward and backward passes, returns, statistics.

    Every program runs for about `seconds`. The parts may write to the trainer's variables, so it is spoilt afterwards.
    Parts that XLA fuses with their neighbours in the whole program cost less there: shares are close, not exact.
    Nothing is found of a trainer whose environments are stepped from the host, which says its seconds by itself, or
    of several replicas.
    """
    if not isinstance(trainer.driver, CompiledDriver) or trainer.replicas.count > 1:
        return {}
    whole = _seconds(lambda count: trainer.driver.iterate(int(trainer.iterations.numpy()), int(count)), seconds)
    found = {name: _alone(part, trainer.mode, seconds) / whole for name, part in parts.items()}
    return {**found, "rest": 1.0 - sum(found.values())}


def collecting(trainer: Any) -> Part:
    """An iteration's steps of environment and policy."""
    driver = trainer.driver

    def part(i: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        state, observation = driver.carry.read()
        rollout, state = driver.collect(state, observation, i * driver.rollout_steps)
        driver.carry.assign((state, rollout.observation[-1]))
        return total + sum(tf.reduce_sum(tf.cast(x, tf.float32)) for x in tf.nest.flatten(rollout))

    return part


def optimizing(trainer: Any, updates: int) -> Part:
    """An iteration's `updates` steps of the optimizer, clipping and norms included, with gradients that are given."""

    def part(i: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        del i

        def body(k: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            gradients = [1e-3 * v for v in trainer.agent.trainable]
            norms = trainer.agent.scheduled.step(gradients, tf.constant(0.5))
            return k + 1, total + norms["gradient/norm"]

        return tf.while_loop(lambda k, _: k < updates, body, (0, total), maximum_iterations=updates)[1]

    return part


def _alone(part: Part, mode: str, seconds: float) -> float:
    def iterations(count: tf.Tensor) -> tf.Tensor:
        start = (tf.constant(0, tf.int64), tf.constant(0.0))
        return tf.while_loop(
            lambda i, _: i < count, lambda i, total: (i + 1, part(i, total)), start, parallel_iterations=1
        )[1]

    program = compilation.function(iterations, mode)
    return _seconds(lambda count: program(tf.constant(count, tf.int64)).numpy(), seconds)


def _seconds(run: Callable[[int], Any], seconds: float) -> float:
    """Seconds of one iteration, from a run of about `seconds`."""
    run(1)
    count = 1
    while True:
        started = time.perf_counter()
        run(count)
        elapsed = time.perf_counter() - started
        if elapsed > seconds / 2:
            return elapsed / count
        count = max(2 * count, int(count * seconds / max(elapsed, 1e-6)))
