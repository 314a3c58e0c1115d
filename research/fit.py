"""The one loop: call the trainer, log, evaluate, save, stop."""

import contextlib
import logging
import math
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from research.checkpoint import Checkpoints, SaveFailed
from research.errors import UserError
from research.progress import Progress
from research.tensorboard import Writer
from research.trainer import Evaluation, Trainer

_log = logging.getLogger("sparring")
_CALL_SECONDS = 1.0  # how long one call into the trainer should take: the wait for Ctrl-C


@dataclass(frozen=True)
class Schedule:
    """When things happen, in the trainer's steps; `target` is the objective that ends the run early."""

    steps: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    keep: int = 2
    target: float | None = None


@dataclass
class Outcome:
    """How a run ended. `status`: finished, stopped (by a signal), target, nan or failed."""

    status: str = "failed"
    step: int = 0
    final: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: {"compilation": 0.0, "training": 0.0, "evaluation": 0.0})
    message: str = ""


class Fit:
    """One run of one trainer in one folder. `run()` is the loop; the rest are its sentences."""

    def __init__(self, trainer: Trainer, schedule: Schedule, folder: Path, progress: Progress) -> None:
        self.trainer, self.schedule, self.folder, self.progress = trainer, schedule, folder, progress
        self.latest = Checkpoints(folder / "checkpoints", schedule.keep)
        self.best = Checkpoints(folder / "best", keep=1)
        self.outcome = Outcome()
        self.stop_requested = False
        self._last_log = (0, time.perf_counter())
        self._handled = 0  # the step up to which what was due has been done
        self._pace = 0.0  # steps per second of the latest call
        self.writer: Writer | None = None

    def resume(self, checkpoints: Checkpoints) -> bool:
        """Take up the newest sound checkpoint; False if there is none."""
        restored = checkpoints.restore(self.trainer.checkpoint)
        if restored is None:
            return False
        for complaint in self.trainer.load_host_state(restored.host["trainer"]):
            _log.warning("%s", complaint)
        self.outcome.best = dict(restored.host["best"])
        self.outcome.final = dict(restored.host["final"])
        self.outcome.step = self.trainer.step
        self._last_log = (restored.host["last_log"], time.perf_counter())
        self._handled = restored.host["handled"]
        _log.info("Resumed at step %d from %s.", self.trainer.step, restored.folder)
        return True

    def run(self) -> Outcome:
        """Train until the steps are done, the target is reached, a number is not finite or a signal comes."""
        resumed = self.trainer.step
        self.writer = Writer(
            self.folder, descriptions=self.trainer.descriptions | _time_descriptions(self.trainer.unit),
            resume_step=resumed or None,
        )  # fmt: skip
        if not resumed:
            self.writer.layout(self.trainer.charts)
        try:
            with self._signals(), self.progress.of(self.schedule.steps, resumed, self.trainer.unit):
                self.outcome.status = self._loop()
                if self.outcome.status in ("finished", "stopped", "target"):
                    self._save()
        except UserError:
            self._save()  # a fault outside training, such as an environment's, loses nothing that was learned
            raise
        finally:
            self.outcome.step = self.trainer.step
            self.writer.close()
        return self.outcome

    def _loop(self) -> str:
        while True:
            if status := self._due_now():
                return status
            if self.trainer.step >= self.schedule.steps:
                return "finished"
            self._advance()
            if self.stop_requested:
                return self._finite() or "stopped"  # what is due at this step is done after the resume

    def _due_now(self) -> str:
        """Do what became due since the last time; the status that ends the run, or "" to go on."""
        every, step, before = self.schedule, self.trainer.step, self._handled
        self._handled = step

        def due(interval: int) -> bool:
            return step > before and (step // interval > before // interval or step >= every.steps)

        log, evaluate, save = due(every.log_every), due(every.evaluate_every), due(every.checkpoint_every)
        if (log or evaluate or save) and (status := self._finite()):
            return status
        if log:
            self._log_scalars()
        if evaluate:
            objective = self._evaluate()
            if every.target is not None and self._better(objective, every.target, equal=True):
                return "target"
        if save:
            self._save()
        return ""

    # ---- one sentence each ---------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """One call of about a second, not past the next thing that is due."""
        every, step = self.schedule, self.trainer.step
        marks = [every.steps] + [
            (step // n + 1) * n for n in (every.log_every, every.evaluate_every, every.checkpoint_every)
        ]
        ahead = min(marks) - step
        call = max(1, min(ahead, int(self._pace * _CALL_SECONDS)))
        started, first = time.perf_counter(), self._pace == 0.0
        self.trainer.train(call)
        seconds = time.perf_counter() - started
        self._pace = (self.trainer.step - step) / max(seconds, 1e-9)
        self.outcome.seconds["compilation" if first else "training"] += seconds
        self.progress.advance(self.trainer.step)

    def _finite(self) -> str:
        """ "" if every mean since the last log is finite, else the status "nan", with a message that says where."""
        bad = {k: v for k, v in self.trainer.peek().items() if not math.isfinite(v)}
        if not bad:
            return ""
        saved = self.latest.steps()
        before = f"The last checkpoint is from step {saved[-1]}." if saved else "No checkpoint had been saved yet."
        self.outcome.message = (
            f"Not finite between steps {self._last_log[0]} and {self.trainer.step}: "
            + ", ".join(f"{k} = {v}" for k, v in bad.items())
            + f". {before} Try a lower optimizer.learning_rate, a smaller optimizer.optimizer.global_clipnorm, "
            "or look for infinite rewards and observations."
        )
        return "nan"

    def _log_scalars(self) -> None:
        assert self.writer is not None
        step, now = self.trainer.step, time.perf_counter()
        values, seconds = self.trainer.scalars(), self.trainer.timings()
        elapsed = max(now - self._last_log[1] - seconds.get("evaluate", 0.0), 1e-9)
        rate = (step - self._last_log[0]) / elapsed
        self._last_log = (step, now)
        timing = {f"time/{part}_seconds": s for part, s in seconds.items()}
        self.writer.scalars(values | timing | {f"time/{self.trainer.unit}_per_second": rate}, step)
        self.outcome.final |= values
        self.progress.show(values, rate)

    def _evaluate(self) -> float:
        """Evaluate, log, and keep the model if it is the best so far."""
        assert self.writer is not None
        started, step = time.perf_counter(), self.trainer.step
        found = self.trainer.evaluate()
        self.outcome.seconds["evaluation"] += time.perf_counter() - started
        write(self.writer, found, step)
        self.outcome.final |= found.scalars
        objective = found.scalars[self.trainer.objective]
        best = self.outcome.best.get(self.trainer.objective)
        if best is None or self._better(objective, best):
            self.outcome.best = {**found.scalars, "step": step}
            self._save_to(self.best)
        self.progress.show(found.scalars, None)
        return objective

    def _better(self, a: float, b: float, equal: bool = False) -> bool:
        return (a > b if self.trainer.maximize else a < b) or (equal and a == b)

    def _save(self) -> None:
        self._save_to(self.latest)

    def _save_to(self, checkpoints: Checkpoints) -> None:
        host = {
            "trainer": self.trainer.host_state() if checkpoints is self.latest else {},
            "best": self.outcome.best,
            "final": self.outcome.final,
            "last_log": self._last_log[0],
            "handled": self._handled,
        }
        tensors = self.trainer.checkpoint if checkpoints is self.latest else model_only(self.trainer)
        try:
            checkpoints.save(self.trainer.step, tensors, host)
        except SaveFailed as error:
            _log.error("%s Training goes on.", error)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM asks for a save and a clean end; the second ends at once."""

        def handle(number: int, frame: Any) -> None:
            if self.stop_requested:
                raise KeyboardInterrupt
            self.stop_requested = True
            _log.warning("%s: saving and stopping. Once more to stop at once.", signal.Signals(number).name)

        try:
            old = {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread, as under some launchers: signals are not ours to take
            yield
            return
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


def model_only(trainer: Trainer) -> Any:
    """What `best/` keeps: the model under the name it has in a full checkpoint."""
    import tensorflow as tf

    return tf.train.Checkpoint(model=trainer.model)


def write(writer: Writer, found: Evaluation, step: int) -> None:
    """An evaluation to TensorBoard."""
    writer.scalars(found.scalars, step)
    writer.images(found.images, step)
    writer.videos(found.videos, step)
    writer.histograms(found.histograms, step)
    writer.flush()


def _time_descriptions(unit: str) -> dict[str, str]:
    return {
        f"time/{unit}_per_second": f"{unit.replace('_', ' ')} per second since the last point, evaluation left out.",
        "time/collect_seconds": "Seconds spent acting and stepping environments since the last point.",
        "time/update_seconds": "Seconds spent learning since the last point.",
        "time/evaluate_seconds": "Seconds spent evaluating since the last point.",
    }
