"""Folder of a run: its config, its log, its result, and the lock of the process at work in it."""

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
from sparring.storage import moved_names, provenance, settings
from sparring.storage.atomic import write_text
from sparring.storage.settings import flat

CONFIG = "config.yaml"
RESULT = "result.json"
LOG = "run.log"
TRAINER = "trainer.json"
SWEEP = "sweep.json"  # at the root of a sweep: which jobs it has
_log = logging.getLogger("sparring")
# Parts of the config that may differ when a run is resumed.
_FREE = ("run", "strategy", "device", "actors", *settings.ABOUT)


class RunFolder:
    """Folder of one run.

    Attributes:
      path: of the folder.
      outcome: of the run so far (a `sparring.training.outcome.Outcome`), once there is one: written
        to result.json even if an exception ends the run.
      objective: tag of the run's objective, once it is known.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.outcome: Any = None
        self.objective = ""

    @classmethod
    def named_in_config(cls, path: str, key: str) -> "RunFolder":
        """Return the run that a config names under `key`; UserError if there is none."""
        if not (Path(path) / CONFIG).is_file():
            raise UserError(f"{key}={path}: no run's folder (there is no {Path(path) / CONFIG}).")
        return cls(Path(path))

    # ---- config ----------------------------------------------------------------------------------

    def read_config(self) -> DictConfig:
        """Return the config the run was started with."""
        path = self.path / CONFIG
        if not path.is_file():
            raise UserError(f"{self.path} is not a run's folder: {self._contents()}")
        try:
            cfg = OmegaConf.load(path)
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
        if not isinstance(cfg, DictConfig):
            raise UserError(f"{path} is not a run's config.")
        moved_names.update_config(cfg)
        return cfg

    def _contents(self) -> str:
        """Return what a folder without a config is, and what to name in its place."""
        runs = sorted(path.parent for path in self.path.glob(f"*/{CONFIG}"))
        if not runs:
            return f"it has no {CONFIG}."
        kind = "it is a sweep" if (self.path / SWEEP).is_file() else "it is a folder"
        return f"{kind} of {len(runs)} runs. Name one of them, such as {runs[0]}."

    def begin(self, cfg: DictConfig) -> None:
        """Write the run's config, or compare it with the one that is there.

        Raises UserError if a setting has changed that decides what the run computes.
        """
        path = self.path / CONFIG
        new = moved_names.update(OmegaConf.to_container(cfg, resolve=False))
        if path.is_file():
            self._refuse_changes(OmegaConf.to_container(self.read_config()), new)
            if cfg.run.resume == "never":
                raise UserError(
                    f"run.resume=never, and {self.path} holds a run already: choose another "
                    "run.name."
                )
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(path, OmegaConf.to_yaml(OmegaConf.create(new)))

    def _refuse_changes(self, old: Any, new: Any) -> None:
        before = flat({key: value for key, value in old.items() if key not in _FREE})
        now = flat({key: value for key, value in new.items() if key not in _FREE})
        lines = ""
        for key in sorted({*before, *now}):
            wanted = now.get(key, "absent")
            was = before.get(key, moved_names.ADDED.get(key, "absent"))
            if was != wanted:
                lines += f"\n  {key}: {was} -> {wanted}"
        if lines:
            raise UserError(
                f"{self.path} holds a run of another config:{lines}\n"
                "Run with the old values to resume it, or go on from it with the new ones in a run "
                f"of another name: run.name=NAME run.resume={self.path}"
            )

    def record_start(self, cfg: DictConfig, origin: Mapping[str, Any] | None = None) -> None:
        """Write where this process comes from.

        `origin`: the `command` and `arguments` that were typed, and the `choices` of config groups.
        """
        given = origin or {}
        process = provenance.entry(given.get("command", ""), given.get("arguments", ()), cfg.seed)
        provenance.add(self.path, given.get("choices", {}), process, write_text)

    # ---- the process at work ---------------------------------------------------------------------

    @contextlib.contextmanager
    def logged(self) -> Iterator[None]:
        """Lock the folder, and keep the log in it too.

        Raises UserError if another process is at work in the folder.
        """
        handler = _LogFile(self.path / LOG)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        lock = os.open(self.path, os.O_RDONLY)
        try:
            _lock(lock, self.path)
            _log.addHandler(handler)
            yield
        finally:
            _log.removeHandler(handler)
            os.close(lock)
            with contextlib.suppress(OSError):
                handler.close()

    @contextlib.contextmanager
    def recording_failures(self) -> Iterator[None]:
        """Write an exception to result.json, with status "failed" and its reason, and to the log.

        A mistake that is found before there is an outcome leaves the result of an earlier process.
        """
        try:
            yield
        except BaseException as error:
            begun = self.outcome is not None
            if isinstance(error, UserError):
                error.exit_code = 1 if begun else error.exit_code
            elif not isinstance(error, KeyboardInterrupt):
                _log.error("%s", traceback.format_exc())
            if begun or self._old_result().get("status", "failed") == "failed":
                self._write_failure(error)
            raise

    def _write_failure(self, error: BaseException) -> None:
        known = summary(self.outcome, self.objective) if self.outcome is not None else {}
        status = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
        ended = {"status": status, "message": str(error) or type(error).__name__}
        with contextlib.suppress(OSError):  # the disk may be what failed
            self._write_result({**known, **ended, **provenance.versions()})

    @contextlib.contextmanager
    def writable(self) -> Iterator[None]:
        """Turn the refusal of a disk into a UserError of one line."""
        try:
            yield
        except OSError as error:
            file = error.filename or "a file"
            raise UserError(
                f"{self.path}: {error.strerror or error}: {file} cannot be written."
            ) from error

    # ---- result ----------------------------------------------------------------------------------

    def read_result(self) -> dict[str, Any]:
        """Return the run's result.json; empty if it has none yet."""
        path = self.path / RESULT
        try:
            found = json.loads(path.read_text())
            if not isinstance(found, dict):
                raise ValueError("not a mapping")
            return found
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}): mend it or delete it.") from error

    def ended_result(self, run: DictConfig) -> dict[str, Any] | None:
        """Return the result of a run that has nothing left to do by its settings, else None."""
        result = self.read_result()
        if not (self.path / "checkpoints" / f"step_{result.get('step', 0):012d}").is_dir():
            return None
        if result.get("status") == "finished" and result["step"] >= run.steps:
            return result
        if result.get("status") == "target" and self.read_config().run.target == run.target:
            return result
        return None

    def finish(self) -> None:
        """Write the outcome to result.json."""
        self._write_result({**summary(self.outcome, self.objective), **provenance.versions()})

    def add_evaluation(self, entry: Mapping[str, Any]) -> None:
        """Add a finding of `sparring evaluate` to result.json; the rest stays as it is."""
        old = self.read_result()
        self._write_result({**old, "evaluations": [*old.get("evaluations", []), entry]})

    def _write_result(self, result: Mapping[str, Any]) -> None:
        """Replace result.json, keeping the evaluations that were added."""
        kept = {key: value for key, value in self._old_result().items() if key == "evaluations"}
        text = json.dumps(_plain({**kept, **result}), indent=2) + "\n"
        write_text(self.path / RESULT, text)

    def _old_result(self) -> dict[str, Any]:
        """Return the present result; nothing if it is damaged, as it is about to be replaced."""
        try:
            return self.read_result()
        except UserError:
            return {}

    # ---- checkpoints -----------------------------------------------------------------------------

    def newest_model(self) -> Path:
        """Return the checkpoint that holds the run's model: its best, else its latest."""
        for kind in ("best", "checkpoints"):
            found = sorted((self.path / kind).glob("step_*"))
            if found:
                return found[-1]
        raise UserError(f"{self.path} holds no checkpoint.")


def summary(outcome: Any, objective: str) -> dict[str, Any]:
    """Return an outcome (sparring.training.outcome.Outcome) as result.json holds it."""
    found = {
        "status": outcome.status,
        "step": outcome.step,
        "objective": {"name": objective, "value": outcome.final.get(objective)},
        "maximize": outcome.maximize,
        "final": outcome.final,
        "best": outcome.best,
        "seconds": {part: round(seconds, 3) for part, seconds in outcome.seconds.items()},
        "message": outcome.message,
    }
    if outcome.notes:
        found["notes"] = outcome.notes
    return found


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file, with interpolations as they are written.

    OmegaConf's loader takes 40 ms for a config, this one 2. Raises OSError, and ValueError for a
    file that is not YAML.
    """
    try:
        return yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file of ours; empty if there is none that can be read."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


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
    """Log file that loses lines on a full disk, instead of printing a traceback for each."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        del record


def _plain(value: Any) -> Any:
    """Return `value` with infinities and NaN as text, since JSON has no word for them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(child) for child in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
