"""Display of a sweep's running jobs: a live table on a terminal, else lines of text.

Without a terminal there is a line when a job starts and when it ends.
"""

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from sparring.sweep.job import Job
from sparring.training.schedule import duration

_ROWS = 30  # largest number of running jobs shown


class LiveTable:
    """Table of jobs. `total` is their number, 0 if unknown."""

    def __init__(self, total: int = 0) -> None:
        self.total = total
        self.counts: Counter[str] = Counter()
        self._begun = 0
        self._seconds = 0.0
        self._numbers: dict[str, int] = {}
        self._live: Any = None

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Keep the table on the terminal while the context lasts."""
        if not sys.stdout.isatty():
            yield
            return
        from rich.console import Console  # imported here to keep `--help` fast
        from rich.live import Live

        with Live(
            console=Console(soft_wrap=True), refresh_per_second=2, transient=True
        ) as self._live:
            yield
        self._live = None

    def started(self, job: Job) -> None:
        """Show that a job has begun."""
        number = self._number(job)
        if self._live is None:
            print(f"{number} {job.name}", flush=True)

    def ended(self, job: Job, how: str) -> None:
        """Show that a job has ended.

        `how` is "before" (an earlier sweep completed it), "again" (it is started again) or "".
        """
        number = self._number(job)
        if how != "again":
            self.counts["done before" if how == "before" else job.status] += 1
            self._seconds += job.seconds
        said = {"before": f"{job.status} before", "again": f"{job.status}, started again"}.get(
            how, job.status
        )
        value = job.objective()
        result = f", {job.result()['objective']['name']} {value:.4g}" if value is not None else ""
        took = f" in {duration(job.seconds)}" if how != "before" else ""
        lines = [
            f"{number} {job.name}: {said}{took}{result}{': ' if job.reason else ''}{job.reason}"
        ]
        lines += [f"    {line}" for line in job.lines]
        for line in lines:
            if self._live is None:
                print(line, flush=True)
            else:
                style = "red" if job.failed else ""
                self._live.console.print(line, style=style, highlight=False, markup=False)

    def refresh(self, running: Iterable[Job]) -> None:
        """Show the progress of the running jobs."""
        if self._live is None:
            return
        from rich.console import Group
        from rich.table import Table as Grid
        from rich.text import Text

        grid = Grid(box=None, padding=(0, 2, 0, 0))
        for job in list(running)[:_ROWS]:
            cells = (job.name, duration(time.time() - job.started), job.progress()[:120])
            grid.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in cells))
        self._live.update(Group(grid, self._summary(len(list(running)))))

    def _summary(self, running: int) -> str:
        done = sum(self.counts.values())
        parts = [
            f"{done} of {self.total} jobs" if self.total else f"{done} jobs",
            f"{running} running",
        ]
        parts += [f"{count} {status}" for status, count in self.counts.items()]
        trained = done - self.counts["done before"]
        if trained and self.total and running:
            parts.append(
                f"about {duration(self._seconds / trained * (self.total - done) / running)} left"
            )
        return ", ".join(parts)

    def _number(self, job: Job) -> str:
        number = self._numbers.setdefault(job.name, len(self._numbers) + 1)
        return f"[{number}{f'/{self.total}' if self.total else ''}]"
