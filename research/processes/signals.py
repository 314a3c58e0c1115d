"""Ctrl-C and SIGTERM: the first asks for a save and a clean end, the second ends at once."""

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from sparring.processes import activity

ANSWER_SECONDS = 3.0  # after which somebody who waits is told for what
END_SECONDS = 5.0  # that the process has for its end at once, before it is ended from outside

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
            with heard_by(self._heard, signal.SIGINT, signal.SIGTERM), _answered_anyway():
                yield
        finally:
            _listening.remove(self)

    def _heard(self, number: int, frame: Any) -> None:
        name = signal.Signals(number).name
        if self.asked:
            raise KeyboardInterrupt(f"stopped at once by a second signal, {name}")
        self.asked = True
        _log.warning("%s: saving and stopping. Once more to stop at once.", name)


@contextlib.contextmanager
def _answered_anyway() -> Iterator[None]:
    """Answer signals from a thread, too, while Python waits for a native call to return.

    Python runs its handlers between two of its own instructions: not before a compilation, or a
    call into an environment, is over.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are not for it
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    over = threading.Event()
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_answer, args=(reader, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        writer.close()  # which ends the thread


def _answer(reader: socket.socket, over: threading.Event) -> None:
    """Say after the first signal what the end waits for, and end the process after the second."""
    with reader:
        if not reader.recv(1) or over.wait(ANSWER_SECONDS):
            return
        _log.warning("Waiting for: %s. Once more to stop at once.", activity.now() or "the run")
        if not reader.recv(1) or over.wait(END_SECONDS):
            return
    print("sparring: stopped at once by a second signal", file=sys.stderr, flush=True)
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(130)
