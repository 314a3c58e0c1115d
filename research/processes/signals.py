"""Ctrl-C and SIGTERM: the first asks for a save and a clean end, the second ends at once."""

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from typing import Any

_log = logging.getLogger("sparring")
_listening: list["Interrupt"] = []


def asked() -> bool:
    """Whether a signal has asked for the end of this process' run."""
    return any(interrupt.asked for interrupt in _listening)


@contextlib.contextmanager
def heard_by(handler: Callable[[int, Any], None], *numbers: int) -> Iterator[None]:
    """`handler(number, frame)` hears these signals while the context lasts; then they are given
    back as they were.
    """
    old = {}
    # Not the main thread, as under some launchers: signals are not ours to take
    with contextlib.suppress(ValueError):
        for number in numbers:
            old[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in old.items():
            signal.signal(number, before)


class StoppedError(Exception):
    """Raised by a trainer that gives up waiting for somebody who may never come, because the end
    was asked for.
    """


class Interrupt:
    """`asked` is true once a signal has asked for the end."""

    def __init__(self) -> None:
        self.asked = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the two signals while the context lasts."""
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
