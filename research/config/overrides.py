"""Names of sweep jobs, and quoting of values in Hydra's override syntax."""

import hashlib
import re
from collections.abc import Sequence


def job_name(overrides: Sequence[str], swept: Sequence[str], number: int) -> str:
    """Return a short name for a job's folder from what the sweep varies: `agent=dqn,seed=0`.

    Keys are cut to their last part where that is unique; brackets, quotes and signs that folders do
    not take are left out, and a few letters of a hash distinguish names that would then be equal.
    """
    swept = [key.lstrip("+") for key in swept]
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
    return safe(name, full) or f"job-{number}"


def safe(name: str, full: str | None = None) -> str:
    """Return `name` in signs that folders take.

    If signs were replaced, a few letters of the hash of `full` are appended, so that different
    names stay different.
    """
    clean = re.sub(r"[^A-Za-z0-9_.+=,-]+", "-", name).strip("-.")[:120]
    return (
        clean
        if clean == name
        else f"{clean}-{hashlib.sha256((full or name).encode()).hexdigest()[:6]}"
    )


def quoted(text: str) -> str:
    """Return `text` as an override's value, whatever signs it holds."""
    escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", text).replace("'", r"\'")
    return f"'{escaped}'"
