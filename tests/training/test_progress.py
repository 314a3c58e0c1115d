"""Progress is lines in a log without a terminal, and a bar on one."""

import io
import logging
import os
import pty
import subprocess
import sys
import threading

import pytest

from sparring.processes import activity
from sparring.training import progress, schedule
from sparring.training.progress import Progress, Terminal

# Prints on a terminal of its own, which it is given as standard error.
BAR = """
import logging
from sparring.training.progress import Progress, Terminal
log = logging.getLogger("sparring")
log.addHandler(Terminal())
bar = Progress(("eval/return", "loss"))
with bar.of(200, 50, "env_steps"):
    bar.show({"loss": 0.25}, None)
    bar.advance(100)
    log.warning("a word between")
    bar.show({"eval/return": 12.3456}, 1234.5)
    bar.advance(200)
"""


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_there_is_a_line_every_ten_seconds(caplog, clock):
    caplog.set_level(logging.INFO, "sparring")
    shown = Progress(("eval/return", "loss"))
    with shown.of(1000, 0, "env_steps"):
        for second, step in [(3, 100), (9.9, 200), (10, 300), (19, 400), (20.5, 500)]:
            clock[0] = second
            shown.show({"loss": step / 1000, "unasked": 7.0}, 50.0)
            shown.advance(step)
    assert [r.getMessage() for r in caplog.records] == [
        # 700 and 500 steps at 50 a second
        "step 300 of 1000 env steps (30%), 50/s, 14 s left, loss 0.3",
        "step 500 of 1000 env steps (50%), 50/s, 10 s left, loss 0.5",
    ]


def test_before_the_speed_is_known_a_line_says_how_far_it_is(caplog, clock):
    caplog.set_level(logging.INFO, "sparring")
    shown = Progress()
    with shown.of(64, 0, "env_steps"):
        clock[0] = 11.0
        shown.advance(4)
        clock[0] = 22.0
        shown.advance(1024)  # a whole iteration is more than was asked for
    assert caplog.messages == ["step 4 of 64 env steps (6%)", "step 1024 of 64 env steps (100%)"]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (99, "99 s"), (600, "10 min"), (9000, "2.5 h")]
)
def test_times_are_in_units_that_people_take(seconds, said):
    assert schedule.duration(seconds) == said


def test_what_is_shown_is_the_newest_in_the_order_asked_for(caplog, clock):
    caplog.set_level(logging.INFO, "sparring")
    shown = Progress(("eval/return", "loss"))
    with shown.of(10, 0, "images"):
        shown.show({"loss": 1.0}, 2500.0)
        shown.show({"eval/return": 20.0}, None)  # the rate stays
        shown.show({"loss": 2.0}, None)
        clock[0] = 11.0
        shown.advance(5)
        clock[0] = 22.0
        shown.advance(6)  # nothing new to say
        shown.show({"loss": 3.0}, None)
        clock[0] = 33.0
        shown.advance(7)
    assert caplog.messages == [
        "step 5 of 10 images (50%), 2,500/s, 0 s left, eval/return 20, loss 2",
        "step 6 of 10 images (60%), 2,500/s, 0 s left",
        "step 7 of 10 images (70%), 2,500/s, 0 s left, eval/return 20, loss 3",
    ]


def test_a_terminal_gets_a_bar_that_begins_where_the_run_resumed():
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "150"}
    done = subprocess.run(
        [sys.executable, "-c", BAR],
        stderr=theirs,
        stdout=subprocess.PIPE,
        env=environment,
        check=True,
    )
    os.close(theirs)
    said = b""
    while chunk := _read(ours):
        said += chunk
    text = said.decode()
    assert not done.stdout
    assert text.index(" 50/200") < text.index("200/200")
    assert "a word between" in [
        line.rpartition("\x1b[2K")[2].strip() for line in text.splitlines()
    ]  # a line of its own
    assert "1,234/s, eval/return 12.35, loss 0.25" in text
    assert "\x1b[?25h" in text  # the cursor is given back


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end is closed
        return b""


class Full(io.StringIO):
    """Refuses the first line, as a disk without room does, and would take a complaint about it."""

    refused = False

    def write(self, text: str) -> int:
        if not self.refused:
            self.refused = True
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_where_nothing_can_be_written_a_line_is_lost_and_nothing_else(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Full())
    terminal = Terminal()
    terminal.emit(logging.makeLogRecord({"msg": "lost"}))
    terminal.emit(logging.makeLogRecord({"msg": "kept"}))
    assert sys.stderr.getvalue() == "kept\n"


def test_a_line_that_cannot_be_made_is_a_bug_and_is_shown(capsys):
    Terminal().emit(logging.makeLogRecord({"msg": "%d steps", "args": ("many",)}))
    assert "TypeError" in capsys.readouterr().err


def test_work_that_takes_long_says_what_it_is(monkeypatch) -> None:
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.05)
    monkeypatch.setattr(progress, "_TICK_SECONDS", 0.01)
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    heard = threading.Event()
    said = []
    monkeypatch.setattr(progress._log, "info", lambda *words: (said.append(words), heard.set()))
    with Progress().of(100, 0, "env_steps"), activity.doing("compiling"):
        assert heard.wait(30)
    assert said[0][:2] == ("%s (for %s)", "compiling")
    heard.clear()
    with Progress().of(100, 0, "env_steps"):
        assert not heard.wait(0.3)  # nothing is being done
