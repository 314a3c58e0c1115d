"""Signals outside the loop that tests/training/test_loop.py drives: other threads, and handlers
that were there before.
"""

import os
import signal
import subprocess
import sys
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


DEAF = """
import hashlib
import logging
import sys
from sparring.processes import activity, signals
logging.basicConfig(format="%(message)s")
signals.ANSWER_SECONDS = 0.2
signals.END_SECONDS = 0.2
with signals.Interrupt().listening(), activity.doing("compiling"):
    print("deaf", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # minutes in native code
"""


def test_a_native_call_cannot_keep_a_signal_from_its_answer() -> None:
    command = [sys.executable, "-c", DEAF]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as p:
        assert p.stdout is not None
        assert p.stderr is not None
        try:
            assert p.stdout.readline() == "deaf\n"
            p.send_signal(signal.SIGINT)
            line = p.stderr.readline()
            if line.startswith("SIGINT"):  # it came before the native call
                line = p.stderr.readline()
            assert line == "Waiting for: compiling. Once more to stop at once.\n"
            p.send_signal(signal.SIGINT)
            _, said = p.communicate(timeout=30)
            assert said == "sparring: stopped at once by a second signal\n"
            assert p.returncode == 130
        finally:
            p.kill()
