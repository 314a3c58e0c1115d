"""Sliced Wasserstein distance between real and generated examples."""

import functools
from typing import Any

import numpy as np

from sparring.data.dataset import Data
from sparring.errors import UserError
from sparring.gans.metrics import distances
from sparring.gans.metrics.base import Sample
from sparring.gans.metrics.extractors import flat
from sparring.xla import random


class SlicedWasserstein:
    """Sliced 2-Wasserstein distance along `directions` fixed random lines, in units of data.

    As many generated as real examples of the train split, at most `samples`. The floor compares as
    many examples of the test split with the train split.
    """

    descriptions = {  # noqa: RUF012
        "gan/sliced_wasserstein": "Sliced 2-Wasserstein distance to the real train split, in units "
        "of data; 0 is best.",
        "gan/sliced_wasserstein_floor": "The same of the real test split to the train split, at "
        "fewer examples.",
    }

    smaller = ("gan/sliced_wasserstein",)

    def __init__(self, data: Data, samples: int = 10_000, directions: int = 256) -> None:
        if min(samples, directions) < 1:
            raise UserError(f"metrics: samples={samples}, directions={directions}: 1 at least.")
        self.data = data
        self.directions = _directions(directions, int(np.prod(data.shape)))
        self._real = flat(data.examples("train", samples)[0])
        self.samples = len(self._real)

    @functools.cached_property
    def notes(self) -> dict[str, Any]:
        """Protocol of the metric, as `Metric.notes`."""
        return {
            "samples": self.samples,
            "split": "train",
            "reference": self.samples,
            "directions": len(self.directions),
            "floor": self._floor[0],
            "floor's samples": self._floor[1],
        }

    def __call__(self, sample: Sample) -> dict[str, float]:
        found = self._distance(flat(sample(self.samples)[0]))
        return {"gan/sliced_wasserstein": found, "gan/sliced_wasserstein_floor": self._floor[0]}

    @functools.cached_property
    def _floor(self) -> tuple[float, int]:
        test = flat(self.data.examples("test", self.samples)[0])
        return self._distance(test), min(len(test), self.samples)

    def _distance(self, fake: np.ndarray) -> float:
        """Compute the distance to as many real examples as there are fake ones.

        Examples of the train split come in no order.
        """
        return distances.sliced_wasserstein(
            self._subset(len(fake)), fake[: self.samples], self.directions
        )

    def _subset(self, count: int) -> np.ndarray:
        if count >= len(self._real):
            return self._real
        return flat(self.data.examples("train", count)[0])


def _directions(count: int, dimension: int) -> np.ndarray:
    """Draw unit vectors, float64 [count, dimension]."""
    key = random.members(random.stream(0, "sliced Wasserstein"), count)
    lines = np.asarray(random.normal(key, dimension), np.float64)
    return lines / np.linalg.norm(lines, axis=1, keepdims=True)
