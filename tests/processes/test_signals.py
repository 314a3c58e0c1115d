"""Signals outside the loop that tests/training/test_loop.py drives: other threads, and handlers
that were there before.
"""

import os
import signal
import threading

import pytest

from sparring.processes.signals import Interrupt


def test_a_thread_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def listen() -> None:
        with Interrupt().listening():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == [before]


def test_handlers_come_back_even_after_the_second_signal() -> None:
    heard = []
    old = signal.signal(signal.SIGTERM, lambda *_: heard.append("old"))
    try:
        interrupt = Interrupt()
        with interrupt.listening():
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupt.asked
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"), interrupt.listening():
            os.kill(os.getpid(), signal.SIGTERM)
        assert heard == []
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == ["old"]
    finally:
        signal.signal(signal.SIGTERM, old)
