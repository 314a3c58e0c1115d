"""Throughput of a compiled environment under random actions, for `sparring benchmark`."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from gymnasium import spaces
from omegaconf import DictConfig

from sparring import nested
from sparring.config import targets
from sparring.envs.compiled.base import CompiledEnvironment
from sparring.xla import compilation, random


def stepping(
    cfg: DictConfig, batches: Sequence[int] = (1, 64, 1024, 8192), seconds: float = 2.0
) -> dict[str, Any]:
    """Measure the environment steps per second of `cfg.env` at several batch sizes.

    Drawing the random actions is included. Each batch size is one program, timed for about
    `seconds`. `steps_per_second` in the result is the best of them.
    """
    environment = targets.instantiate(cfg.env)
    mode = compilation.resolve(cfg.compile)
    found = {f"batch_{size}": _rate(environment, size, mode, seconds) for size in batches}
    return {"steps_per_second": max(found.values()), **found}


def _rate(environment: CompiledEnvironment, size: int, mode: str, seconds: float) -> float:
    program = compilation.function(
        lambda state, start, steps: _play(environment, state, start, steps), mode
    )
    state = environment.open(0, size)
    count = 16
    done = 0
    # The first call traces and compiles
    state, _ = program(state, tf.constant(0, tf.int64), tf.constant(count, tf.int64))
    while True:
        started = time.perf_counter()
        state, total = program(state, tf.constant(done, tf.int64), tf.constant(count, tf.int64))
        total.numpy()
        elapsed = time.perf_counter() - started
        if elapsed > seconds / 2:
            return size * count / elapsed
        done = done + count
        count = max(2 * count, int(count * seconds / max(elapsed, 1e-6)))


def _play(
    environment: CompiledEnvironment, state: Any, start: tf.Tensor, steps: tf.Tensor
) -> tuple[Any, tf.Tensor]:
    """Take `steps` vector steps; return the last state and the sum of the rewards.

    The sum also takes in the observations, so that the compiler can leave nothing out.
    """
    stream = environment.stream(0)
    chance = random.stream(0, "actions")
    size = state.done.shape[0]

    def body(t: tf.Tensor, state: Any, total: tf.Tensor) -> tuple[tf.Tensor, Any, tf.Tensor]:
        action = random_actions(
            environment.action_space, random.members(random.fold(chance, t), size)
        )
        state, step = environment.step_at(state, action, stream, t)
        return t + 1, state, total + tf.reduce_sum(step.reward) + _seen(step.observation)

    _, state, total = tf.while_loop(
        lambda t, *_: t < start + steps, body, (start, state, tf.constant(0.0))
    )
    return state, total


def _seen(observation: Any) -> tf.Tensor:
    parts = nested.leaves(observation)
    return 1e-9 * sum(tf.reduce_sum(tf.cast(part, tf.float32)) for part in parts)


def random_actions(space: spaces.Space, keys: tf.Tensor) -> tf.Tensor:
    """Return uniform actions [B, ...] of a Discrete, MultiDiscrete or bounded Box space.

    `keys` is uint32 [B, 2].
    """
    if isinstance(space, spaces.Discrete):
        return tf.cast(random.integers(keys, 1, int(space.n))[:, 0], tf.int32)  # type: ignore[arg-type]
    if isinstance(space, spaces.MultiDiscrete):
        return tf.cast(
            random.uniform(keys, len(space.nvec)) * tf.constant(space.nvec, tf.float32), tf.int32
        )
    assert isinstance(space, spaces.Box)
    size = int(np.prod(space.shape))
    share = tf.reshape(random.uniform(keys, size), [-1, *space.shape])
    return space.low + (space.high - space.low) * share
