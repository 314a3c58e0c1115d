"""Driving host environments: the policy one compiled call per vector step, the learning one per iteration."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from agents.rollout import Rollout


class HostDriver:
    """Collects rollouts from an environment's host vector, which is opened at the first use.

    `act(observation, vector_step) -> (action, extras)` and `learn(rollout)` are compiled functions.
    """

    def __init__(
        self,
        environment: Any,
        num_envs: int,
        rollout_steps: int,
        seed: int,
        act: Callable[..., Any],
        learn: Callable[[Rollout], None],
    ) -> None:
        self.environment, self.num_envs, self.rollout_steps, self.seed = environment, num_envs, rollout_steps, seed
        self.act, self.learn = act, learn
        self.seconds = {"collect": 0.0, "update": 0.0}
        self._vector: Any = None
        self._observation = np.zeros(0)

    def iterate(self, done: int, count: int) -> None:
        """Iterations `done`, done + 1, ... `count` of them."""
        self._open()
        for iteration in range(done, done + count):
            started = time.perf_counter()
            rollout = self.collect(iteration * self.rollout_steps)
            collected = time.perf_counter()
            self.learn(rollout)
            self.seconds["collect"] += collected - started
            self.seconds["update"] += time.perf_counter() - collected

    def collect(self, vector_step: int) -> Rollout:
        """T vector steps, from number `vector_step` of the run on."""
        observations, rows = [self._observation], []
        for t in range(vector_step, vector_step + self.rollout_steps):
            action, extras = self.act(observations[-1], np.int64(t))
            action = np.asarray(action)
            step = self._vector.step(action)
            observations.append(step.observation)
            rows.append((action, step, extras))
        self._observation = observations[-1]
        actions, steps, extras = zip(*rows, strict=True)
        return Rollout(
            observation=np.stack(observations),
            action=np.stack(actions),
            reward=np.stack([s.reward for s in steps]),
            terminated=np.stack([s.terminated for s in steps]),
            truncated=np.stack([s.truncated for s in steps]),
            first=np.stack([s.first for s in steps]),
            extras={name: np.stack([np.asarray(e[name]) for e in extras]) for name in extras[0]},
        )

    def _open(self) -> None:
        if self._vector is None:
            self._vector = self.environment.vector(self.num_envs, self.seed)
            self._observation = self._vector.reset()

    def snapshot(self) -> Any:
        """The environments' state; None before they are opened."""
        return None if self._vector is None else self._vector.snapshot()

    def restore(self, snapshot: Mapping[str, Any]) -> list[str]:
        """Put the environments back; one sentence for each that could not be."""
        if self._vector is None:
            self._vector = self.environment.vector(self.num_envs, self.seed)
        complaints = self._vector.restore(snapshot)
        self._observation = self._vector.observation
        return list(complaints)

    def close(self) -> None:
        """Close the environments."""
        if self._vector is not None:
            self._vector.close()
            self._vector = None
