"""Ctrl-C and SIGTERM: the first asks for a save and a clean end, the second ends at once."""

import contextlib
import logging
import signal
from collections.abc import Iterator
from typing import Any

_log = logging.getLogger("sparring")


class Interrupt:
    """`asked` is true once a signal has asked for the end."""

    def __init__(self) -> None:
        self.asked = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take the two signals while the context lasts, and give them back as they were."""
        old = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                old[number] = signal.signal(number, self._heard)
        except ValueError:  # not the main thread, as under some launchers: signals are not ours to take
            pass
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _heard(self, number: int, frame: Any) -> None:
        name = signal.Signals(number).name
        if self.asked:
            raise KeyboardInterrupt(f"stopped at once by a second signal, {name}")
        self.asked = True
        _log.warning("%s: saving and stopping. Once more to stop at once.", name)
