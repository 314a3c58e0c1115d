"""What this machine can give to jobs, cores and memory, and what a job takes of it, as Linux says."""

import contextlib
import os
from pathlib import Path

_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


def memory() -> float:
    """Megabytes of memory that this machine, or the container that we are in, has; infinity if nobody says."""
    found = [float("inf"), _field(Path("/proc/meminfo"), "MemTotal:") / 1024]
    for path in _CGROUPS:
        with contextlib.suppress(OSError, ValueError):
            found.append(int(Path(path).read_text()) / 2**20)
    return min(megabytes for megabytes in found if megabytes > 0)


def killed_for_memory() -> int:
    """How many processes the kernel has ended for lack of memory since the machine started."""
    return int(_field(Path("/proc/vmstat"), "oom_kill"))


def taken(group: int) -> float:
    """Megabytes that a job's processes take together; memory that several share is counted once.

    They are those of its process group, and of the groups that its children lead, as workers of one run do.
    """
    processes = {place: _family(place) for place in Path("/proc").iterdir() if place.name.isdigit()}
    groups = {group} | {int(place.name) for place, (parent, _) in processes.items() if parent == group}
    return sum(
        (_field(place / "smaps_rollup", "Pss:") or _field(place / "status", "VmRSS:")) / 1024
        for place, (_, own) in processes.items()
        if own in groups
    )


def _family(place: Path) -> tuple[int, int]:
    """A process' parent and its process group; -1 where it has gone."""
    try:
        parent, group = (place / "stat").read_text().rpartition(")")[2].split()[1:3]
    except (OSError, ValueError):
        return -1, -1
    return int(parent), int(group)


def _field(path: Path, name: str) -> float:
    """The number after a name in a file of /proc; 0 if it is not there."""
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            if line.startswith(name):
                return float(line.split()[1])
    return 0.0


def shares(jobs: int, cores_each: int | None) -> list[list[int]]:
    """The cores of each of so many jobs at a time: as many as asked for, or a fair share; none twice if it can be."""
    available = cores()
    size = min(cores_each or max(1, len(available) // jobs), len(available))
    return [[available[(i * size + k) % len(available)] for k in range(size)] for i in range(jobs)]
