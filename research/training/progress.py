"""Progress of a run: a bar on a terminal, lines in a log."""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Column

from sparring.processes import activity
from sparring.training.schedule import duration

_log = logging.getLogger("sparring")
_LINE_SECONDS = 10.0  # without a terminal, a line this often
_TICK_SECONDS = 1.0  # between two looks at what the process is doing


class Terminal(logging.StreamHandler):
    """Log lines to standard error as it is at that moment: while a bar is shown, that puts them
    above it.
    """

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """Return the stream that the next line goes to."""
        return sys.stderr

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """A terminal that has gone, or a full disk behind it, costs lines; other errors are bugs,
        and are shown.
        """
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def headline(trainer: Any) -> tuple[str, ...]:
    """Return the tags beside the progress bar: the objective, and those of the first chart."""
    charts = [tags for titles in trainer.charts.values() for tags in titles.values()]
    first = [tag.removesuffix("$") for tag in (charts[0] if charts else [])]
    return tuple(dict.fromkeys([trainer.objective, *first]))


class Progress:
    """A progress bar with the return and the speed; without a terminal, a line every ten seconds.

    `shown` are the scalars worth a place beside the bar, in the order they are shown in.
    """

    def __init__(self, shown: Sequence[str] = ()) -> None:
        self._shown = tuple(shown)
        self._values: dict[str, float] = {}
        self._newer = False  # whether a line has not shown the scalars yet
        self._rate: float | None = None
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._last_line = 0.0
        self._total = 0
        self._unit = ""

    @contextlib.contextmanager
    def of(self, total: int, done: int, unit: str) -> Iterator[None]:
        """Show progress from `done` to `total` while the context lasts."""
        self._total = total
        self._unit = unit.replace("_", " ")
        self._last_line = time.monotonic()
        with contextlib.ExitStack() as stack:
            if sys.stderr.isatty():
                # A narrow terminal costs the last of the scalars
                rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
                text = TextColumn("{task.description}", table_column=rest)
                columns = (BarColumn(16), MofNCompleteColumn(), TimeRemainingColumn(), text)
                bar = Bar(*columns, console=Console(stderr=True), expand=True)
                self._bar = stack.enter_context(bar)
                self._task = self._bar.add_task(self._unit, total=total, completed=done)
            stack.enter_context(self._telling())
            try:
                yield
            finally:
                self._bar = None

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Say what the process is doing where that takes long, from a thread."""
        over = threading.Event()
        thread = threading.Thread(target=self._tell, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _tell(self, over: threading.Event) -> None:
        words = ""
        since = 0.0
        while not over.wait(_TICK_SECONDS):
            now = time.monotonic()
            if activity.now() != words:
                words = activity.now()
                since = now
            if not words or now - self._last_line < _LINE_SECONDS or now - since < _TICK_SECONDS:
                continue
            self._last_line = now
            if self._bar is not None and self._task is not None:
                self._bar.update(self._task, description=words)
            else:
                _log.info("%s (for %s)", words, duration(now - since))

    def advance(self, step: int) -> None:
        """`step` steps are done."""
        if self._bar is not None and self._task is not None:
            self._last_line = time.monotonic()
            self._bar.update(self._task, completed=step, description=self._text("/s"))
        elif time.monotonic() - self._last_line >= _LINE_SECONDS:
            self._last_line = time.monotonic()
            _log.info("%s", self._line(step))

    def show(self, values: Mapping[str, float], rate: float | None) -> None:
        """Newer scalars, and the steps per second if they are known."""
        self._values |= values
        self._newer = True
        self._rate = self._rate if rate is None else rate

    def _line(self, step: int) -> str:
        """Return a line of the log: how far it is, how fast, how long it will take, scalars."""
        percent = min(100, int(100 * step / self._total))
        parts = [f"step {step} of {self._total} {self._unit} ({percent}%)"]
        if self._rate:
            left = max(0, self._total - step) / self._rate
            parts += [f"{self._rate:,.0f}/s", f"{duration(left)} left"]
        if self._newer:  # the same again would look like news
            parts += self._scalars()
            self._newer = False
        return ", ".join(parts)

    def _text(self, per_second: str) -> str:
        rate = self._unit if self._rate is None else f"{self._rate:,.0f}{per_second}"
        return ", ".join([rate, *self._scalars()])

    def _scalars(self) -> list[str]:
        return [f"{tag} {self._values[tag]:.4g}" for tag in self._shown if tag in self._values]
