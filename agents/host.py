"""Driving host environments: the policy one compiled call per vector step, the learning one per iteration."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from agents.rollout import Rollout
from research.errors import UserError


class Packed(NamedTuple):
    """A rollout in few arrays: handing each to TensorFlow costs as much as a small network."""

    observation: np.ndarray  # [T + 1, B, ...]
    action: np.ndarray  # [T, B, ...]
    outcome: np.ndarray  # [T, 4, B] float32: reward, terminated, truncated, first
    extras: dict[str, np.ndarray]  # each [T, B]

    def unpack(self) -> Rollout:
        """The rollout, inside a compiled function."""
        reward, terminated, truncated, first = tf.unstack(self.outcome, axis=1)
        over, cut, opened = (flag > 0.0 for flag in (terminated, truncated, first))
        return Rollout(self.observation, self.action, reward, over, cut, opened, self.extras)


class Collector:
    """Collects rollouts from an environment's host vector, which is opened at the first use.

    `act(observation, vector_step) -> (action, extras)` is a compiled function.
    """

    def __init__(
        self,
        environment: Any,
        num_envs: int,
        rollout_steps: int,
        seed: int,
        act: Callable[..., Any],
    ) -> None:
        self.environment, self.num_envs, self.rollout_steps, self.seed = environment, num_envs, rollout_steps, seed
        self.act = act
        self._vector: Any = None
        self._observation = np.zeros(0)
        self._decided: Any = None  # what `act` says about the state the last iteration ended in

    def collect(self, vector_step: int) -> Packed:
        """T vector steps, from number `vector_step` of the run on."""
        observations, actions, outcomes, said = [self._observation], [], [], []
        for t in range(vector_step, vector_step + self.rollout_steps):
            decided, self._decided = self._decided, None
            action, extras = self.act(observations[-1], np.int64(t)) if decided is None else decided
            action = action.numpy()
            step = self._vector.step(action)
            observations.append(step.observation)
            actions.append(action)
            outcomes.append(np.array([step.reward, step.terminated, step.truncated, step.first], np.float32))
            said.append(extras)
        self._observation = observations[-1]
        return Packed(
            np.array(observations),
            np.array(actions),
            np.array(outcomes),
            {name: np.array([extras[name].numpy() for extras in said]) for name in said[0]},
        )

    @property
    def observation(self) -> np.ndarray:
        """What the next step acts on, [B, ...]."""
        return self._observation

    def open(self) -> None:
        """Open the environments, if they are not."""
        if self._vector is None:
            self._vector = self.environment.vector(self.num_envs, self.seed)
            self._observation = self._vector.reset()

    def snapshot(self) -> Any:
        """The environments' state; None before they are opened."""
        return None if self._vector is None else self._vector.snapshot()

    def restart(self, vector_step: int) -> None:
        """Open environments in the place of lost ones: step `vector_step` of the run resets them all."""
        self.close()
        self._vector = self.environment.vector(self.num_envs, self.seed)
        self._observation, self._decided = self._vector.restart(vector_step), None

    def restore(self, snapshot: Mapping[str, Any]) -> list[str]:
        """Put the environments back; one sentence for each that could not be."""
        if snapshot.get("pending"):
            raise UserError("The checkpoint holds rollouts that actors were ahead: resume with actors=reverb.")
        if self._vector is None:
            self._vector = self.environment.vector(self.num_envs, self.seed)
        self._decided = None
        complaints = self._vector.restore(snapshot)
        self._observation = self._vector.observation
        return list(complaints)

    def close(self) -> None:
        """Close the environments."""
        if self._vector is not None:
            self._vector.close()
            self._vector = None


class HostDriver(Collector):
    """Collects and learns by turns, here.

    `learn(packed, vector_step) -> (action, extras)` is compiled too; it learns from a rollout and then acts on the
    state it ended in: one call less per iteration, which at one step per update is half of them.
    """

    def __init__(
        self,
        environment: Any,
        num_envs: int,
        rollout_steps: int,
        seed: int,
        act: Callable[..., Any],
        learn: Callable[..., Any],
    ) -> None:
        super().__init__(environment, num_envs, rollout_steps, seed, act)
        self.learn = learn
        self.seconds = {"collect": 0.0, "update": 0.0}

    def iterate(self, done: int, count: int) -> None:
        """Iterations `done`, done + 1, ... `count` of them."""
        self.open()
        for iteration in range(done, done + count):
            started = time.perf_counter()
            packed = self.collect(iteration * self.rollout_steps)
            collected = time.perf_counter()
            self._decided = self.learn(packed, np.int64((iteration + 1) * self.rollout_steps))
            self.seconds["collect"] += collected - started
            self.seconds["update"] += time.perf_counter() - collected
