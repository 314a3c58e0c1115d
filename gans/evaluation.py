"""Evaluation of a GAN: scores, fixed samples, and histograms of the discriminator's logits."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from sparring.data import dataset
from sparring.data.pictures import labelled_columns, thumbnails
from sparring.gans import image_grids
from sparring.gans.adversarial_step import AdversarialStep
from sparring.tensorboard.projector import Embedding
from sparring.training.trainer import Evaluation
from sparring.xla import random
from sparring.xla.compilation import CachedCall

Sample = tuple[np.ndarray, np.ndarray]  # examples [N, ...], labels [N]
_LATENTS = 0
_LABELS = 1


PICTURES = {
    "samples/scatter": "Real examples and generated ones in the plane.",
    "samples/generated": "Generated from latents that stay the same for the run, by the average of "
    "the weights.",
    "samples/real_and_generated": "Real examples on the left, generated ones on the right.",
    "samples/interpolation": "Each row goes from one latent to another, along a great circle.",
    "samples/classes": "A column for each class, under its name, a row for each latent.",
    "discriminator/real_logits": "Logits of real examples, without augmentation.",
    "discriminator/generated_logits": "Logits of generated examples, without augmentation.",
    "gan/nearest_neighbours": "Generated images, each with the training image nearest to it at its "
    "right.",
    "gan/plane": "Modes of the mixture in grey, generated examples on them in blue, others in red.",
}  # descriptions of images and histograms, by tag


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of an evaluation.

    Args:
      columns: columns and rows of a grid of samples.
      points: generated examples of a scatter plot, and of a histogram of logits.
      embedded: real images, and as many generated ones, in the projector; 0: none.
      batch_size: examples generated at once.
      pictures_every: evaluations between two with images; 0: no images.
    """

    columns: int = 8
    points: int = 2048
    embedded: int = 256
    batch_size: int = 256
    pictures_every: int = 1


