"""Conformance test of the Trainer contract, for trainers of Sparring and of its users."""

import contextlib
import math
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.export.signatures import on_arrays
from sparring.storage import variable_names
from sparring.storage.checkpoints import Checkpoints, restore_into
from sparring.training import finite
from sparring.training.trainer import Evaluation, Trainer


def check_trainer(make: Callable[[], Any], steps: int) -> None:
    """Hold a trainer against the contract; `make()` builds a new one, always alike; `steps` is a
    few iterations' worth.

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
        saved = Checkpoints(folder).save(
            parted.step, parted.checkpoint, {"trainer": parted.host_state()}
        )
        _check_resume(whole, parted, resumed, folder, steps)
        _check_scalars(whole, resumed)
        _check_model(learned, saved, found)
        _check_export(learned)


def _check_words(trainer: Trainer) -> None:
    assert re.fullmatch("[a-z][a-z0-9_]*", trainer.unit), (
        f"unit {trainer.unit!r} is no part of a tag, as env_steps is"
    )
    assert trainer.objective in trainer.descriptions, (
        f"no description of the objective {trainer.objective}"
    )
    tags = [tag for titles in trainer.charts.values() for chart in titles.values() for tag in chart]
    unknown = [
        tag for tag in tags if not any(re.fullmatch(tag, known) for known in trainer.descriptions)
    ]
    assert not unknown, f"charts of tags without a description: {unknown}"


def _check_train(whole: Trainer, parted: Trainer, steps: int) -> None:
    """All at once, and in two parts."""
    whole.train(steps)
    assert whole.step >= steps, f"train({steps}) advanced to step {whole.step} only"
    parted.train(1)
    grain = parted.step
    assert whole.step < steps + grain, (
        f"train({steps}) advanced to step {whole.step}, though train(1) does {grain}"
    )
    parted.train(steps - grain) if steps > grain else None
    _check_equal(
        whole,
        parted,
        "train(a) and train(b) are not train(a + b), or two trainers made alike differ",
    )
    infinite = finite.Watch(whole.checkpoint, keep=True).found()
    assert not infinite, f"not finite after {steps} steps: {infinite}"


def _check_scalars(whole: Trainer, resumed: Trainer) -> None:
    values = whole.peek()
    seconds = whole.timings()
    assert values, "peek() is empty after training"
    _check_numbers(whole, values)
    assert whole.scalars() == values, "scalars() and peek() differ"
    assert whole.peek() == {}, "scalars() did not start a new interval"
    assert resumed.scalars() == values, "a resumed trainer reports other scalars"
    assert all(s >= 0.0 for s in seconds.values()), f"timings() has negative seconds: {seconds}"
    assert not any(whole.timings().values()), "timings() did not start anew after being read"


def _check_evaluate(trainer: Trainer) -> Evaluation:
    before = {
        name: v.numpy() for name, v in variable_names.named_variables(trainer.checkpoint).items()
    }
    found = trainer.evaluate(episodes=2)
    changed = [
        n
        for n, v in variable_names.named_variables(trainer.checkpoint).items()
        if not np.array_equal(v.numpy(), before[n])
    ]
    assert not changed, f"evaluate() changed the state: {changed}"
    assert trainer.objective in found.scalars, f"evaluate() lacks the objective {trainer.objective}"
    _check_numbers(trainer, found.scalars)
    for kind, ranks in ((found.images, (3, 4)), (found.videos, (4,))):
        wrong = [
            t
            for t, a in kind.items()
            if np.asarray(a).dtype != np.uint8 or np.asarray(a).ndim not in ranks
        ]
        assert not wrong, f"evaluate() gave pictures that are not uint8 [N, H, W, C]: {wrong}"
    again = trainer.evaluate(episodes=2, media=False)
    assert again.scalars == found.scalars, "evaluate() at the same step found something else"
    shown = {**again.images, **again.videos, **again.embeddings}
    assert not shown, "evaluate(media=False) gave pictures"
    return found


def _check_numbers(trainer: Trainer, values: Mapping[str, float]) -> None:
    unknown = sorted(set(values) - set(trainer.descriptions))
    assert not unknown, f"scalars without a description: {unknown}"
    bad = {
        tag: value
        for tag, value in values.items()
        if not isinstance(value, float) or not math.isfinite(value)
    }
    assert not bad, f"not finite, plain numbers: {bad}"


def _check_resume(
    whole: Trainer, parted: Trainer, resumed: Trainer, folder: Path, steps: int
) -> None:
    """One that never stopped nor evaluated, one that evaluated, and one that took up the second's
    checkpoint.
    """
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
    whole = {id(v) for v in variable_names.named_variables(learned.checkpoint).values()}
    apart = [
        name
        for name, v in variable_names.named_variables(learned.model).items()
        if id(v) not in whole
    ]
    assert not apart, f"in the model, but not in the checkpoint: {apart}"
    step = restore_into(tf.train.Checkpoint(model=learned.model), saved)
    assert learned.evaluate(episodes=2, step=step).scalars == found.scalars, (
        "the model alone evaluates to other scalars"
    )


def _check_export(trainer: Trainer) -> None:
    if type(trainer).export is Trainer.export:  # the default: there is nothing to export
        return
    exported = trainer.export()
    outputs = on_arrays(exported.signatures[exported.edge].trace())(exported.samples(3))
    assert outputs, f"the exported {exported.edge} gives nothing"
    wrong = [
        name
        for name, value in outputs.items()
        if value.shape[:1] != (3,) or not np.isfinite(value).all()
    ]
    assert not wrong, (
        f"the exported {exported.edge} gives, of 3 inputs, no 3 finite outputs: {wrong}"
    )


def _check_equal(ours: Trainer, theirs: Trainer, what: str) -> None:
    assert ours.step == theirs.step, f"{what}: steps {ours.step} and {theirs.step}"
    a = variable_names.named_variables(ours.checkpoint)
    b = variable_names.named_variables(theirs.checkpoint)
    assert a.keys() == b.keys(), f"{what}: other variables, {sorted(a.keys() ^ b.keys())}"
    different = [
        name for name in a if not np.array_equal(a[name].numpy(), b[name].numpy(), equal_nan=True)
    ]
    assert not different, f"{what}: {different}"
