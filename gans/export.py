"""Serving signatures of a GAN: the averaged generator and the discriminator."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.data import dataset
from sparring.export.signatures import Export, Function, Signature, in_parts, seed_spec
from sparring.xla import random

_LATENT = 0
_LABEL = 1


def game(trainer: Any) -> Export:
    """Return the signatures of a `sparring.gans.trainer.GANTrainer`.

    `generate` returns examples [B, ...] (images in [-1, 1]) of latents [B, Z]; `sampled` of seeds
    [B], from which the latents are drawn; `png` returns images as files. A conditional model takes
    labels [B] beside them. `discriminate` returns the logit of examples, of packs of `pack`
    examples if the discriminator judges several at once.
    """
    playing = _Playing(trainer)
    shape = trainer.game.data.shape
    rules = trainer.rules
    labels = {"labels": tf.TensorSpec([], tf.int64)} if rules.conditional else {}
    latents = {"latents": tf.TensorSpec([trainer.game.latent], tf.float32), **labels}
    seeds = {"seed": seed_spec(), **labels}
    shown = {"examples": tf.TensorSpec([*shape[:-1], shape[-1] * rules.pack], tf.float32), **labels}
    signatures = {
        "generate": Signature(
            playing.generate, latents, "Examples of latents, standard normal as in training."
        ),
        "sampled": Signature(
            playing.sampled, seeds, "Examples of latents drawn from each member's seed."
        ),
        "discriminate": Signature(
            playing.discriminate, shown, "The discriminator's logit: high for real."
        ),
    }
    if len(shape) == 3:
        signatures["png"] = Signature(playing.png, seeds, "Samples as PNG files.")
    names = dataset.class_names(trainer.game.data) if rules.conditional else []
    notes = {
        "example_shape": list(shape),
        "classes": len(names),
        **({"names": names} if names else {}),
    }
    return Export(signatures, "generate", playing.samples, playing.judge, notes)


class _Playing:
    """Networks of a trainer as functions of named tensors."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.sampler = trainer.sampler
        self._stream = random.stream(trainer.seed, "export")

    def generate(self, latents: tf.Tensor, labels: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        if labels is None:
            labels = tf.zeros(tf.shape(latents)[:1], tf.int64)
        return {"examples": self.sampler.generate(latents, labels)}

    def sampled(self, seed: tf.Tensor, labels: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        keys = random.fold(self._stream[tf.newaxis], seed)  # [B, 2]
        return self.generate(
            random.normal(random.fold(keys, _LATENT), self.trainer.game.latent), labels
        )

    def png(self, seed: tf.Tensor, labels: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        images = self.sampled(seed, labels)["examples"]  # [B, h, w, C]
        pixels = tf.cast(tf.clip_by_value(tf.round((images + 1.0) * 127.5), 0.0, 255.0), tf.uint8)
        return {"image_bytes": tf.map_fn(tf.io.encode_png, pixels, fn_output_signature=tf.string)}

    def discriminate(
        self, examples: tf.Tensor, labels: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        if labels is None:
            labels = tf.zeros(tf.shape(examples)[:1], tf.int64)
        logits = self.trainer.game.discriminator.network(examples, labels, training=False)
        return {"logits": tf.cast(logits, tf.float32)}

    def samples(self, count: int) -> dict[str, np.ndarray]:
        """Draw latents [count, Z] as in training, and labels [count] as in the training data."""
        return self._inputs(*self.sampler.latents(random.fold(self._stream, _LABEL), count))

    def judge(self, function: Function, seed: int) -> dict[str, float]:
        """Compute the run's own scores of what `function` generates."""
        return self.trainer.metrics(self._sample(function, random.fold(self._stream, 2 + seed)))

    def _sample(
        self, function: Function, key: tf.Tensor
    ) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
        def sample(count: int) -> tuple[np.ndarray, np.ndarray]:
            latents, labels = self.sampler.latents(key, count)
            return in_parts(function, self._inputs(latents, labels))["examples"], labels

        return sample

    def _inputs(self, latents: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        conditional = self.trainer.rules.conditional
        return {"latents": latents, **({"labels": labels.astype(np.int64)} if conditional else {})}
