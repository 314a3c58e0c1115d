"""Replay: transitions that an off-policy trainer learns from, and `Ring`, which draws uniformly.

A trainer chooses rows, gathers their transitions, learns, and says how far each was off. A replay
of your own subclasses `Ring` and overrides `choose` and `learned`.

TF-Agents' TFUniformReplayBuffer guards itself with a mutex, which no XLA program may contain; this
is scatter and gather on variables, each observation once, in its own dtype, and of a stack of
frames each frame once. Time runs in slots of B environments each; a transition's next observation
is the following slot.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import tensorflow as tf

from sparring import frame_stacks, nested
from sparring.distribute import replicas
from sparring.frame_stacks import FrameStack
from sparring.xla import random

_DRAWS = 32  # for each row, until it is the first of a transition


class Transitions(NamedTuple):
    """A batch of (n-step) transitions, all [M, ...].

    `reward` is the discounted sum along the way; `discount` multiplies gamma times the next value:
    0 after a termination. `mask` is what the transition weighs in the loss: one, or a replay's
    weight of its importance, or zero where no transition was found. `extra` is what the agent asked
    to have kept of the first step, by name.
    """

    observation: Any
    action: tf.Tensor
    reward: tf.Tensor
    discount: tf.Tensor
    next_observation: Any
    mask: tf.Tensor
    extra: Mapping[str, tf.Tensor] = {}


class Sequences(NamedTuple):
    """M sequences of T transitions each, of up to n steps, over T + n slots.

    `last` says of which slots a step leads out of an episode that ended. The `transitions` [T * M],
    whose observations are left out, lead from a slot to the one `length` further on.
    """

    observation: Any  # [T + n, M, ...]
    last: tf.Tensor  # bool [T + n, M]
    length: tf.Tensor  # int64 [T, M]
    transitions: Transitions
    state: tf.Tensor  # float32 [M, S]: of the agent before the first step


def row_bytes(
    observation_space: gymnasium.Space,
    action_space: gymnasium.Space,
    extra: Mapping[str, gymnasium.spaces.Box] | None = None,
) -> int:
    """Return the bytes that a replayed transition takes: observation, action, reward and two flags.

    Of a stack of frames it is the newest frame. What is kept beside, `extra`, is counted too.
    """
    boxes = [*map(_kept, nested.leaves(observation_space)), *(extra or {}).values()]
    seen = sum(
        int(np.prod(box.shape, dtype=np.int64)) * np.dtype(box.dtype).itemsize for box in boxes
    )
    acted = int(np.prod(action_space.shape or (), dtype=np.int64)) * 4
    return seen + acted + 4 + 2


class Rows(NamedTuple):
    """Rows at which M transitions begin: the number of the slot since the run's beginning, and of
    the environment, both int64 [M]; and what each weighs in the loss, float32 [M] or 1.
    """

    slot: tf.Tensor
    env: tf.Tensor
    weight: tf.Tensor | float = 1.0


class Ring(tf.Module):
    """The newest `capacity` transitions of `num_envs` environments (rounded up to whole slots, plus
    one open slot), drawn uniformly.

    Of a space of stacks (see sparring.frame_stacks) it keeps the newest frames, and stacks them
    again when they are drawn; frames of slots just before the oldest transition are kept beside.
    `span` is the number of steps that what is drawn goes over.

    Of several replicas, each has a ring of its own, and these numbers are one replica's.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        extra: Mapping[str, gymnasium.spaces.Box] | None = None,
        span: int = 1,
    ) -> None:
        super().__init__(name="replay")
        self.span = span
        self.num_envs = num_envs
        stacks = [b.frames for b in nested.leaves(observation_space) if isinstance(b, FrameStack)]
        self.behind = max(stacks, default=1) - 1  # slots that only stacks look back to
        self.slots = -(-capacity // num_envs) + 1 + self.behind
        self.space = observation_space
        rows = self.slots * num_envs
        action_dtype = np.int32 if np.issubdtype(action_space.dtype, np.integer) else np.float32

        def zeros(shape: tuple[int, ...], dtype: np.dtype | type | None) -> tf.Variable:
            return replicas.replicated(tf.zeros([rows, *shape], dtype))

        self.observation = nested.map_parts(
            lambda box: zeros(_kept(box).shape, box.dtype), observation_space
        )
        self.action = zeros(tuple(action_space.shape or ()), action_dtype)
        self.extra = {name: zeros(box.shape, box.dtype) for name, box in (extra or {}).items()}
        self.reward = zeros((), np.float32)
        self.last = zeros((), np.bool_)  # the slot's observation ended an episode
        self.terminal = zeros((), np.bool_)  # ... by termination
        self.written = replicas.replicated(0, dtype=tf.int64)  # slots ever completed

    @property
    def bytes_per_transition(self) -> int:
        """Bytes one transition takes: observation, action, reward, two flags and what is extra."""
        seen = nested.leaves(self.observation)
        columns = (*seen, *self.extra.values(), self.action, self.reward, self.last, self.terminal)
        return sum(int(np.prod(c.shape[1:])) * c.dtype.size for c in columns)

    def write(
        self,
        observations: Any,
        actions: tf.Tensor,
        rewards: tf.Tensor,
        terminated: tf.Tensor,
        truncated: tf.Tensor,
        first: tf.Tensor,
        extra: Mapping[str, tf.Tensor] | None = None,
    ) -> None:
        """Append T slots: observations [T + 1, B, ...] with the state reached; the rest [T, B] of
        the steps between, and of `extra` what there is room for.

        A step that is `first` leads out of an episode that ended, or, after a restart, was broken
        off: in both cases nothing leads across it, and what came before bootstraps from the
        observation it left.
        """
        steps = actions.shape[0]
        here = self._rows(self.written, steps)
        there = self._rows(self.written + 1, steps)
        _scatter(self.action, here, actions)
        _scatter(self.reward, here, rewards)
        for name, column in self.extra.items():
            _scatter(column, here, (extra or {})[name])
        seen = self._rows(self.written, steps + 1)
        frames = frame_stacks.newest(self.space, observations)
        left = self._rows(self.written, 1)

        def store(variable: tf.Variable, values: tf.Tensor) -> None:
            # A restart does not know what the episodes that it breaks off have come to
            stays = tf.reshape(first[0], [-1] + [1] * (len(values.shape) - 2))
            before = tf.where(stays, _gather(variable, left), tf.cast(values[0], variable.dtype))
            _scatter(variable, seen, tf.concat([before[tf.newaxis], values[1:]], axis=0))

        nested.map_parts(store, self.observation, frames)
        _scatter(self.last, there, terminated | truncated)
        _scatter(self.last, here, first)
        _scatter(self.terminal, there, terminated)
        self.written.assign_add(steps)

    def choose(
        self, key: tf.Tensor, count: int, steps: int, progress: tf.Tensor | float = 0.0
    ) -> Rows:
        """Return rows of `count` transitions, uniformly with replacement; `key` [2].

        The step from an episode's end to the next one's first observation is no transition: what
        begins with one is drawn again, up to 32 times.
        """
        del progress
        oldest = self.oldest()
        choices = (self.written - steps + 1 - oldest) * self.num_envs

        def draw(key: tf.Tensor) -> Rows:
            choice = random.integers(key, count, choices)  # [M]
            return Rows(oldest + choice // self.num_envs, choice % self.num_envs)

        def begins(rows: Rows) -> tf.Tensor:
            return ~_gather(self.last, self._row(rows))

        def redraw(i: tf.Tensor, rows: Rows, found: tf.Tensor) -> tuple[tf.Tensor, Rows, tf.Tensor]:
            other = draw(random.fold(key, i))
            slot = tf.where(found, rows.slot, other.slot)
            rows = Rows(slot, tf.where(found, rows.env, other.env), rows.weight)
            return i + 1, rows, found | begins(rows)

        rows = draw(key)
        _, rows, _ = tf.while_loop(
            lambda i, rows, found: ~tf.reduce_all(found),
            redraw,
            (tf.constant(1), rows, begins(rows)),
            maximum_iterations=_DRAWS - 1,
        )
        return rows

    def gather(
        self,
        rows: Rows,
        steps: int = 1,
        discount: float = 1.0,
        rewards: Sequence[tf.Tensor] | None = None,
    ) -> Transitions:
        """Return the transitions of up to `steps` steps that begin at `rows`.

        A sum over several steps stops at the end of an episode, and bootstraps from the observation
        it stops at. `rewards` [M] of each of the steps stand in the place of those that were kept.
        """
        length = self._length(rows, steps)
        found = self._between(rows, length, steps, discount, rewards)
        return found._replace(
            observation=self._observed(rows),
            next_observation=self._observed(Rows(rows.slot + length, rows.env)),
        )

    def sequences(self, rows: Rows, count: int, steps: int, discount: float) -> Sequences:
        """Return the sequences of `count` transitions of up to `steps` steps that begin at `rows`.

        Of `extra` it holds the agent's `state`. A transition weighs what its sequence does.
        """
        slots = rows.slot + tf.range(count + steps, dtype=tf.int64)[:, tf.newaxis]  # [T + n, M]
        envs = tf.zeros_like(slots) + rows.env
        every = Rows(tf.reshape(slots, [-1]), tf.reshape(envs, [-1]))
        weight = tf.reshape(tf.zeros_like(slots[:count], tf.float32) + rows.weight, [-1])
        starts = Rows(tf.reshape(slots[:count], [-1]), tf.reshape(envs[:count], [-1]), weight)
        length = self._length(starts, steps)

        def shaped(flat: tf.Tensor) -> tf.Tensor:
            return tf.reshape(flat, [count + steps, -1, *flat.shape[1:]])

        return Sequences(
            nested.map_parts(shaped, self._observed(every)),
            shaped(_gather(self.last, self._row(every))),
            tf.reshape(length, [count, -1]),
            self._between(starts, length, steps, discount)._replace(extra={}),
            _gather(self.extra["state"], self._row(rows)),
        )

    def _length(self, rows: Rows, steps: int) -> tf.Tensor:
        """The steps [M], up to `steps`, until an episode ends."""
        length = tf.zeros([rows.slot.shape[0]], tf.int64)
        going = tf.ones([rows.slot.shape[0]], tf.bool)
        for k in range(steps):
            length += tf.cast(going, tf.int64)
            going &= ~_gather(self.last, self._row(rows, k + 1))
        return length

    def _between(
        self,
        rows: Rows,
        length: tf.Tensor,
        steps: int,
        discount: float,
        rewards: Sequence[tf.Tensor] | None = None,
    ) -> Transitions:
        """The transitions of `length` [M] steps that begin at `rows`, without observations."""
        reward = tf.zeros([rows.slot.shape[0]])
        scale = tf.ones([rows.slot.shape[0]])
        for k in range(steps):
            step = _gather(self.reward, self._row(rows, k)) if rewards is None else rewards[k]
            reward += tf.where(length > k, discount**k * step, 0.0)
            scale = tf.where(length > k, discount**k, scale)
        start = self._row(rows)
        end = self._row(rows, length)
        return Transitions(
            observation=(),
            action=_gather(self.action, start),
            reward=reward,
            discount=tf.where(_gather(self.terminal, end), 0.0, scale),
            next_observation=(),
            mask=tf.where(_gather(self.last, start), 0.0, rows.weight),
            extra={name: _gather(column, start) for name, column in self.extra.items()},
        )

    def oldest(self) -> tf.Tensor:
        """Return the number of the first slot at which a transition may begin, int64 [].

        A stack may look back beyond it, but at the beginning of the run.
        """
        kept = tf.maximum(self.written - (self.slots - 1), 0)
        return tf.where(kept > 0, kept + self.behind, 0)

    def _observed(self, rows: Rows) -> Any:
        """The observations [M, ...] at `rows`, stacked again where they are stacks.

        Going back from its newest frame, a stack stops at the first frame of its episode.
        """
        places = [self._row(rows)]
        slot = rows.slot
        for _ in range(self.behind):
            before = Rows(slot - 1, rows.env)
            begins = (slot == 0) | _gather(self.last, self._row(before))
            slot = tf.where(begins, slot, slot - 1)
            places.append(self._row(Rows(slot, rows.env)))

        def of_part(box: gymnasium.spaces.Box, variable: tf.Variable) -> tf.Tensor:
            if not isinstance(box, FrameStack):
                return _gather(variable, places[0])
            frames = [_gather(variable, place) for place in reversed(places[: box.frames])]
            return tf.concat(frames, axis=-1)

        return nested.map_parts(of_part, self.space, self.observation)

    def learned(self, rows: Rows, errors: tf.Tensor, progress: tf.Tensor) -> None:
        """Take note of how far the values at `rows` were off, float32 [M], when learned from.

        Here all transitions are equally likely, whatever their errors.
        """

    def sample(
        self, key: tf.Tensor, count: int, steps: int = 1, discount: float = 1.0
    ) -> Transitions:
        """Return `count` transitions of up to `steps` steps: choose, then gather."""
        return self.gather(self.choose(key, count, steps), steps, discount)

    def _row(self, rows: Rows, offset: int | tf.Tensor = 0) -> tf.Tensor:
        """The places in the variables of slots `offset` after `rows`, int64 [M]."""
        return (rows.slot + offset) % self.slots * self.num_envs + rows.env

    def _rows(self, start: tf.Tensor, steps: int) -> tf.Tensor:
        """The row numbers [steps * B] of `steps` slots from slot `start` on, around the ring."""
        slots = (start + tf.range(steps, dtype=tf.int64)) % self.slots  # [T]
        return tf.reshape(
            slots[:, tf.newaxis] * self.num_envs + tf.range(self.num_envs, dtype=tf.int64), [-1]
        )


def _kept(box: gymnasium.spaces.Box) -> gymnasium.spaces.Box:
    """Return the space of what is stored of an observation's part."""
    return box.frame if isinstance(box, FrameStack) else box


def _gather(variable: tf.Variable, rows: tf.Tensor) -> tf.Tensor:
    return tf.gather(replicas.local_variable(variable), rows)


def _scatter(variable: tf.Variable, rows: tf.Tensor, values: tf.Tensor) -> None:
    flat = tf.reshape(tf.cast(values, variable.dtype), [-1, *variable.shape[1:]])
    replicas.local_variable(variable).scatter_update(tf.IndexedSlices(flat, rows))
