"""From a command line to runs: check the config, then let Hydra compose it and run one job or a sweep of them."""

import argparse
import functools
import logging
import re
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from research import config, sweep
from research.cli import STARTED
from research.errors import UserError

_log = logging.getLogger("sparring")


def rl(arguments: Sequence[str]) -> int:
    """`sparring rl`: the primary config conf/rl.yaml."""
    return run("rl", "rl", arguments)


def train(arguments: Sequence[str]) -> int:
    """`sparring train`: a primary config of the user's own, named by --config-name."""
    chosen, _ = _parse(arguments)
    if chosen.config_name is None and not _only_asks(chosen):
        raise UserError("sparring train needs your config: --config-name NAME, and --config-dir FOLDER to find it in.")
    return run("train", chosen.config_name or "rl", arguments)


def run(command: str, name: str, arguments: Sequence[str]) -> int:
    """Check and run; returns the exit code: 0, or 1 if a run failed."""
    chosen, overrides = _parse(arguments)
    prepare()
    if not _only_asks(chosen):
        folders = [chosen.config_dir] if chosen.config_dir else []
        folders += sweep.search_path(overrides)
        composer = config.Composer(chosen.config_name or name, folders)
        mended = config.check(composer, overrides)
        arguments = [mended[overrides.index(a)] if a in overrides else a for a in arguments]
    job = sweep.Job(command, _flags(chosen), multirun=chosen.multirun)
    sys.argv = [f"sparring {command}", *arguments]
    task = functools.partial(_task, job)
    functools.update_wrapper(task, _task)
    GlobalHydra.instance().clear()  # the check composed too
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Hydra's, of folders without __init__.py
        hydra.main(config_path=str(config.CONF), config_name=name, version_base="1.3")(task)()
    return job.conclude() if chosen.multirun else 0


def complete(command: str) -> None:
    """Answer a shell's request for completions of COMP_LINE."""
    _resolvers()
    sys.argv = [command, "-sc", "query=bash"]
    name = "rl" if command == "train" else command
    hydra.main(config_path=str(config.CONF), config_name=name, version_base="1.3")(lambda cfg: None)()


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    chosen = get_args_parser().parse_args(list(arguments))
    return chosen, list(chosen.overrides)


def _only_asks(chosen: argparse.Namespace) -> bool:
    return bool(chosen.help or chosen.hydra_help or chosen.cfg or chosen.info or chosen.shell_completion)


def _flags(chosen: argparse.Namespace) -> list[str]:
    """The flags a sweep's jobs need as the sweep was given them."""
    flags = []
    if chosen.config_name:
        flags += ["--config-name", chosen.config_name]
    if chosen.config_dir:
        flags += ["--config-dir", chosen.config_dir]
    return flags


def _task(job: sweep.Job, cfg: DictConfig) -> Any:
    """One composed config: run it here, or, in a sweep, in a process of its own."""
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    if hydra_config.mode == RunMode.MULTIRUN:
        return job.run(cfg, hydra_config, folder)
    OmegaConf.resolve(cfg.run)
    cfg.run.dir, cfg.run.name = str(folder.parent), folder.name
    try:
        from research.train import train

        return train(cfg, folder, STARTED)
    except UserError as error:
        print(f"sparring: {error}", file=sys.stderr)
    except Exception:
        traceback.print_exc()
        print(f"sparring: the run failed; the log and the result are in {folder}", file=sys.stderr)
    sys.stderr.flush()
    sys.exit(1)


def prepare() -> None:
    """What commands that read a run's config need: our resolvers, and the working folder's packages."""
    _resolvers()
    _search_working_folder()


def _search_working_folder() -> None:
    """Find a user's package beside their configs, but after everything installed."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))


def _resolvers() -> None:
    """`${run_name:ppo,cartpole,0}`: the default name of a run, from what was chosen and the time."""
    OmegaConf.register_new_resolver("run_name", _run_name, replace=True, use_cache=True)


def _run_name(*parts: Any) -> str:
    words = [re.sub(r"[^A-Za-z0-9_.-]+", "-", str(part)) for part in parts]
    return "-".join([*words, time.strftime("%m%d-%H%M%S")])
