"""Environments written in TensorFlow ops: pure functions of (state, action, key) on a whole batch.

An author writes `initial`, `observe` and `transition`; the base class adds what every environment
needs alike: the time limit, the reset after an episode's end, clipped actions, and a vector to step
from the host. Nothing here is random by itself and nothing is remembered: the same state, action
and key give the same step, so a run can be saved between any two steps, and the training loop can
hold environment, policy and update in one XLA program.

Integers, booleans and random numbers have the same bits in eager, graph and XLA. Floats may differ
in the last place: XLA multiplies and adds in one rounding where it can and has its own sine and
cosine, which also round differently for the last few members of a batch than for the rest.
"""

import abc
import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import tensorflow as tf
from gymnasium import spaces

from sparring import frame_stacks, nested
from sparring.envs.compiled.host_stepper import Stepper
from sparring.envs.compiled.state import EnvState, first_keys, step_keys, step_stream
from sparring.envs.compiled.static_shapes import (
    require_initial,
    require_observation,
    require_transition,
    uncompilable,
)
from sparring.envs.gymnasium_bridge.vector import Step
from sparring.errors import UserError


class CompiledEnvironment(abc.ABC):
    """Base of environments that run inside a compiled program.

    docs/environments.md walks through writing one.

    A subclass sets the four attributes, on the class or before anything is stepped, and defines the
    three methods. They get and return tensors with B in front, use TensorFlow ops alone, and must
    not fail on a state that has ended: every member is always stepped, and what a step past an
    episode's end gives is thrown away.

    Attributes:
        name: for titles and messages.
        observation_space: Box, float32, or uint8 for images; or a Dict of these, of which a part
            `action_mask`, uint8 [A], says which actions are allowed.
        action_space: Discrete or MultiDiscrete counting from 0, or Box in float32 with finite
            bounds.
        max_episode_steps: steps after which an episode is truncated, or None.
        info: names of the numbers that `measure` returns.
    """

    compiled = True
    reward_wrappers: tuple[str, ...] = ()  # there are none here; see gymnasium_bridge
    info: tuple[str, ...] = ()
    # Parameters that follow a run's progress, see sparring.envs.compiled.curriculum
    curriculum: Mapping[str, Callable[[Any], Any]] = {}
    name: str
    observation_space: spaces.Box | spaces.Dict
    action_space: spaces.Discrete | spaces.MultiDiscrete | spaces.Box
    max_episode_steps: int | None = None

    def __init__(self, max_episode_steps: int | None = None) -> None:
        """Truncate episodes after `max_episode_steps`, or where the class says if it is None."""
        if max_episode_steps is not None:
            if max_episode_steps < 1:
                raise UserError(
                    f"env.max_episode_steps={max_episode_steps}: it is at least 1, or null for the "
                    "usual."
                )
            self.max_episode_steps = max_episode_steps

    # ---- translation, for callers that step environments of their own ----------------------------

    @property
    def original_observation_space(self) -> spaces.Box | spaces.Dict:
        """Return the space of what the agent is shown in a step: of stacks, of the newest frame."""
        return frame_stacks.one_frame(self.observation_space)

    def to_agent(self, observations: Any) -> Any:
        """Return a batch of what was shown in a step, [B, ...], in the agent's dtype."""
        return nested.map_parts(
            lambda box, part: np.asarray(part, box.dtype),
            self.original_observation_space,
            observations,
        )

    def to_environment(self, actions: Any) -> np.ndarray:
        """Return a batch of the agent's actions [B, ...] unchanged."""
        return np.asarray(actions)

    # ---- written by the author of an environment -------------------------------------------------

    @abc.abstractmethod
    def initial(self, keys: tf.Tensor) -> Any:
        """Return states that open an episode, a nest of tensors [B, ...].

        `keys` is uint32 [B, 2].
        """

    @abc.abstractmethod
    def observe(self, state: Any) -> Any:
        """Return observations of the states, [B, ...] as the observation space has them: a dict of
        tensors where it is a Dict.
        """

    @abc.abstractmethod
    def transition(
        self, state: Any, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[Any, tf.Tensor, tf.Tensor]:
        """Return the states after `action`, rewards float32 [B], and `terminated`, bool [B].

        `action` is int32 [B] (Discrete) or [B, n] (MultiDiscrete), or float32 [B, ...] clipped into
        the Box. Randomness is drawn from `keys`, uint32 [B, 2]: member i's from keys[i] alone.
        """

    def measure(self, state: Any) -> dict[str, tf.Tensor]:
        """Return numbers float32 [B] by the names in `info`, such as whether a goal is reached.

        Their means over the last states of episodes are logged, in training and in evaluation.
        """
        del state
        return {}

    def render(self, state: Any) -> np.ndarray | None:
        """Return one member's state, given as numpy arrays, as an image uint8 [H, W, 3].

        Returns None if the environment draws nothing.
        """
        return None

    # ---- provided by this base class -------------------------------------------------------------

    @property
    def renders(self) -> bool:
        """Whether `render` returns images."""
        return type(self).render is not CompiledEnvironment.render

    def reset(self, keys: tf.Tensor) -> EnvState:
        """Open an episode for every member; `observe(state)` gives its first observations."""
        state = self.initial(keys)
        require_initial(self, state, keys.shape[0])
        return EnvState(
            state, tf.zeros(keys.shape[:1], tf.int32), tf.zeros(keys.shape[:1], tf.bool)
        )

    def step(
        self, env_state: EnvState, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[EnvState, Step]:
        """Step every member, or open the next episode where the last step ended one.

        A member either opens an episode or makes a transition, never both, so one key serves both.
        """
        first = env_state.done
        state, reward, terminated = self.transition(env_state.state, self._actions(action), keys)
        require_transition(self, env_state.state, state, reward, terminated)
        state = self._open_episodes(first, state, keys)
        elapsed = tf.where(first, 0, env_state.elapsed + 1)
        terminated = terminated & ~first
        limit = self.max_episode_steps
        truncated = tf.zeros_like(first) if limit is None else elapsed >= limit
        observation = self.observe(state)
        require_observation(self, observation, keys.shape[0])
        step = Step(observation, tf.where(first, 0.0, reward), terminated, truncated, first)
        return EnvState(state, elapsed, terminated | truncated), step

    def stream(self, seed: int | tf.Tensor) -> tf.Tensor:
        """Return the key [2] that all steps of a run's environments draw from."""
        return step_stream(seed)

    def open(self, seed: int | tf.Tensor, num_envs: int) -> EnvState:
        """Return the state in which a run with this seed opens its episodes."""
        return self.reset(first_keys(seed, num_envs))

    def step_at(
        self,
        env_state: EnvState,
        action: tf.Tensor,
        stream: tf.Tensor,
        t: tf.Tensor,
        first: tf.Tensor | int = 0,
    ) -> tuple[EnvState, Step]:
        """Take vector step `t` of a run, with the keys of environments `first`, first + 1, ..."""
        return self.step(env_state, action, step_keys(stream, t, env_state.done.shape[0], first))

    def _actions(self, action: tf.Tensor) -> tf.Tensor:
        if isinstance(self.action_space, spaces.Box):
            return tf.clip_by_value(
                tf.cast(action, tf.float32), self.action_space.low, self.action_space.high
            )
        return tf.cast(action, tf.int32)

    def _open_episodes(self, first: tf.Tensor, state: Any, keys: tf.Tensor) -> Any:
        """Return `state` with the members in `first` [B] at the beginning of an episode."""

        def opened() -> Any:
            initial = self.initial(keys)
            require_initial(self, initial, keys.shape[0])
            return tf.nest.map_structure(functools.partial(_select, first), initial, state)

        # Random numbers are most of a small environment's cost, and few steps open an episode. On
        # an accelerator drawing them is cheap, and waiting for a condition is not.
        if _accelerated():
            return opened()
        return tf.cond(tf.reduce_any(first), opened, lambda: state)

    @functools.cache  # noqa: B019  environments are few, and live as long as the process
    def specs(self, num_envs: int) -> EnvState:
        """Return the shapes and dtypes of `num_envs` environments' state, as tf.TensorSpec.

        The environment is traced for it and never run.
        """
        reset = tf.function(self.reset, autograph=False)
        tensors = reset.get_concrete_function(
            tf.TensorSpec([num_envs, 2], tf.uint32)
        ).structured_outputs
        return tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), tensors)

    def action_spec(self, num_envs: int) -> tf.TensorSpec:
        """Return the spec of the actions of `num_envs` environments, as `transition` gets them."""
        dtype = tf.float32 if isinstance(self.action_space, spaces.Box) else tf.int32
        return tf.TensorSpec((num_envs, *(self.action_space.shape or ())), dtype)

    def uncompilable(self, error: Exception) -> UserError | None:
        """Return the user's error if this environment caused a compiler's `error`, else None.

        `error` was raised on compiling a program with this environment inside.
        """
        return uncompilable(self, error, alone=False)

    def at(self, progress: tf.Tensor | float) -> Self:
        """Return the environment as it is at a share `progress` [] of the run: always the same."""
        del progress
        return self

    def first_seed(self, seed: int) -> int:
        """Return the run's seed itself, of which each environment's key is a hash."""
        return seed

    def limited(self, max_episode_steps: int) -> "CompiledEnvironment":
        """Return the same environment with episodes truncated after `max_episode_steps`."""
        other = copy.copy(self)
        other.max_episode_steps = max_episode_steps
        return other

    def vector(
        self, num_envs: int, seed: int, render: bool = False, compile: str = "auto"
    ) -> Stepper:
        """Return `num_envs` environments to step from the host.

        `compile` is xla, graph, eager or auto. `render` changes nothing: an environment that draws
        can always be drawn.
        """
        del render
        return Stepper(self, num_envs, seed, compile)


def _select(mask: tf.Tensor, chosen: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Return `chosen` where `mask` [B], `other` elsewhere, both [B, ...]."""
    return tf.where(tf.reshape(mask, [-1] + [1] * (chosen.shape.rank - 1)), chosen, other)


@functools.cache
def _accelerated() -> bool:
    return bool(tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"))
