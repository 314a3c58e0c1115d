"""Bridge to any Gymnasium environment: named in a config, checked at once, stepped on the host.

    env = Gymnasium("CartPole-v1")
    vector = env.vector(num_envs=8, seed=0)
    observation = vector.reset()                # [8, 4] float32
    step = vector.step(actions)                 # actions [8]; see Step

TensorFlow is not imported here: a bad environment is refused before TensorFlow loads.
"""

import contextlib
import copy
import dataclasses
import functools
import importlib
import os
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from sparring.envs.gymnasium_bridge import rendering
from sparring.envs.gymnasium_bridge.action_mask import ActionMask, sample
from sparring.envs.gymnasium_bridge.curriculum import courses, require_parameters
from sparring.envs.gymnasium_bridge.env_lookup import find, missing_package
from sparring.envs.gymnasium_bridge.episode_replay import FAULT, Replayable, close_quietly
from sparring.envs.gymnasium_bridge.spaces import View, adapt_actions, adapt_observations, rescaled
from sparring.envs.gymnasium_bridge.vector import HostVector, Step
from sparring.envs.gymnasium_bridge.workers import EnvironmentFault, Workers
from sparring.errors import UserError

__all__ = ["EnvironmentFault", "Gymnasium", "HostVector", "Step"]

MODES = ("sync", "async", "vector_entry_point")
PARTS = ("auto", "flat", "keep")


@dataclasses.dataclass(frozen=True)
class _Recipe:
    """Recipe that builds one environment, in this process or in a worker's."""

    module: str | None
    spec: EnvSpec
    kwargs: dict[str, Any]
    wrappers: tuple[Callable[[gym.Env], gym.Env], ...]
    max_episode_steps: int | None

    def build(self, render: bool = False, checked: bool = False) -> gym.Env:
        kwargs = copy.deepcopy(self.kwargs)
        if render:
            kwargs.setdefault("render_mode", "rgb_array")
        env = gym.make(self.spec, self.max_episode_steps, disable_env_checker=not checked, **kwargs)
        for wrap in self.wrappers:
            # Numbers from YAML are float64, and Gymnasium warns of every rounding
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*precision lowered by casting")
                env = wrap(env)
            if not isinstance(env, gym.Env):
                raise UserError(
                    f"env.wrappers: {wrap!r} gave {type(env).__name__}, not an environment."
                )
        return env

    def build_vector(self, num_envs: int, render: bool = False) -> VectorEnv:
        """Return the environment's own vectorised version."""
        limit = (
            {} if self.max_episode_steps is None else {"max_episode_steps": self.max_episode_steps}
        )
        shown = {"render_mode": "rgb_array"} if render else {}
        kwargs = {**limit, **shown, **copy.deepcopy(self.kwargs)}
        return gym.make_vec(self.spec, num_envs, vectorization_mode="vector_entry_point", **kwargs)


@dataclasses.dataclass(frozen=True)
class _Seat:
    """Factory of environment `index` of a vector, called in this process or in a worker."""

    recipe: _Recipe
    index: int
    render: bool
    seed: int
    home: int  # id of the process that made the factory
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of the environment
    info: tuple[str, ...] = ()
    record: tuple[str, ...] = ()

    def __call__(self) -> gym.Env:
        if os.getpid() != self.home:
            os.environ.update(self.variables)
            # Ctrl-C and a SIGTERM to the whole group are the parent's to answer, not the workers'
            os.setpgrp()
            np.random.seed((self.seed + self.index) % 2**32)
            if self.index > 0:  # the first environment's warnings are all environments'
                warnings.simplefilter("ignore")
            if self.recipe.module:
                importlib.import_module(self.recipe.module)
        environment = self.recipe.build(render=self.render)
        return Replayable(environment, self.index, self.info, self.record)


