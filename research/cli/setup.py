"""Registration of Hydra plugins and resolvers, needed by commands that read a config."""

import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf

from sparring.config import composer as config_composer
from sparring.config import overrides as config_overrides
from sparring.storage import settings
from sparring.sweep import hydra_plugins


def prepare() -> None:
    """Register resolvers and plugins, and make the working folder's packages importable.

    Commands that read a run's config need it.
    """
    hydra_plugins.register()
    set_resolvers()
    # For a user's package beside their configs, which is found after all installed ones
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))


def set_resolvers(swept: Sequence[str] | None = None) -> None:
    """Register the resolvers of Sparring's configs.

    `${run_name:ppo,cartpole,0}`: a run's name, from the choices and the time; a sweep's is from
    what it varies. `${job_name:${hydra.overrides.task},${hydra.job.num}}`: the folder of a sweep's
    job. `${documented:run/default,run}`: the keys of a file in conf/ with their comments, as
    `--help` shows them.
    """
    when = time.strftime("%m%d-%H%M%S")

    def run_name(*parts: Any) -> str:
        words = parts if swept is None else ("sweep", *(key.rpartition(".")[2] for key in swept))
        return "-".join([*(re.sub(r"[^A-Za-z0-9_.-]+", "-", str(word)) for word in words), when])[
            :120
        ]

    resolvers: dict[str, Callable[..., str]] = {
        "run_name": run_name,
        "job_name": lambda overrides, number: config_overrides.job_name(
            overrides, swept or [], number
        ),
        "documented": documented,
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)


def documented(name: str, prefix: str = "", *, _root_: DictConfig) -> str:
    """Return the commented keys of conf/`name`.yaml with their values in the config, one a line.

    A line is such as `run.steps=100000  how long to train`.
    """
    lines = (config_composer.CONF / f"{name}.yaml").read_text().splitlines()
    found = [re.fullmatch(r"(\w+): (.*?)\s+# (.+)", line) for line in lines]
    values = settings.flat(OmegaConf.to_container(_root_, resolve=False))
    rows = []
    for match in found:
        if match:
            key = f"{prefix}{match[1]}"
            value = _typed(values.get(key, match[2]), match[2])
            rows.append((f"{key}={'...' if '$' in value else value}", match[3]))
    width = max(len(key) for key, _ in rows)
    return "\n".join(f"  {key:{width}}  {comment}" for key, comment in rows)


def _typed(value: Any, written: str) -> str:
    """Return a value as one types it: as it is written in a file, if it is the same there.

    Another list than the one in the file is plumbing, and too long to show.
    """
    if value == written or yaml.safe_load(written) == value:
        return written
    return "..." if isinstance(value, list) else yaml.safe_dump(value).splitlines()[0]
