"""Coverage of the modes of a known mixture, and quality of the samples."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from sparring.errors import UserError
from sparring.gans.data.mixtures import Mixture
from sparring.gans.metrics.base import Sample

_BLOCK = 4096  # samples whose distances to all centers are held at once
_SIDE = 512  # of the picture, in pixels
_GROUND = (255, 255, 255)
_MODE = (170, 170, 170)
_GOOD = (31, 119, 180)
_POOR = (214, 39, 40)


class MixtureModes:
    """Modes covered, share of high quality and reverse KL divergence of a mixture's samples.

    Lin et al. 2018, "PacGAN", section 4.1. A sample belongs to its nearest center and is of high
    quality within three standard deviations of it. A mode is covered by one sample of high quality.
    The divergence KL(generated || real) in nats is between the shares of samples per mode, all
    samples counted, and even shares; it is 0 for even shares and log(modes) for a single mode.
    """

    descriptions = {  # noqa: RUF012
        "gan/modes": "Modes with at least one generated example within 3 sigma of their center.",
        "gan/high_quality": "Share of generated examples within 3 sigma of the nearest mode's "
        "center.",
        "gan/reverse_kl": "KL(generated || real) between the shares of examples per nearest mode, "
        "in nats; 0 is best.",
    }

    smaller = ("gan/reverse_kl",)

    def __init__(self, data: Any, samples: int = 2500) -> None:
        if not isinstance(data, Mixture):
            raise UserError(
                "metric=modes counts the modes of a mixture: choose data=ring or data=grid."
            )
        self.data = data
        self.samples = samples

    @property
    def notes(self) -> dict[str, Any]:
        """Protocol of the metric, as `Metric.notes`."""
        return {
            "samples": self.samples,
            "modes": self.data.classes,
            "sigma": self.data.sigma,
            "high quality": "within 3 sigma of the nearest center",
        }

    def __call__(self, sample: Sample) -> dict[str, float]:
        mode, good = self._assign(sample(self.samples)[0])
        shares = np.bincount(mode, minlength=self.data.classes) / len(mode)
        return {
            "gan/modes": float(len(np.unique(mode[good]))),
            "gan/high_quality": float(good.mean()),
            "gan/reverse_kl": divergence(
                shares, np.full(self.data.classes, 1.0 / self.data.classes)
            ),
        }

    def _assign(self, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return each example's nearest mode, int64 [N], and whether it is of high quality [N]."""
        modes, distances = zip(*self._nearest(examples), strict=True)
        return np.concatenate(modes), np.concatenate(distances) <= 3.0 * self.data.sigma

    def _nearest(self, examples: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        centers = self.data.centers.astype(np.float64)
        for start in range(0, len(examples), _BLOCK):
            block = examples[start : start + _BLOCK].astype(np.float64)
            distance = np.linalg.norm(block[:, np.newaxis] - centers, axis=-1)  # [b, K]
            mode = distance.argmin(axis=1)
            yield mode, np.take_along_axis(distance, mode[:, np.newaxis], axis=1)[:, 0]

    def pictures(self, sample: Sample) -> dict[str, np.ndarray]:
        """Plot the first two dimensions: modes grey, samples blue if of high quality, else red."""
        examples = sample(self.samples)[0]
        _, good = self._assign(examples)
        picture = np.full((_SIDE, _SIDE, 3), _GROUND, np.uint8)
        reach = 1.25 * max(float(abs(self.data.centers[:, :2]).max()), 4.0 * self.data.sigma)
        for dots, colour, size in (
            (self.data.centers, _MODE, max(3, round(3.0 * self.data.sigma / reach * _SIDE / 2))),
            (examples[~good], _POOR, 1),
            (examples[good], _GOOD, 1),
        ):
            _dot(picture, dots[:, :2] / reach, colour, size)
        return {"gan/plane": picture[np.newaxis]}


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Compute KL(p || q) in nats between distributions [K]; infinite if p > 0 where q = 0."""
    some = p > 0
    with np.errstate(divide="ignore"):
        return float(np.sum(p[some] * np.log(p[some] / q[some])))


def _dot(picture: np.ndarray, points: np.ndarray, colour: tuple[int, int, int], size: int) -> None:
    """Draw squares of 2 * size + 1 pixels around points [N, 2] in [-1, 1], y pointing up.

    Points outside are left out.
    """
    at = np.floor((points * (1, -1) + 1.0) * (_SIDE / 2))
    at = at[(np.isfinite(at) & (at >= 0) & (at < _SIDE)).all(axis=1)].astype(np.int64)
    around = np.arange(-size, size + 1)
    rows = np.clip(at[:, 1, np.newaxis, np.newaxis] + around[:, np.newaxis], 0, _SIDE - 1)
    columns = np.clip(at[:, 0, np.newaxis, np.newaxis] + around, 0, _SIDE - 1)
    picture[rows, columns] = colour
