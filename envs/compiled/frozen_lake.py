"""Gymnasium's FrozenLake from any map, in TensorFlow ops.

Its transition table is the original's exactly; slips have the same probabilities.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from gymnasium import spaces

from sparring.envs.compiled.base import CompiledEnvironment
from sparring.envs.compiled.canvas import BLUE, GREEN, GREY, RED, WHITE, tiles
from sparring.envs.compiled.sampling import uniforms
from sparring.errors import UserError
from sparring.xla import random

SMALL = ("SFFF", "FHFH", "FFFH", "HFFG")
_MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0))  # left, down, right, up, in Gymnasium's order


class FrozenLakeState(NamedTuple):
    """Cell the agent stands on, int32 [B], counted row by row."""

    cell: tf.Tensor


class FrozenLake(CompiledEnvironment):
    """FrozenLake-v1: cross a frozen lake from S to G over F without falling into H.

    The reward is 1 at the goal, which ends the episode. On slippery ice a move goes where it should
    with `success_rate`, else to one of the two sides, equally often. Observed as the cell, one-hot,
    float32 [cells].

    Args:
        map: rows of equal length, of the letters S, F, H, G. With several S an episode opens at any
          of them.
        slippery: whether moves can fail.
        success_rate: the probability that they do not, on slippery ice.
        max_episode_steps: truncate episodes there; None: after 100, as Gymnasium's small lake.

    Raises:
        UserError: the map is no rectangle of these letters, or has no S or no G.
    """

    name = "FrozenLake-v1"
    action_space = spaces.Discrete(4)
    max_episode_steps = 100

    def __init__(
        self,
        map: Sequence[str] = SMALL,
        slippery: bool = True,
        success_rate: float = 1 / 3,
        max_episode_steps: int | None = None,
    ) -> None:
        super().__init__(max_episode_steps)
        _check_map(map)
        if not 0.0 <= success_rate <= 1.0:
            raise UserError(f"env.success_rate={success_rate}: a probability is from 0 to 1.")
        self.map = np.array([list(row) for row in map])  # [rows, columns] letters
        letters = self.map.ravel()
        self.observation_space = spaces.Box(0.0, 1.0, (letters.size,), np.float32)
        self._starts = np.flatnonzero(letters == "S").astype(np.int32)
        self._goal = letters == "G"
        self._end = (letters == "G") | (letters == "H")
        self._next = neighbours(*self.map.shape)  # [cells, 4]
        side = (1.0 - success_rate) / 2.0 if slippery else 0.0
        # A uniform number below `_left_of` slips left, one from `_right_from` on slips right
        self._left_of = side
        self._right_from = 1.0 - side

    def initial(self, keys: tf.Tensor) -> FrozenLakeState:
        if len(self._starts) == 1:
            return FrozenLakeState(tf.fill(keys.shape[:1], tf.constant(self._starts[0])))
        return FrozenLakeState(
            tf.gather(self._starts, random.integers(keys, 1, len(self._starts))[:, 0])
        )

    def observe(self, state: FrozenLakeState) -> tf.Tensor:
        return tf.one_hot(state.cell, self.map.size)

    def transition(
        self, state: FrozenLakeState, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[FrozenLakeState, tf.Tensor, tf.Tensor]:
        action = slipped(action, keys, self._left_of)
        cell = tf.gather(self._next.ravel(), state.cell * 4 + action)
        return (
            FrozenLakeState(cell),
            tf.cast(tf.gather(self._goal, cell), tf.float32),
            tf.gather(self._end, cell),
        )

    @property
    def best_return(self) -> float:
        """Return of the best policy, which minds how many steps are left, by backward induction."""
        chances = np.array(
            [self._left_of, self._right_from - self._left_of, 1.0 - self._right_from]
        )
        value = np.zeros(self.map.size)  # value of a cell with no step left
        for _ in range(self.max_episode_steps):
            reached = self._goal + ~self._end * value  # [cells]: value of arriving in a cell
            moves = reached[self._next]  # [cells, 4]
            value = sum(
                c * np.roll(moves, -turn, axis=1)
                for c, turn in zip(chances, (-1, 0, 1), strict=True)
            ).max(1)
        return float(value[self._starts].mean())

    def render(self, state: FrozenLakeState) -> np.ndarray:
        palette = {"S": GREY, "F": WHITE, "H": BLUE, "G": GREEN}
        board = np.empty((*self.map.shape, 3), np.uint8)
        for letter, colour in palette.items():
            board[self.map == letter] = colour
        board.reshape(-1, 3)[state.cell] = RED
        image = tiles(board)
        image[:: image.shape[0] // len(board)] = GREY
        return image


def neighbours(rows: int, columns: int) -> np.ndarray:
    """Return the cell that each move leads to from each cell, int32 [rows * columns, 4].

    The edges of the map stop a move.
    """
    row, column = np.divmod(np.arange(rows * columns), columns)
    moved = [
        (np.clip(row + dr, 0, rows - 1), np.clip(column + dc, 0, columns - 1)) for dr, dc in _MOVES
    ]
    return np.stack([r * columns + c for r, c in moved], axis=1).astype(np.int32)


def slipped(action: tf.Tensor, keys: tf.Tensor, side: float) -> tf.Tensor:
    """Return the moves [B] that actions [B] become on ice where each side has probability `side`.

    A uniform number below `side` slips left, one from 1 - `side` on slips right.
    """
    if side == 0.0:
        return action
    (number,) = uniforms(keys, 1)
    turn = tf.where(number < side, 3, tf.where(number >= 1.0 - side, 1, 0))
    return (action + turn) % 4


def _check_map(map: Sequence[str]) -> None:
    if not map or any(not isinstance(row, str) or len(row) != len(map[0]) for row in map):
        raise UserError(f"env.map={list(map)}: its rows must be strings of equal length.")
    letters = set("".join(map))
    if letters - set("SFHG") or not {"S", "G"} <= letters:
        raise UserError(
            f"env.map={list(map)}: it is written in S, F, H and G, with at least one S and one G."
        )