class Sampler:
    """Sampler of generated examples from keys; labels follow those of the training data."""

    def __init__(
        self,
        game: AdversarialStep,
        network: tf.keras.layers.Layer,
        mode: str,
        seed: int,
        batch_size: int,
    ) -> None:
        self.game = game
        self.network = network
        self.size = batch_size
        labelled = game.rules.conditional
        self._labels = tf.constant(
            dataset.labels(game.data, "train") if labelled else np.zeros(1), tf.int64
        )
        self._fresh = random.stream(seed, "samples")
        self._latents = CachedCall(self._draw, mode)
        self._generate = CachedCall(self.generate, mode)

    def _draw(self, key: tf.Tensor, first: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        keys = random.members(key, self.size, first)
        rows = random.integers(random.fold(keys, _LABELS), 1, self._labels.shape[0])[:, 0]
        return random.normal(random.fold(keys, _LATENTS), self.game.latent), tf.gather(
            self._labels, rows
        )

    def generate(self, latents: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Generate examples [B, ...], float32, from latents [B, Z] and labels [B]."""
        return tf.cast(self.network(latents, labels, training=False), tf.float32)

    def of(self, latents: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Generate examples [N, ...] of given latents [N, Z] and labels [N]."""
        count = len(latents)
        parts = []
        padding = -count % self.size  # one shape for all calls
        latents = np.pad(latents.astype(np.float32), [(0, padding), (0, 0)])
        labels = np.pad(labels.astype(np.int64), [(0, padding)])
        for i in range(0, count, self.size):
            parts.append(
                np.asarray(self._generate(latents[i : i + self.size], labels[i : i + self.size]))
            )
        return np.concatenate(parts)[:count]

    def latents(self, key: tf.Tensor, count: int) -> Sample:
        """Draw latents [N, Z] and labels [N] from a key; fewer are a prefix of more."""
        parts = [self._latents(key, np.int64(i)) for i in range(0, count, self.size)]
        latents = np.concatenate([np.asarray(part[0]) for part in parts])
        labels = np.concatenate([np.asarray(part[1]) for part in parts])
        return latents[:count], labels[:count]

    def at(self, step: int) -> "Samples":
        """Return the samples of the evaluation at a step."""
        return Samples(self, random.fold(self._fresh, step))


class Samples:
    """Generated examples and labels of one evaluation, cached: `samples(n)` returns the first n."""

    def __init__(self, sampler: Sampler, key: tf.Tensor) -> None:
        self._sampler = sampler
        self._key = key
        self._kept: Sample | None = None

    def __call__(self, count: int) -> Sample:
        if self._kept is None or len(self._kept[1]) < count:
            latents, labels = self._sampler.latents(self._key, count)
            self._kept = self._sampler.of(latents, labels), labels
        return self._kept[0][:count], self._kept[1][:count]


class Gallery:
    """Images and histograms of a sampler's examples, from latents fixed for the whole run."""

    def __init__(
        self, sampler: Sampler, settings: EvaluationSettings, mode: str, seed: int
    ) -> None:
        self.sampler = sampler
        self.settings = settings
        self.data = sampler.game.data
        self._fixed = random.stream(seed, "gallery")
        self._logits = CachedCall(sampler.game.logits, mode)

    def show(self, samples: Samples, features: Callable[[np.ndarray], np.ndarray]) -> Evaluation:
        """Show what suits the data's shape: images, or points in the plane.

        `features` of images [N, ...] -> [N, D] place them in the projector.
        """
        found = Evaluation(histograms=self._histograms(samples))
        if len(self.data.shape) == 3:
            found.images = self._images()
            if self.settings.embedded:
                found.embeddings["samples/features"] = self._embedding(samples, features)
        elif self.data.shape == (2,):
            real, _ = self.data.examples("train", self.settings.points)
            found.images["samples/scatter"] = image_grids.scatter(
                real, samples(self.settings.points)[0]
            )
        return found

    def preview(self) -> dict[str, np.ndarray]:
        """Return a grid of generated images from the fixed latents, or points in the plane."""
        n = self.settings.columns
        if len(self.data.shape) == 3:
            latents, labels = self.sampler.latents(self._fixed, n * n)
            return {"generated": image_grids.grid(self.sampler.of(latents, labels), n)}
        if self.data.shape == (2,):
            real, _ = self.data.examples("train", self.settings.points)
            latents, labels = self.sampler.latents(self._fixed, self.settings.points)
            fake = self.sampler.of(latents, labels)
            return {"generated": image_grids.scatter(real, fake)}
        return {}

    def _images(self) -> dict[str, np.ndarray]:
        n = self.settings.columns
        latents, labels = self.sampler.latents(
            self._fixed, max(n * n, 2 * n)
        )  # a path has two ends
        fake = self.sampler.of(latents[: n * n], labels[: n * n])
        real, _ = self.data.examples("test", n * n)
        paths = image_grids.between(latents[:n], latents[n : 2 * n], n)
        images = {
            "samples/generated": image_grids.grid(fake, n),
            "samples/real_and_generated": image_grids.beside(
                image_grids.grid(real, n), image_grids.grid(fake[: len(real)], n)
            ),
            "samples/interpolation": image_grids.grid(
                self.sampler.of(paths, labels[:n].repeat(n)), n
            ),
        }
        if self.sampler.game.rules.conditional:
            images["samples/classes"] = self._classes(latents)
        return images

    def _embedding(
        self, samples: Samples, features: Callable[[np.ndarray], np.ndarray]
    ) -> Embedding:
        """Embed real and generated images by their features, with labels where they have any."""
        real, labels = self.data.examples("test", self.settings.embedded)
        fake, wanted = samples(self.settings.embedded)
        names = dataset.class_names(self.data)
        unknown = ["-"] * len(fake)
        named = [names[n] for n in labels] if names else ["-"] * len(real)
        named += [names[n] for n in wanted] if self.sampler.game.rules.conditional else unknown
        both = np.concatenate([real, fake])
        return Embedding(
            features(both),
            {"kind": ["real"] * len(real) + ["generated"] * len(fake), "label": named},
            thumbnails(both),
        )

    def _classes(self, latents: np.ndarray) -> np.ndarray:
        """Draw a grid with a column for each class and a row for each latent."""
        n = self.settings.columns
        classes = min(self.data.classes, 32)
        labels = np.tile(np.arange(classes), n)
        drawn = image_grids.grid(
            self.sampler.of(latents[:n].repeat(classes, axis=0), labels), classes
        )
        return labelled_columns(drawn, dataset.class_names(self.data)[:classes])

    def _histograms(self, samples: Samples) -> dict[str, np.ndarray]:
        size = self.sampler.game.rules.batch_size
        count = max(self.settings.points // size, 1) * size
        real = self.data.examples("train", count)
        fake = samples(count)
        found = {}
        for name, (examples, labels) in (("real", real), ("generated", fake)):
            parts = []
            for start in range(0, len(examples) - size + 1, size):
                rows = slice(start, start + size)
                parts.append(np.asarray(self._logits(examples[rows], labels[rows])).ravel())
            found[f"discriminator/{name}_logits"] = np.concatenate(parts)
        return found
