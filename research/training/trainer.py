"""The contract between `fit` and whatever is trained, and the test that any trainer must pass."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from sparring.export.signatures import Export
from sparring.tensorboard.projector import Embedding


@dataclass
class Evaluation:
    """What an evaluation found, as plain arrays with names: each name becomes a tag in
    TensorBoard.
    """

    scalars: dict[str, float] = field(default_factory=dict)
    images: dict[str, np.ndarray] = field(default_factory=dict)  # uint8 [N, H, W, C]
    videos: dict[str, np.ndarray] = field(default_factory=dict)  # uint8 [T, H, W, 3]
    histograms: dict[str, np.ndarray] = field(default_factory=dict)
    embeddings: dict[str, Embedding] = field(default_factory=dict)  # points of the projector
    # How the scalars were computed: plain values, nested
    notes: dict[str, Any] = field(default_factory=dict)


class Trainer(Protocol):
    """Anything that learns in steps. Properties are read often and must be cheap."""

    @property
    def step(self) -> int:
        """How far it is, in `unit`: the x axis of every curve."""

    @property
    def unit(self) -> str:
        """What a step is, as part of a tag: "env_steps", "images", "examples"."""

    @property
    def objective(self) -> str:
        """The scalar of `evaluate` that says how good it is; larger is better if `maximize`."""

    @property
    def maximize(self) -> bool:
        """Whether a larger objective is better."""

    @property
    def descriptions(self) -> Mapping[str, str]:
        """Every scalar's tag with what it measures and its unit."""

    @property
    def charts(self) -> Mapping[str, Mapping[str, list[str]]]:
        """The layout of TensorBoard's custom scalars: category -> chart -> tags.

        The tags of the first chart are also shown while the run goes on.
        """

    @property
    def checkpoint(self) -> tf.train.Checkpoint:
        """Every variable the next step depends on. One that turns NaN or infinite ends the run."""

    @property
    def model(self) -> tf.train.Checkpoint:
        """The variables that what was learned consists of: enough to evaluate, export and
        warm-start.
        """

    def train(self, steps: int) -> None:
        """Advance by at least `steps` steps, and by as few as its inner iterations allow.

        No host work between inner steps where the work itself is on the device. How many steps are
        asked for at once changes nothing: `fit` asks for as many as fit into a second.
        """

    def scalars(self) -> dict[str, float]:
        """The means of everything since the last call, reduced over replicas; starts a new
        interval.
        """

    def peek(self) -> dict[str, float]:
        """The same means without starting a new interval."""

    def timings(self) -> dict[str, float]:
        """Seconds spent in each part of training ("collect", "update") since the last call."""

    def evaluate(
        self, episodes: int | None = None, media: bool = True, step: int | None = None
    ) -> Evaluation:
        """Measure what was learned, on fresh data fixed by the seed and the step (`step`: as if it
        stood there).

        Changes nothing that training depends on. `media`: whether images and videos are wanted.
        """

    def host_state(self) -> dict[str, Any]:
        """What the next step depends on beside variables: plain numbers, text and arrays."""

    def load_host_state(self, state: Mapping[str, Any]) -> list[str]:
        """Take up `host_state()` of an earlier process; one sentence for each thing that could not
        be taken up.
        """

    def export(self) -> Export:
        """What was learned, as functions of named tensors that need nothing of ours to be
        called.
        """

    @property
    def remedy(self) -> str:
        """What to try when a number is not finite, as it follows "Try". Needed only where the usual
        keys are others.
        """

    def gather(self) -> None:
        """Have `checkpoint` hold what of it is on other hosts; called by all of them before a save.

        Only a trainer that has anything there needs this method.
        """

    def close(self) -> None:
        """Release processes and files."""