class Gymnasium:
    """Registered or importable Gymnasium environment, checked when it is named.

    It is built when it is needed.

    Args:
        id: "CartPole-v1"; "module:Name-v0" imports the module first; "module:ClassName" needs no
            registration.
        kwargs: for the environment's constructor.
        wrappers: callables env -> env, applied in order (in YAML a `_target_` with `_partial_:
            true`).
        vectorization: "sync" (in this process), "async" (a process each), or "vector_entry_point"
            (its own).
        max_episode_steps: truncate there instead of where the registration says.
        replay_limit: seconds a resumed run may spend replaying one environment's episode.
        channels: where pictures have theirs, "first" or "last"; "auto" tells by the shape.
        info: names of numbers in a step's info whose values at the end of an episode are logged.
        parts: what becomes of a Dict's parts: "flat" joins them to one vector, "keep" gives them to
            the network as they are, "auto" keeps them if there is a picture among several.
        action_mask: whether `action_mask` in a step's info says which actions are allowed.
        rescale_actions: whether agents act in a Box from -1 to 1, stretched to the environment's.
        frame_stack: how many of the newest observations an agent sees at once (see
            sparring.frame_stacks).
        curriculum: parameters of the environment that follow the run's progress (see
            sparring.envs.gymnasium_bridge.curriculum), by the name of its attribute: a number, a
            function of the progress, or a mapping of start, end and fraction. Evaluations are made
            at the end of all.

    Attributes:
        id: as given.
        observation_space: Box, or Dict of Boxes: what agents see of one environment (see
            sparring.envs.gymnasium_bridge.spaces).
        action_space: Discrete or MultiDiscrete from 0, or Box in float32 with finite bounds.
        original_observation_space: that of the environment itself.
        to_agent: translation of a batch of its observations [B, ...] to the agent's, of which it is
            the newest frame if they are stacks.
        to_environment: translation of a batch of the agent's actions [B, ...] to its own.
        max_episode_steps: steps after which an episode is truncated, or None.
        renders: whether `vector(..., render=True)` can give images.
        reward_wrappers: names of the wrappers that change rewards.
        info: as given.

    Raises:
        UserError: no such environment, a package it needs is missing, its spaces cannot be served,
            a bad argument.
        EnvironmentFault: its constructor, its first reset or its first step raised.
    """

    compiled = False
    reward_wrappers: tuple[str, ...] = ()

    def __init__(
        self,
        id: str,
        kwargs: Mapping[str, Any] | None = None,
        wrappers: Sequence[Callable[[gym.Env], gym.Env]] = (),
        vectorization: str = "sync",
        max_episode_steps: int | None = None,
        replay_limit: float = 60.0,
        channels: str = "auto",
        info: Sequence[str] = (),
        parts: str = "flat",
        action_mask: bool = False,
        rescale_actions: bool = False,
        frame_stack: int = 1,
        curriculum: Mapping[str, Any] | None = None,
    ):
        _check_arguments(vectorization, wrappers, max_episode_steps)
        if parts not in PARTS:
            raise UserError(f"env.parts={parts}: choose one of {', '.join(PARTS)}.")
        self.id = id
        module, spec = self._find(id)
        plain = tuple(_plain(wrapper) for wrapper in wrappers)
        if rescale_actions:
            plain = (*plain, rescaled)
        if action_mask:
            plain = (*plain, ActionMask)
        self._recipe = _Recipe(module, spec, dict(kwargs or {}), plain, max_episode_steps)
        self._mode = vectorization
        self._replay_limit = replay_limit
        self._view = View(channels, parts, action_mask, frame_stack)
        self.info = _names(info)
        self.curriculum = courses(curriculum)
        self._draws = False  # whether that has been tried
        self.name = spec.id.rpartition("/")[2]
        if vectorization == "vector_entry_point":
            self._probe_vector()
        else:
            self._probe()

    def _find(self, id: str) -> tuple[str | None, EnvSpec]:
        """Return the module that registers an environment (None: nothing), and its spec."""
        return find(id)

    def _probe(self) -> None:
        """Build one environment under Gymnasium's checker, step it once, and keep its metadata."""
        with _explained(self._recipe):
            env = self._recipe.build(checked=True)
        try:
            self._look_at_wrappers(env)
            require_parameters(env, self.curriculum)
            self._adapt(env.observation_space, env.action_space)
            with _explained(self._recipe):
                self._try(Replayable(env, 0))
            self.renders = "rgb_array" in env.metadata.get("render_modes", ())
            self.max_episode_steps = (
                env.spec.max_episode_steps if env.spec else self._recipe.max_episode_steps
            )
        finally:
            close_quietly(env)

    def _look_at_wrappers(self, env: gym.Env) -> None:
        """Refuse wrappers that keep statistics; note those that change rewards."""
        layer = env
        while isinstance(layer, gym.Wrapper):
            name = type(layer).__name__
            if isinstance(layer, gym.RewardWrapper):
                self.reward_wrappers = (name, *self.reward_wrappers)
            if any(type(value).__name__ == "RunningMeanStd" for value in vars(layer).values()):
                remedy = "agent.normalize_observations=true"
                if "Reward" in name:
                    remedy = "trainer.normalize_rewards=true"
                raise UserError(
                    f"env.wrappers: {name} keeps statistics in the environment, where neither an "
                    "evaluation nor a resumed run has them. Leave it out; agent=ppo with "
                    f"{remedy} normalises with statistics that are saved."
                )
            layer = layer.env

    def _try(self, env: Replayable) -> None:
        """Reset once and step once, with a random action."""
        observation, info = env.reset(seed=0)
        if FAULT not in info:
            env.action_space.seed(0)
            *_, info = env.step(sample(env.action_space, observation))
        if FAULT in info:
            raise _TrialError(info[FAULT].rstrip())

    def _probe_vector(self) -> None:
        spec = self._recipe.spec
        if spec.vector_entry_point is None:
            raise UserError(
                f"{spec.id} has no vectorised version of its own: use env.vectorization=sync or "
                "async."
            )
        if self.curriculum:
            raise UserError(
                f"env.curriculum sets attributes of single environments, which {spec.id}'s own "
                "vectorised version has not."
            )
        if self._recipe.wrappers:
            raise UserError(
                f"env.wrappers wrap single environments, which {spec.id}'s own vectorised version "
                "has not."
            )
        with _explained(self._recipe):
            vector = self._recipe.build_vector(1)
        if vector.metadata.get("autoreset_mode") != AutoresetMode.NEXT_STEP:
            raise UserError(
                f"{spec.id}'s own vectorised version does not reset on the next step: use sync or "
                "async."
            )
        self._adapt(vector.single_observation_space, vector.single_action_space)
        self.renders = "rgb_array" in vector.metadata.get("render_modes", ())
        self.max_episode_steps = self._recipe.max_episode_steps or spec.max_episode_steps
        close_quietly(vector)

    def _adapt(self, observation_space: gym.Space, action_space: gym.Space) -> None:
        observations = adapt_observations(observation_space, self.name, self._view)
        actions = adapt_actions(action_space, self.name)
        self.original_observation_space = observation_space
        self.observation_space = observations.space
        self.action_space = actions.space
        self.to_agent = observations.to_agent
        self.to_environment = actions.to_environment

    @property
    def described(self) -> str:
        """Name of the environment and all that distinguishes it from others of that name.

        It is identical in every process that makes the environment.
        """
        made = {
            "kwargs": self._recipe.kwargs,
            "wrappers": self._recipe.wrappers,
            "steps": self.max_episode_steps,
        }
        return re.sub(r" at 0x[0-9a-f]+", "", f"{self.name} {made}")

    def _require_rendering(self) -> None:
        """Draw one picture in another process, the first time."""
        if self._draws:
            return
        recipe = self._recipe

        def seat(variables: Mapping[str, str]) -> _Seat:
            return _Seat(recipe, 0, True, 0, os.getpid(), variables)

        rendering.require(seat, recipe.spec.entry_point, self.name)
        self._draws = True

    def first_seed(self, seed: int) -> int:
        """Return the seed of a run's first environment; the others' count from it.

        Counting from the run's own, runs of neighbouring seeds would share all environments but
        one.
        """
        return int(np.random.SeedSequence([seed, 0xE7]).generate_state(1)[0] >> 2)

    def limited(self, max_episode_steps: int) -> "Gymnasium":
        """Return the same environment with episodes truncated after `max_episode_steps`."""
        other = copy.copy(self)
        other._recipe = dataclasses.replace(self._recipe, max_episode_steps=max_episode_steps)
        other.max_episode_steps = max_episode_steps
        return other

    def vector(
        self, num_envs: int, seed: int, render: bool = False, record: tuple[str, ...] = ()
    ) -> HostVector:
        """Return `num_envs` environments, the i-th seeded with seed + i.

        With `render`, the first one can be drawn. The numbers that `record` names are told of every
        step, the others in `info` of the last ones of episodes.
        """
        if num_envs < 1:
            raise UserError(
                f"{self.name}: {num_envs} environments cannot be stepped; at least 1 can."
            )
        if render and not self.renders:
            raise UserError(
                f"{self.name} draws no pictures (its render_modes have no rgb_array): leave videos "
                "out."
            )
        if render:
            self._require_rendering()
        with _explained(self._recipe):
            if self._mode == "vector_entry_point":
                own = self._recipe.build_vector(num_envs, render)
                return HostVector(own, self.name, seed, None, self._view, self.info)
            seats = [
                _Seat(self._recipe, i, render and i == 0, seed, os.getpid(), {}, self.info, record)
                for i in range(num_envs)
            ]
            vector = Workers(seats) if self._mode == "async" else SyncVectorEnv(seats, copy=False)
        limit = self._replay_limit
        more = self._view, self.info, self.curriculum
        return HostVector(vector, self.name, seed, limit, *more)


