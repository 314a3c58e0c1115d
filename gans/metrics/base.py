"""Metric protocol, and the evaluation of several metrics on the same samples."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import numpy as np

from sparring.data.dataset import Data
from sparring.errors import UserError, warn_once

# sample(n): n generated examples float32 [n, *shape] in the data's range, and their labels int64
# [n]
Sample = Callable[[int], tuple[np.ndarray, np.ndarray]]


class Metric(Protocol):
    """Deterministic score of generated examples, built for one data set.

    A metric with a method `pictures(sample) -> dict[str, np.ndarray]` also returns images: uint8
    [N, H, W, C] by tag.
    """

    descriptions: Mapping[str, str]  # tag -> what it measures, its unit and protocol
    samples: int  # number of generated examples
    smaller: Collection[str]  # the tags of which less is better

    @property
    def notes(self) -> Mapping[str, Any]:
        """Protocol of the metric, as plain values: samples, split, features, extractor's hash."""

    def __call__(self, sample: Sample) -> dict[str, float]:
        """Compute values by tag."""


class Metrics:
    """Several metrics, by name, over the same samples; itself a metric.

    `makers` build each from the data. The largest number of samples that any of them needs is drawn
    once, and each uses the first of them. Raises UserError when two would write one tag.
    """

    def __init__(self, data: Data, makers: Mapping[str, Callable[[Data], Metric]]) -> None:
        self.parts = {name: make(data) for name, make in makers.items()}
        self.samples = max((part.samples for part in self.parts.values()), default=0)
        self.descriptions: dict[str, str] = {}
        self.smaller = frozenset[str]().union(*(part.smaller for part in self.parts.values()))
        for name, part in self.parts.items():
            twice = sorted(self.descriptions.keys() & part.descriptions.keys())
            if twice:
                raise UserError(
                    f"metrics.{name}: another metric measures {twice[0]} already: leave one out."
                )
            self.descriptions |= part.descriptions

    @property
    def notes(self) -> dict[str, Any]:
        """Notes of each metric, by its name."""
        return {name: dict(part.notes) for name, part in self.parts.items()}

    def __call__(self, sample: Sample) -> dict[str, float]:
        shared = self._shared(sample)
        found = {tag: value for part in self.parts.values() for tag, value in part(shared).items()}
        _tell_of_few(found, self.smaller)
        return found

    def pictures(self, sample: Sample) -> dict[str, np.ndarray]:
        """Return the images of those metrics that have any, uint8 [N, H, W, C] by tag."""
        shared = self._shared(sample)
        found: dict[str, np.ndarray] = {}
        for part in self.parts.values():
            pictures = getattr(part, "pictures", None)  # optional in a metric
            if pictures is not None:
                found |= pictures(shared)
        return found

    def features(self, examples: np.ndarray) -> np.ndarray:
        """Return features [N, D], float32, of examples [N, ...] by the first extractor of a metric.

        Returns the examples themselves if there is none.
        """
        for part in self.parts.values():
            extractor = getattr(part, "extractor", None)  # optional in a metric
            if extractor is not None:
                return extractor.members[0](examples)
        return examples.reshape(len(examples), -1)

    def _shared(self, sample: Sample) -> Sample:
        if not self.parts:
            return sample
        examples, labels = sample(self.samples)
        return lambda count: (examples[:count], labels[:count])


def _tell_of_few(found: Mapping[str, float], smaller: Collection[str]) -> None:
    """Say so if generated examples score better than real ones, of which there are too few then."""
    for tag in smaller:
        floor = found.get(f"{tag}_floor")
        if floor is not None and found.get(tag, floor) < floor:
            warn_once(
                f"{tag} is below {tag}_floor, the score of the real test split: that split is too "
                "small for the score to tell more. Take more test examples."
            )
