"""The one loop: call the trainer, log, evaluate, save, stop."""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf
import yaml  # type: ignore[import-untyped]

from sparring.distribute.consensus import SingleWorker
from sparring.errors import UserError
from sparring.processes.signals import Interrupt, StoppedError
from sparring.storage.checkpoints import Checkpoints, SaveFailed
from sparring.tensorboard.writer import Writer
from sparring.training import finite
from sparring.training.progress import Progress
from sparring.training.trainer import Evaluation, Trainer

_log = logging.getLogger("sparring")
_REMEDY = (
    "a lower optimizer.learning_rate or global_clipnorm, or look for infinite rewards, "
    "observations or data"
)
_CALL_SECONDS = 1.0  # how long one call into the trainer should take: the wait for Ctrl-C
# What may end a run between two calls, as numbers that workers tell each other
_STATUS = ("", "nan", "target")


@dataclass(frozen=True)
class Schedule:
    """When things happen, in the trainer's steps; `target` is the objective that ends the run
    early.

    What is due at the same step is done in this order: log, evaluate, save. All of it is due at the
      end.
    """

    steps: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    keep: int = 2
    target: float | None = None


@dataclass
class Outcome:
    """How a run ended.

    `status`: finished, stopped (by a signal), target, nan or failed. `final` holds the newest value
    of every scalar, `best` those of the evaluation with the best objective, and its step; of equals
    the last. `seconds` adds up over all processes that worked on the run, as far as their work was
    saved. `unsaved` says why the last state is not. `notes` say how the newest evaluation's scalars
    were computed. `maximize`: whether a larger objective is better.
    """

    status: str = "failed"
    step: int = 0
    final: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(
            ("imports", "compilation", "training", "evaluation", "saving"), 0.0
        )
    )
    message: str = ""
    unsaved: str = ""
    notes: dict[str, Any] = field(default_factory=dict)
    maximize: bool = True


