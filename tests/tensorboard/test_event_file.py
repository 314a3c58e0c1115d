import logging
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

from sparring.tensorboard import event_file
from sparring.tensorboard.event_file import EventLog
from sparring.tensorboard.writer import Writer
from tests.helpers.board import loaded, points


def event(step: int) -> Callable[[], Event]:
    return lambda: Event(
        step=step, summary=Summary(value=[Summary.Value(tag="loss", simple_value=step)])
    )


def process(script: str, folder: Path) -> subprocess.CompletedProcess:
    """Run a training of its own; `folder`, `writer` and a small `log(first, last)` are there."""
    head = """
        import os, resource, signal, sys, time
        from pathlib import Path
        from sparring.tensorboard import event_file
        from sparring.tensorboard.writer import Writer
        folder = Path(sys.argv[1])
        writer = Writer(folder)
        def log(first, last):
            for step in range(first, last):
                writer.scalars({"loss": step, "return": -step}, step)
    """
    program = textwrap.dedent(head) + textwrap.dedent(script)
    return subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=False
    )


def test_points_survive_sigkill(tmp_path: Path) -> None:
    done = process("log(0, 300); time.sleep(0.5); os.kill(os.getpid(), signal.SIGKILL)", tmp_path)
    assert done.returncode == -9
    assert points(tmp_path, "loss") == [(step, step) for step in range(300)]


def test_points_survive_an_exit_without_close(tmp_path: Path) -> None:
    done = process("log(0, 300); sys.exit(3)", tmp_path)
    assert (done.returncode, done.stderr) == (3, "")
    assert points(tmp_path, "loss") == [(step, step) for step in range(300)]


def test_full_disk_is_one_warning_and_mends(tmp_path: Path) -> None:
    script = """
        event_file.RETRY_SECONDS = 0.2
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        for step in range(100):
            log(step, step + 1)
            time.sleep(0.01)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        time.sleep(1)
        size = sum(path.stat().st_size for path in folder.iterdir())
        assert size > 4000, "what waited comes by itself"
        log(100, 200)
        writer.close()
        print("trained to the end")
    """
    done = process(script, tmp_path)
    assert done.stdout == "trained to the end\n"
    lost, mended = done.stderr.splitlines()
    assert "TensorBoard events are being lost" in lost
    assert "File too large" in lost
    assert "written again" in mended
    assert "0 were lost" in mended
    # The record that was cut short is whole again, and what waited in memory follows it.
    assert points(tmp_path, "return") == [(step, -step) for step in range(200)]


def test_disk_that_stays_full_loses_the_rest_and_counts_it(tmp_path: Path) -> None:
    script = """
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        log(0, 100)
        writer.close()
        print("trained to the end")
    """
    done = process(script, tmp_path)
    assert done.stdout == "trained to the end\n"
    assert len(done.stderr.splitlines()) == 2
    kept = points(tmp_path, "loss")  # the file is readable up to where it was cut
    assert 0 < len(kept) < 100
    assert kept == [(step, step) for step in range(len(kept))]
    assert f"{100 - len(kept)} TensorBoard events of {tmp_path} were lost" in done.stderr


def test_memory_for_waiting_events_is_bounded(tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(event_file, "KEPT_BYTES", 10 * event(1)().ByteSize())
    blocked = tmp_path / "run"
    blocked.write_text("a file where the folder should be")
    log = EventLog(blocked)
    for step in range(1, 101):
        log.put(event(step))
    log.flush()
    blocked.unlink()
    log.put(event(101))
    log.close()
    assert [step for step, _ in points(blocked, "loss")] == list(range(1, 11))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "being lost" in caplog.messages[0]
    assert "91 were lost" in caplog.messages[1]  # 11 to 101: the disk was full when they came


def test_vanished_folder_is_made_anew(tmp_path: Path, caplog) -> None:
    folder = tmp_path / "run"
    writer = Writer(folder, descriptions={"loss": "nats"})
    writer.scalars({"loss": 1.0}, 1)
    writer.flush()
    shutil.rmtree(folder)
    writer.scalars({"loss": 2.0}, 2)
    writer.scalars({"loss": 3.0}, 3)
    writer.close()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "was deleted" in caplog.text
    assert points(folder, "loss") == [(2, 2.0), (3, 3.0)]
    # Again, in the new file
    assert loaded(folder).SummaryMetadata("loss").summary_description == "nats"


def test_moved_folder_is_followed(tmp_path: Path, caplog) -> None:
    writer = Writer(tmp_path / "run")
    writer.scalars({"loss": 1.0}, 1)
    writer.flush()
    (tmp_path / "run").rename(tmp_path / "kept")
    writer.scalars({"loss": 2.0}, 2)
    writer.close()
    assert points(tmp_path / "kept", "loss") == [(1, 1.0), (2, 2.0)]
    assert not caplog.records


def test_a_later_file_sorts_after_an_earlier_one(tmp_path: Path) -> None:
    first = EventLog(tmp_path)
    first.put(event(1))
    first.close()
    (file,) = tmp_path.iterdir()
    # Written where the clock was ahead
    file.rename(tmp_path / "events.out.tfevents.9000000000.another-machine.7")
    second = EventLog(tmp_path)
    second.put(event(2))
    second.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[1] == f"events.out.tfevents.9000000001.{names[1].split('.', 4)[4]}"
    assert [step for step, _ in points(tmp_path, "loss")] == [1, 2]


def test_event_that_cannot_be_built_is_one_warning(tmp_path: Path, caplog) -> None:
    log = EventLog(tmp_path)
    for _ in range(3):
        log.put(lambda: Event(step=1 // 0))
    log.put(event(4))
    log.close()
    (record,) = caplog.records
    assert "ZeroDivisionError" in record.getMessage()
    assert record.exc_info
    assert [step for step, _ in points(tmp_path, "loss")] == [4]


def test_a_hanging_disk_does_not_hang_the_caller(tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(event_file, "QUEUED", 2)
    monkeypatch.setattr(event_file, "PATIENCE_SECONDS", 0.1)
    log = EventLog(tmp_path)
    disk_answers = threading.Event()
    hangs = threading.Event()

    def hanging() -> Event:
        hangs.set()
        disk_answers.wait()
        return event(0)()

    log.put(hanging)
    hangs.wait()
    for step in range(1, 6):  # two wait in the queue, three are lost
        log.put(event(step))
    disk_answers.set()
    monkeypatch.setattr(event_file, "PATIENCE_SECONDS", 10.0)
    log.close()
    assert [step for step, _ in points(tmp_path, "loss")] == [0, 1, 2]
    assert "has hung" in caplog.messages[0]
    assert "3 TensorBoard events" in caplog.messages[-1]
    assert len(caplog.messages) == 2


def test_close_twice_and_put_after_close(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.put(event(1))
    log.close()
    log.close()
    with pytest.raises(RuntimeError, match="after close"):
        log.put(event(2))
    assert not [thread for thread in threading.enumerate() if thread.name == "event-log"]


def test_nothing_written_leaves_nothing(tmp_path: Path, caplog) -> None:
    EventLog(tmp_path / "run").close()
    assert not (tmp_path / "run").exists()
    assert not caplog.records


@pytest.fixture(autouse=True)
def _warnings_reach_caplog(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "sparring")
