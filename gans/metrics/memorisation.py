"""Test for training examples that a generator copies, by distances in pixels."""

import functools
from typing import Any

import numpy as np

from sparring.data.dataset import Data
from sparring.errors import UserError
from sparring.gans import image_grids
from sparring.gans.metrics import distances
from sparring.gans.metrics.base import Sample
from sparring.gans.metrics.extractors import flat

# Generated examples beside their nearest training example, and how many to a row
_SHOWN = 16
_COLUMNS = 4


class Memorisation:
    """Comparison of generated and unseen real examples by distance to training examples.

    The distance is that to the nearest training example, in pixels: of generated ones and of the
    real test split. `gan/nearer_than_test` is the share of pairs (generated, test) of which the
    generated one is nearer (ties count half): 0.5 for samples like the test split, 1 for copies,
    below 0.5 for poor ones too. This is the data-copying statistic of Meehan et al. 2020, "A
    non-parametric test to detect data-copying in generative models", with one cell. `gan/copies` is
    the share of generated ones nearer than all but `quantile` of the test split: `quantile` for
    samples like the test split. At most `reference` training examples are used.
    """

    descriptions = {  # noqa: RUF012
        "gan/nearer_than_test": "P(a generated example is nearer to training data than a real test "
        "one); 0.5 is fair.",
        "gan/copies": "Share of generated examples nearer to training data than nearly all real "
        "test ones.",
    }

    smaller = ("gan/nearer_than_test", "gan/copies")

    def __init__(
        self,
        data: Data,
        samples: int = 2000,
        reference: int | None = 50_000,
        quantile: float = 0.01,
    ) -> None:
        if data.count == 0:
            raise UserError("metric=memorisation: endless data cannot be memorised; leave it out.")
        if samples < 1 or not 0.0 < quantile < 1.0:
            raise UserError(
                f"metrics: samples={samples} (1 at least), quantile={quantile} (between 0 and 1)."
            )
        self.data = data
        self.samples = samples
        self.reference = reference
        self.quantile = quantile

    @functools.cached_property
    def notes(self) -> dict[str, Any]:
        """Protocol of the metric, as `Metric.notes`."""
        return {
            "samples": self.samples,
            "split": "train",
            "reference": len(self._train),
            "features": "pixels",
            "test examples": len(self._test_distances),
            "nearer "
            "than": f"the {self.quantile:g} quantile of their distances, {self._threshold:.4g}",
        }

    def __call__(self, sample: Sample) -> dict[str, float]:
        _, fake = distances.nearest(flat(sample(self.samples)[0]), flat(self._train))
        test = self._test_distances
        # Test examples no farther than each generated one
        nearer = np.searchsorted(test, fake, side="right")
        ties = nearer - np.searchsorted(test, fake, side="left")
        return {
            "gan/nearer_than_test": float(1.0 - (nearer - ties / 2.0).mean() / len(test)),
            "gan/copies": float((fake < self._threshold).mean()),
        }

    def pictures(self, sample: Sample) -> dict[str, np.ndarray]:
        """Show sixteen generated images, each left of the training image nearest to it."""
        if len(self.data.shape) != 3:
            return {}
        examples = sample(self.samples)[0][:_SHOWN]
        index, _ = distances.nearest(flat(examples), flat(self._train))
        pairs = np.concatenate([examples, self._train[index]], axis=2)  # [16, h, 2 w, C]
        return {"gan/nearest_neighbours": image_grids.grid(pairs, _COLUMNS)[np.newaxis]}

    @functools.cached_property
    def _train(self) -> np.ndarray:
        return self.data.examples("train", self.reference)[0]

    @functools.cached_property
    def _test_distances(self) -> np.ndarray:
        """Distances of the test split to its nearest training examples, in ascending order."""
        return np.sort(
            distances.nearest(flat(self.data.examples("test", self.samples)[0]), flat(self._train))[
                1
            ]
        )

    @property
    def _threshold(self) -> float:
        return float(np.quantile(self._test_distances, self.quantile))