class _TrialError(Exception):
    """Failure of an environment's first reset or step: a sentence, or a traceback."""


@contextlib.contextmanager
def _explained(recipe: _Recipe) -> Iterator[None]:
    """Turn an exception from building or first trying an environment into a UserError.

    A missing package or an unknown argument gives one line, anything else its traceback.
    """
    spec = recipe.spec
    kwargs = recipe.kwargs
    try:
        yield
    except UserError:
        raise
    except (ImportError, gym.error.DependencyNotInstalled) as error:
        raise missing_package(spec, error) from error
    except Exception as error:
        if isinstance(error, TypeError) and "unexpected keyword argument" in str(error) and kwargs:
            raise UserError(f"env.kwargs={kwargs} does not fit {spec.id}: {error}.") from error
        raise _fault(spec, error) from error


def _fault(spec: EnvSpec, error: Exception) -> EnvironmentFault:
    """Return the error for an environment that could not be built and stepped once.

    It is one line where the environment's answers, or Gymnasium's checker, say what is wrong.
    """
    text = str(error)
    if not isinstance(error, _TrialError):
        text = "".join(traceback.format_exception(error)).rstrip()
    if 'passive_env_checker.py"' in text.rpartition("  File ")[2]:  # where it was raised
        text = text.rpartition("\n")[2].removeprefix("AssertionError: ")
    if not text.startswith("Traceback"):
        return EnvironmentFault(f"env.id={spec.id}: {text}")
    return EnvironmentFault(f"{spec.id} could not be built and stepped once:\n{text}")


