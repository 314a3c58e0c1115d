"""Validity, novelty and variety of generated maps of frozen lakes."""

from typing import Any

import numpy as np

from sparring.data import lake_maps
from sparring.errors import UserError
from sparring.gans.data.frozen_lake_maps import FrozenLakeMaps, seen
from sparring.gans.metrics.base import Sample


class LakeMaps:
    """Shares of generated maps that can be solved, are new, and differ from each other.

    All are exact: a map is searched breadth first.
    """

    descriptions = {  # noqa: RUF012
        "gan/valid": "Share of generated maps with one start, one goal and a way between them.",
        "gan/novel": "Share of the valid ones that are not in the training set.",
        "gan/distinct": "Share of generated maps that occur once among them, or first.",
        "gan/fresh": "Number of different maps among them that are valid and not in the training "
        "set, as a share of all: valid, novel and distinct at once.",
        "gan/way": "Shortest way from start to goal, in steps, mean over the valid ones.",
        "gan/way_floor": "The same of the test split's maps.",
    }
    smaller = ()

    def __init__(self, data: Any, samples: int = 2000) -> None:
        if not isinstance(data, FrozenLakeMaps):
            raise UserError("metric=maps judges maps: choose data=frozen_lake_maps.")
        self.data = data
        self.samples = samples
        self._train = data.maps(data.examples("train")[0])
        test = data.maps(data.examples("test")[0])
        self._floor = float(lake_maps.distances(test).mean())

    @property
    def notes(self) -> dict[str, Any]:
        """Protocol of the metric, as `Metric.notes`."""
        return {"samples": self.samples, "training maps": len(self._train)}

    def __call__(self, sample: Sample) -> dict[str, float]:
        maps = self.data.maps(sample(self.samples)[0])
        valid = lake_maps.is_valid(maps)
        new = ~seen(maps, self._train)
        count = max(int(valid.sum()), 1)
        ways = lake_maps.distances(maps)[valid]
        return {
            "gan/valid": float(valid.mean()),
            "gan/novel": float((valid & new).sum() / count),
            "gan/distinct": _different(maps) / len(maps),
            "gan/fresh": _different(maps[valid & new]) / len(maps),
            "gan/way": float(ways.sum() / count),
            "gan/way_floor": self._floor,
        }

    def pictures(self, sample: Sample) -> dict[str, np.ndarray]:
        """Draw the first generated maps, and real ones."""
        real = self.data.maps(self.data.examples("test", 64)[0])
        maps = self.data.maps(sample(self.samples)[0])
        return {
            "gan/maps": lake_maps.grid(maps)[np.newaxis],
            "gan/real_maps": lake_maps.grid(real)[np.newaxis],
        }


def _different(maps: np.ndarray) -> int:
    return len({each.tobytes() for each in maps})
