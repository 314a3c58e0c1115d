"""Trainers restored from the checkpoints of earlier runs."""

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sparring.errors import UserError


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
    trainer = experiment.build(here)
    try:
        yield trainer, restore_model(trainer, folder, checkpoint)
    finally:
        trainer.close()
