"""Job of a sweep: its process, its folder, and its state in `job.json` there.

`job.json` is the sweep's manifest, a file for each job so that launchers on several machines need
not share one: the hash of the config it was started with, the status, the exit code, the attempts,
and the last lines of a failure.
"""

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sparring.processes import resources
from sparring.processes.spawn import program
from sparring.storage import atomic, run_folder, settings

FILE = "job.json"
OUTPUT = "output.log"
ENDED_WELL = ("finished", "target")
_MESSAGE = re.compile(r"\S+ \S+ [A-Z]+ (.+)")  # of a line of the log: date, time, level, message
_SHOWN_LINES = 5  # number of lines kept of a failed job's log
_NAMES_ONLY = ("hydra", *settings.ABOUT)


@dataclass
class Job:
    """Command to run in `folder`: `sparring command arguments...`. `hash` is its config's."""

    folder: Path
    command: str
    arguments: list[str]
    hash: str = ""
    attempts: int = 0
    status: str = "waiting"
    reason: str = ""
    lines: list[str] = field(default_factory=list)
    code: int | None = None
    seconds: float = 0.0
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    # Status and reason set by the one who ended the process, instead of those it left
    verdict: tuple[str, str] | None = None

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @property
    def failed(self) -> bool:
        """Whether the job failed or met NaN."""
        return self.status in ("failed", "nan")

    def done_before(self) -> bool:
        """Return whether an earlier sweep completed the job with an equal config."""
        try:
            old = json.loads((self.folder / FILE).read_text())
            same = old["hash"] == self.hash and old["status"] in ENDED_WELL
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return same and self.result().get("status") in ENDED_WELL

    def start(self, cores: Sequence[int]) -> None:
        """Start the process on these cores (none: not pinned), with its output in a file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.attempts = self.attempts + 1
        self.status = "running"
        self.started = time.time()
        command = program([self.command, *self.arguments])
        threads = {"OMP_NUM_THREADS": str(len(cores))} if cores else {}
        # In a session of its own, the job gets Ctrl-C once, from this process, and not from the
        # terminal as well; and its children, in whatever process groups, can be found after its
        # end.
        with (self.folder / OUTPUT).open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, **threads},
            )
        with contextlib.suppress(OSError):
            if cores:  # set before it starts threads, which inherit it
                os.sched_setaffinity(self.process.pid, cores)
            # Out of memory, the kernel should end the job rather than this process
            Path(f"/proc/{self.process.pid}/oom_score_adj").write_text("500")
        # Linux shares time among sessions: pass the niceness of this process on to the job's
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.process.pid}/autogroup").write_text(str(os.nice(0)))
        self.write()

    def send(self, number: int) -> None:
        """Send the process a signal."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def end(self) -> None:
        """Record how the process ended, and end what it left running.

        A verdict that was set takes precedence over what the process left.
        """
        assert self.process is not None
        self.code = self.process.wait()
        # A killed job leaves workers and environments, which would save, or hold its folder's lock
        resources.end(self.process.pid)
        self.process = None
        self.seconds = time.time() - self.started
        result = self.result(since=self.started)
        message = str(result.get("message") or "").strip().splitlines()
        self.status = _status(self.code, result)
        self.reason = "" if self.status in ENDED_WELL else _reason(self.code, message)
        if self.verdict is not None:
            self.status, self.reason = self.verdict
            self.verdict = None
        # For a UserError, its one line suffices
        told = message[1:] or ([] if message and self.code == 2 else self._log())
        self.lines = told[-_SHOWN_LINES:] if self.failed else []
        self.write()

    def result(self, since: float = 0.0) -> dict[str, Any]:
        """Return the job's result.json.

        It is empty if the file is older than `since` and not of a completed run.
        """
        path = self.folder / run_folder.RESULT
        try:
            result = dict(json.loads(path.read_text()))
            fresh = path.stat().st_mtime >= since - 1.0 or result.get("status") in ENDED_WELL
        except (OSError, ValueError):
            return {}
        return result if fresh else {}

    def objective(self) -> float | None:
        """Return the final objective of a completed job, else None."""
        value = (self.result().get("objective") or {}).get("value")
        return (
            float(value) if isinstance(value, int | float) and self.status in ENDED_WELL else None
        )

    def progress(self) -> str:
        """Return the newest message of the job's log since it was started, else its phase."""
        if not self._is_newer(run_folder.CONFIG):
            return "loading TensorFlow"
        lines = _tail(self.folder / run_folder.LOG) if self._is_newer(run_folder.LOG) else []
        messages = [found[1] for found in map(_MESSAGE.match, lines) if found]
        return messages[-1] if messages else "building, then compiling"

    def _is_newer(self, name: str) -> bool:
        """Return whether the job has written a file since it was started."""
        try:
            return (self.folder / name).stat().st_mtime >= self.started
        except OSError:
            return False

    def write(self) -> None:
        """Write job.json, unless the disk refuses."""
        said = {
            name: getattr(self, name)
            for name in ("hash", "status", "code", "attempts", "reason", "lines")
        }
        said |= {
            "seconds": round(self.seconds, 1),
            "command": self.command,
            "arguments": self.arguments,
        }
        with contextlib.suppress(OSError):
            atomic.write_text(
                self.folder / FILE, json.dumps({**said, "when": time.time()}, indent=2) + "\n"
            )

    def _log(self) -> list[str]:
        """Return the last lines of the job's log if they explain a failure, else of its output."""
        output = _tail(self.folder / OUTPUT)
        # The run ended with a message of its own
        explained = bool(output) and output[-1].startswith("sparring: ")
        return (explained and _tail(self.folder / run_folder.LOG)) or output


def hashed(cfg: DictConfig) -> str:
    """Return the hash of a job's config, without keys that only name or place it."""
    plain: Any = OmegaConf.to_container(
        OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k not in _NAMES_ONLY])
    )
    plain["run"] = {k: v for k, v in plain["run"].items() if k not in ("dir", "name")}
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()


def _status(code: int, result: Mapping[str, Any]) -> str:
    status = str(result.get("status", ""))
    if code == 0 and status in (*ENDED_WELL, "stopped"):
        return status
    if status == "nan":
        return "nan"
    return "stopped" if code == 130 or (status == "stopped" and code == 1) else "failed"


def _reason(code: int, message: Sequence[str]) -> str:
    """Return in one line why a job did not end well: exit code or signal, and first message."""
    how = f"exit code {code}" if code >= 0 else f"signal {-code}, {signal.Signals(-code).name}"
    if code == 0 and not message:
        how += ", but it never came to its end: did something in it call sys.exit?"
    return ": ".join([how, *message[:1]])


def _tail(path: Path, size: int = 4096) -> list[str]:
    """Return the last lines of a file; none if there is no file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return [
                line for line in file.read().decode(errors="replace").splitlines() if line.strip()
            ]
    except OSError:
        return []
