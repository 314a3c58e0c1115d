"""A sweep's jobs: each a process of its own, so that none can end another, and each starts TensorFlow afresh."""

import contextlib
import hashlib
import json
import logging
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from research import config, record

# `python -m research` would take a folder named research in the working folder for ours.
_PROGRAM = f"import sys; sys.path.append({str(config.CONF.parent)!r}); from research.cli import main; main()"
_SHOWN_LINES = 5  # of a failed job's log
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ENDED_WELL = ("finished", "target")
_log = logging.getLogger("sparring")


class Jobs:
    """Runs the composed configs of a sweep, each in a child process, and remembers how each ended.

    `command` and `flags` are what the children are started with, beside their overrides; see `research.launch`.
    `count` is how many jobs there will be; 0 if nobody knows.
    """

    def __init__(self, command: str, flags: Sequence[str], count: int = 0) -> None:
        self.command, self.flags, self.count = command, list(flags), count
        self.ended: list[tuple[Path, str, list[str]]] = []  # folder, status, what was said last
        self.stopping = False
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, cfg: DictConfig, hydra_config: DictConfig, folder: Path) -> float | None:
        """Run one; returns its objective, or None if it did not get there. KeyboardInterrupt ends the sweep."""
        if self.stopping:
            raise KeyboardInterrupt
        from research.hparams import declare_hparams

        values = {k: [v] for k, v in record.hparams(cfg).items()}
        declare_hparams(folder.parent, values, record.HPARAM_METRICS)
        kept = [o for o in hydra_config.overrides.hydra if o.startswith(("hydra.searchpath=", "hydra.verbose="))]
        arguments = [*self.flags, *hydra_config.overrides.task, *kept]
        print(f"[{len(self.ended) + 1}{f'/{self.count}' if self.count else ''}] {folder.name}", flush=True)
        started = time.time()
        code = self._wait([*arguments, "hydra.mode=RUN", f"hydra.run.dir={quoted(str(folder))}"])
        result = _result(folder, started)
        details = _reason(result)[1:] or _lines(folder / record.LOG)
        self.ended.append((folder, _status(code, result, self.stopping), details[-_SHOWN_LINES:]))
        if self.stopping:
            raise KeyboardInterrupt
        return (result.get("objective") or {}).get("value")

    def _wait(self, arguments: list[str]) -> int:
        # In a process group of its own, the child hears of Ctrl-C through us, once, and not from the terminal as well.
        command = [sys.executable, "-P", "-c", _PROGRAM, self.command, *arguments]
        self._child = subprocess.Popen(command, process_group=0)
        try:
            return self._child.wait()
        finally:
            self._child = None

    @contextlib.contextmanager
    def passing_signals(self) -> Iterator[None]:
        """While the context lasts, Ctrl-C and SIGTERM go to the running job, which saves, and no other is started."""

        def heard(number: int, frame: Any) -> None:
            self.stopping = True
            if self._child is not None:
                self._child.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)

        old = {number: signal.signal(number, heard) for number in _SIGNALS}
        try:
            yield
        except KeyboardInterrupt:
            if not self.stopping:
                raise
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def conclude(self) -> int:
        """Say how the jobs ended, the failed ones with their reasons; returns the exit code."""
        failed = [job for job in self.ended if job[1].startswith(("failed", "nan"))]
        if not self.ended:
            return 0
        root = self.ended[0][0].parent
        of = f" of {self.count}" if self.count > len(self.ended) else ""
        print(f"{len(self.ended)}{of} jobs, {len(failed)} failed\ncurves:  tensorboard --logdir {root}", flush=True)
        if self.stopping:
            print(f"The sweep was stopped. The same command with run.name={root.name} goes on.", file=sys.stderr)
        for folder, status, details in failed:
            print(f"{folder}: {status}", *(f"    {line}" for line in details), sep="\n", file=sys.stderr)
        return 1 if failed else 0


def job_name(overrides: Sequence[str], swept: Sequence[str], number: int) -> str:
    """A short telling name for a job's folder: what the sweep varies, `agent=dqn,seed=0`.

    Keys are cut to their last part where that says which; brackets, quotes and signs that folders don't take are left
    out, and a few letters of a hash tell apart what would then read alike.
    """
    last = [key.rpartition(".")[2] for key in swept]
    parts = []
    for text in overrides:
        key, _, value = text.partition("=")
        key = key.lstrip("+")
        if key in swept:
            short = key.rpartition(".")[2]
            parts.append(f"{short if last.count(short) == 1 else key}={value}")
    full = ",".join(parts)
    name = re.sub(r"(?<=\d),(?=\d)", "x", re.sub(r"[\[\]]", "", full)) if "[" in full else full
    clean = re.sub(r"[^A-Za-z0-9_.+=,-]+", "-", name).strip("-.")[:120]
    if clean != name:
        clean += f"-{hashlib.sha256(full.encode()).hexdigest()[:6]}"
    return clean or f"job-{number}"


def quoted(text: str) -> str:
    """`text` as an override's value, whatever signs it holds."""
    escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", text).replace("'", r"\'")
    return f"'{escaped}'"


def _status(code: int, result: dict[str, Any], stopping: bool) -> str:
    if code == 0:
        return str(result.get("status", "finished"))
    if stopping and result.get("status") != "failed":
        return "stopped"
    how = f"exit code {code}" if code > 0 else f"signal {-code}, {signal.Signals(-code).name}"
    status = "nan" if result.get("status") == "nan" else "failed"
    return ": ".join([f"{status} ({how})", *_reason(result)[:1]])


def _reason(result: dict[str, Any]) -> list[str]:
    return str(result.get("message") or "").strip().splitlines()


def _result(folder: Path, since: float) -> dict[str, Any]:
    """The result of a job, if it is the job's and not what an earlier one left in its folder."""
    path = folder / record.RESULT
    try:
        result = dict(json.loads(path.read_text()))
        fresh = path.stat().st_mtime >= since - 1.0 or result.get("status") in _ENDED_WELL
    except (OSError, ValueError):
        return {}
    return result if fresh else {}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
