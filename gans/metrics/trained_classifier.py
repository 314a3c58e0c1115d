"""Classifier of a supervised run, as the extractor of a metric."""

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.config import validation
from sparring.data.dataset import Data
from sparring.errors import UserError
from sparring.gans.metrics.extractors import fingerprint, in_batches
from sparring.storage.checkpoints import restore_into
from sparring.storage.run_folder import RunFolder
from sparring.supervised.models import HasFeatures
from sparring.supervised.tasks import Classification
from sparring.supervised.trainer import SupervisedTrainer
from sparring.training import experiment
from sparring.training.loop import model_only
from sparring.xla.compilation import CachedCall


class TrainedClassifier:
    """Network of a `sparring supervised` run on images of the same shape.

    Features are the inputs of its head. `run` is the run's folder; its best model is used, or the
    latest if it has no best. Raises UserError if that run is none of a classifier, or learned from
    examples of another shape.
    """

    name = "classifier"

    def __init__(self, data: Data, run: str) -> None:
        source = RunFolder.named_in_config(run, "extractor.run")
        cfg = source.read_config()
        validation.check_composed(cfg)
        # A strategy's scope is a thread's: this is built in none.
        with ThreadPoolExecutor(1) as elsewhere:
            self._trainer = elsewhere.submit(
                lambda: experiment.build(cfg, tf.distribute.get_strategy())
            ).result()
        supervised = isinstance(self._trainer, SupervisedTrainer)
        if not (supervised and isinstance(self._trainer.network, HasFeatures)):
            raise UserError(
                f"extractor.run={run}: that run trained no model with a head: take a supervised "
                "one."
            )
        classifies = isinstance(self._trainer.task, Classification)
        if not classifies or tuple(self._trainer.data.shape) != tuple(data.shape):
            raise UserError(
                f"extractor.run={run}: it learned from {list(self._trainer.data.shape)}, here are "
                f"{list(data.shape)}: "
                "take a classifier of the same data."
            )
        self._step = restore_into(model_only(self._trainer), source.newest_model())
        network: Any = self._trainer.network
        self._features = CachedCall(
            lambda x: tf.cast(network.features(x), tf.float32), self._trainer.mode
        )
        self._logits = CachedCall(
            lambda x: tf.cast(network(x, training=False), tf.float32), self._trainer.mode
        )
        self.run = run
        self.members = (self.features,)

    def features(self, examples: np.ndarray) -> np.ndarray:
        """Compute features of examples [N, *shape], float32 [N, F]."""
        return in_batches(self._features, examples)

    def probabilities(self, examples: np.ndarray) -> np.ndarray:
        """Compute class probabilities of examples [N, *shape], float32 [N, classes]."""
        return in_batches(lambda x: tf.nn.softmax(self._logits(x)), examples)

    @functools.cached_property
    def notes(self) -> dict[str, Any]:
        """Protocol of the extractor, as `Extractor.notes`."""
        images, labels = self._trainer.data.examples("test")
        return {
            "features": "what the head of a classifier of the real train split is shown",
            "run": self.run,
            "step": self._step,
            "dimension": int(self.features(images[:1]).shape[1]),
            "extractor": fingerprint([v.numpy() for v in self._trainer.network.variables]),
            "accuracy on the real test split": float(
                (self.probabilities(images).argmax(axis=1) == labels).mean()
            ),
        }