def _check_arguments(
    vectorization: str, wrappers: Sequence[Any], max_episode_steps: int | None
) -> None:
    if vectorization not in MODES:
        raise UserError(
            f"env.vectorization={vectorization} is unknown: it is one of {', '.join(MODES)}."
        )
    if max_episode_steps is not None and max_episode_steps < 1:
        raise UserError(
            f"env.max_episode_steps={max_episode_steps}: it is at least 1, or null for the "
            "registered one."
        )
    for wrapper in wrappers:
        if not callable(wrapper):
            raise UserError(
                f"env.wrappers holds {wrapper!r}, which wraps nothing: give _target_ and "
                "_partial_: true."
            )


def _names(info: Sequence[str]) -> tuple[str, ...]:
    """Return names that can be part of a tag; raise UserError for others."""
    taken = ("episode_return", "episode_return_std", "episode_length", "reset_share")
    for name in info:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", str(name)) or name in taken:
            raise UserError(
                f"env.info={list(info)}: {name} cannot be part of a tag; it takes letters, digits "
                f"and _.-, and not {', '.join(taken)}."
            )
    return tuple(map(str, info))


def _plain(value: Any) -> Any:
    """Return `value` with Hydra's partials turned into plain ones.

    Hydra's check their target at every call.
    """
    if isinstance(value, functools.partial):
        keywords = {key: _plain(item) for key, item in value.keywords.items()}
        return functools.partial(_plain(value.func), *map(_plain, value.args), **keywords)
    return value
