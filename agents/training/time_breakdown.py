"""The parts of an agent's iteration, for `sparring.benchmark.time_breakdown`."""

from typing import Any

import tensorflow as tf

from sparring.agents.drivers.on_device import CompiledDriver
from sparring.benchmark import time_breakdown
from sparring.benchmark.time_breakdown import Part


def shares(trainer: Any, parts: dict[str, Part], seconds: float) -> dict[str, float]:
    """Return each part's share of an iteration's time, and the "rest".

    The rest are forward and backward passes, returns and statistics.

    Nothing is found of a trainer whose environments are stepped from the host, which says its
    seconds by itself, or of several replicas.
    """
    if not isinstance(trainer.driver, CompiledDriver) or trainer.replicas.count > 1:
        return {}

    def whole(count: int) -> None:
        trainer.train(count * trainer.steps_per_iteration)

    return time_breakdown.shares(whole, parts, trainer.mode, seconds)


def collecting(trainer: Any) -> Part:
    """An iteration's steps of environment and policy."""
    driver = trainer.driver

    def part(i: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        state, observation = driver.carry.read()
        rollout, state = driver.collect(state, observation, i * driver.source.rollout_steps)
        driver.carry.assign((state, rollout.reached))
        return total + sum(tf.reduce_sum(tf.cast(x, tf.float32)) for x in tf.nest.flatten(rollout))

    return part


def optimizing(trainer: Any, updates: int) -> Part:
    """An iteration's `updates` steps of the optimizer, clipping and norms included, with gradients
    that are given.
    """

    def part(i: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        del i

        def body(k: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            for each in trainer.agent.optimizers.values():
                norms = each.step([1e-3 * v for v in each.variables], tf.constant(0.5))
                total += norms["gradient/norm"]
            return k + 1, total

        return tf.while_loop(
            lambda k, _: k < updates, body, (0, total), maximum_iterations=updates
        )[1]

    return part
