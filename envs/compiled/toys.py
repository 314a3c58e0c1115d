"""Small environments with a known best return that agents learn in seconds, for tests of learning.

Each demands one ability: Catch, credit over a few steps; DeepSea, exploration; Memory, memory;
PointMass, continuous actions. `best_return` holds each one's best return.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from gymnasium import spaces

from sparring.envs.compiled.base import CompiledEnvironment
from sparring.envs.compiled.canvas import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    WHITE,
    Canvas,
    tiles,
)
from sparring.errors import UserError
from sparring.xla import random


def _unit_box(size: int) -> spaces.Box:
    return spaces.Box(0.0, 1.0, (size,), np.float32)


class CatchState(NamedTuple):
    """Row of the ball from the top, its column, and the paddle's column, each int32 [B]."""

    row: tf.Tensor
    column: tf.Tensor
    paddle: tf.Tensor


class Catch(CompiledEnvironment):
    """Catch a ball that falls a row per step with a paddle at the bottom.

    Actions move the paddle left (0), not at all (1) or right (2). The reward is 1 for a caught ball
    and -1 for a missed one, at the episode's only end, after rows - 1 steps. Osband et al. 2020,
    "Behaviour suite for reinforcement learning". Observed as ball and paddle on the board, float32
    [rows * columns].
    """

    name = "Catch"
    action_space = spaces.Discrete(3)
    best_return = 1.0

    def __init__(
        self, rows: int = 10, columns: int = 5, max_episode_steps: int | None = None
    ) -> None:
        super().__init__(max_episode_steps)
        if columns < 2 or rows <= columns // 2:
            raise UserError(
                f"env.rows={rows}, env.columns={columns}: 2 columns at least, and rows > columns / "
                "2."
            )
        self.rows = rows
        self.columns = columns
        self.observation_space = _unit_box(rows * columns)

    def initial(self, keys: tf.Tensor) -> CatchState:
        column = tf.cast(random.integers(keys, 1, self.columns)[:, 0], tf.int32)
        return CatchState(tf.zeros_like(column), column, tf.fill(column.shape, self.columns // 2))

    def observe(self, state: CatchState) -> tf.Tensor:
        cells = tf.range(self.rows * self.columns)  # [rows * columns]
        ball = cells == (state.row * self.columns + state.column)[:, tf.newaxis]
        paddle = cells == ((self.rows - 1) * self.columns + state.paddle)[:, tf.newaxis]
        return tf.cast(ball | paddle, tf.float32)

    def transition(
        self, state: CatchState, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[CatchState, tf.Tensor, tf.Tensor]:
        paddle = tf.clip_by_value(state.paddle + action - 1, 0, self.columns - 1)
        row = tf.minimum(state.row + 1, self.rows - 1)
        terminated = row == self.rows - 1
        reward = tf.where(terminated, tf.where(paddle == state.column, 1.0, -1.0), 0.0)
        return CatchState(row, state.column, paddle), reward, terminated

    def render(self, state: CatchState) -> np.ndarray:
        board = np.full((self.rows, self.columns, 3), GREY, np.uint8)
        board[state.row, state.column] = ORANGE
        board[-1, state.paddle] = BLUE
        return tiles(board)


class DeepSeaState(NamedTuple):
    """Row of the diver, from 0 at the surface to `size` at the end, and column, each int32 [B]."""

    row: tf.Tensor
    column: tf.Tensor


class DeepSea(CompiledEnvironment):
    """Dive `size` rows, one per step, a column left or right each; the treasure lies far right.

    Only going right every time finds it. A move right costs 0.01 / size, the treasure is 1; random
    actions find it once in 2^size episodes, and a policy that follows the rewards it meets never
    does. Osband et al. 2020, "Behaviour suite for reinforcement learning". Observed as the diver's
    cell, float32 [size * size], all zero at the end.

    Args:
        size: rows, columns and steps of an episode.
        mapping_seed: None: action 1 goes right. An integer: which action goes right differs from
          cell to cell, drawn from this seed, so that no policy can generalise.
        max_episode_steps: truncate episodes there.
    """

    name = "DeepSea"
    action_space = spaces.Discrete(2)
    best_return = 0.99

    def __init__(
        self, size: int = 10, mapping_seed: int | None = None, max_episode_steps: int | None = None
    ) -> None:
        super().__init__(max_episode_steps)
        if size < 2:
            raise UserError(f"env.size={size}: the sea is at least 2 deep.")
        self.size = size
        self.observation_space = _unit_box(size * size)
        shape = (size, size)
        drawn = (
            None
            if mapping_seed is None
            else np.random.default_rng(mapping_seed).integers(2, size=shape)
        )
        # The action that goes right, for each cell
        self.right = np.ones(shape, np.int32) if drawn is None else drawn.astype(np.int32)

    def initial(self, keys: tf.Tensor) -> DeepSeaState:
        zero = tf.zeros(keys.shape[:1], tf.int32)
        return DeepSeaState(zero, zero)

    def observe(self, state: DeepSeaState) -> tf.Tensor:
        # All zero past the last row
        return tf.one_hot(state.row * self.size + state.column, self.size * self.size)

    def transition(
        self, state: DeepSeaState, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[DeepSeaState, tf.Tensor, tf.Tensor]:
        last = self.size - 1
        cell = tf.minimum(state.row, last) * self.size + state.column
        right = action == tf.gather(self.right.ravel(), cell)
        found = right & (state.column == last)
        row = tf.minimum(state.row + 1, self.size)
        column = tf.clip_by_value(state.column + tf.where(right, 1, -1), 0, last)
        reward = tf.where(found, 1.0, 0.0) - tf.where(right, 0.01 / self.size, 0.0)
        return DeepSeaState(row, column), reward, row == self.size

    def render(self, state: DeepSeaState) -> np.ndarray:
        board = np.full((self.size + 1, self.size, 3), BLUE, np.uint8)
        board[-1] = GREY
        board[-2, -1] = ORANGE
        board[state.row, state.column] = RED
        return tiles(board)


class MemoryState(NamedTuple):
    """Index of the cue that was shown, and the steps since, each int32 [B]."""

    cue: tf.Tensor
    time: tf.Tensor


class Memory(CompiledEnvironment):
    """Remember a cue for `delay` blank steps and name it when asked.

    The reward is 1 for the right name, else 0. An episode is delay + 2 steps. A policy without
    memory earns 1 / choices on average. Observed as the cue, one-hot, and the question: float32
    [choices + 1].
    """

    name = "Memory"
    best_return = 1.0

    def __init__(
        self, choices: int = 4, delay: int = 4, max_episode_steps: int | None = None
    ) -> None:
        super().__init__(max_episode_steps)
        if choices < 2 or delay < 0:
            raise UserError(
                f"env.choices={choices}, env.delay={delay}: at least 2 choices, and no negative "
                "delay."
            )
        self.choices = choices
        self.delay = delay
        self.observation_space = _unit_box(choices + 1)
        self.action_space = spaces.Discrete(choices)

    def initial(self, keys: tf.Tensor) -> MemoryState:
        cue = tf.cast(random.integers(keys, 1, self.choices)[:, 0], tf.int32)
        return MemoryState(cue, tf.zeros_like(cue))

    def observe(self, state: MemoryState) -> tf.Tensor:
        asked = state.time == self.delay + 1
        shown = tf.where(state.time == 0, state.cue, tf.where(asked, self.choices, -1))  # -1: blank
        return tf.one_hot(shown, self.choices + 1)

    def transition(
        self, state: MemoryState, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[MemoryState, tf.Tensor, tf.Tensor]:
        asked = state.time == self.delay + 1
        reward = tf.where(asked & (action == state.cue), 1.0, 0.0)
        return MemoryState(state.cue, state.time + 1), reward, asked

    def render(self, state: MemoryState) -> np.ndarray:
        board = np.full((1, self.choices + 1, 3), GREY, np.uint8)
        board[0, -1] = GREEN if state.time == self.delay + 1 else WHITE
        if state.time == 0:
            board[0, state.cue] = ORANGE
        return tiles(board)


class PointMassState(NamedTuple):
    """Position and velocity on the plane, each float32 [B, 2]."""

    position: tf.Tensor
    velocity: tf.Tensor


class PointMass(CompiledEnvironment):
    """Bring a mass on a plane to rest at the origin by a force from -1 to 1 on each axis.

    An episode has 50 steps of 0.1 s. The mass starts at rest within a unit of the origin on each
    axis; the force accelerates it by up to `acceleration` units/s^2, below 0 against its sign. The
    reward is -(|position reached|^2 + |force|^2), a linear-quadratic regulator whose best
    controller stays within the bounds at accelerations of 2 and -2, so the best return there is
    known: the Riccati equation gives -3.00786 times the squared distance of the start, whose mean
    is 2/3 on two axes together. It never terminates. Doing nothing gives -33.3.
    """

    name = "PointMass"
    observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    max_episode_steps = 50
    best_return = -6.0157

    def __init__(self, max_episode_steps: int | None = None, acceleration: float = 2.0) -> None:
        super().__init__(max_episode_steps)
        self.acceleration = acceleration

    def initial(self, keys: tf.Tensor) -> PointMassState:
        position = 2.0 * random.uniform(keys, 2) - 1.0
        return PointMassState(position, tf.zeros_like(position))

    def observe(self, state: PointMassState) -> tf.Tensor:
        return tf.concat(state, axis=-1)  # [B, 4]

    def transition(
        self, state: PointMassState, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[PointMassState, tf.Tensor, tf.Tensor]:
        velocity = state.velocity + 0.1 * self.acceleration * action
        position = state.position + 0.1 * velocity
        cost = tf.reduce_sum(tf.square(position) + tf.square(action), axis=-1)
        return PointMassState(position, velocity), -cost, tf.zeros_like(cost, tf.bool)

    def render(self, state: PointMassState) -> np.ndarray:
        canvas = Canvas(-1.5, -1.5, 1.5, 1.5, width=240)
        canvas.disc((0.0, 0.0), 0.1, GREY)
        canvas.line([state.position, state.position + 0.3 * state.velocity], BLACK, 0.02)
        canvas.disc(state.position, 0.06, BLUE)
        return canvas.pixels()
