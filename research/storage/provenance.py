"""Provenance of a run: the command that started it, the code, the packages, the machine.

`provenance.json` has an entry for every process that worked on the run, the first one first, and
the choices of config groups. Uncommitted changes of the code are kept beside it.
"""

import contextlib
import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

FILE = "provenance.json"
_SOURCE = Path(__file__).resolve().parent
_PACKAGES = ("sparring", "tensorflow", "tf-agents", "tf-keras", "gymnasium", "hydra-core", "numpy")
_DIFF_BYTES = 5 * 2**20  # longer diffs are cut


def read(folder: Path) -> dict[str, Any]:
    """Return a run's provenance; empty if there is none that can be read."""
    try:
        found = json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def entry(command: str, arguments: Sequence[str], seed: int) -> dict[str, Any]:
    """Return the entry of this process: `sparring command arguments...`, time, place, versions."""
    return {
        "command": command,
        "arguments": list(arguments),
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seed": seed,
        "working_folder": str(Path.cwd()),
        **versions(),
    }


def add(folder: Path, choices: Mapping[str, str], process: Mapping[str, Any], write: Any) -> None:
    """Add a process to a run's file; `write(path, text)` must replace a file whole.

    Raises:
        OSError: the disk refuses.
    """
    old = read(folder)
    starts = [*old.get("starts", []), {**process, **_diffs(folder, write)}]
    content = {"choices": dict(choices) or old.get("choices", {}), "starts": starts}
    write(folder / FILE, json.dumps(content, indent=2) + "\n")


def versions() -> dict[str, Any]:
    """Return packages, machine, and the commits of the working folder and of Sparring.

    Commits are None outside of git repositories. `cores` is the number of cores this process may
    use: an XLA program may add numbers in another order on another number of them.
    """
    found = {}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    machine = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
    }
    machine |= {
        "host": platform.node(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
    }
    return {
        "versions": found,
        "machine": machine,
        "commit": commit(),
        "sparring_commit": commit(_SOURCE),
    }


def commit(folder: Path | None = None) -> str | None:
    """Return the commit of a folder, with "-dirty" if anything is changed.

    Returns None outside a repository.
    """
    head = _git(["rev-parse", "HEAD"], folder)
    if head is None:
        return None
    return head.strip() + (
        "-dirty" if (_git(["status", "--porcelain"], folder) or "").strip() else ""
    )


def _diffs(folder: Path, write: Any) -> dict[str, list[str]]:
    """Write differences to the commits into files named for their content.

    Returns the files' names, and the files that git does not know.
    """
    tops = {_git(["rev-parse", "--show-toplevel"], place) for place in (Path.cwd(), _SOURCE)} - {
        None
    }
    names = []
    untracked = []
    for top in sorted(str(t).strip() for t in tops):
        diff = _git(["diff", "HEAD", "--no-color", "--no-ext-diff"], Path(top)) or ""
        untracked += [
            f"{top}/{n}"
            for n in (_git(["ls-files", "-o", "--exclude-standard"], Path(top)) or "").split("\n")
            if n
        ]
        if diff:
            name = f"code-{hashlib.sha256(diff.encode(errors='replace')).hexdigest()[:8]}.diff"
            if not (folder / name).exists():
                write(folder / name, f"# {top}\n{diff[:_DIFF_BYTES]}")
            names.append(name)
    return {"diffs": names, "untracked": untracked[:100]}


def _git(arguments: Sequence[str], folder: Path | None = None) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
