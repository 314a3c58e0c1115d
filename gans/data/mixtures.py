"""Mixtures of Gaussians in the plane, whose modes can be counted."""

import numpy as np
import tensorflow as tf

from sparring.data.splits import known
from sparring.errors import UserError
from sparring.xla import random

ENDLESS = 10_000  # examples that `examples` returns without a limit


class Mixture:
    """Evenly weighted Gaussians of one standard deviation around `centers` [K, F]; a `Data`.

    Examples are drawn anew for every batch. A label is the index of the mode of its example.
    """

    count = 0  # endless

    def __init__(self, centers: np.ndarray, sigma: float) -> None:
        self.centers = np.asarray(centers, np.float32)
        self.sigma = sigma
        if self.centers.ndim != 2 or len(self.centers) == 0 or not np.isfinite(self.centers).all():
            raise UserError(
                f"data.centers: {list(self.centers.shape)}; finite numbers [modes, dimensions] are "
                "needed."
            )
        if not 0.0 < sigma < np.inf:
            raise UserError(f"data.sigma={sigma}: it must be above 0.")
        self.shape = (self.centers.shape[1],)
        self.classes = len(self.centers)

    def plan(self, first: int, steps: int, size: int) -> np.ndarray:
        """Return running numbers, int64 [steps, size]: every example is new, drawn from its key."""
        return np.arange(first * size, (first + steps) * size, dtype=np.int64).reshape(steps, size)

    def take(self, rows: tf.Tensor, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Draw examples from `keys`, as `Data.take`; `rows` are ignored."""
        labels = random.integers(random.fold(keys, 0), 1, self.classes)[..., 0]  # [B]
        noise = random.normal(random.fold(keys, 1), self.shape[0])  # [B, F]
        return tf.gather(tf.constant(self.centers), labels) + self.sigma * noise, labels

    def examples(self, split: str, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the same `limit` examples at every call, 10 000 by default, as `Data.examples`."""
        keys = random.members(
            random.stream(0, f"mixture/{known(split)}"), ENDLESS if limit is None else limit
        )
        examples, labels = self.take(tf.zeros(len(keys), tf.int64), keys)
        return examples.numpy(), labels.numpy()


def ring(modes: int = 8, radius: float = 1.0, sigma: float = 0.01) -> Mixture:
    """Mixture with modes evenly on a circle, the first at (radius, 0).

    The defaults are PacGAN's ring (Lin et al. 2018, section 4.1).
    """
    angles = 2.0 * np.pi * np.arange(modes) / modes
    return Mixture(radius * np.stack([np.cos(angles), np.sin(angles)], axis=1), sigma)


def grid(side: int = 5, spacing: float = 2.0, sigma: float = 0.05) -> Mixture:
    """Mixture with modes on a square grid around (0, 0).

    The defaults are PacGAN's grid, {-4, -2, 0, 2, 4} both ways (Lin et al. 2018, section 4.1).
    """
    line = spacing * (np.arange(side) - (side - 1) / 2.0)
    return Mixture(np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2), sigma)
