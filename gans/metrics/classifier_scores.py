"""Scores from a classifier's predictions on generated examples."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sparring.data.dataset import Data
from sparring.errors import UserError
from sparring.gans.data.stacked_digits import StackedDigits
from sparring.gans.metrics.base import Sample
from sparring.gans.metrics.classifier import Classifier
from sparring.gans.metrics.mode_coverage import divergence


def inception_form(probabilities: np.ndarray) -> float:
    """Compute exp of the mean KL(p(y|x) || p(y)) from p(y|x) [N, classes] (Salimans et al. 2016).

    1 if all predictions are equal, the number of classes if each is certain and classes are even.
    Over all examples at once, not ten parts.
    """
    p = probabilities.astype(np.float64)
    marginal = p.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0.0, p * np.log(p / marginal), 0.0)
    return float(np.exp(terms.sum(axis=1).mean()))


class Judged:
    """Inception score by a classifier, `is_classifier`, and accuracy of the labels asked for.

    `label_accuracy`: whether the generator is conditional, so that its labels mean something. The
    floor is of the real test split.
    """

    smaller = ()

    def __init__(
        self,
        data: Data,
        extractor: Callable[[Data], Classifier] = Classifier,
        samples: int = 10_000,
        label_accuracy: bool = False,
    ) -> None:
        self.data = data
        self.classifier = extractor(data)
        self.samples = samples
        said = {
            "gan/is_classifier": "Inception score's form, exp E KL(p(y|x) || p(y)); best "
            f"{data.classes} if even."
        }
        if label_accuracy:
            said["gan/label_accuracy"] = (
                "Share of generated examples that the classifier names by their label."
            )
        floors = {f"{tag}_floor": f"{text} Of the real test split." for tag, text in said.items()}
        self.descriptions: Mapping[str, str] = said | floors

    @functools.cached_property
    def notes(self) -> dict[str, Any]:
        """Protocol of the metric, as `Metric.notes`."""
        return {
            "samples": self.samples,
            **self.classifier.notes,
            "floor": self._floor,
            "floor's samples": len(self.data.examples("test", self.samples)[1]),
        }

    def __call__(self, sample: Sample) -> dict[str, float]:
        found = self._scores(*sample(self.samples)) | {
            f"{t}_floor": value for t, value in self._floor.items()
        }
        return {tag: found[tag] for tag in self.descriptions}

    @functools.cached_property
    def _floor(self) -> dict[str, float]:
        return self._scores(*self.data.examples("test", self.samples))

    def _scores(self, examples: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        p = self.classifier.probabilities(examples)
        return {
            "gan/is_classifier": inception_form(p),
            "gan/label_accuracy": float((p.argmax(axis=1) == labels).mean()),
        }


class StackedModes:
    """Modes of stacked digits that are covered, of 1000, and the reverse KL divergence.

    A classifier of single digits predicts each channel's digit; the number they form is the mode.
    PacGAN's protocol (Lin et al. 2018, section 4.2) with 26 000 samples. KL(generated || real) in
    nats, the real shares being products of the digits' shares in the train split. The floor is of
    the real test split.
    """

    descriptions = {  # noqa: RUF012
        "gan/modes": "Of 1000 numbers those that at least one generated example shows, by a "
        "classifier of its digits.",
        "gan/reverse_kl": "KL(generated || real) between the shares of the numbers shown, in nats; "
        "0 is best.",
        "gan/modes_floor": "Numbers that the real test split shows, by the same classifier.",
        "gan/reverse_kl_floor": "KL(generated || real) of the real test split, by the same "
        "classifier.",
    }

    smaller = ("gan/reverse_kl",)

    def __init__(
        self, data: Any, extractor: Callable[[Data], Classifier] = Classifier, samples: int = 26_000
    ) -> None:
        if not isinstance(data, StackedDigits):
            raise UserError(
                "metric=stacked_modes counts the numbers that digits make: choose "
                "data=stacked_digits."
            )
        self.data = data
        self.classifier = extractor(data.digits)
        self.samples = samples

    @functools.cached_property
    def notes(self) -> dict[str, Any]:
        """Protocol of the metric, as `Metric.notes`."""
        return {
            "samples": self.samples,
            "modes": 1000,
            "split": "train",
            **self.classifier.notes,
            "floor": self._floor,
            "floor's samples": len(self.data.examples("test", self.samples)[1]),
        }

    def __call__(self, sample: Sample) -> dict[str, float]:
        return self._scores(sample(self.samples)[0]) | {
            f"{tag}_floor": v for tag, v in self._floor.items()
        }

    @functools.cached_property
    def _floor(self) -> dict[str, float]:
        return self._scores(self.data.examples("test", self.samples)[0])

    @functools.cached_property
    def _real(self) -> np.ndarray:
        """Shares of the thousand numbers in the real data, [1000]."""
        digit = (
            np.bincount(self.data.digits.examples("train")[1], minlength=10)
            / self.data.digits.count
        )
        return np.einsum("r,g,b->rgb", digit, digit, digit).ravel()

    def _scores(self, images: np.ndarray) -> dict[str, float]:
        digits = [
            self.classifier.probabilities(images[..., c, np.newaxis]).argmax(axis=1)
            for c in range(3)
        ]
        counts = np.bincount(np.stack(digits, axis=1) @ np.array((100, 10, 1)), minlength=1000)
        return {
            "gan/modes": float((counts > 0).sum()),
            "gan/reverse_kl": divergence(counts / len(images), self._real),
        }
