"""`sparring rl`, `gan`, `imitation`, `supervised` and `train`: check a config, and have it run.

Hydra composes the config and runs one job or a sweep of them.
"""

import argparse
import contextlib
import functools
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from sparring.cli.parser import STARTED, strict
from sparring.cli.setup import prepare, set_resolvers
from sparring.config import composer as config_composer
from sparring.config import old_spellings, suites, targets, validation
from sparring.config import overrides as config_overrides
from sparring.distribute import cluster, local_workers
from sparring.errors import UserError, tell
from sparring.storage import provenance, run_folder
from sparring.sweep import hydra_plugins, sweep


def run(command: str, name: str | None, arguments: Sequence[str]) -> int:
    """Check the arguments of `sparring command`, and run or show what they ask for.

    `name` is the primary config; None: --config-name gives it. Returns the exit code: 0, or 1 if a
    run failed.
    """
    chosen = _parse(arguments)
    name = chosen.config_name or name
    if name is None and not chosen.help:
        raise UserError(
            f"sparring {command} needs your config: --config-name NAME, and --config-dir FOLDER "
            "that has it."
        )
    prepare()
    composer = config_composer.Composer(name or "rl", chosen.config_dir, chosen.overrides)
    if chosen.help or _only_asks(chosen):
        return _answer(command, name or "rl", chosen, composer)
    overrides, is_suite = suites.expanded(composer, chosen.overrides)
    found = validation.Command(composer, overrides, chosen.multirun or is_suite)
    if found.by_spaces:
        told = " ".join(found.by_spaces)
        print(f"sparring: chosen by the environment's spaces: {told}", file=sys.stderr)
    flags = _flags(chosen)
    set_resolvers(found.swept if found.multirun else None)
    _check_writable(found)
    if found.multirun:
        return _sweep(command, name, flags, found)
    task = _Run(command, flags, found.cfg, composer.places)
    hydra_app = _hydra(command, name, [*flags, *found.overrides], task)
    hydra_app()
    preset = suites.preset(found.cfg.hydra.runtime.choices)
    if preset and task.code == 0:
        print(f"tuned:   sparring {command} experiment={preset}")
    return task.code


def _check_writable(found: validation.Command) -> None:
    """Refuse a folder of runs in which no folder can be made, before Hydra tries to."""
    settings = found.cfg.hydra
    wanted = Path(str(settings.sweep.dir if found.multirun else settings.run.dir)).absolute()
    place = next(p for p in (wanted, *wanted.parents) if p.exists())
    if not place.is_dir():
        raise UserError(f"run.dir={wanted.parent}: {place} is a file, not a folder.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(
            f"run.dir={wanted.parent}: nothing can be written in {place}. Choose another run.dir."
        )


rl = functools.partial(run, "rl", "rl")
gan = functools.partial(run, "gan", "gan")
imitation = functools.partial(run, "imitation", "imitation")
supervised = functools.partial(run, "supervised", "supervised")
train = functools.partial(run, "train", None)


def _answer(
    command: str, name: str, chosen: argparse.Namespace, composer: config_composer.Composer
) -> int:
    """Print help, or what Hydra's flags ask about a config."""
    if chosen.help:
        print(composer.help(chosen.overrides))
        return 0
    if not chosen.hydra_help:  # for the mistakes that it reports in a line
        composer.compose(chosen.overrides, RunMode.MULTIRUN)
    _hydra(command, name, [*_asked(chosen), *chosen.overrides], _nothing)()
    return 0


def _nothing(cfg: DictConfig) -> None:
    del cfg


def _sweep(command: str, name: str | None, flags: Sequence[str], found: validation.Command) -> int:
    """Run the jobs of a sweep; return the exit code."""
    hydra_plugins.check(found.cfg.hydra.launcher)
    jobs = sweep.Sweep(command, flags, found.jobs)
    jobs.root = Path(str(found.cfg.hydra.sweep.dir)).absolute()
    with contextlib.suppress(KeyboardInterrupt):  # another launcher's way to stop
        _hydra(command, name, ["--multirun", *flags, *found.overrides], jobs)()
    return jobs.conclude()


def complete(name: str) -> None:
    """Answer a shell's request for completions of COMP_LINE, for commands with the primary config
    `name`.
    """
    prepare()
    chosen, _ = get_args_parser().parse_known_args(os.environ.get("COMP_LINE", "").split()[1:])
    _hydra("completion", name, [*_flags(chosen), "-sc", "query=bash"], _nothing)()


