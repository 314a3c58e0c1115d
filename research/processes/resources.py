"""What this machine can give to jobs, cores and memory, and what a job takes of it, as Linux says.

A job leads a session (setsid). What it starts is of that session, in whatever process groups, and
stays so without it.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


def memory() -> float:
    """Megabytes of memory that this machine, or the container that we are in, has; infinity if
    nobody says.
    """
    found = [float("inf"), _field(Path("/proc/meminfo"), "MemTotal:") / 1024]
    for path in _CGROUPS:
        with contextlib.suppress(OSError, ValueError):
            found.append(int(Path(path).read_text()) / 2**20)
    return min(megabytes for megabytes in found if megabytes > 0)


def killed_for_memory() -> int:
    """How many processes the kernel has ended for lack of memory since the machine started."""
    return int(_field(Path("/proc/vmstat"), "oom_kill"))


def taken(session: int) -> float:
    """Megabytes that a session's processes take together; memory that several share is counted
    once.
    """
    return sum(
        (_field(place / "smaps_rollup", "Pss:") or _field(place / "status", "VmRSS:")) / 1024
        for place in (Path("/proc") / str(number) for number in processes(session))
    )


def end(session: int, seconds: float = 5.0) -> None:
    """Kill what is left of a session, and return when it is gone; after so many seconds at most."""
    deadline = time.monotonic() + seconds
    while (left := processes(session)) and time.monotonic() < deadline:
        for number in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.02)


def processes(session: int) -> list[int]:
    """The processes of a session that have not ended."""
    found = []
    for place in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):  # it has gone meanwhile
            if place.name.isdigit():
                state, _, _, own = (place / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(own) == session and state != "Z":
                    found.append(int(place.name))
    return found


def _field(path: Path, name: str) -> float:
    """The number after a name in a file of /proc; 0 if it is not there."""
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            if line.startswith(name):
                return float(line.split()[1])
    return 0.0


def shares(jobs: int, cores_each: int | None) -> list[list[int]]:
    """The cores of each of so many jobs at a time: as many as asked for, or a fair share; none
    twice if it can be.
    """
    available = cores()
    size = min(cores_each or max(1, len(available) // jobs), len(available))
    return [[available[(i * size + k) % len(available)] for k in range(size)] for i in range(jobs)]
