"""FrozenLake whose episodes each draw a map from a set, seen from above."""

import logging
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from gymnasium import spaces

from sparring.data import lake_maps
from sparring.envs.compiled.base import CompiledEnvironment
from sparring.envs.compiled.canvas import BLUE, GREEN, GREY, RED, WHITE, tiles
from sparring.envs.compiled.frozen_lake import neighbours, slipped
from sparring.errors import UserError
from sparring.xla import random

_log = logging.getLogger("sparring")


class FrozenLakeMapsState(NamedTuple):
    """Number of the map, and cell the agent stands on, counted row by row: int32 [B] each."""

    map: tf.Tensor
    cell: tf.Tensor


class FrozenLakeMaps(CompiledEnvironment):
    """FrozenLake on a map that is drawn anew for every episode, from a file or at random.

    Rules and rewards are those of `sparring.envs.compiled.frozen_lake.FrozenLake`: 1 at the goal.
    Observed as a board, float32 [rows, columns, 3]: the holes, the goal, and the agent's cell.

    Args:
      maps: an .npz file with maps, as `sparring sample` writes it; None: random ones that can
        be solved, `size` squared, by `map_seed`. Maps without one start and one goal are left
        out.
      count: maps that are drawn at random, or the first so many of a file; None: all of it.
      size, map_seed, frozen, corners: of random maps; see
        `sparring.data.lake_maps.random_maps`.
      solvable: whether maps without a way from start to goal are left out too.
      slippery, success_rate: as in FrozenLake.
      max_episode_steps: truncate episodes there; None: after 100 steps.

    Raises:
      UserError: there is no such file, or no map is left.
    """

    name = "FrozenLakeMaps"
    action_space = spaces.Discrete(4)
    max_episode_steps = 100

    def __init__(
        self,
        maps: str | None = None,
        count: int | None = None,
        size: int = 4,
        map_seed: int = 0,
        frozen: float = 0.8,
        corners: bool = False,
        solvable: bool = False,
        slippery: bool = False,
        success_rate: float = 1 / 3,
        max_episode_steps: int | None = None,
    ) -> None:
        super().__init__(max_episode_steps)
        if not 0.0 <= success_rate <= 1.0:
            raise UserError(f"env.success_rate={success_rate}: a probability is from 0 to 1.")
        if count is not None and count < 1:
            raise UserError(f"env.count={count}: at least one map, or null for all.")
        if maps is None:
            self.maps = lake_maps.random_maps(count or 1000, size, map_seed, frozen, corners)
        else:
            self.maps = _kept(lake_maps.load(maps), f"env.maps={maps}", solvable)[:count]
        number, rows, columns = self.maps.shape
        self.observation_space = spaces.Box(0.0, 1.0, (rows, columns, 3), np.float32)
        cells = self.maps.reshape(number, -1)  # [M, cells]
        self._starts = (cells == lake_maps.START).argmax(axis=1).astype(np.int32)  # [M]
        self._holes = cells == lake_maps.HOLE
        self._goals = cells == lake_maps.GOAL
        self._next = neighbours(rows, columns)  # [cells, 4]
        self._side = (1.0 - success_rate) / 2.0 if slippery else 0.0

    def initial(self, keys: tf.Tensor) -> FrozenLakeMapsState:
        number = tf.cast(random.integers(keys, 1, len(self.maps))[:, 0], tf.int32)
        return FrozenLakeMapsState(number, tf.gather(self._starts, number))

    def observe(self, state: FrozenLakeMapsState) -> tf.Tensor:
        agent = tf.one_hot(state.cell, self._next.shape[0])  # [B, cells]
        holes = tf.cast(tf.gather(self._holes, state.map), tf.float32)
        goal = tf.cast(tf.gather(self._goals, state.map), tf.float32)
        board = tf.stack([holes, goal, agent], axis=-1)  # [B, cells, 3]
        return tf.reshape(board, [-1, *self.maps.shape[1:], 3])

    def transition(
        self, state: FrozenLakeMapsState, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[FrozenLakeMapsState, tf.Tensor, tf.Tensor]:
        move = slipped(action, keys, self._side)
        cell = tf.gather(self._next.ravel(), state.cell * 4 + move)
        index = state.map * self._next.shape[0] + cell
        arrived = tf.gather(self._goals.ravel(), index)
        fallen = tf.gather(self._holes.ravel(), index)
        reward = tf.cast(arrived, tf.float32)
        return FrozenLakeMapsState(state.map, cell), reward, arrived | fallen

    @property
    def best_return(self) -> float:
        """Share of the maps with a way to the goal, which is the best return without slips."""
        return float((lake_maps.distances(self.maps) > 0).mean())

    def render(self, state: FrozenLakeMapsState) -> np.ndarray:
        letters = self.maps[state.map]
        board = np.array([GREY, WHITE, BLUE, GREEN], np.uint8)[letters]  # as in LETTERS
        board.reshape(-1, 3)[state.cell] = RED
        return tiles(board)


def _kept(maps: np.ndarray, source: str, solvable: bool) -> np.ndarray:
    """Return the maps with one start and one goal, and a way if `solvable`; tell of the others."""
    fit = lake_maps.has_one_of_each(maps)
    way = lake_maps.distances(maps) > 0
    kept = fit & way if solvable else fit
    if not kept.any():
        raise UserError(f"{source}: none of its {len(maps)} maps has one start and one goal.")
    if not kept.all():
        _log.warning(
            "%s: %d of %d maps are left out: %d without one start and one goal%s.",
            source,
            (~kept).sum(),
            len(maps),
            (~fit).sum(),
            f", {(fit & ~way).sum()} without a way between them" if solvable else "",
        )
    if not solvable and (fit & ~way).any():
        _log.warning(
            "%s: %d of %d maps that are kept have no way from start to goal; env.solvable=true "
            "leaves them out.",
            source,
            (fit & ~way).sum(),
            kept.sum(),
        )
    return maps[kept]
