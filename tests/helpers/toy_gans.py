"""Data, metrics and GANs small enough for tests."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from sparring.gans.ema import EMA
from sparring.gans.losses import NonSaturating
from sparring.gans.networks.mlp import MLPDiscriminator, MLPGenerator
from sparring.gans.networks.pair import Pair
from sparring.gans.settings import GameSettings
from sparring.gans.trainer import GANTrainer
from sparring.optim.optimizer import Scheduled
from sparring.xla import random


class Ring:
    """Eight modes on the unit circle, drawn from keys."""

    shape = (2,)
    classes = 8
    count = 0

    def plan(self, first: int, steps: int, size: int) -> np.ndarray:
        return np.arange(first * size, (first + steps) * size).reshape(steps, size)

    def take(self, rows: tf.Tensor, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        labels = random.integers(random.fold(keys, 0), 1, 8)[:, 0]
        angle = tf.cast(labels, tf.float32) * (2.0 * np.pi / 8.0)
        center = tf.stack([tf.cos(angle), tf.sin(angle)], axis=1)
        return center + 0.02 * random.normal(random.fold(keys, 1), 2), labels

    def examples(self, split: str, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        keys = random.members(random.stream(0, split), limit or 1000)
        examples, labels = self.take(tf.zeros(len(keys), tf.int64), keys)
        return examples.numpy(), labels.numpy()


class Images:
    """Random images, labelled by turns, in another order every epoch."""

    def __init__(
        self, shape: tuple[int, ...] = (8, 8, 1), count: int = 40, classes: int = 3
    ) -> None:
        self.shape = shape
        self.count = count
        self.classes = classes
        self.all = np.random.default_rng(0).uniform(-1.0, 1.0, (count, *shape)).astype(np.float32)
        self.labels = np.arange(count) % max(classes, 1)

    def plan(self, first: int, steps: int, size: int) -> np.ndarray:
        numbers = np.arange(first * size, (first + steps) * size)
        orders = {
            e: np.random.default_rng(e).permutation(self.count)
            for e in np.unique(numbers // self.count)
        }
        return np.array([orders[n // self.count][n % self.count] for n in numbers]).reshape(
            steps, size
        )

    def take(self, rows: tf.Tensor, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.gather(tf.constant(self.all), rows), tf.gather(
            tf.constant(self.labels, tf.int64), rows
        )

    def examples(self, split: str, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        return self.all[:limit], self.labels[:limit]


class MeanDistance:
    """Distance of the mean of generated examples from that of real ones."""

    descriptions: ClassVar = {
        "gan/mean_distance": "Distance between the means of 200 generated and all real examples."
    }
    smaller = ("gan/mean_distance",)
    samples = 200
    notes: ClassVar = {"samples": 200}

    def __init__(self, data: Any) -> None:
        self.mean = data.examples("test")[0].mean(axis=0)

    def __call__(self, sample: Callable[[int], tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
        return {"gan/mean_distance": float(np.linalg.norm(sample(200)[0].mean(axis=0) - self.mean))}


def mlp(units: int = 16, latent: int = 2, normalization: str = "none") -> Pair:
    generator = "batch" if normalization == "batch" else "none"
    return Pair(
        partial(MLPGenerator, units=(units,), normalization=generator),
        partial(MLPDiscriminator, units=(units,), normalization=normalization),
        latent,
    )


def adam(rate: Any = 1e-3) -> Scheduled:
    return Scheduled(tf.keras.optimizers.Adam(beta_1=0.0, beta_2=0.9), rate)


def make(
    data: Any = None,
    network: Pair | None = None,
    loss: Any = None,
    compile: str = "graph",
    rate: Any = 1e-3,
    total_steps: int = 10_000,
    seed: int = 0,
    optimizers: tuple[Scheduled, Scheduled] | None = None,
    **settings: Any,
) -> GANTrainer:
    """A GAN on the ring, unless said otherwise; settings that `Rules` knows go there."""
    tf.keras.utils.set_random_seed(seed)
    generator, discriminator = optimizers or (adam(rate), adam(rate))
    rules = {k: settings.pop(k) for k in list(settings) if k in GameSettings.__dataclass_fields__}
    parts = {
        "penalties": {},
        "augmentations": {},
        "metrics": {"mean": MeanDistance},
        "ema": EMA(100.0),
        **settings,
    }
    return GANTrainer(
        data=data or Ring(),
        network=network or mlp(),
        loss=loss or NonSaturating(),
        generator_optimizer=generator,
        discriminator_optimizer=discriminator,
        rules=GameSettings(**{"batch_size": 16, **rules}),
        seed=seed,
        total_steps=total_steps,
        compile=compile,
        **parts,
    )
