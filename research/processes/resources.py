"""Cores and memory of this machine, and what a job takes of them, as Linux reports it.

A job leads a session (setsid). Every process it starts belongs to that session, in whatever process
group, and still does after the job has ended.
"""

import contextlib
import os
import resource
import signal
import time
from pathlib import Path

from sparring.errors import UserError

_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def cores() -> list[int]:
    """Return the cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


def memory() -> float:
    """Return the memory of this machine or container in megabytes; infinity if unknown."""
    found = [float("inf"), _field(Path("/proc/meminfo"), "MemTotal:") / 1024]
    for path in _CGROUPS:
        with contextlib.suppress(OSError, ValueError):
            found.append(int(Path(path).read_text()) / 2**20)
    return min(megabytes for megabytes in found if megabytes > 0)


def require_memory(wanted: float, what: str, remedy: str) -> None:
    """Refuse what needs more memory than this process can ever get, before it is allocated.

    Args:
      wanted: in bytes.
      what: of which this is said: "trainer.capacity=100000: the replay".
      remedy: the setting that makes it less, as a sentence.

    Raises:
      UserError: it does not fit.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    most = memory() * 2**20
    if limit != resource.RLIM_INFINITY:
        most = min(most, float(limit))
    if wanted > most:
        raise UserError(
            f"{what} needs {wanted / 1e9:,.1f} GB of memory, and this machine has "
            f"{most / 1e9:,.1f} GB. {remedy}"
        )


def killed_for_memory() -> int:
    """Return how many processes the kernel has killed for lack of memory since boot."""
    return int(_field(Path("/proc/vmstat"), "oom_kill"))


def taken(session: int) -> float:
    """Return the megabytes that a session's processes take together.

    Memory that several of them share is counted once.
    """
    return sum(
        (_field(place / "smaps_rollup", "Pss:") or _field(place / "status", "VmRSS:")) / 1024
        for place in (Path("/proc") / str(number) for number in processes(session))
    )


def end(session: int, seconds: float = 5.0) -> None:
    """Kill what is left of a session, and return when it is gone or after `seconds`."""
    deadline = time.monotonic() + seconds
    while (left := processes(session)) and time.monotonic() < deadline:
        for number in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.02)


def processes(session: int) -> list[int]:
    """Return the processes of a session that have not ended."""
    found = []
    for place in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):  # the process may end meanwhile
            if place.name.isdigit():
                state, _, _, own = (place / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(own) == session and state != "Z":
                    found.append(int(place.name))
    return found


def _field(path: Path, name: str) -> float:
    """Return the number after a name in a file of /proc; 0 if it is not there."""
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            if line.startswith(name):
                return float(line.split()[1])
    return 0.0


def shares(jobs: int, cores_each: int | None) -> list[list[int]]:
    """Return the cores of each of `jobs` simultaneous jobs.

    Each gets as many as asked for, or a fair share; no core is given twice if there are enough.
    """
    available = cores()
    size = min(cores_each or max(1, len(available) // jobs), len(available))
    found = []
    for first in range(0, jobs * size, size):
        found.append([available[k % len(available)] for k in range(first, first + size)])
    return found