class Fit:
    """One run of one trainer in one folder. `run()` is the loop; the rest are its sentences.

    Of several workers each has one, and `crew` is all of them. The chief's measures, decides and
    writes.
    """

    def __init__(
        self,
        trainer: Trainer,
        schedule: Schedule,
        folder: Path,
        progress: Progress,
        crew: SingleWorker | None = None,
    ) -> None:
        self.trainer = trainer
        self.schedule = schedule
        self.folder = folder
        self.progress = progress
        self.crew = crew or SingleWorker()
        self.latest = Checkpoints(folder / "checkpoints", schedule.keep)
        self.best = Checkpoints(folder / "best", keep=1)
        self.outcome = Outcome(maximize=trainer.maximize)
        self.interrupt = Interrupt()
        self._handled = {
            "log": 0,
            "evaluate": 0,
            "save": 0,
        }  # the step up to which each has been done when due
        self._saved: dict[str, int] = {}  # what the newest checkpoint holds
        self._unsaved: dict[
            Checkpoints, str
        ] = {}  # why the newest state, or the best model, could not be saved
        self._pace = 0.0  # steps per second of the latest call
        # Steps and seconds of training since the last point, compilation left out
        self._steady = (0, 0.0)
        self._since_log = {"evaluate": 0.0, "save": 0.0}

    def resume(self, checkpoints: Checkpoints) -> bool:
        """Take up the newest sound checkpoint, of this run or another; False if there is none."""
        restored = checkpoints.restore(self.trainer.checkpoint)
        if restored is None:
            return False
        host = restored.host
        for complaint in self.trainer.load_host_state(host["trainer"]):
            _log.warning("%s", complaint)
        self.outcome.final = dict(host["final"])
        self.outcome.notes = dict(host["notes"])
        self._handled = dict(host["handled"])
        if checkpoints is self.latest:  # another run's best model and hours are that run's
            self.outcome.best = dict(host["best"])
            self._saved = self._position()
            self.outcome.seconds = dict(host["seconds"])
        _log.info("Resumed at step %d from %s.", self.trainer.step, restored.folder)
        return True

    def run(self) -> Outcome:
        """Train until the steps are done, the target is reached, a number is not finite or a signal
        comes.
        """
        trainer = self.trainer
        self.outcome.step = self.trainer.step
        self._open()
        try:
            with (
                self.interrupt.listening(),
                self.progress.of(self.schedule.steps, trainer.step, trainer.unit),
            ):
                self._run()
        finally:
            self.outcome.step = trainer.step
            self._close()
        return self.outcome

    def _open(self) -> None:
        trainer = self.trainer
        self.watch = finite.Watch(trainer.checkpoint)
        parts = [*trainer.timings(), *self._since_log]
        descriptions = {**_time_descriptions(trainer.unit, parts), **trainer.descriptions}
        self.writer = Writer(
            self.folder, descriptions=descriptions, resume_step=self._handled["log"]
        )
        self.writer.layout(trainer.charts)

    def _close(self) -> None:
        self.writer.close()

    def _run(self) -> None:
        try:
            self.outcome.status = self._loop()
        except (
            UserError
        ) as fault:  # outside training, such as an environment's: it loses nothing that was learned
            if not self._not_finite():
                if self.crew.alone:  # else the others are not here to gather what is theirs
                    self._save()
                raise
            self.outcome.status = "nan"
            self.outcome.message += f"\nThen this happened: {fault}\n"
        if self.outcome.status != "nan":
            self._save()
        if self.outcome.unsaved:
            self.outcome.message += f"Not everything is saved. {self.outcome.unsaved}"

    def _loop(self) -> str:
        while True:
            if status := self._due_now():
                return status
            if self.trainer.step >= self.schedule.steps:
                return "finished"
            self._advance(self.crew.told(self._ahead()))
            # What is due at this step is done after the resume
            if self.crew.any(self.interrupt.asked):
                return self._told("nan" if self._not_finite() else "") or "stopped"

    def _due_now(self) -> str:
        """Do what became due since the last time; the status that ends the run, or "" to go on."""
        every = self.schedule
        log = self._due("log", every.log_every)
        evaluate = self._due("evaluate", every.evaluate_every)
        save = self._due("save", every.checkpoint_every)
        bad = (log or evaluate or save) and self._not_finite(variables=evaluate or save)
        if self._told("nan" if bad else ""):
            return "nan"
        if log:
            self._log_scalars()
        if evaluate and (status := self._told(self._evaluate())):
            return status
        if save:
            self._handled["save"] = self.trainer.step
            self._save()
        return ""

    def _told(self, status: str) -> str:
        """The chief's status."""
        return _STATUS[self.crew.told(_STATUS.index(status))]

    def _due(self, what: str, interval: int) -> bool:
        step = self.trainer.step
        before = self._handled[what]
        return step > before and (
            step // interval > before // interval or step >= self.schedule.steps
        )

    # ---- one sentence each -----------------------------------------------------------------------

    def _ahead(self) -> int:
        """The steps of the next call: about a second's, not past the next thing that is due."""
        every = self.schedule
        step = self.trainer.step
        intervals = (every.log_every, every.evaluate_every, every.checkpoint_every)
        ahead = min(every.steps, *((step // n + 1) * n for n in intervals)) - step
        return max(1, min(ahead, int(self._pace * _CALL_SECONDS)))

    def _advance(self, steps: int) -> None:
        step = self.trainer.step
        first = self._pace == 0.0
        started = time.perf_counter()
        with contextlib.suppress(StoppedError):
            self.trainer.train(steps)
        seconds = time.perf_counter() - started
        steps = self.trainer.step - step
        self._pace = steps / max(seconds, 1e-9)
        self.outcome.seconds["compilation" if first else "training"] += seconds
        if not first:
            self._steady = (self._steady[0] + steps, self._steady[1] + seconds)
        self.progress.advance(self.trainer.step)

    def _not_finite(self, variables: bool = True) -> bool:
        """Whether a mean since the last point, or a variable, is not finite; the outcome's message
        says where.
        """
        bad = [
            f"{name} = {value}" for name, value in finite.bad_values(self.trainer.peek()).items()
        ]
        bad += [f"a number in {name}" for name in self.watch.found()] if variables else []
        if bad:
            self._explain(bad)
        return bool(bad)

    def _explain(self, bad: list[str]) -> None:
        shown = ", ".join(bad[:8]) + (f" and {len(bad) - 8} more" if len(bad) > 8 else "")
        saved = self.latest.steps()
        before = (
            f"The last checkpoint from before is of step {saved[-1]}."
            if saved
            else "There is no checkpoint yet."
        )
        self.outcome.message = (
            f"Not finite between steps {self._handled['log']} and {self.trainer.step}: {shown}. "
            f"{before} Try "
            f"{getattr(self.trainer, 'remedy', _REMEDY)}."
        )

    def _log_scalars(self) -> None:
        step = self.trainer.step
        values = self.trainer.scalars()
        timing = {
            f"time/{part}_seconds": s
            for part, s in {**self.trainer.timings(), **self._since_log}.items()
        }
        steps, seconds = self._steady
        rate = steps / seconds if seconds > 0.0 else None
        if rate is not None:
            timing[f"time/{self.trainer.unit}_per_second"] = rate
        self.writer.scalars(values | timing, step)
        self.outcome.final |= values
        self.progress.show(values, rate)
        self._steady = (0, 0.0)
        self._since_log = dict.fromkeys(self._since_log, 0.0)
        self._handled["log"] = step

    def _evaluate(self) -> str:
        """Evaluate, log, and keep the model if it is the best so far; "target" or "nan" if that
        ends the run.
        """
        trainer = self.trainer
        step = self.trainer.step
        with self._timed("evaluate", "evaluation"):
            found = trainer.evaluate()
        write(self.writer, found, step)
        self._handled["evaluate"] = step
        self.outcome.final |= found.scalars
        self.outcome.notes = found.notes
        self.progress.show(found.scalars, None)
        objective = found.scalars[trainer.objective]
        if finite.bad_values({trainer.objective: objective}):
            self._explain([f"{trainer.objective} = {objective}"])
            return "nan"
        best = self.outcome.best.get(trainer.objective)
        if best is None or not self._better(best, objective):
            self.outcome.best = {**found.scalars, "step": step}
            self._save_to(self.best, model_only(trainer), {})
        target = self.schedule.target
        if target is None or self._better(target, objective):
            return ""
        self.outcome.message = (
            f"{trainer.objective} {objective:g} has reached the target {target:g}. "
        )
        return "target"

    def _better(self, a: float, b: float) -> bool:
        return a > b if self.trainer.maximize else a < b

    def _position(self) -> dict[str, int]:
        return {"step": self.trainer.step, **self._handled}

    def _save(self) -> None:
        """Save everything, unless the newest checkpoint holds it already."""
        if not self.crew.told(self._saved != self._position()):
            return
        self.crew.gather(self.trainer)
        if self._save_to(self.latest, self.trainer.checkpoint, self.trainer.host_state()):
            self._saved = self._position()

    def _save_to(
        self, checkpoints: Checkpoints, tensors: tf.train.Checkpoint, host: Mapping[str, Any]
    ) -> bool:
        """Save; a failure, such as a full disk, is told once and does not end the run."""
        outcome = self.outcome
        failing = bool(self._unsaved)
        state = {"best": outcome.best, "final": outcome.final, "notes": outcome.notes}
        state |= {"seconds": outcome.seconds, "handled": self._handled}
        try:
            with self._timed("save", "saving"):
                checkpoints.save(self.trainer.step, tensors, {"trainer": host, **state})
            self._unsaved.pop(checkpoints, None)
        except SaveFailed as error:
            self._unsaved[checkpoints] = str(error)
            if not failing:
                _log.error("%s Training goes on, and later checkpoints will be tried.", error)
        if failing and not self._unsaved:
            _log.warning("Checkpoints are saved again.")
        outcome.unsaved = " ".join(self._unsaved.values())
        return checkpoints not in self._unsaved

    @contextlib.contextmanager
    def _timed(self, part: str, total: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            self._since_log[part] += seconds
            self.outcome.seconds[total] += seconds


class Follow(Fit):
    """The run of a worker that is not the chief: it trains, does what it is told, and writes
    nothing.
    """

    def _open(self) -> None:
        pass

    def _close(self) -> None:
        pass

    def _not_finite(self, variables: bool = True) -> bool:
        return False  # the chief looks

    def _log_scalars(self) -> None:
        self.trainer.scalars(), self.trainer.timings()
        self._handled["log"] = self.trainer.step

    def _evaluate(self) -> str:
        self._handled["evaluate"] = self.trainer.step
        return ""

    def _save_to(
        self, checkpoints: Checkpoints, tensors: tf.train.Checkpoint, host: Mapping[str, Any]
    ) -> bool:
        return True


def model_only(trainer: Trainer) -> tf.train.Checkpoint:
    """What `best/` keeps: the model under the name it has in a full checkpoint."""
    return tf.train.Checkpoint(model=trainer.model)


def write(writer: Writer, found: Evaluation, step: int) -> None:
    """An evaluation to TensorBoard."""
    writer.scalars(found.scalars, step)
    writer.images(found.images, step)
    writer.videos(found.videos, step)
    writer.histograms(found.histograms, step)
    if found.embeddings:
        writer.embeddings(found.embeddings)
    if found.notes:
        writer.text(
            "evaluation", f"```yaml\n{yaml.safe_dump(found.notes, sort_keys=False)}```", step
        )
    writer.flush()


def _time_descriptions(unit: str, parts: list[str]) -> dict[str, str]:
    words = unit.replace("_", " ")
    rate = {
        f"time/{unit}_per_second": f"Speed of training, compilation left out, in {words} per "
        "second."
    }
    return rate | {
        f"time/{part}_seconds": f"Seconds spent to {part.replace('_', ' ')} since the last point."
        for part in parts
    }
