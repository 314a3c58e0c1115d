"""Rows that a run leaves in TensorBoard: its config as text and its HParams."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf

from sparring.storage import provenance
from sparring.storage.atomic import write_text
from sparring.storage.run_folder import TRAINER
from sparring.storage.settings import flat

# Folder beside a sweep's runs for what belongs to all: columns of the HParams table, a report
SHARED = "report"
_CHECKS = ("check_first", "check_fit", "limits", "offers")


def final_metric(objective: str) -> dict[str, str]:
    """Return the tag of the HParams table's metric, and its description."""
    tag = f"final/{objective.removeprefix('eval/')}"
    return {tag: f"{objective} of a finished run, at its end."}


def describe(folder: Path, cfg: DictConfig, trainer: Any) -> None:
    """The config as text and the HParams row, in TensorBoard; what the trainer says of itself, in
    trainer.json.
    """
    from sparring.tensorboard.hparams import DECLARATION, declare_hparams
    from sparring.tensorboard.writer import Writer

    describe_trainer(folder, trainer)
    writer = Writer(
        folder, descriptions={"config": "The run's config, as composed, without what checks it."}
    )
    shown = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in _CHECKS])
    writer.text("config", f"```yaml\n{OmegaConf.to_yaml(shown)}\n```")
    writer.hparams(hparams(cfg, provenance.read(folder).get("choices", {})), {})
    writer.close()
    shared = folder.parent / SHARED
    if (shared / DECLARATION).exists():
        with contextlib.suppress(OSError):
            declare_hparams(shared, {}, final_metric(trainer.objective))


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
    descriptions = final_metric(trainer.objective)
    writer = Writer(folder, descriptions=descriptions, resume_step=outcome.step)
    choices = provenance.read(folder).get("choices", {})
    writer.hparams(hparams(cfg, choices), dict.fromkeys(descriptions, value))
    writer.close()


def hparams(cfg: DictConfig, choices: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are columns of the HParams table: those under `cfg.hparams`, without what
    they refer to, and what the run is about.

    Classes are called as they were chosen: `agent` is "ppo". `choices` are the chosen options of
    config groups.
    """
    options = {str(group).rpartition("@")[2]: option for group, option in choices.items()}
    chosen: dict[str, Any] = {}
    for key in cfg.hparams:
        raw = OmegaConf.to_container(cfg[key], resolve=False)
        if options.get(key):
            chosen[key] = options[key]
        for name, value in flat(raw).items():
            if _hidden(name, value) or (name == "_target_" and key in chosen):
                continue
            is_class = name.rpartition(".")[2] == "_target_"
            chosen[f"{key}.{name}"] = _last(value) if is_class else value
    names = {
        key: cfg[key].get("id") or options.get(key) or _class(cfg[key])
        for key in cfg.get("tasks") or cfg.check_first
        if key in cfg
    }
    return chosen | names


def _hidden(key: str, value: Any) -> bool:
    return key.split(".")[-1] in ("_partial_",) or (
        isinstance(value, str) and value.startswith("${")
    )


def _class(node: DictConfig) -> str:
    return _last(node.get("_target_"))


def _last(target: Any) -> str:
    return str(target).rpartition(".")[2]


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
