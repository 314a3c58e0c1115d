"""Trainers restored from the checkpoints of earlier runs."""

import contextlib
import copy
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sparring.errors import UserError
from sparring.storage import provenance, settings

_log = logging.getLogger("sparring")
# Last parts of the keys that name files and folders
_PATHS = ("path", "weights", "run", "expert", "reward_from")


def restore_model(trainer: Any, folder: Path, checkpoint: str) -> int:
    """Give a trainer the model of a run's "best" or "latest" checkpoint; return its step."""
    from sparring.storage.checkpoints import Checkpoints, restore_into
    from sparring.training.loop import model_only

    kind = "best" if checkpoint == "best" else "checkpoints"
    source = Checkpoints(folder / kind, keep=10**9).restore(None)
    if source is None:
        raise UserError(f"{folder} holds no checkpoint under {kind}/.")
    return restore_into(model_only(trainer), source.folder)


@contextlib.contextmanager
def restored(folder: Path, cfg: DictConfig, checkpoint: str) -> Iterator[tuple[Any, int]]:
    """The trainer of a run's config with the model of its "best" or "latest" checkpoint, and that
    checkpoint's step.
    """
    from sparring.config import validation

    if cfg.get("actors") is not None:  # who evaluates a model needs nobody to collect
        cfg = copy.deepcopy(cfg)
        cfg.actors = None
    validation.check_composed(cfg)

    from sparring.training import experiment

    kind = "best" if checkpoint == "best" else "checkpoints"
    if not any((folder / kind).glob("step_*")):
        raise UserError(f"{folder} holds no checkpoint under {kind}/.")
    # Wherever it was trained: a model alone is restored, and one device is enough
    here = copy.deepcopy(cfg)
    OmegaConf.update(
        here,
        "strategy",
        {"_target_": "sparring.distribute.strategies.one_device"},
        merge=False,
        force_add=True,
    )
    _find_relative_paths(here, folder)
    trainer = experiment.build(here)
    try:
        _check_data(trainer, folder)
        yield trainer, restore_model(trainer, folder, checkpoint)
    finally:
        trainer.close()


def _find_relative_paths(cfg: DictConfig, run: Path) -> None:
    """Make relative paths of a config absolute that lead nowhere from the working folder.

    They are relative to the working folder in which the run was started.

    Raises:
        UserError: its data is neither here nor there.
    """
    starts = provenance.read(run).get("starts") or [{}]
    begun = Path(starts[-1].get("working_folder", ""))
    for key, value in settings.flat(OmegaConf.to_container(cfg, resolve=False)).items():
        named = key.rpartition(".")[2] in _PATHS and not key.startswith("run.")
        if not named or not isinstance(value, str) or "$" in value or Path(value).exists():
            continue
        if Path(value).is_absolute():
            continue
        if begun.is_absolute() and (begun / value).exists():
            _log.warning("%s=%s is not here: taking %s.", key, value, begun / value)
            OmegaConf.update(cfg, key, str(begun / value))
        elif key == "data.path":
            raise UserError(
                f"{key}={value}: the path is relative, and there is nothing of that name in the "
                f"working folder, {Path.cwd()}, nor where the run was started, {begun}."
            )


def _check_data(trainer: Any, folder: Path) -> None:
    """Warn of data that is not what the run has learned from, or refuse it."""
    from sparring.storage.checkpoints import Checkpoints

    host = Checkpoints(folder / "checkpoints", keep=10**9).newest_host()
    for complaint in trainer.check_state(host.get("trainer", {})):
        _log.warning("%s", complaint)
