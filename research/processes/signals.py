"""Ctrl-C and SIGTERM: the first asks for a save and a clean end, the second ends at once."""

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from typing import Any

_log = logging.getLogger("sparring")
_listening: list["Interrupt"] = []


def asked() -> bool:
    """Return whether a signal has asked for the end of this process' run."""
    return any(interrupt.asked for interrupt in _listening)


@contextlib.contextmanager
def heard_by(handler: Callable[[int, Any], None], *numbers: int) -> Iterator[None]:
    """Handle signals by `handler(number, frame)` while the context lasts, then restore them."""
    old = {}
    # Outside the main thread, as under some launchers, signals cannot be handled
    with contextlib.suppress(ValueError):
        for number in numbers:
            old[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in old.items():
            signal.signal(number, before)


class StoppedError(Exception):
    """Raised by a trainer that stops waiting for another process because the end was requested."""


class Interrupt:
    """Listener for SIGINT and SIGTERM; `asked` is true once one has arrived."""

    def __init__(self) -> None:
        self.asked = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the two signals while the context lasts."""
        _listening.append(self)
        try:
            with heard_by(self._heard, signal.SIGINT, signal.SIGTERM):
                yield
        finally:
            _listening.remove(self)

    def _heard(self, number: int, frame: Any) -> None:
        name = signal.Signals(number).name
        if self.asked:
            raise KeyboardInterrupt(f"stopped at once by a second signal, {name}")
        self.asked = True
        _log.warning("%s: saving and stopping. Once more to stop at once.", name)
