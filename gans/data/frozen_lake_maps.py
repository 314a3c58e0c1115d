"""Maps of frozen lakes as examples of a GAN."""

import numpy as np

from sparring.data import lake_maps
from sparring.data.dataset import Arrays
from sparring.errors import UserError
from sparring.training.trainer import Samples


class FrozenLakeMaps(Arrays):
    """Random maps that can be solved, as vectors [rows * columns * 4]; a `Data`.

    A cell is one-hot over S, F, H, G. `sparring.data.lake_maps.random_maps` draws them.

    Args:
      seed: of the order of the batches.
      size: rows and columns.
      train, test: number of maps.
      map_seed: of the maps, equal in all runs. No test map is a training map.
      frozen: probability of ice.
      corners: whether start and goal are in the corners; else anywhere.
    """

    def __init__(
        self,
        seed: int,
        size: int = 4,
        train: int = 1000,
        test: int = 1000,
        map_seed: int = 0,
        frozen: float = 0.8,
        corners: bool = False,
    ) -> None:
        if min(train, test) < 1:
            raise UserError(f"data.train={train}, data.test={test}: 1 at least.")
        self.size = size
        maps = lake_maps.random_maps(train, size, map_seed, frozen, corners)
        others = lake_maps.random_maps(2 * test, size, map_seed + 1, frozen, corners)
        others = others[~seen(others, maps)][:test]
        if len(others) < test:
            raise UserError(
                f"data.size={size}: too few maps differ to find data.test={test} beside "
                f"data.train={train}: take fewer, or larger ones."
            )
        super().__init__({"train": one_hot(maps), "test": one_hot(others)}, None, seed)

    def maps(self, examples: np.ndarray) -> np.ndarray:
        """Return the likeliest letters of examples [N, F] as maps uint8 [N, size, size]."""
        cells = examples.reshape(len(examples), self.size, self.size, len(lake_maps.LETTERS))
        return cells.argmax(axis=-1).astype(np.uint8)

    def drawn(self, examples: np.ndarray) -> Samples:
        """Return generated examples as `sparring sample` writes them: maps in letters."""
        maps = self.maps(examples)
        return Samples(
            {"maps": lake_maps.to_rows(maps)}, lake_maps.pictures(maps), lake_maps.grid(maps)
        )


def one_hot(maps: np.ndarray) -> np.ndarray:
    """Return maps uint8 [N, rows, columns] as vectors float32 [N, rows * columns * 4]."""
    return np.eye(len(lake_maps.LETTERS), dtype=np.float32)[maps].reshape(len(maps), -1)


def seen(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return whether each of `maps` [N, ...] is among `others` [M, ...], bool [N]."""
    known = {each.tobytes() for each in others}
    return np.array([each.tobytes() in known for each in maps], bool)
