"""Scores over an extractor's features.

Frechet and kernel distance; precision, recall, density and coverage.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from sparring.data.dataset import Data
from sparring.data.splits import SPLITS
from sparring.errors import UserError
from sparring.gans.metrics import distances
from sparring.gans.metrics.base import Sample
from sparring.gans.metrics.extractors import Extractor

Features = Sequence[np.ndarray]  # of each of an extractor's members, [N, D]


class Score(Protocol):
    """Score of generated features [N, D] against real ones [M, D]: `(prepare(real), fake)`.

    The result of `prepare` is kept for all later calls.
    """

    parts: Mapping[
        str, tuple[str, str]
    ]  # name -> its tag, {} standing for the extractor, and what it measures
    distance: bool  # whether less is better
    fewest: int  # examples of either kind that it can be taken of

    def prepare(self, real: np.ndarray) -> Any:
        """Compute what the score needs of the real features."""

    def __call__(self, prepared: Any, fake: np.ndarray) -> Mapping[str, float]:
        """Compute values by name."""


class Frechet:
    """Squared Frechet distance between Gaussians fitted to the features.

    Tags: `fid_classifier`, `fid_random`, `fid`.
    """

    distance = True
    fewest = 2
    parts: Mapping[str, tuple[str, str]] = {
        "frechet": (
            "gan/fid{}",
            "Squared Frechet distance between Gaussians fitted to the features; 0 is best.",
        )
    }

    def prepare(self, real: np.ndarray) -> distances.Moments:
        """Compute moments, as `Score.prepare`."""
        return distances.moments(real)

    def __call__(self, prepared: distances.Moments, fake: np.ndarray) -> dict[str, float]:
        return {"frechet": distances.frechet(prepared, distances.moments(fake))}


class Kernel:
    """Unbiased kernel distance, `kid_classifier` and so on.

    For few samples: their number does not bias it.
    """

    distance = True
    fewest = 2
    parts: Mapping[str, tuple[str, str]] = {
        "kernel": (
            "gan/kid{}",
            "Unbiased squared kernel distance, (x.y / D + 1)^3 over all pairs; 0 is best.",
        )
    }

    def prepare(self, real: np.ndarray) -> tuple[np.ndarray, float]:
        """Compute the mean kernel within the real features, as `Score.prepare`."""
        return real, distances.kernel_within(real)

    def __call__(self, prepared: tuple[np.ndarray, float], fake: np.ndarray) -> dict[str, float]:
        real, within = prepared
        return {
            "kernel": within
            + distances.kernel_within(fake)
            - 2.0 * distances.kernel_between(real, fake)
        }


class Neighbours:
    """Precision, recall, density and coverage from balls of the `k`-th nearest neighbour.

    `suffix` ends their tags.
    """

    distance = False

    def __init__(self, k: int = 5, suffix: str = "") -> None:
        if k < 1:
            raise UserError(f"scores.k={k}: 1 at least.")
        self.k = k
        self.fewest = k + 1
        ball = f"ball (radius: its distance to real neighbour number {k})"
        said = {
            "precision": f"Share of generated examples in some real one's {ball}; 1 is best.",
            "recall": "The same the other way round: real examples in balls of generated ones, k "
            f"= {k}; 1 is best.",
            "density": f"Number of real ones whose {ball} holds a generated example, by {k}, on "
            "average; 1 is best.",
            "coverage": f"Share of real examples whose {ball} holds a generated one; 1 is best.",
        }
        self.parts = {name: (f"gan/{name}{suffix}", text) for name, text in said.items()}

    def prepare(self, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute radii, as `Score.prepare`."""
        return real, distances.radii(real, self.k)

    def __call__(
        self, prepared: tuple[np.ndarray, np.ndarray], fake: np.ndarray
    ) -> dict[str, float]:
        real, radius = prepared
        return distances.neighbours(real, fake, self.k, radius)


class FeatureScores:
    """Scores of generated against real examples over one extractor; a `Metric`.

    Features are computed once. `reference` examples of the train split (null: all) are the
    reference. Beside each score stands its floor, `..._floor`: the score of real examples of the
    test split, at most `samples` of them, in place of generated ones. No generator need be better;
    a Frechet distance and its floor compare fairly only at similar numbers of samples. Of an
    extractor with several networks each score is the mean. Features are held as float32: 4 * D
    bytes an example.
    """

    def __init__(
        self,
        data: Data,
        extractor: Callable[[Data], Extractor],
        scores: Sequence[Score],
        samples: int = 10_000,
        reference: int | None = 50_000,
    ) -> None:
        self.fewest = max(score.fewest for score in scores)
        if min(samples, samples if reference is None else reference) < self.fewest:
            raise UserError(
                f"metrics: samples={samples}, reference={reference}: {self.fewest} at least."
            )
        self.data = data
        self.scores = scores
        for split in SPLITS:
            self._enough(len(data.examples(split, self.fewest)[1]), f"the real {split} split")
        self.extractor = extractor(data)
        self.samples = samples
        self.reference = reference
        self._suffix = f"_{self.extractor.name}" if self.extractor.name else ""
        protocol = (
            f"Features: {self.extractor.name or 'Inception'}; {samples} samples against the real "
            "train split."
        )
        less = [tag for score in scores if score.distance for tag, _ in score.parts.values()]
        self.smaller = tuple(tag.format(self._suffix) for tag in less)
        self.descriptions = {}
        for tag, said in (part for score in scores for part in score.parts.values()):
            self.descriptions[tag.format(self._suffix)] = f"{said} {protocol}"
            self.descriptions[f"{tag.format(self._suffix)}_floor"] = (
                f"{said} The real test split's, in place of samples."
            )

    @functools.cached_property
    def notes(self) -> dict[str, Any]:
        """Protocol of the metric, as `Metric.notes`, with the floor."""
        return {
            "samples": self.samples,
            "split": "train",
            "reference": len(self._real[0]),
            **self.extractor.notes,
            "floor": self._floor,
            "floor's samples": len(self._test[0]),
        }

    def __call__(self, sample: Sample) -> dict[str, float]:
        examples = sample(self.samples)[0]
        self._enough(len(examples), "samples")
        return self._scores(self._of(examples)) | self._floor

    def _enough(self, count: int, what: str) -> None:
        if count < self.fewest:
            names = ", ".join(
                name for score in self.scores for name in score.parts if score.fewest > count
            )
            raise UserError(
                f"metrics: {names} of {count} examples ({what}): {self.fewest} are needed at least."
            )

    @functools.cached_property
    def _floor(self) -> dict[str, float]:
        return {f"{tag}_floor": value for tag, value in self._scores(self._test).items()}

    @functools.cached_property
    def _real(self) -> Features:
        return self._of(self.data.examples("train", self.reference)[0])

    @functools.cached_property
    def _prepared(self) -> list[list[Any]]:
        """Prepare each score with the real features of each member of the extractor."""
        return [[score.prepare(real) for real in self._real] for score in self.scores]

    @functools.cached_property
    def _test(self) -> Features:
        return self._of(self.data.examples("test", self.samples)[0])

    def _of(self, examples: np.ndarray) -> Features:
        return [member(examples) for member in self.extractor.members]

    def _scores(self, fake: Features) -> dict[str, float]:
        found: dict[str, float] = {}
        for score, prepared in zip(self.scores, self._prepared, strict=True):
            values = [score(*pair) for pair in zip(prepared, fake, strict=True)]
            for name, (tag, _) in score.parts.items():
                found[tag.format(self._suffix)] = float(np.mean([v[name] for v in values]))
        return found
