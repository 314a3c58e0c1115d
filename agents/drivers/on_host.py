"""Driving host environments: the policy one compiled call per vector step, the learning one per
iteration.
"""

import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from sparring import nested
from sparring.agents.networks import recurrent
from sparring.agents.training.rollout import Rollout, RolloutSpec
from sparring.errors import UserError


class HostRollout(NamedTuple):
    """A rollout in few arrays: handing each to TensorFlow costs as much as a small network."""

    observation: Any  # [T + 1, B, ...], of one part or several
    action: np.ndarray  # [T, B, ...]
    outcome: np.ndarray  # [T, 4, B] float32: reward, terminated, truncated, first
    extras: dict[str, np.ndarray]  # each [T, B, ...]
    memory: Any = ()  # [2, B, S]

    def unpack(self) -> Rollout:
        """The rollout, inside a compiled function."""
        reward, terminated, truncated, first = tf.unstack(self.outcome, axis=1)
        over, cut, opened = (flag > 0.0 for flag in (terminated, truncated, first))
        return Rollout(
            self.observation, self.action, reward, over, cut, opened, self.extras, self.memory
        )


def add_sums(
    totals: MutableMapping[str, tuple[float, float]], values: Mapping[str, tuple[float, float]]
) -> None:
    """Add sums and weights, by tag, to `totals`."""
    for tag, (value, weight) in values.items():
        before = totals.get(tag, (0.0, 0.0))
        totals[tag] = (before[0] + value, before[1] + weight)


class Collector:
    """Collects rollouts from environments on the host, which are opened at the first use.

    `act(observation, known, vector_step) -> (action, extras, known)` is a compiled function.
    `known` is the agent's state at the start (see sparring.agents.networks.recurrent).
    `note` is told of numbers in the infos of episodes' last steps: their sum and count, by tag.
    """

    def __init__(
        self,
        source: RolloutSpec,
        act: Callable[..., Any],
        known: recurrent.State = (),
        note: Callable[[dict[str, tuple[float, float]]], None] = lambda values: None,
    ) -> None:
        self.source = source
        self.act = act
        self.note = note
        self._vector: Any = None
        self._observation: Any = np.zeros(0)
        self._known = known  # before the observation is seen
        self._decided: Any = None  # what `act` says about the state the last iteration ended in

    def collect(self, vector_step: int) -> HostRollout:
        """T vector steps, from number `vector_step` of the run on."""
        self._follow(vector_step)
        observations = [self._observation]
        actions = []
        outcomes = []
        said = []
        before = self._known
        for t in range(vector_step, vector_step + self.source.rollout_steps):
            decided = self._decided
            self._decided = None
            action, extras, known = decided or self.act(observations[-1], self._known, np.int64(t))
            action = action.numpy()
            step = self._vector.step(action)
            self._note_info(step)
            self._known = recurrent.restarted(known, step.first)
            observations.append(step.observation)
            actions.append(action)
            outcomes.append(
                np.array([step.reward, step.terminated, step.truncated, step.first], np.float32)
            )
            said.append({name: value.numpy() for name, value in extras.items()} | self._recorded())
        self._observation = observations[-1]
        return HostRollout(
            nested.map_parts(lambda *rows: np.array(rows), *observations),
            np.array(actions),
            np.array(outcomes),
            {name: np.array([extras[name] for extras in said]) for name in said[0]},
            () if isinstance(before, tuple) else np.stack([before, self._known]),
        )

    def _recorded(self) -> dict[str, np.ndarray]:
        """Numbers to keep of the last step's info, each [B] float32, zero where it said none."""
        info = self._vector.info
        return {name: np.nan_to_num(info[name]).astype(np.float32) for name in self.source.record}

    def _follow(self, vector_step: int) -> None:
        if self.source.environment.curriculum:
            self._vector.follow(min(vector_step / self.source.vector_steps, 1.0))

    def _note_info(self, step: Any) -> None:
        ended = step.terminated | step.truncated
        for name, values in self._vector.info.items():
            numbers = values[ended & np.isfinite(values)]
            if len(numbers):
                self.note({f"rollout/{name}": (float(numbers.sum()), float(len(numbers)))})

    @property
    def observation(self) -> Any:
        """Observations [B, ...] that the next step acts on."""
        return self._observation

    def open(self) -> None:
        """Open the environments, if they are not."""
        if self._vector is None:
            self._vector = self.source.vector()
            self._follow(0)
            self._observation = self._vector.reset()

    def snapshot(self) -> Any:
        """The environments' state, and the agent's; None before they are opened."""
        if self._vector is None:
            return None
        return self._vector.snapshot() | {
            "memory": [np.asarray(known) for known in tf.nest.flatten(self._known)]
        }

    def restart(self, vector_step: int) -> None:
        """Open environments in the place of lost ones: step `vector_step` of the run resets them
        all.
        """
        self.close()
        self._vector = self.source.vector()
        self._observation = self._vector.restart(vector_step)
        self._decided = None

    def restore(self, snapshot: Mapping[str, Any]) -> list[str]:
        """Put the environments back; one sentence for each that could not be."""
        if snapshot.get("pending"):
            raise UserError(
                "The checkpoint holds rollouts that actors were ahead: resume with actors=ray."
            )
        if self._vector is None:
            self._vector = self.source.vector()
        self._decided = None
        self._known = tf.nest.pack_sequence_as(self._known, snapshot.get("memory", []))
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

    `learn(packed, vector_step)` is compiled too; it learns from a rollout, then acts on the state
    it ended in, and returns the same as `act`: one call less per iteration, which at one step per
    update is half of them.
    """

    def __init__(
        self,
        source: RolloutSpec,
        act: Callable[..., Any],
        learn: Callable[..., Any],
        known: recurrent.State = (),
        note: Callable[[dict[str, tuple[float, float]]], None] = lambda values: None,
    ) -> None:
        super().__init__(source, act, known, note)
        self.learn = learn
        self.seconds = {"collect": 0.0, "update": 0.0}

    def iterate(self, done: int, count: int) -> None:
        """Iterations `done`, done + 1, ... `count` of them."""
        self.open()
        for iteration in range(done, done + count):
            started = time.perf_counter()
            packed = self.collect(iteration * self.source.rollout_steps)
            collected = time.perf_counter()
            self._decided = self.learn(
                packed, np.int64((iteration + 1) * self.source.rollout_steps)
            )
            self.seconds["collect"] += collected - started
            self.seconds["update"] += time.perf_counter() - collected
