"""Scheduler of jobs, a number of them at a time, each on its own cores and memory.

A failing job does not affect the others.
"""

import contextlib
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from sparring.errors import UserError
from sparring.processes import resources
from sparring.processes.signals import heard_by
from sparring.sweep.job import ENDED_WELL, Job
from sparring.sweep.live_table import LiveTable

POLL_SECONDS = 0.1
_WATCH_SECONDS = 1.0  # between checks of the memory that jobs take
# Least memory of a job, from which the default number of simultaneous jobs follows
_JOB_MEGABYTES = 1200.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Settings:
    """Number of simultaneous jobs, and the resources of each.

    Args:
        jobs: at a time; None: one for each core, as far as memory goes.
        cores: of each job, which is pinned to them; None: a fair share; 0: not pinned.
        memory: megabytes a job may take, beyond which it is ended; None: a fair share; 0: no limit.
        retries: how often a job that crashed is started again; it resumes from its last checkpoint.
        fail_fast: whether the first failure stops the others, which save, and starts no more.
    """

    jobs: int | None = None
    cores: int | None = None
    memory: float | None = None
    retries: int = 0
    fail_fast: bool = False

    def __post_init__(self) -> None:
        """Raise UserError for numbers out of range."""
        least = {"jobs": 1, "cores": 0, "memory": 0, "retries": 0}
        for name, limit in least.items():
            value = getattr(self, name)
            if value is not None and value < limit:
                raise UserError(f"hydra.launcher.{name}={value}: it must be at least {limit}.")

    def at_a_time(self, total: int = 0) -> int:
        """Return how many jobs run at a time, of `total` in all (0: unknown)."""
        several = self.jobs or max(
            1, min(len(resources.cores()), int(resources.memory() / _JOB_MEGABYTES))
        )
        return min(several, total or several)

    def limit(self, slots: int) -> float:
        """Return the megabytes a job may take, if `slots` run at a time."""
        if self.memory is not None:
            return self.memory or float("inf")
        return 0.95 * resources.memory() / slots


class Observer(Protocol):
    """Observer of job state changes."""

    def watch(self, job: Job) -> None:
        """Observe a running job, about once a second. It may be sent signals."""

    def ended(self, job: Job) -> None:
        """Observe a job that has ended for good, or was done before."""


class Pool:
    """Pool that runs jobs to their ends.

    Args:
        settings: the number of simultaneous jobs, and the resources of each.
        table: their display.
        observer: informed of their state changes, if given.
    """

    def __init__(
        self, settings: Settings, table: LiveTable, observer: Observer | None = None
    ) -> None:
        self.settings = settings
        self.table = table
        self.observer = observer
        self.running: dict[int, Job] = {}  # by slot
        self.stopping = False
        self._kills = resources.killed_for_memory()
        self._watched = 0.0
        slots = settings.at_a_time(table.total)
        self._limit = settings.limit(slots)
        self._cores = (
            [[] for _ in range(slots)]
            if settings.cores == 0
            else resources.shares(slots, settings.cores)
        )

    def run(self, jobs: Iterable[Job]) -> list[Job]:
        """Run all jobs, and return in order those that were begun or done before.

        A signal stops it early.
        """
        waiting = iter(jobs)
        begun: list[Job] = []
        again: list[Job] = []
        with self.table.shown():
            more = True
            while more or again or self.running:
                slot = next((s for s in range(len(self._cores)) if s not in self.running), None)
                if (more or again) and slot is not None and not self.stopping:
                    try:
                        job = again.pop(0) if again else next(waiting)
                    except StopIteration:
                        more = False
                        continue
                    begun += [] if job in begun else [job]
                    self._begin(slot, job)
                    continue
                if self.stopping and not self.running:
                    break
                time.sleep(POLL_SECONDS)
                again += self._look()
        return begun

    def _begin(self, slot: int, job: Job) -> None:
        if job.done_before():
            job.status = str(job.result()["status"])
            self.table.ended(job, "before")
            if self.observer is not None:
                self.observer.ended(job)
            return
        try:
            job.start(self._cores[slot])
        except OSError as error:  # no room for its folder or process; the others go on
            job.status = "failed"
            job.reason = f"it could not be started: {error.strerror or error}"
            job.write()
            self.table.ended(job, "")
            if self.observer is not None:
                self.observer.ended(job)
            return
        self.running[slot] = job
        self.table.started(job)

    def _look(self) -> list[Job]:
        """Record which jobs have ended, and watch the others; return those to start again."""
        again = []
        for slot, job in list(self.running.items()):
            if job.process is not None and job.process.poll() is not None:
                del self.running[slot]
                again += self._end(job)
        if time.monotonic() - self._watched >= _WATCH_SECONDS:
            self._watched = time.monotonic()
            for job in self.running.values():
                self._watch_over(job)
            self.table.refresh(self.running.values())
        return again

    def _watch_over(self, job: Job) -> None:
        assert job.process is not None
        limit = self._limit
        megabytes = resources.taken(job.process.pid) if limit < float("inf") else 0.0
        if megabytes > limit:
            more = "hydra.launcher.memory=MB or a smaller hydra.launcher.jobs gives it more"
            job.verdict = (
                "failed",
                f"out of memory: it took {megabytes:.0f} of its {limit:.0f} MB; {more}",
            )
            job.send(signal.SIGKILL)
        elif self.observer is not None:
            self.observer.watch(job)

    def _end(self, job: Job) -> list[Job]:
        """Record how a job ended; return it if it is to be started again."""
        job.verdict = job.verdict or self._known_better(job)
        job.end()
        # A mistake in the config, or NaN, would recur
        crashed = job.status == "failed" and job.code != 2
        if crashed and job.attempts <= self.settings.retries and not self.stopping:
            self.table.ended(job, "again")
            return [job]
        self.table.ended(job, "")
        if self.observer is not None:
            self.observer.ended(job)
        if job.failed and self.settings.fail_fast:
            self.stop(signal.SIGTERM)
        return []

    def _known_better(self, job: Job) -> tuple[str, str] | None:
        """Return status and reason, if they do not follow from what the job left, else None."""
        kills = resources.killed_for_memory()
        before = self._kills
        self._kills = kills
        if job.process is not None and job.process.returncode == -signal.SIGKILL and kills > before:
            return (
                "failed",
                "out of memory: the kernel ended it; a smaller hydra.launcher.jobs leaves it more",
            )
        if self.stopping and job.result(job.started).get("status") not in (
            "failed",
            "nan",
            *ENDED_WELL,
        ):
            return "stopped", "the sweep was stopped"
        return None

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ask the running jobs to save and stop, and start no more."""
        self.stopping = True
        for job in self.running.values():
            job.send(number)

    def passing_signals(self) -> contextlib.AbstractContextManager[None]:
        """Pass Ctrl-C and SIGTERM on to the running jobs while the context lasts.

        The jobs save, and no other is started.
        """

        def heard(number: int, frame: Any) -> None:
            self.stop(signal.SIGTERM if number == signal.SIGHUP else number)

        return heard_by(heard, *_SIGNALS)
