"""Which packages a config may name under `_target_`: a config builds what it names, so it must not name just anything.

Allowed are Sparring's own packages, TensorFlow, TF-Agents and Gymnasium, those listed under the config's `packages`
key, and those whose config folder the user put on the command line.
"""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from research.errors import UserError

OURS = ("research", "agents", "gans", "envs", "tensorflow", "tf_agents", "gymnasium")


def check(config: Mapping[str, Any], packages: Sequence[str]) -> None:
    """UserError for the first `_target_` outside the allowed packages, or whose package is not installed."""
    allowed = {*OURS, *packages}
    for key, target in _targets(config):
        package = str(target).split(".")[0]
        if package not in allowed:
            raise UserError(
                f"{key}={target}: a config may name {', '.join(sorted(allowed))} only. "
                f"If you trust it, add packages=[{package}]."
            )
        if importlib.util.find_spec(package) is None:
            raise UserError(f"{key}={target}: there is no package {package}; install it, or run from its folder.")


def named_by(folders: Sequence[str]) -> list[str]:
    """The packages behind config folders: `pkg://my_lab.conf` and `my_lab/conf` stand for my_lab."""
    found: list[str] = []
    for folder in folders:
        if folder.startswith("pkg://"):
            found.append(folder.removeprefix("pkg://").split(".")[0])
            continue
        path = Path(folder.removeprefix("file://")).resolve()
        package = path
        while (package.parent / "__init__.py").is_file():
            package = package.parent
        if package != path or (path / "__init__.py").is_file():
            found.append(package.name)
        else:  # a plain folder beside modules and packages: theirs
            found += [p.stem for p in path.parent.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()]
    return found


def _targets(node: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield f"{prefix}_target_", node["_target_"]
        for key, child in node.items():
            yield from _targets(child, f"{prefix}{key}.")
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from _targets(child, f"{prefix}{index}.")