def _hydra(
    command: str, name: str | None, arguments: Sequence[str], task: Callable[[DictConfig], Any]
) -> Callable[[], None]:
    """Return the Hydra application that calls `task` with each composed config."""
    sys.argv = [f"sparring {command}", *arguments]
    # Hydra warns of config folders without an __init__.py.
    warnings.filterwarnings("ignore", category=UserWarning, module="hydra")
    return hydra.main(config_path=str(config_composer.CONF), config_name=name, version_base="1.3")(
        task
    )


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = strict(get_args_parser())
    chosen = parser.parse_intermixed_args(list(arguments))
    chosen.overrides = old_spellings.renamed(chosen.overrides)
    if chosen.config_path or chosen.experimental_rerun:
        raise UserError(
            "--config-path and --experimental-rerun are not for use here: add a folder with "
            "--config-dir."
        )
    if sum(map(bool, (chosen.multirun, chosen.cfg, chosen.info))) > 1:
        raise UserError("--multirun, --cfg and --info are for one at a time.")
    if chosen.resolve and not chosen.cfg:
        raise UserError("--resolve is for --cfg, which shows a config.")
    return chosen


def _only_asks(chosen: argparse.Namespace) -> bool:
    return bool(chosen.hydra_help or chosen.cfg or chosen.info or chosen.shell_completion)


def _asked(chosen: argparse.Namespace) -> list[str]:
    """The flags that ask, and what they need: put first, so that they may stand anywhere among the
    overrides.
    """
    values = {"--cfg": chosen.cfg, "--info": chosen.info, "--package": chosen.package}
    switches = {"--resolve": chosen.resolve, "--hydra-help": chosen.hydra_help}
    given = [f"{flag}={value}" for flag, value in values.items() if value]
    return [*_flags(chosen), *given, *(flag for flag, on in switches.items() if on)]


def _flags(chosen: argparse.Namespace) -> list[str]:
    """The flags that a sweep's jobs need as the sweep was given them."""
    folder = ["--config-dir", chosen.config_dir] if chosen.config_dir else []
    return [*(["--config-name", chosen.config_name] if chosen.config_name else []), *folder]


class _Run:
    """The task of a single run. `code` is the exit code once it has been called."""

    def __init__(
        self, command: str, flags: Sequence[str], checked: DictConfig, places: Sequence[str]
    ) -> None:
        self.command = command
        self.flags = list(flags)
        self.code = 0
        self.packages = targets.named_by(places)
        self.writes = True
        folder = Path(str(checked.hydra.run.dir)).absolute()
        self.absent = [
            p for p in (folder, *folder.parents) if not p.exists()
        ]  # the innermost first

    def __call__(self, cfg: DictConfig) -> float | None:
        folder = Path(HydraConfig.get().runtime.output_dir)
        OmegaConf.resolve(cfg.run)
        cfg.run.dir = str(folder.parent)
        cfg.run.name = folder.name
        cfg.packages = sorted({*cfg.packages, *self.packages})
        try:
            self.writes = cluster.Process.of(cfg.strategy).is_chief
            if count := cluster.workers_to_start(cfg.strategy):
                return self._start(count, folder)
            from sparring.training.experiment import train

            return train(cfg, folder, STARTED, self._origin())
        except UserError as error:
            self.code = error.exit_code
            tell(error)
            if self.code == 2:
                self._leave_nothing(folder)
        except Exception as error:
            self.code = 1
            traceback.print_exc()
            said = next(iter(str(error).splitlines()), "")
            print(
                f"sparring: the run failed: {type(error).__name__}: {said}\n"
                f"sparring: the log and the result are in {folder}",
                file=sys.stderr,
            )
        except KeyboardInterrupt:
            self._leave_nothing(folder)
            raise
        sys.stderr.flush()
        return None

    def _start(self, count: int, folder: Path) -> float | None:
        """Start the run's workers, which are what this command is for, and wait for them."""
        typed = self._origin()["arguments"]
        arguments = [
            self.command,
            *typed,
            "hydra.mode=RUN",
            f"hydra.run.dir={config_overrides.quoted(str(folder))}",
        ]
        self.code = local_workers.run(arguments, count)
        if self.code == 2:
            self._leave_nothing(folder)
        value = run_folder.read_json(folder / run_folder.RESULT).get("objective", {}).get("value")
        return value if self.code == 0 else None

    def _origin(self) -> dict[str, Any]:
        """Return the command line, and the option chosen of each config group."""
        hydra_config: Any = HydraConfig.get()
        choices = {
            str(k): v
            for k, v in hydra_config.runtime.choices.items()
            if not str(k).startswith("hydra/")
        }
        own = [o for o in hydra_config.overrides.hydra if o != "hydra.mode=RUN"]  # Hydra adds it
        arguments = [*self.flags, *own, *hydra_config.overrides.task]
        return {
            "command": self.command,
            "arguments": arguments,
            "choices": {k: v for k, v in choices.items() if v},
        }

    def _leave_nothing(self, folder: Path) -> None:
        """Remove the folders that this run was the first to need, if it left nothing but words in
        them.
        """
        if not self.writes:
            return
        if self.absent and not any(folder.glob("events.*")):
            for name in (run_folder.CONFIG, run_folder.RESULT, run_folder.LOG, provenance.FILE):
                (folder / name).unlink(missing_ok=True)
            for path in folder.glob("code-*.diff"):
                path.unlink()
        for path in self.absent:
            with contextlib.suppress(OSError):
                path.rmdir()
