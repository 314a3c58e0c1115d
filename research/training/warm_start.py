"""Warm starts: weights of an earlier run, and freezing."""

import logging
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from sparring.errors import UserError
from sparring.optim import fine_tuning
from sparring.optim.optimizer import freeze
from sparring.storage import checkpoints, variable_names
from sparring.storage.variable_names import Leaf

_log = logging.getLogger("sparring")


def load_weights(model: tf.train.Checkpoint, source: Path, layers: Sequence[str] | None) -> None:
    """Take a checkpoint's weights into a model: all, or those whose names the regular expressions
    `layers` match whole.

    Raises UserError that lists the weights that do not fit, having assigned nothing.
    """
    if layers is None:
        try:
            checkpoints.restore_into(tf.train.Checkpoint(model=model), source)
        except UserError as error:
            raise UserError(
                f"{error} Or name what to take of it: run.warm_layers=['PATTERN', ...]."
            ) from error
        return
    here = {f"model/{name}": v for name, v in variable_names.named_variables(model).items()}
    there = checkpoints.contents(source)
    chosen = fine_tuning.matching(
        layers, [n.removeprefix("model/") for n in here], "run.warm_layers"
    )
    faults = []
    for name in (f"model/{n}" for n in chosen):
        if name not in there:
            faults.append(f"not in the checkpoint: {name}")
        elif there[name][0][:2] != (here[name].dtype.base_dtype, here[name].shape):
            ours = Leaf(here[name].dtype.base_dtype, here[name].shape)
            faults.append(f"differs: {name} is {there[name][0]} in the checkpoint, {ours} here")
    if faults:
        raise UserError(
            f"Checkpoint {source} does not fit:" + "".join(f"\n  {f}" for f in faults[:20])
        )
    for name in chosen:
        here[f"model/{name}"].assign(there[f"model/{name}"][1]())
    _log.info("Took %d of %d variables: %s.", len(chosen), len(here), ", ".join(chosen[:6]))


def freeze_weights(model: tf.train.Checkpoint, layers: Sequence[str]) -> None:
    """Freeze the weights of a model whose names the regular expressions match whole: no optimizer
    moves them.
    """
    names = variable_names.named_variables(model)
    held = fine_tuning.matching(layers, list(names), "run.freeze") if layers else []
    for name in held:
        freeze(names[name])
    if held:
        _log.info("Frozen: %d variables: %s.", len(held), ", ".join(held[:6]))
