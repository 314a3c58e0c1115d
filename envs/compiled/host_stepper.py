"""Compiled environments stepped from the host: one compiled call per vector step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from sparring import nested
from sparring.envs.compiled.state import EnvState, first_keys, step_keys, step_stream
from sparring.envs.compiled.static_shapes import uncompilable
from sparring.envs.gymnasium_bridge.vector import Step
from sparring.errors import UserError
from sparring.xla import compilation


class Stepper:
    """Vector of B compiled environments with the methods of `HostVector`.

    See `sparring.envs.gymnasium_bridge.vector.HostVector`. A restored vector goes on exactly.

    Attributes:
        observation: [B, ...], the last observations.
        info: empty.
    """

    info: Mapping[str, np.ndarray] = {}

    def __init__(self, environment: Any, num_envs: int, seed: int, compile: str = "auto") -> None:
        if num_envs < 1:
            raise UserError(
                f"{environment.name}: {num_envs} environments cannot be stepped; at least 1 can."
            )
        self.num_envs = num_envs
        self.name = environment.name
        self.observation_space = environment.observation_space
        self.action_space = environment.action_space
        self.observation = nested.map_parts(
            lambda box: np.zeros((num_envs, *box.shape), box.dtype), self.observation_space
        )
        self._environment = environment
        self._reset, self._step = _programs(environment, num_envs, compilation.resolve(compile))
        self._specs = environment.specs(num_envs)
        self._flat: list[tf.Tensor] = []  # EnvState's tensors
        self._begin(seed, 0)

    def _begin(self, seed: int, steps: int) -> None:
        self._seed = seed
        self._steps = steps
        self._stream = step_stream(seed)

    def reset(self, seed: int | None = None) -> Any:
        """Open the first episode of every environment, of `seed` (None: as it was made with).

        Returns the observations [B, ...].
        """
        if seed is not None:
            self._seed = seed
        self._begin(self._seed, 0)
        result = self._called(self._reset, first_keys(self._seed, self.num_envs))
        count = len(tf.nest.flatten(self._specs))
        self._flat = result[:count]
        self.observation = self._packed(result[count:])
        return nested.map_parts(np.copy, self.observation)

    def _packed(self, parts: Sequence[tf.Tensor]) -> Any:
        """Return the observation that tf.nest flattened to `parts`, as arrays."""
        space = self.observation_space
        structure = nested.map_parts(lambda box: 0, space)
        return tf.nest.pack_sequence_as(structure, [part.numpy() for part in parts])

    def step(self, actions: np.ndarray) -> Step:
        """Step every environment with `actions` [B, ...]; Box actions may exceed their bounds."""
        self._require_reset("step")
        action = tf.constant(actions, self._environment.action_spec(self.num_envs).dtype)
        t = tf.constant(self._steps, tf.int64)
        result = self._called(self._step, *self._flat, action, self._stream, t)
        self._flat = result[: len(self._flat)]
        self._steps = self._steps + 1
        *seen, reward, terminated, truncated, first = result[len(self._flat) :]
        self.observation = self._packed(seen)
        return Step(
            nested.map_parts(np.copy, self.observation),  # the caller may change its own
            reward.numpy(),
            terminated.numpy(),
            truncated.numpy(),
            first.numpy(),
        )

    def snapshot(self) -> dict[str, Any]:
        """Return all that `restore` needs: nested dicts and lists of numbers, strings and arrays.

        Call it after `reset`.
        """
        self._require_reset("snapshot")
        state = self._state
        return {
            "name": self.name,
            "seed": self._seed,
            "steps": self._steps,
            "observation": nested.map_parts(np.copy, self.observation),
            "elapsed": state.elapsed.numpy(),
            "done": state.done.numpy(),
            "state": [tensor.numpy() for tensor in tf.nest.flatten(state.state)],
        }

    def restore(self, snapshot: Mapping[str, Any]) -> list[str]:
        """Go on exactly where `snapshot` was taken; no reset is needed.

        Returns the list of environments that could not be restored, which is empty.

        Raises:
            UserError: the snapshot is of another environment, another number of them, or another
              version of its state.
        """
        then = (snapshot["name"], len(snapshot["done"]))
        if then != (self.name, self.num_envs):
            raise UserError(
                f"The checkpoint holds {then[1]} environments of {then[0]}, this run has "
                f"{self.num_envs} of "
                f"{self.name}: resume with the settings it was saved with."
            )
        wanted = [
            (tuple(spec.shape), spec.dtype.as_numpy_dtype)
            for spec in tf.nest.flatten(self._specs.state)
        ]
        saved = [np.asarray(array) for array in snapshot.get("state", ())]
        if [(array.shape, array.dtype.type) for array in saved] != wanted:
            raise UserError(
                f"The checkpoint's {self.name} has a state of another form than this one: it was "
                "saved by another "
                "version of the environment, or by one that ran on the host. Resume with the one "
                "it was saved with."
            )
        self._begin(snapshot["seed"], snapshot["steps"])
        elapsed = tf.constant(snapshot["elapsed"], tf.int32)
        done = tf.constant(snapshot["done"], tf.bool)
        self._flat = [*map(tf.constant, saved), elapsed, done]
        self.observation = nested.map_parts(np.array, snapshot["observation"])
        return []

    def render(self) -> np.ndarray | None:
        """Return environment 0 as an image, uint8 [H, W, 3], or None if it draws nothing."""
        return self.picture(0)

    def picture(self, index: int) -> np.ndarray | None:
        """Return environment `index` as an image, uint8 [H, W, 3], or None if it draws nothing."""
        self._require_reset("render")
        state = tf.nest.map_structure(lambda tensor: tensor[index].numpy(), self._state.state)
        return self._environment.render(state)

    def _called(
        self, program: Callable[..., list[tf.Tensor]], *inputs: tf.Tensor
    ) -> list[tf.Tensor]:
        try:
            return program(*inputs)
        except tf.errors.OpError as error:
            refused = uncompilable(self._environment, error)
            if refused is None:
                raise
            raise refused from error

    @property
    def _state(self) -> EnvState:
        return tf.nest.pack_sequence_as(self._specs, self._flat)

    def _require_reset(self, method: str) -> None:
        if not self._flat:
            raise RuntimeError(f"{method}() before reset()")

    def close(self) -> None:
        """Do nothing: no resource is held."""


def _programs(environment: Any, num_envs: int, mode: str) -> tuple[Any, Any]:
    """Return reset and step as functions of flat tensors, cached on the environment.

    The next vector of the same size and mode need not compile them again. `reset` maps keys to
    EnvState's tensors and the observation; `step` maps EnvState's tensors, actions, stream and t to
    EnvState's and Step's tensors. They are traced for fixed flat shapes because matching nested
    arguments to a trace costs TensorFlow more than the step itself.
    """
    known = environment.__dict__.setdefault("_programs", {})
    if (num_envs, mode) in known:
        return known[num_envs, mode]
    specs = environment.specs(num_envs)

    def reset(keys: tf.Tensor) -> list[tf.Tensor]:
        state = environment.reset(keys)
        return [*tf.nest.flatten(state), *tf.nest.flatten(environment.observe(state.state))]

    def step(*flat: tf.Tensor) -> list[tf.Tensor]:
        *state, action, stream, t = flat
        packed = tf.nest.pack_sequence_as(specs, state)
        return tf.nest.flatten(environment.step(packed, action, step_keys(stream, t, num_envs)))

    programs: tuple[Any, Any] = (
        compilation.function(reset, mode),
        compilation.function(step, mode),
    )
    if mode != "eager":
        action = environment.action_spec(num_envs)
        keys, stream, t = (
            tf.TensorSpec(*of)
            for of in (([num_envs, 2], tf.uint32), ([2], tf.uint32), ([], tf.int64))
        )
        programs = (
            programs[0].get_concrete_function(keys),
            programs[1].get_concrete_function(*tf.nest.flatten(specs), action, stream, t),
        )
    known[num_envs, mode] = programs
    return programs
