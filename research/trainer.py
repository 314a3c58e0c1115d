"""The contract between `fit` and whatever is trained, and the test that any trainer must pass."""

import contextlib
import math
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from research import finite
from research.checkpoint import Checkpoints, restore_into
from research.projector import Embedding
from research.signatures import Export, on_arrays


@dataclass
class Evaluation:
    """What an evaluation found, as plain arrays with names: each name becomes a tag in TensorBoard."""

    scalars: dict[str, float] = field(default_factory=dict)
    images: dict[str, np.ndarray] = field(default_factory=dict)  # uint8 [N, H, W, C]
    videos: dict[str, np.ndarray] = field(default_factory=dict)  # uint8 [T, H, W, 3]
    histograms: dict[str, np.ndarray] = field(default_factory=dict)
    embeddings: dict[str, Embedding] = field(default_factory=dict)  # points of the projector
    notes: dict[str, Any] = field(default_factory=dict)  # how the scalars were computed: plain values, nested


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
        """The variables that what was learned consists of: enough to evaluate, export and warm-start."""

    def train(self, steps: int) -> None:
        """Advance by at least `steps` steps, and by as few as its inner iterations allow.

        No host work between inner steps where the work itself is on the device. How many steps are asked for at once
        changes nothing: `fit` asks for as many as fit into a second.
        """

    def scalars(self) -> dict[str, float]:
        """The means of everything since the last call, reduced over replicas; starts a new interval."""

    def peek(self) -> dict[str, float]:
        """The same means without starting a new interval."""

    def timings(self) -> dict[str, float]:
        """Seconds spent in each part of training ("collect", "update") since the last call."""

    def evaluate(self, episodes: int | None = None, media: bool = True, step: int | None = None) -> Evaluation:
        """Measure what was learned, on fresh data fixed by the seed and the step (`step`: as if it stood there).

        Changes nothing that training depends on. `media`: whether images and videos are wanted.
        """

    def host_state(self) -> dict[str, Any]:
        """What the next step depends on beside variables: plain numbers, text and arrays."""

    def load_host_state(self, state: Mapping[str, Any]) -> list[str]:
        """Take up `host_state()` of an earlier process; one sentence for each thing that could not be taken up."""

    def export(self) -> Export:
        """What was learned, as functions of named tensors that need nothing of ours to be called."""

    @property
    def remedy(self) -> str:
        """What to try when a number is not finite, as it follows "Try". Needed only where the usual keys are others."""

    def gather(self) -> None:
        """Have `checkpoint` hold what of it is on other hosts; called by all of them before a save.

        Only a trainer that has anything there needs this method.
        """

    def close(self) -> None:
        """Release processes and files."""


def check_trainer(make: Callable[[], Any], steps: int) -> None:
    """Hold a trainer against the contract; `make()` builds a new one, always alike; `steps` is a few iterations' worth.

    Raises AssertionError with what is wrong. Your own trainer's test is one line:
    `check_trainer(lambda: MyTrainer(...), steps=100)`.
    """
    with contextlib.ExitStack() as stack:
        whole, parted, resumed, learned = made = [make() for _ in range(4)]
        for trainer in made:
            stack.callback(trainer.close)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _check_words(whole)
        _check_train(whole, parted, steps)
        found = _check_evaluate(parted)
        saved = Checkpoints(folder).save(parted.step, parted.checkpoint, {"trainer": parted.host_state()})
        _check_resume(whole, parted, resumed, folder, steps)
        _check_scalars(whole, resumed)
        _check_model(learned, saved, found)
        _check_export(learned)


def _check_words(trainer: Trainer) -> None:
    assert re.fullmatch("[a-z][a-z0-9_]*", trainer.unit), f"unit {trainer.unit!r} is no part of a tag, as env_steps is"
    assert trainer.objective in trainer.descriptions, f"no description of the objective {trainer.objective}"
    tags = [tag for titles in trainer.charts.values() for chart in titles.values() for tag in chart]
    unknown = [tag for tag in tags if not any(re.fullmatch(tag, known) for known in trainer.descriptions)]
    assert not unknown, f"charts of tags without a description: {unknown}"


def _check_train(whole: Trainer, parted: Trainer, steps: int) -> None:
    """All at once, and in two parts."""
    whole.train(steps)
    assert whole.step >= steps, f"train({steps}) advanced to step {whole.step} only"
    parted.train(1)
    grain = parted.step
    assert whole.step < steps + grain, f"train({steps}) advanced to step {whole.step}, though train(1) does {grain}"
    parted.train(steps - grain) if steps > grain else None
    _check_equal(whole, parted, "train(a) and train(b) are not train(a + b), or two trainers made alike differ")
    infinite = finite.Watch(whole.checkpoint, keep=True).found()
    assert not infinite, f"not finite after {steps} steps: {infinite}"


