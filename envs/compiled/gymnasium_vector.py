"""Compiled environments under Gymnasium's APIs, vector and single.

    import envs                                                    # registers them
    vector = gymnasium.make_vec("sparring/CartPole-v1", num_envs=64)

Every vector step is one compiled call. The step after an episode's end opens the next episode
(Gymnasium's NEXT_STEP).
"""

import importlib
from typing import Any

import gymnasium as gym
import numpy as np
import tensorflow as tf
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from sparring.envs.compiled.base import CompiledEnvironment
from sparring.envs.compiled.host_stepper import Stepper
from sparring.errors import UserError
from sparring.xla import compilation


def _built(environment: str | CompiledEnvironment, kwargs: dict[str, Any]) -> CompiledEnvironment:
    """Return the environment itself, or the class named by "module:Class", built with `kwargs`."""
    if not isinstance(environment, str):
        return environment
    module, _, name = environment.partition(":")
    return getattr(importlib.import_module(module), name)(**kwargs)


def _check_render_mode(render_mode: str | None, env: CompiledEnvironment) -> None:
    if render_mode not in (None, "rgb_array"):
        raise UserError(
            f"{env.name} has no render_mode {render_mode!r}: it draws 'rgb_array', or nothing "
            "(None)."
        )


class CompiledVectorEnv(VectorEnv):
    """Vector of `num_envs` compiled environments under Gymnasium's vector API.

    Args:
        environment: a compiled environment, or "module:Class" of one.
        num_envs: the number of environments.
        render_mode: None or "rgb_array": `render()` then returns an image of each.
        max_episode_steps: truncate episodes there; None: where the class says.
        compile: xla, graph, eager or auto.
        kwargs: for the class.
    """

    metadata = {  # noqa: RUF012  Gymnasium's
        "render_modes": ["rgb_array"],
        "render_fps": 30,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        environment: str | CompiledEnvironment,
        num_envs: int = 1,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        compile: str = "auto",
        **kwargs: Any,
    ) -> None:
        self.compiled_environment = env = _built(
            environment, {**kwargs, "max_episode_steps": max_episode_steps}
        )
        _check_render_mode(render_mode, env)
        self.num_envs = num_envs
        self.render_mode = render_mode
        self._compile = compile
        self.single_observation_space = env.observation_space
        self.single_action_space = env.action_space
        self.observation_space = batch_space(env.observation_space, num_envs)
        self.action_space = batch_space(env.action_space, num_envs)
        self._stepper: Stepper | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Open an episode in each environment; without a seed, with one drawn from `np_random`."""
        super().reset(seed=seed)
        chosen = int(self.np_random.integers(2**32)) if seed is None else seed % 2**32
        self._stepper = stepper = self.compiled_environment.vector(
            self.num_envs, chosen, compile=self._compile
        )
        return stepper.reset(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step all environments; those that ended last time open an episode, with reward 0."""
        seen = self._stepping().step(actions)
        return seen.observation, seen.reward, seen.terminated, seen.truncated, {}

    def render(self) -> tuple[Any, ...] | None:
        """Return an image of each environment, uint8 [H, W, 3]; None without render_mode."""
        if self.render_mode is None:
            return None
        return tuple(self._stepping().picture(index) for index in range(self.num_envs))

    def _stepping(self) -> Stepper:
        if self._stepper is None:
            raise gym.error.ResetNeeded("step() or render() before reset()")
        return self._stepper


class CompiledEnv(gym.Env):
    """Single compiled environment under Gymnasium's API.

    It has no time limit, which gymnasium.make adds. It serves tests and tools without support for
    vectors: a step costs as much as a vector's.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012  Gymnasium's

    def __init__(
        self,
        environment: str | CompiledEnvironment,
        render_mode: str | None = None,
        compile: str = "auto",
        **kwargs: Any,
    ) -> None:
        self.compiled_environment = env = _built(environment, kwargs)
        _check_render_mode(render_mode, env)
        self.observation_space = env.observation_space
        self.action_space = env.action_space
        self.render_mode = render_mode
        self._action_spec = env.action_spec(1)
        mode = compilation.resolve(compile)
        self._open = compilation.function(self._opened, mode)
        self._move = compilation.function(self._moved, mode)
        self._state: Any = None

    def _opened(self, keys: tf.Tensor) -> tuple[Any, tf.Tensor]:
        state = self.compiled_environment.initial(keys)
        return state, self.compiled_environment.observe(state)

    def _moved(
        self, state: Any, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[Any, tf.Tensor, tf.Tensor, tf.Tensor]:
        state, reward, terminated = self.compiled_environment.transition(state, action, keys)
        return state, self.compiled_environment.observe(state), reward, terminated

    def _keys(self) -> tf.Tensor:
        return tf.constant(self.np_random.integers(2**32, size=(1, 2), dtype=np.uint32))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Open an episode."""
        super().reset(seed=seed)
        self._state, observation = self._open(self._keys())
        return observation.numpy()[0], {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take one step; a Box action may lie outside its bounds."""
        if self._state is None:
            raise gym.error.ResetNeeded("step() before reset()")
        batch = tf.constant(np.asarray(action)[np.newaxis], self._action_spec.dtype)
        if isinstance(self.action_space, gym.spaces.Box):
            batch = tf.clip_by_value(batch, self.action_space.low, self.action_space.high)
        self._state, observation, reward, terminated = self._move(self._state, batch, self._keys())
        return observation.numpy()[0], float(reward[0]), bool(terminated[0]), False, {}

    def render(self) -> np.ndarray | None:
        """Return an image, uint8 [H, W, 3]; None without render_mode."""
        if self.render_mode is None or self._state is None:
            return None
        return self.compiled_environment.render(
            tf.nest.map_structure(lambda part: part[0].numpy(), self._state)
        )
