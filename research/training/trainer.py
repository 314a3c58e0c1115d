"""Contract between the training loop and whatever is trained.

`sparring.training.conformance.check_trainer` holds a trainer against it.
"""

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.errors import UserError
from sparring.export.signatures import Export
from sparring.tensorboard.projector import Embedding


@dataclass
class Evaluation:
    """Findings of an evaluation, as plain arrays by name; a name becomes a tag in TensorBoard."""

    scalars: dict[str, float] = field(default_factory=dict)
    images: dict[str, np.ndarray] = field(default_factory=dict)  # uint8 [N, H, W, C]
    videos: dict[str, np.ndarray] = field(default_factory=dict)  # uint8 [T, H, W, 3]
    histograms: dict[str, np.ndarray] = field(default_factory=dict)
    embeddings: dict[str, Embedding] = field(default_factory=dict)  # points of the projector
    # How the scalars were computed: plain values, nested
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Samples:
    """Generated examples, as plain arrays: what is written of them, and what is shown."""

    arrays: dict[str, np.ndarray]  # [N, ...] each, of one file
    images: np.ndarray | None = None  # uint8 [N, H, W, C], C of 1, 3 or 4, a file each
    grid: np.ndarray | None = None  # uint8 [H, W, C]: many in one image


class Trainer(abc.ABC):
    """Base class of anything that learns in steps. Properties are read often and must be cheap.

    What is abstract here every trainer defines, as a class attribute, a property or a method; the
    rest has a default. Trainers that learn from batches in compiled calls derive from
    `sparring.training.batch_trainer.BatchTrainer`, which defines most of it.

    Attributes:
      unit: name of a step, as part of a tag: "env_steps", "images", "examples".
      objective: tag of the scalar of `evaluate` that tells how good the model is.
      maximize: whether a larger objective is better.
      remedy: advice for a value that is not finite, as it follows "Try".
      phases: steps at which a step begins to take another time, such as that of the first update.
    """

    unit: str
    objective: str
    maximize: bool
    remedy: str = (
        "a lower optimizer.learning_rate or global_clipnorm, or look for infinite rewards, "
        "observations or data"
    )
    phases: tuple[int, ...] = ()

    @property
    @abc.abstractmethod
    def step(self) -> int:
        """Progress in `unit`s: the x axis of every curve."""

    @property
    @abc.abstractmethod
    def descriptions(self) -> Mapping[str, str]:
        """Every scalar's tag, with the quantity it measures and its unit."""

    @property
    @abc.abstractmethod
    def charts(self) -> Mapping[str, Mapping[str, list[str]]]:
        """Layout of TensorBoard's custom scalars: category -> chart -> tags.

        The tags of the first chart are also shown while the run goes on.
        """

    @property
    @abc.abstractmethod
    def checkpoint(self) -> tf.train.Checkpoint:
        """Every variable the next step depends on. One that turns NaN or infinite ends the run."""

    @property
    @abc.abstractmethod
    def model(self) -> tf.train.Checkpoint:
        """Variables that were learned: enough to evaluate, export and warm-start."""

    @abc.abstractmethod
    def train(self, steps: int) -> None:
        """Advance by at least `steps` steps, and by as few as its inner iterations allow.

        No host work between inner steps where the work itself is on the device. The number of steps
        of one call changes nothing: the loop asks for as many as fit into a second.
        """

    @abc.abstractmethod
    def scalars(self) -> dict[str, float]:
        """Return the means since the last call, over all replicas, and start a new interval."""

    @abc.abstractmethod
    def peek(self) -> dict[str, float]:
        """Return the same means without starting a new interval."""

    @abc.abstractmethod
    def timings(self) -> dict[str, float]:
        """Return the seconds of each part of training ("collect", "update") since the last call."""

    @abc.abstractmethod
    def evaluate(
        self, episodes: int | None = None, media: bool = True, step: int | None = None
    ) -> Evaluation:
        """Measure the model on fresh data fixed by the seed and the step (default: its own).

        Changes nothing that training depends on. `media`: whether images and videos are wanted.
        """

    @abc.abstractmethod
    def host_state(self) -> dict[str, Any]:
        """Return the state outside of variables that the next step depends on.

        It consists of plain numbers, text and arrays.
        """

    @abc.abstractmethod
    def load_host_state(self, state: Mapping[str, Any]) -> list[str]:
        """Restore the `host_state()` of an earlier process.

        Returns a sentence for each thing that could not be restored.
        """

    def check_state(self, state: Mapping[str, Any]) -> list[str]:
        """Compare an earlier process's `host_state()` with what this trainer was given.

        It is called before anything is restored. Returns a sentence for each thing that has
        changed, such as the data's content; raises UserError if training cannot go on with it.
        """
        del state
        return []

    def preview(self) -> dict[str, np.ndarray]:
        """Return images of the model as it is, uint8 [H, W, C] by name, for files that show it.

        Cheaper than an evaluation, and as free of consequences for training.
        """
        return {}

    def export(self) -> Export:
        """Return the model as functions of named tensors that need nothing of Sparring."""
        raise UserError(f"{type(self).__name__} has no export(): there is nothing to export.")

    def demonstrate(
        self, path: Path, episodes: int, seed: int, sampled: bool, metadata: Mapping[str, Any]
    ) -> list[str]:
        """Record whole episodes of an agent in a file; return what to tell of them, in lines.

        `sampled`: act as in training, not greedily. `metadata` are plain values for the file.
        """
        del path, episodes, seed, sampled, metadata
        raise UserError(
            "Only a run of an agent plays episodes, which sparring demonstrate records."
        )

    def generate(self, count: int, seed: int, label: str | None = None) -> Samples:
        """Draw `count` new examples from a generator, by `seed`.

        `label` is the class of all of them, by its name or number; None: classes as in the data.
        """
        del count, seed, label
        raise UserError("Only a run of a GAN generates examples, which sparring sample draws.")

    def time_breakdown(self, seconds: float = 1.0) -> dict[str, float]:
        """Return the share of an iteration's time of each of its parts, measured for `seconds`."""
        del seconds
        return {}

    def gather(self) -> None:  # noqa: B027
        """Have `checkpoint` hold the state of other hosts; all hosts call it before a save."""

    def close(self) -> None:  # noqa: B027
        """Release processes and files."""


def require_contract(trainer: Any) -> Trainer:
    """Return `trainer`, or raise a UserError that names the members of the contract it lacks."""
    members = {*Trainer.__annotations__, *(n for n in vars(Trainer) if not n.startswith("_"))}
    lacking = sorted(name for name in members if not hasattr(trainer, name))
    if lacking:
        kind = f"{type(trainer).__module__}.{type(trainer).__qualname__}"
        raise UserError(
            f"trainer: {kind} lacks {', '.join(lacking)}: derive it from "
            "sparring.training.trainer.Trainer, which says what a run asks of a trainer."
        )
    return trainer
