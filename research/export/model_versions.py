"""Layout of a folder of models: `models/<name>/<version>/`, as TensorFlow Serving reads it."""

import re
from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def versions(folder: Path) -> list[int]:
    """Return the versions of a model, ascending: its folders whose names are integers."""
    if not folder.is_dir():
        return []
    return sorted(
        int(p.name)
        for p in folder.iterdir()
        if re.fullmatch("[1-9][0-9]{0,17}", p.name) and p.is_dir()
    )
