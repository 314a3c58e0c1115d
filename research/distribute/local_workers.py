"""Several workers of one run on this host: one command starts them, hears for them, and ends them.

Each is a process that runs the same command again, with a TF_CONFIG that says which of them it is.
The chief, the first, speaks to the terminal; what the others say is shown only of one that failed.
"""

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from sparring.distribute import cluster
from sparring.distribute.cluster import Cluster
from sparring.errors import UserError
from sparring.processes import resources, spawn
from sparring.processes.signals import heard_by

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_GRACE = 15.0  # seconds that workers have to end after the first has ended
_POLL = 0.05


class Worker:
    """Process that runs `sparring arguments...` on the given cores (none: on any)."""

    def __init__(
        self, arguments: Sequence[str], place: Cluster, cores: Sequence[int], gpus: Sequence[str]
    ) -> None:
        self.number = place.number
        self.killed = False
        environment = {**os.environ, "TF_CONFIG": place.text}
        environment |= {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}
        self.said: IO[bytes] | None = tempfile.TemporaryFile() if self.number else None  # noqa: SIM115
        # In a process group of its own it hears of Ctrl-C through us, once, and not from the
        # terminal as well.
        self.process = subprocess.Popen(
            spawn.program(arguments),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self.said,
            stderr=self.said,
            process_group=0,
        )
        with contextlib.suppress(OSError):
            if cores:  # before it has started a thread: those it starts inherit this
                os.sched_setaffinity(self.process.pid, cores)

    @property
    def running(self) -> bool:
        """Whether it is."""
        return self.process.poll() is None

    def send(self, number: int) -> None:
        """Send it a signal."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def kill(self) -> None:
        """End it at once, if it has not ended by itself."""
        # Asks the system nothing: a signal may have us here in the middle of that
        if self.process.returncode is None:
            self.killed = True
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def last_words(self) -> str:
        """The last line that it said, if it is none that the terminal has seen."""
        if self.said is None:
            return ""
        with self.said:
            self.said.seek(0)
            lines = self.said.read().decode(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("sparring: ") if lines else ""


def run(arguments: Sequence[str], count: int) -> int:
    """Run `sparring arguments...` in `count` processes; returns the exit code.

    Raises UserError, one line, if one of them has ended before the chief and not by itself.
    """
    addresses = [f"127.0.0.1:{port}" for port in cluster.free_ports(count)]
    cores = resources.shares(count, None)
    shares = gpus(count)
    workers: list[Worker] = []
    with _passing_signals(workers):
        try:
            for i in range(count):
                place = Cluster({"worker": addresses}, "worker", i)
                workers.append(Worker(arguments, place, cores[i], shares[i]))
            first = _first_to_end(workers)
            _wait(workers, first)
        finally:
            for worker in workers:
                if worker.running:
                    worker.kill()
                worker.process.wait()
    return _verdict(workers, first)


def _first_to_end(workers: Sequence[Worker]) -> Worker:
    while True:
        for worker in workers[
            ::-1
        ]:  # the chief last: what ends it may be another's end, a moment ago
            if not worker.running:
                return worker
        time.sleep(_POLL)


def _wait(workers: Sequence[Worker], first: Worker) -> None:
    """Until all have ended, if they do so in time: what fails leaves little to wait for.

    Who ends well has agreed to with the chief, which may still be saving, however long that takes.
    """
    while first.process.returncode == 0 and workers[0].running:
        time.sleep(_POLL)
    deadline = time.monotonic() + (_GRACE if first.process.returncode == 0 else _GRACE / 3)
    while time.monotonic() < deadline and any(worker.running for worker in workers):
        time.sleep(_POLL)


def _verdict(workers: Sequence[Worker], first: Worker) -> int:
    """The exit code, once all have ended; UserError with what the chief, if it has said why, cannot
    know.
    """
    chief = workers[0]
    code = first.process.returncode
    said = [worker.last_words() for worker in workers]
    if chief.process.returncode == 2:  # a mistake, which it has told, whoever else has found it too
        return 2
    for worker, words in zip(workers, said, strict=True):
        if worker.process.returncode > 0 and words and cluster.GONE not in words:
            raise _lost(worker, f"failed: {words}")
    if chief.process.returncode >= 0:
        return chief.process.returncode
    how = (
        f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    )
    raise _lost(first, how)


def _lost(worker: Worker, how: str) -> UserError:
    error = UserError(f"worker {worker.number} {how}; the others were stopped. {cluster.GO_ON}")
    error.exit_code = 1
    return error


def gpus(count: int) -> list[list[str]]:
    """The GPUs of each worker, as CUDA_VISIBLE_DEVICES counts them; none on a host without."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        names = [re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*")]
        found = sorted((name[1] for name in names if name), key=int)
    else:
        found = [name for name in visible.split(",") if name not in ("", "-1")]
    if found and len(found) % count:
        raise UserError(
            f"strategy.workers={count}: {len(found)} GPUs cannot be shared equally among so many "
            "workers."
        )
    return [found[i * len(found) // count : (i + 1) * len(found) // count] for i in range(count)]


@contextlib.contextmanager
def _passing_signals(workers: Sequence[Worker]) -> Iterator[None]:
    """Ctrl-C and SIGTERM go to the workers: the first has them save and stop, the second ends them
    at once.
    """
    heard: list[int] = []

    def pass_on(number: int, frame: Any) -> None:
        heard.append(number)
        for worker in workers:
            if len(heard) == 1:
                worker.send(signal.SIGTERM if number == signal.SIGHUP else number)
            else:
                worker.kill()

    with heard_by(pass_on, *_SIGNALS):
        yield
    if len(heard) > 1:
        raise KeyboardInterrupt
