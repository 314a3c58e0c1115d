"""Hydra plugins: a launcher that runs a sweep's jobs on this machine, and a sweeper.

They replace Hydra's own defaults, `basic`, so any other launcher or sweeper is chosen as usual:
`hydra/launcher=joblib`.
"""

import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict

from sparring.sweep import sweep
from sparring.sweep.job import Job
from sparring.sweep.scheduler import Settings

# Finding plugins runs Hydra's own modules anew, so imports from them must come after it
Plugins.instance()

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper as HydrasBasicSweeper  # noqa: E402

# The value in conf/base.yaml, which a sweep may change
_SUBDIR = "${job_name:${hydra.overrides.task},${hydra.job.num}}"


class Processes(Launcher):
    """Launcher that runs jobs in processes of their own, several at a time.

    Its settings are those of `sparring.sweep.scheduler.Settings`.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(**settings)

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        """Take Hydra's context before `launch`. The task function carries the sweep."""
        self.hydra_context = hydra_context
        self.config = config
        self.sweep: sweep.Sweep = task_function

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the jobs, and return how each ended, in their order.

        The return value of a job is its objective, None if it failed.
        """
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        root = Path(str(self.config.hydra.sweep.dir)).absolute()
        if OmegaConf.to_container(self.config.hydra.sweep, resolve=False)["subdir"] == _SUBDIR:  # type: ignore[index,call-overload]
            names = list(self._names(job_overrides, initial_job_idx))
            self.sweep.plan(root, names, _count_tasks(job_overrides, self.config.tasks))
        made: list[Job] = []

        def jobs() -> Iterator[Job]:
            for number, overrides in enumerate(job_overrides, initial_job_idx):
                made.append(self._job(root, overrides, number))
                yield made[-1]

        self.sweep.launch(jobs(), self.settings)
        return [
            _returned(job, overrides) for job, overrides in zip(made, job_overrides, strict=False)
        ]

    def _names(self, job_overrides: Sequence[Sequence[str]], first: int) -> Iterator[str]:
        for number, overrides in enumerate(job_overrides, first):
            yield str(
                OmegaConf.create(
                    {
                        "name": _SUBDIR,
                        "hydra": {
                            "overrides": {"task": filter_overrides(overrides)},
                            "job": {"num": number},
                        },
                    }
                ).name
            )

    def _job(self, root: Path, overrides: Sequence[str], number: int) -> Job:
        cfg = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(cfg):
            cfg.hydra.job.id = f"{number}"
            cfg.hydra.job.num = number
        return self.sweep.job(cfg, cfg.hydra, root / str(cfg.hydra.sweep.subdir))


def _count_tasks(job_overrides: Sequence[Sequence[str]], parts: Sequence[str]) -> int:
    """Return how many tasks the jobs have: different values of the `parts` of their configs."""
    found = set()
    for overrides in job_overrides:
        keys = [text.lstrip("+~").partition("=")[0] for text in overrides]
        tops = [re.split(r"[./@]", key)[0] for key in keys]
        found.add(tuple(t for t, top in zip(overrides, tops, strict=True) if top in parts))
    return len(found)


def _returned(job: Job, overrides: Sequence[str]) -> JobReturn:
    return JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=job.objective())


class BasicSweeper(HydrasBasicSweeper):
    """Sweeper over every combination of the values, in one batch.

    The combinations were checked before (`sparring.config.validation`), so a hundred jobs begin at
    once.
    """

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Do nothing, where Hydra would compose every job's config, 0.1 s each."""


@dataclass
class ProcessesConfig:
    """Default config of `hydra.launcher`."""

    _target_: str = "hydra_plugins.sparring.Processes"
    jobs: int | None = None
    cores: int | None = None
    memory: float | None = None
    retries: int = 0
    fail_fast: bool = False


@dataclass
class BasicSweeperConfig:
    """Default config of `hydra.sweeper`."""

    _target_: str = "hydra_plugins.sparring.BasicSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


def check(config: DictConfig) -> None:
    """Raise UserError for invalid settings of this launcher; others check their own."""
    if config._target_ == ProcessesConfig._target_:
        Settings(**{str(key): value for key, value in config.items() if key != "_target_"})


def register() -> None:
    """Register the plugins with Hydra.

    Hydra takes plugins from modules of a package `hydra_plugins` only. Such a package at the root
    of a clone or of an installation would be shared with others', so the module is created here.
    """
    package = _package()
    module: Any = ModuleType("hydra_plugins.sparring")
    package.sparring = sys.modules[module.__name__] = module
    plugins: tuple[Any, ...] = (Processes, BasicSweeper)
    for plugin in plugins:
        plugin.__module__ = module.__name__
        setattr(module, plugin.__name__, plugin)
        Plugins.instance().register(plugin)
    store = ConfigStore.instance()  # after Plugins.instance(), which stores Hydra's own
    store.store(group="hydra/launcher", name="basic", node=ProcessesConfig, provider="hydra")
    store.store(group="hydra/sweeper", name="basic", node=BasicSweeperConfig, provider="hydra")


def _package() -> Any:
    try:
        return importlib.import_module("hydra_plugins")
    except ImportError:  # no other plugin is installed
        package: Any = ModuleType("hydra_plugins")
        package.__path__ = []
        return sys.modules.setdefault("hydra_plugins", package)
