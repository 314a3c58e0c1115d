"""Maps of frozen lakes: drawn at random, judged, read and written.

A map is a board of the letters S (start), F (ice), H (hole) and G (goal), as Gymnasium's
FrozenLake has them; here the letters are numbers, their places in `LETTERS`.
"""

from pathlib import Path

import numpy as np

from sparring.data import host_random
from sparring.errors import UserError

LETTERS = "SFHG"
START, ICE, HOLE, GOAL = range(4)
_COLOURS = np.array([(240, 160, 40), (235, 240, 245), (40, 70, 130), (60, 170, 80)], np.uint8)
_STREAM = 0x1CE
_ROUND = 4096  # maps that are drawn at once


def random_maps(
    count: int, size: int, seed: int, frozen: float = 0.8, corners: bool = True
) -> np.ndarray:
    """Draw maps that can be solved, uint8 [count, size, size].

    A cell is ice with probability `frozen`, else a hole, and what cannot be solved is drawn again,
    as `gymnasium.envs.toy_text.frozen_lake.generate_random_map` does. With `corners` the start is
    at the top left and the goal at the bottom right, as there; else both lie anywhere.

    Raises:
        UserError: `count`, `size` or `frozen` allow no map.
    """
    if count < 1 or not 2 <= size <= 64:
        raise UserError(f"{count} maps of size {size}: at least one, of 2 to 64 cells each way.")
    if not 0.0 < frozen <= 1.0:
        raise UserError(f"frozen={frozen}: a probability above 0, up to 1.")
    found = np.zeros((0, size, size), np.uint8)
    drawn = 0
    while len(found) < count:
        maps = _drawn(size, seed, drawn, frozen, corners)
        found = np.concatenate([found, maps[is_valid(maps)]])
        drawn += 1
        if drawn == 100 and len(found) == 0:
            raise UserError(
                f"frozen={frozen}: of {100 * _ROUND} maps none can be solved: raise it."
            )
    return found[:count]


def _drawn(size: int, seed: int, number: int, frozen: float, corners: bool) -> np.ndarray:
    cells = size * size
    u = host_random.uniform(_ROUND * (cells + 2), seed, (_STREAM << 32) + number)
    u = u.reshape(_ROUND, cells + 2)
    maps = np.where(u[:, :cells] < frozen, ICE, HOLE).astype(np.uint8)
    start = np.zeros(_ROUND, np.int64)
    goal = np.full(_ROUND, cells - 1)
    if not corners:
        start = (u[:, cells] * cells).astype(np.int64)
        # Another cell than the start, each equally likely
        goal = (start + 1 + (u[:, cells + 1] * (cells - 1)).astype(np.int64)) % cells
    row = np.arange(_ROUND)
    maps[row, start] = START
    maps[row, goal] = GOAL
    return maps.reshape(_ROUND, size, size)


def has_one_of_each(maps: np.ndarray) -> np.ndarray:
    """Return whether maps [N, rows, columns] have one start and one goal, bool [N]."""
    starts = (maps == START).sum(axis=(1, 2))
    goals = (maps == GOAL).sum(axis=(1, 2))
    return (starts == 1) & (goals == 1)


def distances(maps: np.ndarray) -> np.ndarray:
    """Return the length of the shortest way from any start to any goal, int64 [N]; -1: none.

    Breadth-first search on all maps at once: each round reaches the neighbours of what is reached.
    """
    reached = maps == START
    found = np.full(len(maps), -1)
    for length in range(1, maps[0].size if len(maps) else 0):
        spread = reached.copy()
        spread[:, 1:] |= reached[:, :-1]
        spread[:, :-1] |= reached[:, 1:]
        spread[:, :, 1:] |= reached[:, :, :-1]
        spread[:, :, :-1] |= reached[:, :, 1:]
        spread &= maps != HOLE
        arrived = (spread & (maps == GOAL)).any(axis=(1, 2))
        found[arrived & (found < 0)] = length
        if (spread == reached).all():
            break
        reached = spread
    return found


def is_valid(maps: np.ndarray) -> np.ndarray:
    """Return whether maps have one start, one goal, and a way between them, bool [N]."""
    return has_one_of_each(maps) & (distances(maps) > 0)


def to_rows(maps: np.ndarray) -> np.ndarray:
    """Return maps as text, a string of letters a row, [N, rows]."""
    letters = np.array(list(LETTERS))[maps]  # [N, rows, columns]
    return np.ascontiguousarray(letters).view(f"U{maps.shape[2]}")[..., 0]


def load(path: str | Path) -> np.ndarray:
    """Read maps, uint8 [N, rows, columns], from the array `maps` of an .npz file.

    The array is text [N, rows], as `to_rows` makes it.

    Raises:
        UserError: there is no such file, or it holds no maps.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            rows = file["maps"] if "maps" in file.files else None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as an .npz file of maps ({error}).") from error
    if rows is None:
        raise UserError(
            f"{path}: it has no array `maps`: sparring sample writes one, of a run on "
            "data=frozen_lake_maps."
        )
    if rows.ndim != 2 or rows.dtype.kind != "U" or rows.size == 0:
        raise UserError(f"{path}: maps are text [N, rows], such as [['SF', 'HG']].")
    width = len(rows[0, 0])
    letters = np.ascontiguousarray(rows).view("U1").reshape(*rows.shape, -1)  # "" fills up
    numbers = np.full(letters.shape, len(LETTERS), np.uint8)
    for number, letter in enumerate(LETTERS):
        numbers[letters == letter] = number
    if width < 1 or letters.shape[2] != width or (numbers == len(LETTERS)).any():
        raise UserError(f"{path}: maps are of the letters S, F, H and G, in rows of equal length.")
    return numbers


def pictures(maps: np.ndarray, side: int = 12) -> np.ndarray:
    """Draw maps, uint8 [N, H, W, 3], `side` pixels a cell: holes dark, start orange, goal green."""
    cells = _COLOURS[maps].repeat(side, axis=1).repeat(side, axis=2)
    cells[:, ::side] = 200
    cells[:, :, ::side] = 200
    return cells


def grid(maps: np.ndarray, columns: int = 8) -> np.ndarray:
    """Draw up to `columns` squared maps in one image, uint8 [H, W, 3]."""
    drawn = np.pad(pictures(maps[: columns**2]), [(0, 0), (4, 4), (4, 4), (0, 0)], "constant")
    rows = -(-len(drawn) // columns)
    lacking = np.zeros((rows * columns - len(drawn), *drawn.shape[1:]), np.uint8)
    every = np.concatenate([drawn, lacking])
    _, height, width, _ = every.shape
    by_row = every.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
    return by_row.reshape(rows * height, columns * width, 3)
