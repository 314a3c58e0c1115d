"""Training loop of a run: resume, train, log, evaluate, save, stop."""

import contextlib
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from sparring.distribute.consensus import SingleWorker
from sparring.errors import UserError
from sparring.processes import activity
from sparring.processes.signals import Interrupt, StoppedError
from sparring.storage import run_folder
from sparring.storage.checkpoints import Checkpoints, SaveFailed
from sparring.tensorboard.writer import SilentWriter, Writer
from sparring.training import finite, tensorboard_page
from sparring.training.callbacks import Callback, Callbacks
from sparring.training.outcome import Outcome
from sparring.training.previews import Previews
from sparring.training.progress import Progress
from sparring.training.schedule import Every, Schedule
from sparring.training.trainer import Trainer

_log = logging.getLogger("sparring")
_CALL_SECONDS = 1.0  # how long one call into the trainer should take: the wait for Ctrl-C
# What may end a run between two calls, as numbers that workers tell each other
_SOURCES = re.compile("observation|environments/|replay/")  # in the names of variables
_STATUS = ("", "nan", "target", "stopped")


class TrainingLoop:
    """Loop of a run: train, log, evaluate and save one trainer in one folder.

    With several workers each has a loop that makes the same calls in the same order; only the chief
    evaluates, decides and writes.

    Args:
      trainer: a `sparring.training.trainer.Trainer`.
      schedule: the steps of the run, and the intervals.
      folder: of the run.
      progress: bar or lines that show how far it is.
      workers: all processes of the run; default: this one.
      callbacks: code of one's own, called by the chief at the points of the run.
    """

    def __init__(
        self,
        trainer: Trainer,
        schedule: Schedule,
        folder: Path,
        progress: Progress,
        workers: SingleWorker | None = None,
        callbacks: Iterable[Callback] = (),
    ) -> None:
        self.trainer = trainer
        self.schedule = schedule
        self.folder = folder
        self.progress = progress
        self.workers = workers or SingleWorker()
        self.callbacks = Callbacks(callbacks if self.workers.chief else ())
        self.latest = Checkpoints(folder / "checkpoints", schedule.keep)
        self.best = Checkpoints(folder / "best", keep=1)
        self.outcome = Outcome(maximize=trainer.maximize)
        self.interrupt = Interrupt()
        self.previews = Previews(folder, trainer)
        self.log = Every(schedule.log_every, schedule.steps)
        self.evaluate = Every(schedule.evaluate_every, schedule.steps)
        self.save = Every(schedule.checkpoint_every, schedule.steps)
        self._saved: dict[str, int] = {}  # the position of the newest checkpoint
        # Why the newest state, or the best model, could not be saved
        self._unsaved: dict[Checkpoints, str] = {}
        self._pace = 0.0  # steps per second of the latest call; 0 before the first
        self._calls = 0
        # Steps and seconds of training since the last point, compilation left out
        self._steady = (0, 0.0)
        self._since_log = {"evaluate": 0.0, "save": 0.0}

    def resume(self, checkpoints: Checkpoints) -> bool:
        """Restore the newest sound checkpoint, of this run or another; False if there is none."""
        restored = checkpoints.restore(self.trainer.checkpoint, accept=self._accept)
        if restored is None:
            return False
        host = restored.host
        for complaint in self.trainer.load_host_state(host["trainer"]):
            _log.warning("%s", complaint)
        self.outcome.final = dict(host["final"])
        self.outcome.notes = dict(host["notes"])
        for name, trigger in self._triggers().items():
            trigger.handled = host["handled"][name]
        if checkpoints is self.latest:  # another run's best model and hours are that run's
            self.outcome.best = dict(host["best"])
            self._saved = self._position()
            self.outcome.seconds = dict(host["seconds"])
        _log.info("Resumed at step %d from %s.", self.trainer.step, restored.folder)
        return True

    def _accept(self, host: Mapping[str, Any]) -> None:
        for complaint in self.trainer.check_state(host["trainer"]):
            _log.warning("%s", complaint)

    def run(self) -> Outcome:
        """Train until all steps are done, the target is reached, a value is not finite or a signal
        arrives; save, and return how the run ended.
        """
        self._open()
        try:
            with self._listening(), self._saving_at_the_end():
                while not self._ended():
                    self._show(self.previews.write_if_due)
                    steps = self.workers.broadcast(self._steps_ahead())
                    with self._clocked(), activity.doing(self._what(steps)):
                        self.trainer.train(steps)
                    self.callbacks.call(self.trainer)
            self.callbacks.end(self.trainer, self.outcome)
        finally:
            self.outcome.step = self.trainer.step
            self.writer.close()
        return self.outcome

    def _show(self, write: Callable[..., Any], **settings: Any) -> None:
        """Write images of the model into the run's folder."""
        if self.workers.chief:
            with self._timed("evaluate", "evaluation"):
                write(**settings)

    def _open(self) -> None:
        trainer = self.trainer
        self.outcome.step = trainer.step
        self.watch = finite.Watch(trainer.checkpoint)
        if not self.workers.chief:
            self.writer: Writer = SilentWriter()
            return
        parts = [*trainer.timings(), *self._since_log]
        own = {**trainer.descriptions, **self.callbacks.descriptions}
        descriptions = {**_time_descriptions(trainer.unit, parts), **own}
        self.writer = Writer(self.folder, descriptions=descriptions, resume_step=self.log.handled)
        # One chart would mix the runs of a sweep over several tasks: its report has one for each
        if run_folder.read_json(self.folder.parent / run_folder.SWEEP).get("tasks", 1) == 1:
            self.writer.layout(trainer.charts)
        self.callbacks.begin(trainer, self.folder)

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Hear signals and show the progress while the run goes on."""
        trainer = self.trainer
        shown = self.progress.of(self.schedule.steps, trainer.step, trainer.unit)
        with self.interrupt.listening(), shown:
            yield

    @contextlib.contextmanager
    def _saving_at_the_end(self) -> Iterator[None]:
        """Save when training has ended, also by a UserError, which loses nothing learned."""
        try:
            yield
        except UserError as fault:  # such as an environment's
            if not self._not_finite():
                if not self.workers.several:  # else the others are not here to gather their state
                    self._save()
                raise
            self.outcome.status = "nan"
            self.outcome.message += f"\nThen this happened: {fault}\n"
        if self.outcome.status != "nan":
            self._save()
            self._show(self.previews.write, keep=True)
        if self.outcome.unsaved:
            self.outcome.message += f"Not everything is saved. {self.outcome.unsaved}"

    # ---- parts of run() --------------------------------------------------------------------------

    def _ended(self) -> bool:
        """Do what has become due; whether the run is over, and then the outcome's status."""
        # What is due at the step at which a signal arrives is done after the resume.
        if self._calls > 0 and self.workers.any(self.interrupt.asked):
            status = self._agreed("nan" if self._not_finite() else "") or "stopped"
        else:
            status = self._do_what_is_due()
            if not status and self.trainer.step >= self.schedule.steps:
                status = "finished"
        if status:
            self.outcome.status = status
        return bool(status)

    def _do_what_is_due(self) -> str:
        """Log, evaluate, save, in this order; return the status that ends the run, or ""."""
        step = self.trainer.step
        log = self.log.due(step)
        evaluate = self.evaluate.due(step)
        save = self.save.due(step)
        bad = (log or evaluate or save) and self._not_finite(variables=evaluate or save)
        if self._agreed("nan" if bad else ""):
            return "nan"
        if log:
            self._log_scalars()
        if evaluate:
            # Nobody knows how long the first evaluation takes: what was learned is saved before it,
            # and after it, so that it is not made twice
            first = not self._saved
            if first:
                self._save()
            status = self._agreed(self._evaluate())
            if status:
                return status
            if first:
                self._save()
        if save:
            self.save.handled = step
            self._save()
        return ""

    def _agreed(self, status: str) -> str:
        """Return the chief's status."""
        return _STATUS[self.workers.broadcast(_STATUS.index(status))]

    def _steps_ahead(self) -> int:
        """Return the steps of the next call: about a second's, not past what is due next."""
        step = self.trainer.step
        due = [trigger.following(step) for trigger in self._triggers().values()]
        due += [phase for phase in self.trainer.phases if phase > step]
        ahead = min(self.schedule.steps, *due) - step
        return max(1, min(ahead, int(self._pace * _CALL_SECONDS)))

    def _what(self, steps: int) -> str:
        """Return what the next call does, in words."""
        if self._calls == 0:
            return "compiling, and the first steps"
        if self._pace == 0.0:
            return "the first update"
        return f"{steps} {self.trainer.unit.replace('_', ' ')}"

    @contextlib.contextmanager
    def _clocked(self) -> Iterator[None]:
        """Measure the pace of a call into the trainer, which a second signal may break off."""
        first = self._calls == 0
        before = self.trainer.step
        started = time.perf_counter()
        with contextlib.suppress(StoppedError):
            yield
        seconds = time.perf_counter() - started
        steps = self.trainer.step - before
        self._calls += 1
        self._pace = max(steps, 1e-9) / max(seconds, 1e-9)
        if any(before < phase <= self.trainer.step for phase in self.trainer.phases):
            self._pace = 0.0  # what follows takes other times: it is measured anew
        self.outcome.seconds["compilation" if first else "training"] += seconds
        if not first:
            self._steady = (self._steady[0] + steps, self._steady[1] + seconds)
        self.progress.advance(self.trainer.step)

    def _not_finite(self, variables: bool = True) -> bool:
        """Whether a mean since the last point, or a variable, is not finite.

        The outcome's message then says where. Only the chief looks.
        """
        if not self.workers.chief:
            return False
        bad = [
            f"{name} = {value}" for name, value in finite.bad_values(self.trainer.peek()).items()
        ]
        if variables:
            bad += [f"a number in {name}" for name in self.watch.found()]
        if bad:
            # What an environment or data gave comes before what became of it
            self._explain(sorted(bad, key=lambda text: not _SOURCES.search(text)))
        return bool(bad)

    def _explain(self, bad: list[str]) -> None:
        shown = ", ".join(bad[:8]) + (f" and {len(bad) - 8} more" if len(bad) > 8 else "")
        saved = self.latest.steps()
        before = "There is no checkpoint yet."
        if saved:
            before = f"The last checkpoint from before is of step {saved[-1]}."
        self.outcome.message = (
            f"Not finite between steps {self.log.handled} and {self.trainer.step}: {shown}. "
            f"{before} Try {self.trainer.remedy}."
        )

    def _log_scalars(self) -> None:
        step = self.trainer.step
        values = self.trainer.scalars()
        seconds_by_part = {**self.trainer.timings(), **self._since_log}
        timing = {f"time/{part}_seconds": seconds for part, seconds in seconds_by_part.items()}
        steps, seconds = self._steady
        rate = steps / seconds if seconds > 0.0 else None
        if rate is not None:
            timing[f"time/{self.trainer.unit}_per_second"] = rate
        values |= self.callbacks.log(self.trainer, values)
        self.writer.scalars(values | timing, step)
        self.outcome.final |= values
        self.progress.show(values, rate)
        self._steady = (0, 0.0)
        self._since_log = dict.fromkeys(self._since_log, 0.0)
        self.log.handled = step

    def _evaluate(self) -> str:
        """Evaluate, log, and keep the model if it is the best so far.

        Returns "target", "nan" or "stopped" if that ends the run, else "". Only the chief
        evaluates.
        """
        step = self.trainer.step
        if not self.workers.chief:
            self.evaluate.handled = step
            return ""
        try:
            with self._timed("evaluate", "evaluation"), activity.doing("evaluating"):
                found = self.trainer.evaluate()
        except StoppedError:  # it is made up for after the resume
            return "stopped"
        self.callbacks.evaluation(self.trainer, found)
        tensorboard_page.write_evaluation(self.writer, found, step)
        self._show(self.previews.write, keep=True)
        self.evaluate.handled = step
        self.outcome.final |= found.scalars
        self.outcome.notes = found.notes
        self.progress.show(found.scalars, None)
        name = self.trainer.objective
        if name not in found.scalars:  # evaluation is turned off
            return ""
        objective = found.scalars[name]
        if finite.bad_values({name: objective}):
            self._explain([f"{name} = {objective}"])
            return "nan"
        self._keep_if_best(found.scalars)
        target = self.schedule.target
        if target is None or self._better(target, objective):
            return ""
        self.outcome.message = f"{name} {objective:g} has reached the target {target:g}. "
        return "target"

    def _keep_if_best(self, scalars: Mapping[str, float]) -> None:
        name = self.trainer.objective
        best = self.outcome.best.get(name)
        if best is None or not self._better(best, scalars[name]):  # among equals, keep the last
            self.outcome.best = {**scalars, "step": self.trainer.step}
            self._save_to(self.best, model_only(self.trainer), {})

    def _better(self, a: float, b: float) -> bool:
        return a > b if self.trainer.maximize else a < b

    def _triggers(self) -> dict[str, Every]:
        return {"log": self.log, "evaluate": self.evaluate, "save": self.save}

    def _handled(self) -> dict[str, int]:
        return {name: trigger.handled for name, trigger in self._triggers().items()}

    def _position(self) -> dict[str, int]:
        return {"step": self.trainer.step, **self._handled()}

    def _save(self) -> None:
        """Save everything, unless the newest checkpoint holds it already."""
        if not self.workers.broadcast(self._saved != self._position()):
            return
        self.workers.gather(self.trainer)
        if self._save_to(self.latest, self.trainer.checkpoint, self.trainer.host_state()):
            self._saved = self._position()

    def _save_to(
        self, checkpoints: Checkpoints, tensors: tf.train.Checkpoint, host: Mapping[str, Any]
    ) -> bool:
        """Save; a failure, such as a full disk, is reported once and does not end the run."""
        if not self.workers.chief:
            return True
        outcome = self.outcome
        failing = bool(self._unsaved)
        state = {
            "best": outcome.best,
            "final": outcome.final,
            "notes": outcome.notes,
            "seconds": outcome.seconds,
            "handled": self._handled(),
        }
        try:
            with self._timed("save", "saving"), activity.doing("saving"):
                folder = checkpoints.save(self.trainer.step, tensors, {"trainer": host, **state})
            self._unsaved.pop(checkpoints, None)
            if checkpoints is self.latest:
                self.callbacks.checkpoint(self.trainer, folder)
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


def model_only(trainer: Trainer) -> tf.train.Checkpoint:
    """Return the checkpoint of `best/`: the model, under the name it has in a full checkpoint."""
    return tf.train.Checkpoint(model=trainer.model)


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
