"""Scores that need no features: sliced Wasserstein distance, and whether training examples are copied."""

import functools
from typing import Any

import numpy as np

from gans import pictures
from gans.metrics import distances
from gans.metrics.extractors import flat
from gans.metrics.metric import Sample
from research import random
from research.data import Data
from research.errors import UserError

_SHOWN, _COLUMNS = 16, 4  # generated examples beside their nearest training example, and how many to a row


class SlicedWasserstein:
    """The root mean square 2-Wasserstein distance along `directions` random lines, always the same, in units of data.

    As many generated as real examples of the train split, at most `samples`. The floor holds as many examples of the
    test split against the train split.
    """

    descriptions = {  # noqa: RUF012
        "gan/sliced_wasserstein": "Sliced 2-Wasserstein distance to the real train split, in units of data; 0 is best.",
        "gan/sliced_wasserstein_floor": "The same of the real test split to the train split, at fewer examples.",
    }

    smaller = ("gan/sliced_wasserstein",)

    def __init__(self, data: Data, samples: int = 10_000, directions: int = 256) -> None:
        if min(samples, directions) < 1:
            raise UserError(f"metrics: samples={samples}, directions={directions}: 1 at least.")
        self.data, self.directions = data, _directions(directions, int(np.prod(data.shape)))
        self._real = flat(data.examples("train", samples)[0])
        self.samples = len(self._real)

    @functools.cached_property
    def notes(self) -> dict[str, Any]:
        """As `Metric.notes`."""
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
        """To as many real examples as there are fake ones; the train split's come in no order."""
        return distances.sliced_wasserstein(self._subset(len(fake)), fake[: self.samples], self.directions)

    def _subset(self, count: int) -> np.ndarray:
        if count >= len(self._real):
            return self._real
        return flat(self.data.examples("train", count)[0])


def _directions(count: int, dimension: int) -> np.ndarray:
    """Unit vectors, float64 [count, dimension]."""
    key = random.members(random.stream(0, "sliced Wasserstein"), count)
    lines = np.asarray(random.normal(key, dimension), np.float64)
    return lines / np.linalg.norm(lines, axis=1, keepdims=True)


class Memorisation:
    """Whether generated examples lie nearer to training examples than unseen real ones do.

    Each example's distance, in pixels, to the nearest training example: of generated ones and of the real test split.
    `gan/nearer_than_test` is the share of pairs (generated, test) of which the generated one is nearer (ties count
    half): 0.5 for samples like the test split, 1 for copies, below 0.5 for poor ones too. It is the data-copying
    statistic of Meehan et al. 2020, "A non-parametric test to detect data-copying in generative models", with one cell.
    `gan/copies` is the share of generated ones nearer than all but `quantile` of the test split: `quantile` for samples
    like the test split. At most `reference` training examples are looked at.
    """

    descriptions = {  # noqa: RUF012
        "gan/nearer_than_test": "P(a generated example is nearer to training data than a real test one); 0.5 is fair.",
        "gan/copies": "Share of generated examples nearer to training data than nearly all real test ones.",
    }

    smaller = ("gan/nearer_than_test", "gan/copies")

    def __init__(self, data: Data, samples: int = 2000, reference: int | None = 50_000, quantile: float = 0.01) -> None:
        if data.count == 0:
            raise UserError("metric=memorisation: endless data cannot be memorised; leave it out.")
        if samples < 1 or not 0.0 < quantile < 1.0:
            raise UserError(f"metrics: samples={samples} (1 at least), quantile={quantile} (between 0 and 1).")
        self.data, self.samples, self.reference, self.quantile = data, samples, reference, quantile

    @functools.cached_property
    def notes(self) -> dict[str, Any]:
        """As `Metric.notes`."""
        return {
            "samples": self.samples,
            "split": "train",
            "reference": len(self._train),
            "features": "pixels",
            "test examples": len(self._test_distances),
            "nearer than": f"the {self.quantile:g} quantile of their distances, {self._threshold:.4g}",
        }

    def __call__(self, sample: Sample) -> dict[str, float]:
        _, fake = distances.nearest(flat(sample(self.samples)[0]), flat(self._train))
        test = self._test_distances
        nearer = np.searchsorted(test, fake, side="right")  # test examples no farther than each generated one
        ties = nearer - np.searchsorted(test, fake, side="left")
        return {
            "gan/nearer_than_test": float(1.0 - (nearer - ties / 2.0).mean() / len(test)),
            "gan/copies": float((fake < self._threshold).mean()),
        }

    def pictures(self, sample: Sample) -> dict[str, np.ndarray]:
        """Sixteen generated images, each with the training image nearest to it at its right: one picture."""
        if len(self.data.shape) != 3:
            return {}
        examples = sample(self.samples)[0][:_SHOWN]
        index, _ = distances.nearest(flat(examples), flat(self._train))
        pairs = np.concatenate([examples, self._train[index]], axis=2)  # [16, h, 2 w, C]
        return {"gan/nearest_neighbours": pictures.grid(pairs, _COLUMNS)[np.newaxis]}

    @functools.cached_property
    def _train(self) -> np.ndarray:
        return self.data.examples("train", self.reference)[0]

    @functools.cached_property
    def _test_distances(self) -> np.ndarray:
        """Of the test split to its nearest training examples, in rising order."""
        return np.sort(distances.nearest(flat(self.data.examples("test", self.samples)[0]), flat(self._train))[1])

    @property
    def _threshold(self) -> float:
        return float(np.quantile(self._test_distances, self.quantile))
