"""Taking an environment's steps and comparing results, for sparring.envs.testing.check."""

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from sparring import nested
from sparring.envs.compiled.base import CompiledEnvironment
from sparring.envs.compiled.state import EnvState
from sparring.envs.compiled.static_shapes import leaves
from sparring.envs.gymnasium_bridge.vector import Step
from sparring.xla import compilation, random


class Moves(NamedTuple):
    """Inputs of N steps: arrays or tensors [N, ...]."""

    state: EnvState
    action: Any
    keys: Any

    def at(self, rows: Any) -> "Moves":
        """Return the given rows."""
        return tf.nest.map_structure(lambda array: array[rows], self)

    def within(self, **changes: Any) -> "Moves":
        """Return the moves with another `elapsed` or `done` in all rows."""
        return self._replace(
            state=self.state._replace(**{k: np.full(len(self.keys), v) for k, v in changes.items()})
        )


class Outcome(NamedTuple):
    """Results of N steps, [N, ...]."""

    state: EnvState
    step: Step

    def at(self, rows: Any) -> "Outcome":
        """Return the given rows."""
        return tf.nest.map_structure(lambda array: array[rows], self)


class Program:
    """Take steps in "graph" or "xla" mode, traced once for each batch size, or in "eager" mode.

    Under XLA the step is in a loop, as in training: a shape that depends on values compiles outside
    of a loop only.
    """

    def __init__(self, env: CompiledEnvironment, mode: str) -> None:
        self._env = env
        self._compiled: Any = compilation.function(
            self._looped if mode == "xla" else self._once, mode
        )

    def __call__(self, moves: Moves) -> Outcome:
        """Return the outcome of moves given as arrays, as arrays."""
        return arrays(self.tensors(tf.nest.map_structure(tf.convert_to_tensor, moves)))

    def tensors(self, moves: Moves) -> Outcome:
        """Return the outcome of moves given as tensors, as tensors."""
        return self._compiled(moves)

    def graph(self, count: int) -> Any:
        """Return the graph that steps `count` members."""
        keys = tf.TensorSpec([count, 2], tf.uint32)
        moves = Moves(self._env.specs(count), self._env.action_spec(count), keys)
        return self._compiled.get_concrete_function(moves).graph

    def _once(self, moves: Moves) -> Outcome:
        return Outcome(*self._env.step(*moves))

    def _looped(self, moves: Moves) -> Outcome:
        count = moves.keys.shape[0]
        seen = nested.map_parts(
            lambda box: tf.zeros([count, *box.shape], box.dtype), self._env.observation_space
        )
        no = tf.zeros([count], tf.bool)
        start = Step(seen, tf.zeros([count]), no, no, no)

        def body(t: tf.Tensor, outcome: Outcome) -> tuple[tf.Tensor, Outcome]:
            return t + 1, self._once(moves._replace(state=outcome.state))

        return tf.while_loop(
            lambda t, _: t < 1, body, (0, Outcome(moves.state, start)), maximum_iterations=1
        )[1]


def play(
    env: CompiledEnvironment, graph: Program, batch: int, steps: int, seed: int
) -> tuple[Moves, Outcome]:
    """Take `steps` random steps of `batch` members from the beginning.

    Returns moves and outcomes laid end to end: [steps * batch, ...].
    """
    space = copy.deepcopy(env.action_space)
    dtype = env.action_spec(batch).dtype
    space.seed(seed)
    state = env.reset(random.members(random.stream(seed, "reset"), batch))
    keys = tf.reshape(
        random.members(random.stream(seed, "environment"), steps * batch), [steps, batch, 2]
    )
    moves = []
    outcomes = []
    for t in range(steps):
        action = tf.constant(np.stack([space.sample() for _ in range(batch)]), dtype)
        moves.append(Moves(state, action, keys[t]))
        outcomes.append(graph.tensors(moves[-1]))
        state = outcomes[-1].state
    return joined(moves), joined(outcomes)


def arrays(nest: Any) -> Any:
    """Return the nest with its tensors as numpy arrays."""
    return tf.nest.map_structure(lambda tensor: tensor.numpy(), nest)


def joined(parts: list[Any]) -> Any:
    """Concatenate nests of tensors or arrays to one nest of arrays [N, ...]."""
    return tf.nest.map_structure(
        lambda *rows: np.concatenate([np.asarray(row) for row in rows]), *parts
    )


def chosen(moves: Moves, outcome: Outcome, count: int) -> np.ndarray:
    """Return the indices of `count` rows to look at closely, in random order.

    Up to half of them are openings and ends.
    """
    special = np.flatnonzero(moves.state.done | outcome.state.done)[: count // 2]
    rng = np.random.default_rng(0)
    return rng.permutation(
        np.concatenate([special, rng.integers(len(moves.keys), size=count - len(special))])
    )


def unlike(ours: Any, theirs: Any, tolerance: float) -> Iterator[tuple[str, Any, Any]]:
    """Yield, for each part that differs, its name and the values of the first difference.

    Integers and booleans must be equal, floats within `tolerance`.
    """
    for (name, one), (_, other) in zip(leaves(ours), leaves(theirs), strict=True):
        if one.dtype.kind == "f":
            bound = tolerance * (1.0 + np.abs(other))
            with np.errstate(invalid="ignore"):
                same = (
                    (np.abs(one - other) <= bound)
                    | (one == other)
                    | (np.isnan(one) & np.isnan(other))
                )
        else:
            same = one == other
        if not same.all():
            index = tuple(np.argwhere(~same)[0])
            yield name.removeprefix("state."), one[index], other[index]
