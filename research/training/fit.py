"""Training without a config: run a trainer that was made in Python, in a folder of its own."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tensorflow as tf

from sparring.errors import UserError
from sparring.storage.run_folder import RunFolder
from sparring.training import tensorboard_page
from sparring.training.callbacks import Callback
from sparring.training.loop import TrainingLoop
from sparring.training.outcome import Outcome
from sparring.training.progress import Progress, headline
from sparring.training.schedule import Schedule
from sparring.training.trainer import require_contract


def set_random_seed(seed: int) -> None:
    """Set the seed that Keras draws initial weights from; call it before a trainer is made.

    Everything later is drawn from the trainer's own `seed`.
    """
    tf.keras.utils.set_random_seed(seed)


def fit(
    trainer: Any,
    folder: str | Path,
    steps: int | None = None,
    callbacks: Iterable[Callback] = (),
    **intervals: Any,
) -> Outcome:
    """Train in `folder` up to `steps` steps (default: the trainer's `total_steps`).

    Checkpoints, TensorBoard's events and `result.json` are written there, and a folder that holds
    checkpoints already is resumed. The trainer stays open: call its `close()` when it steps
    environments that need it.

    Args:
      trainer: a `sparring.training.trainer.Trainer`.
      folder: of the run.
      steps: in the trainer's own unit.
      callbacks: code of one's own, called at the points of the run.
      intervals: `log_every`, `evaluate_every`, `checkpoint_every`, `keep` and `target` of
        `sparring.training.schedule.Schedule`; by default there are 50 points in a curve, ten
        evaluations and five checkpoints.

    Raises:
      UserError: a value was not finite, or the run could not be saved at its end.
    """
    require_contract(trainer)
    run = RunFolder(Path(folder))
    total = _total(trainer, steps)
    every = {
        "log_every": max(1, total // 50),
        "evaluate_every": max(1, total // 10),
        "checkpoint_every": max(1, total // 5),
    }
    schedule = Schedule(total, **(every | intervals))
    run.path.mkdir(parents=True, exist_ok=True)
    with run.logged(), run.recording_failures():
        progress = Progress(headline(trainer))
        loop = TrainingLoop(trainer, schedule, run.path, progress, callbacks=callbacks)
        loop.resume(loop.latest)
        tensorboard_page.describe_trainer(run.path, trainer)
        run.outcome = loop.outcome
        run.objective = trainer.objective
        loop.run()
        with run.writable():
            run.finish()
    if run.outcome.status == "nan" or run.outcome.unsaved:
        raise UserError(run.outcome.message)
    return loop.outcome


def _total(trainer: Any, steps: int | None) -> int:
    total = getattr(trainer, "total_steps", None) if steps is None else steps
    if total is None:
        raise UserError(
            f"fit: {type(trainer).__name__} does not say how long to train: give steps."
        )
    return int(total)
