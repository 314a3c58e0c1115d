"""The contract between `fit` and whatever is trained, and the test that any trainer must pass."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import tensorflow as tf


@dataclass
class Evaluation:
    """What an evaluation found, as plain arrays with names: each name becomes a tag in TensorBoard."""

    scalars: dict[str, float] = field(default_factory=dict)
    images: dict[str, np.ndarray] = field(default_factory=dict)  # uint8 [N, H, W, C]
    videos: dict[str, np.ndarray] = field(default_factory=dict)  # uint8 [T, H, W, 3]
    histograms: dict[str, np.ndarray] = field(default_factory=dict)


class Trainer(Protocol):
    """Anything that learns in steps. Properties are read often and must be cheap."""

    @property
    def step(self) -> int:
        """How far it is, in `unit`: the x axis of every curve."""

    @property
    def unit(self) -> str:
        """What a step is: "environment steps", "images", "examples"."""

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
        """The layout of TensorBoard's custom scalars: category -> chart -> tags."""

    @property
    def checkpoint(self) -> tf.train.Checkpoint:
        """Every variable the next step depends on."""

    @property
    def model(self) -> tf.train.Checkpoint:
        """The variables that what was learned consists of: enough to evaluate, export and warm-start."""

    def train(self, steps: int) -> None:
        """Advance by at least `steps` steps, and by as few as its inner iterations allow.

        No host work between inner steps where the work itself is on the device.
        """

    def scalars(self) -> dict[str, float]:
        """The means of everything since the last call, reduced over replicas; starts a new interval."""

    def peek(self) -> dict[str, float]:
        """The same means without starting a new interval."""

    def timings(self) -> dict[str, float]:
        """Seconds spent in each part since the last call."""

    def evaluate(self, episodes: int | None = None, media: bool = True, step: int | None = None) -> Evaluation:
        """Measure what was learned, on fresh data fixed by the seed and the step (`step`: as if it stood there).

        Changes nothing that training depends on. `media`: whether images and videos are wanted.
        """

    def host_state(self) -> dict[str, Any]:
        """What the next step depends on beside variables: plain numbers, text and arrays."""

    def load_host_state(self, state: Mapping[str, Any]) -> list[str]:
        """Take up `host_state()` of an earlier process; one sentence for each thing that could not be taken up."""

    def close(self) -> None:
        """Release processes and files."""


def check_trainer(make: Any, steps: int) -> None:
    """Hold a trainer against the contract; `make()` builds a new one, `steps` is a few iterations' worth.

    Raises AssertionError with what is wrong. Your own trainer's test is one line:
    `check_trainer(lambda: MyTrainer(...), steps=100)`.
    """
    whole, first, second = make(), make(), make()
    try:
        whole.train(steps)
        middle = whole.step
        assert middle >= steps, f"train({steps}) advanced to step {middle} only"
        first.train(steps)
        assert first.step == middle, f"two trainers alike stand at steps {middle} and {first.step}"
        values = whole.peek()
        assert values, "scalars() is empty after training"
        unknown = sorted(set(values) - set(whole.descriptions))
        assert not unknown, f"scalars without a description: {unknown}"
        bad = {k: v for k, v in values.items() if not np.isfinite(v)}
        assert not bad, f"not finite: {bad}"
        before = [v.numpy() for v in _variables(first.checkpoint)]
        evaluation = first.evaluate(episodes=2)
        assert first.objective in evaluation.scalars, f"evaluate() lacks the objective {first.objective}"
        after = [v.numpy() for v in _variables(first.checkpoint)]
        assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True)), "evaluate() changed the state"
        _copy(first, second)
        whole.train(steps)
        second.train(steps)
        assert whole.step == second.step, f"resumed to step {second.step}, uninterrupted to {whole.step}"
        for name, a, b in zip(
            [v.name for v in _variables(whole.checkpoint)],
            _variables(whole.checkpoint),
            _variables(second.checkpoint),
            strict=True,
        ):
            assert np.array_equal(a.numpy(), b.numpy()), f"resume is not exact: {name} differs"
        assert whole.scalars() == second.scalars(), "a resumed trainer reports other scalars"
    finally:
        for trainer in (whole, first, second):
            trainer.close()


def _variables(checkpoint: tf.train.Checkpoint) -> list[tf.Variable]:
    """Every variable reachable from `checkpoint`, breadth first."""
    return [o for o in tf.train.TrackableView(checkpoint).descendants() if isinstance(o, tf.Variable)]


def _copy(source: Trainer, target: Trainer) -> None:
    values = [v.numpy() for v in _variables(source.checkpoint)]
    for variable, value in zip(_variables(target.checkpoint), values, strict=True):
        variable.assign(value)
    complaints = target.load_host_state(source.host_state())
    assert not complaints, f"could not take up the host state: {complaints}"
