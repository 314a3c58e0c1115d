"""Supervised training: inputs, targets, a model and a task; many batches in one compiled call."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.data import dataset
from sparring.data.pictures import thumbnails
from sparring.data.text import Texts
from sparring.distribute import replicas
from sparring.errors import UserError
from sparring.export.signatures import Export
from sparring.networks.tf_hub import HubEncoder
from sparring.optim import fine_tuning
from sparring.optim import optimizer as optim_optimizer
from sparring.optim import precision as optim_precision
from sparring.optim.fine_tuning import Active, Stage, synchronise
from sparring.supervised.export import predictor
from sparring.supervised.models import HasFeatures
from sparring.supervised.tasks import Task
from sparring.tensorboard.projector import Embedding
from sparring.training.batch_trainer import BatchTrainer
from sparring.training.trainer import Evaluation
from sparring.xla import compilation, random


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of the evaluation of a model.

    Args:
      batch_size: test examples that are predicted at once.
      embedded: test examples of the projector, placed by what the model's head is shown of them; 0:
        none.
      pictures_every: pictures at every so many evaluations; 0: never.
    """

    batch_size: int = 256
    embedded: int = 256
    pictures_every: int = 1


class SupervisedTrainer(BatchTrainer):
    """A model learns to say targets of inputs; satisfies `sparring.training.trainer.Trainer`.

    One iteration is one step of the optimizer on one batch, of which each replica has a share. A
    step of the run is a training example.

    Args:
      data: a `sparring.data.dataset.Data`, whose labels may be targets of any shape.
      model: a factory, called with `outputs`, of a Keras layer from inputs [B, ...] to [B,
        outputs].
      task: a factory of a `sparring.supervised.tasks.Task`, called with the data.
      precision: what the model computes in, float32 or bfloat16; weights, outputs and losses are
        float32 always.
      stages: what trains when, by any names, in order; none: everything, always.
    """

    unit = "examples"
    largest_call = 256

    def __init__(
        self,
        data: Any,
        model: Callable[..., tf.keras.layers.Layer],
        task: Callable[..., Task],
        optimizer: optim_optimizer.Scheduled,
        batch_size: int,
        seed: int,
        total_steps: int,
        stages: Mapping[str, Stage] | None = None,
        compile: str = "auto",
        evaluation: EvaluationSettings | None = None,
        precision: str = "float32",
    ) -> None:
        optim_precision.check(precision, "precision")
        dataset.check(data, batch_size)
        _check_images(data)
        super().__init__()
        # Examples of one replica
        self.share = self.replicas.share(batch_size, "trainer.batch_size")
        self.data = data
        self.batch_size = batch_size
        self.task: Task = task(data)
        self.objective = self.task.objective
        self.maximize = self.task.maximize
        self._inputs = data.examples("train", 2)[0]  # what inputs look like
        with optim_precision.computing_in(precision):
            self.network = model(outputs=self.task.outputs)
            _check_vocabulary(data, self.network)
            self._check_outputs(self.network(tf.constant(self._inputs), training=False))
        synchronise(self.network)
        self.stages = _planned(self.network, optimizer, stages or {}, -(-total_steps // batch_size))
        self._active = self.stages[0]  # the stage whose program is being traced
        mode = compilation.resolve(compile, self.network.variables)
        self.prepare(mode, total_steps, self._training, parts=("plan", "update"))
        self.settings = evaluation or EvaluationSettings()
        self._keys = random.stream(seed, "supervised")
        self._programs: dict[int, Callable[..., Any]] = {}
        self._predict = compilation.CachedCall(self._outputs, self.mode)
        self._place = compilation.CachedCall(self._features, self.mode)

    def _check_outputs(self, outputs: tf.Tensor) -> None:
        if tuple(outputs.shape[1:]) != (self.task.outputs,):
            raise UserError(
                f"model: it says {list(outputs.shape[1:])} of an example, where the task asks for "
                f"{self.task.outputs} "
                "numbers: a model is a factory that takes `outputs`."
            )

    # ---- contract --------------------------------------------------------------------------------

    @property
    def steps_per_iteration(self) -> int:
        """Examples of a batch."""
        return self.batch_size

    @functools.cached_property
    def descriptions(self) -> Mapping[str, str]:
        """Tag -> what it measures."""
        return self._training | dict(self.task.descriptions)

    @functools.cached_property
    def _training(self) -> dict[str, str]:
        loss = {"loss/total": "The task's loss of training examples, mean over batches."}
        return loss | dict(self.task.trained) | optim_optimizer.DESCRIPTIONS

    @property
    def charts(self) -> Mapping[str, Mapping[str, list[str]]]:
        """TensorBoard's custom scalars."""
        return {
            "Learning": {
                "loss": ["loss/total"],
                "training": list(self.task.trained),
                "norms": ["gradient/norm", "gradient/update_norm"],
            },
            "Test": {tag.removeprefix("eval/"): [tag] for tag in self.task.descriptions},
        }

    @functools.cached_property
    def model(self) -> tf.train.Checkpoint:
        """The network."""
        return tf.train.Checkpoint(network=self.network)

    @functools.cached_property
    def checkpoint(self) -> tf.train.Checkpoint:
        """Every variable."""
        slots = {f"optimizer_{i}": part.keras for i, part in enumerate(self.stages[-1].optimizers)}
        return tf.train.Checkpoint(
            model=self.model, iterations=self.iterations, means=self.means, **slots
        )

    def host_state(self) -> dict[str, Any]:
        return {**super().host_state(), "data": dataset.fingerprint(self.data)}

    def check_state(self, state: Mapping[str, Any]) -> list[str]:
        return dataset.changes(state.get("data", {}), self.data)

    def plan(self, count: int) -> tuple[tf.Tensor]:
        """Return the examples of the next `count` batches, int64 [256, B]."""
        rows = self.data.plan(self._done, count, self.batch_size)
        padding = [(0, self.largest_call - count), (0, 0)]
        return (tf.constant(np.pad(rows, padding), tf.int64),)

    def iterations_ahead(self) -> int:
        """Return the iterations that are left of the present stage, at most those of one call."""
        _, until = self._stage()
        return min(self.largest_call, until - self._done)

    def program(self) -> Callable[..., Any]:
        """Return the program of the present stage."""
        stage, _ = self._stage()
        self._active = self.stages[stage]
        # Before it is traced; eager code reads it each time
        fine_tuning.still(self.network, self._active.weights)
        if stage not in self._programs:
            self._programs[stage] = self.replicas.function(self.iterate, self.mode)
        return self._programs[stage]

    def _stage(self) -> tuple[int, int]:
        """The stage that the next iteration is in, and the iteration at which it ends."""
        firsts = [s.first for s in self.stages]
        stage = max(i for i, first in enumerate(firsts) if first <= self._done)
        return stage, firsts[stage + 1] if stage + 1 < len(firsts) else 2**62

    def measure(self, episodes: int | None, media: bool, step: int) -> Evaluation:
        """Return scores of the test split, or of `episodes` examples of it."""
        del step
        inputs, targets = self.data.examples("test", episodes)
        outputs = self.predict(inputs)
        found = Evaluation(self.task.evaluate(outputs, targets, self.network))
        found.notes = {"test": {"examples": len(targets), **self.task.notes}}
        if episodes is not None and episodes < len(dataset.labels(self.data, "test")):
            found.notes["samples at most"] = episodes
        if self.media_due(media, self.settings.pictures_every):
            found.images = self.task.pictures(inputs, outputs, targets)
            if self.settings.embedded and isinstance(self.network, HasFeatures):
                found.embeddings["eval/features"] = self._embedding()
        return found

    def _embedding(self) -> Embedding:
        """Test examples by their features, with what was asked and what was answered; of images
        their pictures too.
        """
        inputs, targets = self.data.examples("test", self.settings.embedded)
        outputs = self.predict(inputs)
        if targets.ndim == 1 and targets.dtype.kind == "i":
            words = [
                [self.data.names[n] for n in numbers]
                for numbers in (targets, outputs.argmax(axis=1))
            ]
        else:
            words = [
                [" ".join(f"{n:.4g}" for n in row) for row in np.atleast_2d(a)]
                for a in (targets, outputs)
            ]
        pictures = thumbnails(inputs) if inputs.ndim == 4 else None
        labels = {"target": words[0], "output": words[1]}
        return Embedding(self._in_batches(self._place, inputs), labels, pictures)

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Outputs [N, outputs] of inputs [N, ...]."""
        return self._in_batches(self._predict, inputs)

    def _in_batches(self, function: Callable[[np.ndarray], Any], inputs: np.ndarray) -> np.ndarray:
        size = self.settings.batch_size
        # One shape for all
        padded = np.concatenate([inputs, np.repeat(inputs[:1], -len(inputs) % size, axis=0)])
        parts = [np.asarray(function(padded[i : i + size])) for i in range(0, len(padded), size)]
        return np.concatenate(parts)[: len(inputs)]

    def export(self) -> Export:
        """The model with its preprocessing."""
        return predictor(self)

    # ---- the program -----------------------------------------------------------------------------

    def _outputs(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.cast(self.network(inputs, training=False), tf.float32)

    def _features(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.cast(self.network.features(inputs), tf.float32)

    def learn(self, batch: tf.Tensor, iteration: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        """Do a step of the optimizer on the examples `batch` [B]."""
        values = self.replicas.first(self.replicas.run(self._learn, iteration, batch))
        return self.means.add(total, values)

    def _learn(self, number: tf.Tensor, rows: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the scalars of one step on the batch of examples `rows` [B]."""
        stage = self._active
        gradients_of: Callable[..., Any] = functools.partial(self.part, stage.weights)
        if not fine_tuning.coupled(self.network):  # replicas do not meet in it
            gradients_of = replicas.compile_in_replica(gradients_of)
        first = replicas.replica_index() * self.share
        gradients, values = gradients_of(number, rows, first, self.share)
        progress = self.progress((number + 1) * self.batch_size)
        return replicas.all_reduce_sum(values) | _step(stage, gradients, progress)

    def part(
        self,
        weights: list[tf.Variable],
        number: tf.Tensor,
        rows: tf.Tensor,
        first: tf.Tensor | int,
        size: int,
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """Return the gradients and means that `size` examples of the batch `rows` [B] contribute.

        Parts add up to the whole, whoever takes them: an example's key is that of its place in the
          batch.
        """
        keys = random.members(random.fold(self._keys, number), size, first)  # [M, 2]
        inputs, targets = self.data.take(rows[first : first + size], keys)
        inputs = tf.ensure_shape(inputs, [size, *self.data.shape])
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            outputs = tf.cast(self.network(inputs, training=True), tf.float32)
            loss = self._reduce(self.task.loss(outputs, targets))
        gradients = tape.gradient(loss, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        measured = self.task.measures(outputs, targets)
        return gradients, {
            "loss/total": loss,
            **{tag: self._reduce(each) for tag, each in measured.items()},
        }

    def _reduce(self, values: tf.Tensor) -> tf.Tensor:
        """The one place where values per example become a scalar: parts of a batch add up to its
        mean.
        """
        return tf.reduce_sum(values) / float(self.batch_size)


def _step(stage: Active, gradients: list[tf.Tensor], progress: tf.Tensor) -> dict[str, tf.Tensor]:
    """Apply gradients, one per weight of the stage; the norms of gradient and change, and
    the rate.
    """
    norms: dict[str, list[tf.Tensor]] = {"gradient/norm": [], "gradient/update_norm": []}
    for optimizer in stage.optimizers:
        own = gradients[: len(optimizer.variables)]
        gradients = gradients[len(optimizer.variables) :]
        for tag, norm in optimizer.step(own, progress).items():
            norms[tag].append(norm)
    rate = stage.optimizers[0].learning_rate(progress)
    return {
        "schedule/learning_rate": rate,
        **{tag: tf.linalg.global_norm(parts) for tag, parts in norms.items()},
    }


def _planned(
    network: tf.keras.layers.Layer,
    optimizer: optim_optimizer.Scheduled,
    wanted: Mapping[str, Stage],
    iterations: int,
) -> list[Active]:
    if not network.trainable_variables:
        raise UserError("model: it has no weights that train.")
    return fine_tuning.plan(network, optimizer, wanted, iterations)


def _check_vocabulary(data: Any, network: tf.keras.layers.Layer) -> None:
    """Refuse words that are numbered otherwise than a pretrained encoder has learned them."""
    encoders = [m for m in network.submodules if isinstance(m, HubEncoder)]
    if encoders and isinstance(data, Texts):
        raise UserError(
            "model=bert: this data numbers words by a vocabulary of its own, in which the "
            "encoder's numbers mean other words. Choose model=text, or data whose ids are by "
            "sparring.data.text.wordpieces (docs/supervised.md)."
        )


def _check_images(data: Any) -> None:
    if len(data.shape) == 3 and data.shape[-1] == 4:
        raise UserError(
            "data: its images have an alpha channel, which no model here looks at: set "
            "data.channels=3, or save them "
            "without it."
        )
