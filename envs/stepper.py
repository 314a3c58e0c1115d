"""Compiled environments stepped from the host: one compiled call per vector step, state kept between the calls."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from envs.compiled import CompiledEnvironment, EnvState, first_keys, step_keys, step_stream
from envs.host import Step
from research import compile as compilation
from research.errors import UserError


class Stepper:
    """B compiled environments with `envs.host.HostVector`'s methods; a restored one goes on exactly.

    Attributes:
        observation: [B, ...], what was seen last.
    """

    def __init__(self, environment: CompiledEnvironment, num_envs: int, seed: int, compile: str = "auto") -> None:
        if num_envs < 1:
            raise UserError(f"{environment.name}: {num_envs} environments cannot be stepped; at least 1 can.")
        self.num_envs, self.name = num_envs, environment.name
        self.observation_space, self.action_space = environment.observation_space, environment.action_space
        self.observation = np.zeros((num_envs, *self.observation_space.shape), self.observation_space.dtype)
        self._environment = environment
        self._reset, self._step = _programs(environment, compilation.resolve(compile))
        self._state: EnvState | None = None
        self._begin(seed, 0)

    def _begin(self, seed: int, steps: int) -> None:
        self._seed, self._steps, self._stream = seed, steps, step_stream(seed)

    def reset(self) -> np.ndarray:
        """Opens the first episode of every environment. Returns the observations [B, ...]."""
        self._begin(self._seed, 0)
        self._state, observation = self._reset(first_keys(self._seed, self.num_envs))
        self.observation = observation.numpy()
        return self.observation.copy()

    def step(self, actions: np.ndarray) -> Step:
        """Steps every environment with `actions` [B, ...]; Box actions may lie outside their bounds."""
        if self._state is None:
            raise RuntimeError("step() before reset()")
        kind = np.float32 if self.action_space.dtype.kind == "f" else np.int32
        self._state, step = self._step(self._state, np.asarray(actions, kind), self._stream, np.int64(self._steps))
        self._steps += 1
        arrays = Step(*(tensor.numpy() for tensor in step))
        self.observation = arrays.observation.copy()  # the caller may change its own
        return arrays

    def snapshot(self) -> dict[str, Any]:
        """All that `restore` needs: nested dicts and lists of plain numbers, strings and arrays; call after `reset`."""
        if self._state is None:
            raise RuntimeError("snapshot() before reset(): there is nothing to keep yet")
        return {
            "name": self.name,
            "seed": self._seed,
            "steps": self._steps,
            "observation": self.observation.copy(),
            "elapsed": self._state.elapsed.numpy(),
            "done": self._state.done.numpy(),
            "state": [tensor.numpy() for tensor in tf.nest.flatten(self._state.state)],
        }

    def restore(self, snapshot: Mapping[str, Any]) -> list[str]:
        """Goes on exactly where `snapshot` was taken; no reset is needed. Returns what could not be restored: nothing.

        Raises:
            UserError: the snapshot is of another environment, another number of them, or another version of its state.
        """
        then = (snapshot["name"], len(snapshot["done"]))
        if then != (self.name, self.num_envs):
            raise UserError(
                f"The checkpoint holds {then[1]} environments of {then[0]}, this run has {self.num_envs} of "
                f"{self.name}: resume with the settings it was saved with."
            )
        specs = self._environment.specs(self.num_envs).state
        wanted = [(tuple(spec.shape), spec.dtype.as_numpy_dtype) for spec in tf.nest.flatten(specs)]
        saved = [np.asarray(array) for array in snapshot.get("state", ())]
        if [(array.shape, array.dtype.type) for array in saved] != wanted:
            raise UserError(
                f"The checkpoint's {self.name} has a state of another form than this one: it was saved by another "
                "version of the environment, or by one that ran on the host. Resume with the one it was saved with."
            )
        self._begin(snapshot["seed"], snapshot["steps"])
        self._state = EnvState(
            tf.nest.pack_sequence_as(specs, [tf.constant(array) for array in saved]),
            tf.constant(snapshot["elapsed"], tf.int32),
            tf.constant(snapshot["done"], tf.bool),
        )
        self.observation = np.array(snapshot["observation"])
        return []

    def render(self) -> np.ndarray | None:
        """Environment 0 as a picture, uint8 [H, W, 3], or None if it draws nothing."""
        if self._state is None:
            raise RuntimeError("render() before reset()")
        return self._environment.render(tf.nest.map_structure(lambda tensor: tensor[0].numpy(), self._state.state))

    def close(self) -> None:
        """Nothing is held that would need closing."""


def _programs(environment: CompiledEnvironment, mode: str) -> tuple[Any, Any]:
    """The compiled reset and step, kept with the environment, so that its next vector need not compile them again."""
    known = environment.__dict__.setdefault("_programs", {})
    if mode not in known:

        def reset(keys: tf.Tensor) -> tuple[EnvState, tf.Tensor]:
            state = environment.reset(keys)
            return state, environment.observe(state.state)

        def step(state: EnvState, action: tf.Tensor, stream: tf.Tensor, t: tf.Tensor) -> tuple[EnvState, Step]:
            return environment.step(state, action, step_keys(stream, t, state.done.shape[0]))

        known[mode] = compilation.function(reset, mode), compilation.function(step, mode)
    return known[mode]
