"""Rows that a run leaves in TensorBoard: its config as text and its HParams."""

import json
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf

from sparring.storage.atomic import write_text
from sparring.storage.run_folder import TRAINER
from sparring.storage.settings import flat

HPARAM_METRICS = {"hparam/objective": "The run's last objective."}


def describe(folder: Path, cfg: DictConfig, trainer: Any) -> None:
    """The config as text and the HParams row, in TensorBoard; what the trainer says of itself, in
    trainer.json.
    """
    from sparring.tensorboard.writer import Writer

    describe_trainer(folder, trainer)
    writer = Writer(
        folder, descriptions={"config": "The run's config, as composed; its limits are left out."}
    )
    shown = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "limits"])
    writer.text("config", f"```yaml\n{OmegaConf.to_yaml(shown)}\n```")
    writer.hparams(hparams(cfg), {})
    writer.close()


def describe_trainer(folder: Path, trainer: Any) -> None:
    """Write trainer.json: the objective, its direction, and the unit of a step."""
    said = {"objective": trainer.objective, "maximize": trainer.maximize, "unit": trainer.unit}
    write_text(folder / TRAINER, json.dumps(said) + "\n")


def settle(folder: Path, cfg: DictConfig, trainer: Any, outcome: Any) -> None:
    """The HParams row's final metric, once the run has come to its end: a run to be resumed has
    none yet.
    """
    from sparring.tensorboard.writer import Writer

    value = outcome.final.get(trainer.objective)
    if outcome.status not in ("finished", "target") or value is None:
        return
    metrics = {"hparam/objective": value}
    writer = Writer(folder, descriptions=HPARAM_METRICS, resume_step=outcome.step)
    writer.hparams(hparams(cfg), metrics)
    writer.close()


def hparams(cfg: DictConfig) -> dict[str, Any]:
    """The settings that are columns of the HParams table: those under `cfg.hparams`, without what
    they refer to.
    """
    chosen: dict[str, Any] = {}
    for key in cfg.hparams:
        raw = OmegaConf.to_container(cfg[key], resolve=False)
        chosen |= {f"{key}.{k}": v for k, v in flat(raw).items() if not _hidden(k, v)}
    return chosen | {f"{key}.name": _name(cfg[key]) for key in cfg.check_first if key in cfg}


def _hidden(key: str, value: Any) -> bool:
    return key.split(".")[-1] in ("_partial_",) or (
        isinstance(value, str) and value.startswith("${")
    )


def _name(node: DictConfig) -> str:
    return str(node.get("id", node.get("_target_")))


def write_evaluation(writer: Any, found: Any, step: int) -> None:
    """Write an evaluation (sparring.training.trainer.Evaluation) with a `Writer`."""
    writer.scalars(found.scalars, step)
    writer.images(found.images, step)
    writer.videos(found.videos, step)
    writer.histograms(found.histograms, step)
    if found.embeddings:
        writer.embeddings(found.embeddings)
    if found.notes:
        writer.text(
            "evaluation", f"```yaml\n{yaml.safe_dump(found.notes, sort_keys=False)}```", step
        )
    writer.flush()