def _check_scalars(whole: Trainer, resumed: Trainer) -> None:
    values, seconds = whole.peek(), whole.timings()
    assert values, "peek() is empty after training"
    _check_numbers(whole, values)
    assert whole.scalars() == values, "scalars() and peek() differ"
    assert whole.peek() == {}, "scalars() did not start a new interval"
    assert resumed.scalars() == values, "a resumed trainer reports other scalars"
    assert all(s >= 0.0 for s in seconds.values()), f"timings() has negative seconds: {seconds}"
    assert not any(whole.timings().values()), "timings() did not start anew after being read"


def _check_evaluate(trainer: Trainer) -> Evaluation:
    before = {name: v.numpy() for name, v in finite.variables(trainer.checkpoint).items()}
    found = trainer.evaluate(episodes=2)
    changed = [n for n, v in finite.variables(trainer.checkpoint).items() if not np.array_equal(v.numpy(), before[n])]
    assert not changed, f"evaluate() changed the state: {changed}"
    assert trainer.objective in found.scalars, f"evaluate() lacks the objective {trainer.objective}"
    _check_numbers(trainer, found.scalars)
    for kind, ranks in ((found.images, (3, 4)), (found.videos, (4,))):
        wrong = [t for t, a in kind.items() if np.asarray(a).dtype != np.uint8 or np.asarray(a).ndim not in ranks]
        assert not wrong, f"evaluate() gave pictures that are not uint8 [N, H, W, C]: {wrong}"
    again = trainer.evaluate(episodes=2, media=False)
    assert again.scalars == found.scalars, "evaluate() at the same step found something else"
    shown = {**again.images, **again.videos, **again.embeddings}
    assert not shown, "evaluate(media=False) gave pictures"
    return found


def _check_numbers(trainer: Trainer, values: Mapping[str, float]) -> None:
    unknown = sorted(set(values) - set(trainer.descriptions))
    assert not unknown, f"scalars without a description: {unknown}"
    bad = {tag: value for tag, value in values.items() if not isinstance(value, float) or not math.isfinite(value)}
    assert not bad, f"not finite, plain numbers: {bad}"


def _check_resume(whole: Trainer, parted: Trainer, resumed: Trainer, folder: Path, steps: int) -> None:
    """One that never stopped nor evaluated, one that evaluated, and one that took up the second's checkpoint."""
    restored = Checkpoints(folder).restore(resumed.checkpoint)
    assert restored is not None
    complaints = resumed.load_host_state(restored.host["trainer"])
    assert not complaints, f"could not take up the host state: {complaints}"
    assert resumed.step == parted.step, f"saved at step {parted.step}, resumed at {resumed.step}"
    for trainer in (whole, parted, resumed):
        trainer.train(steps)
    _check_equal(whole, parted, "evaluate(), or saving, changed what came after it")
    _check_equal(whole, resumed, "resume is not exact")


def _check_model(learned: Trainer, saved: Path, found: Evaluation) -> None:
    whole = {id(v) for v in finite.variables(learned.checkpoint).values()}
    apart = [name for name, v in finite.variables(learned.model).items() if id(v) not in whole]
    assert not apart, f"in the model, but not in the checkpoint: {apart}"
    step = restore_into(tf.train.Checkpoint(model=learned.model), saved)
    assert learned.evaluate(episodes=2, step=step).scalars == found.scalars, (
        "the model alone evaluates to other scalars"
    )


def _check_export(trainer: Trainer) -> None:
    if not hasattr(trainer, "export"):
        return
    exported = trainer.export()
    outputs = on_arrays(exported.signatures[exported.edge].trace())(exported.samples(3))
    assert outputs, f"the exported {exported.edge} gives nothing"
    wrong = [name for name, value in outputs.items() if value.shape[:1] != (3,) or not np.isfinite(value).all()]
    assert not wrong, f"the exported {exported.edge} gives, of 3 inputs, no 3 finite outputs: {wrong}"


def _check_equal(ours: Trainer, theirs: Trainer, what: str) -> None:
    assert ours.step == theirs.step, f"{what}: steps {ours.step} and {theirs.step}"
    a, b = finite.variables(ours.checkpoint), finite.variables(theirs.checkpoint)
    assert a.keys() == b.keys(), f"{what}: other variables, {sorted(a.keys() ^ b.keys())}"
    different = [name for name in a if not np.array_equal(a[name].numpy(), b[name].numpy(), equal_nan=True)]
    assert not different, f"{what}: {different}"
