"""Files of a run's folder: its config, its log, its result."""

import contextlib
import fcntl
import json
import logging
import math
import os
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf

from sparring.errors import UserError
from sparring.storage import moved_names, provenance
from sparring.storage.atomic import write_text
from sparring.storage.settings import flat

CONFIG = "config.yaml"
RESULT = "result.json"
LOG = "run.log"
TRAINER = "trainer.json"
LEARNER = "actors.json"  # the address at which a run's learner awaits actors
SWEEP = "sweep.json"  # the list of jobs, at the root of a sweep
_log = logging.getLogger("sparring")
# Keys that may differ when a run is resumed
_FREE = (
    "run",
    "strategy",
    "device",
    "actors",
    "hparams",
    "check_first",
    "limits",
    "packages",
    "tasks",
)


def begin(folder: Path, cfg: DictConfig) -> None:
    """Write the run's config, or compare it with the one the folder has.

    Raises:
        UserError: the folder holds a run of another config, or run.resume=never and it holds one.
    """
    path = folder / CONFIG
    new = moved_names.update(OmegaConf.to_container(cfg, resolve=False))
    if path.is_file():
        _refuse_changes(folder, OmegaConf.to_container(read_config(folder)), new)
        if cfg.run.resume == "never":
            raise UserError(
                f"run.resume=never, and {folder} holds a run already: choose another run.name."
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, OmegaConf.to_yaml(OmegaConf.create(new)))


def originate(folder: Path, cfg: DictConfig, origin: Mapping[str, Any] | None = None) -> None:
    """Write the provenance of this process.

    `origin` holds the typed `command` and `arguments`, and the `choices` of config groups.
    """
    said = origin or {}
    process = provenance.entry(said.get("command", ""), said.get("arguments", ()), cfg.seed)
    provenance.add(folder, said.get("choices", {}), process, write_text)


def _refuse_changes(folder: Path, old: Any, new: Any) -> None:
    before = flat({k: v for k, v in old.items() if k not in _FREE})
    now = flat({k: v for k, v in new.items() if k not in _FREE})
    changed = [
        k for k in sorted({*before, *now}) if before.get(k, "absent") != now.get(k, "absent")
    ]
    if changed:
        lines = "".join(
            f"\n  {k}: {before.get(k, 'absent')} -> {now.get(k, 'absent')}" for k in changed
        )
        raise UserError(
            f"{folder} holds a run of another config:{lines}\n"
            "Run with the old values to resume it, or give this one a run.name of its own."
        )


@contextlib.contextmanager
def logged(folder: Path) -> Iterator[None]:
    """Write the log into the run's folder too, which is locked meanwhile.

    Raises:
        UserError: another process is at work in the folder.
    """
    handler = _LogFile(folder / LOG)
    lock = os.open(folder, os.O_RDONLY)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    try:
        _lock(lock, folder)
        _log.addHandler(handler)
        yield
    finally:
        _log.removeHandler(handler)
        os.close(lock)
        with contextlib.suppress(OSError):
            handler.close()


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"{folder}: another process is training there; give this run a run.name of its own."
        ) from None
    except OSError:  # a file system without locks
        pass


class _LogFile(logging.FileHandler):
    """Log file that loses lines on a full disk, without a traceback for each."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        del record


@contextlib.contextmanager
def failures(folder: Path) -> Iterator[dict[str, Any]]:
    """End the run on an exception, with its reason in result.json and the log.

    The status is "failed", or "stopped" for a KeyboardInterrupt. Yields a dict for further content
    of result.json: `outcome` and `objective`, as `finish` takes them.
    """
    known: dict[str, Any] = {}
    try:
        yield known
    except BaseException as error:
        if isinstance(error, UserError):
            error.exit_code = 1 if known else error.exit_code
        elif not isinstance(error, KeyboardInterrupt):
            _log.error("%s", traceback.format_exc())
        # A mistake before the run begins must not replace the result of an earlier process
        if known or _old(folder).get("status", "failed") == "failed":
            status = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
            ended = {"status": status, "message": str(error) or type(error).__name__}
            with contextlib.suppress(OSError):  # the disk may be what failed
                write(
                    folder,
                    {**(summary(**known) if known else {}), **ended, **provenance.versions()},
                )
        raise


def finish(folder: Path, outcome: Any, objective: str) -> None:
    """Write result.json."""
    write(folder, {**summary(outcome, objective), **provenance.versions()})


def summary(outcome: Any, objective: str) -> dict[str, Any]:
    """Return the content of result.json for an outcome (sparring.training.loop.Outcome)."""
    return {
        "status": outcome.status,
        "step": outcome.step,
        "objective": {"name": objective, "value": outcome.final.get(objective)},
        "maximize": outcome.maximize,
        "final": outcome.final,
        "best": outcome.best,
        "seconds": {k: round(v, 3) for k, v in outcome.seconds.items()},
        "message": outcome.message,
        **({"notes": outcome.notes} if outcome.notes else {}),
    }


def write(folder: Path, result: Mapping[str, Any]) -> None:
    """Replace result.json, keeping the evaluations that `sparring evaluate` added."""
    kept = {key: value for key, value in _old(folder).items() if key == "evaluations"}
    write_text(folder / RESULT, json.dumps(_plain({**kept, **result}), indent=2) + "\n")


def _old(folder: Path) -> dict[str, Any]:
    """Return the existing result, or nothing if it is damaged, as it is about to be replaced."""
    try:
        return read_result(folder)
    except UserError:
        return {}


def add_evaluation(folder: Path, entry: Mapping[str, Any]) -> None:
    """Add an evaluation of `sparring evaluate` to result.json; the rest is unchanged."""
    old = read_result(folder)
    write(folder, {**old, "evaluations": [*old.get("evaluations", []), entry]})


def read_config(folder: Path) -> DictConfig:
    """Return the config a run was started with."""
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"{folder} is not a run's folder: it has no {CONFIG}.")
    try:
        cfg = OmegaConf.load(path)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(cfg, DictConfig):
        raise UserError(f"{path} is not a run's config.")
    moved_names.update_config(cfg)
    return cfg


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file, with interpolations unresolved.

    OmegaConf's loader takes 40 ms a config, this one 2.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no YAML.
    """
    try:
        return yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file; empty if there is none that can be read."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_result(folder: Path) -> dict[str, Any]:
    """Return a run's result.json; empty if it has none yet."""
    try:
        found = json.loads((folder / RESULT).read_text())
        if not isinstance(found, dict):
            raise ValueError("not a mapping")
        return found
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder / RESULT} cannot be read ({error}): mend it or delete it."
        ) from error


def _plain(value: Any) -> Any:
    """Return `value` with infinities and NaN, which JSON lacks, as text."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def existing(path: str, key: str) -> Path:
    """Return the folder of a run that a config names.

    Raises:
        UserError: it is no run's folder.
    """
    folder = Path(path)
    if not (folder / CONFIG).is_file():
        raise UserError(f"{key}={path}: no run's folder (there is no {folder / CONFIG}).")
    return folder


def newest(folder: Path) -> Path:
    """Return the checkpoint of a run's model: its best, else its latest.

    Raises:
        UserError: there is no checkpoint.
    """
    for kind in ("best", "checkpoints"):
        found = sorted((folder / kind).glob("step_*"))
        if found:
            return found[-1]
    raise UserError(f"{folder} holds no checkpoint.")
