"""What was learned elsewhere, taken along: by a torso from another task, by a run from an earlier one."""

import functools
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from research import checkpoint, finite, stages
from research.errors import UserError
from research.models import Headed
from research.object_graph import Leaf
from research.optimizers import Scheduled, another, freeze
from research.supervised import SupervisedTrainer
from research.tasks import Task

_log = logging.getLogger("sparring")


def learned(
    torso: Callable[[], tf.keras.layers.Layer],
    data: Any,
    task: Callable[..., Task],
    optimizer: Scheduled,
    steps: int,
    batch_size: int,
    seed: int,
    compile: str = "auto",
) -> tf.keras.layers.Layer:
    """A torso that has learned a task first, from `steps` examples of `data`, under a head that is then thrown away."""

    def train() -> tuple[list[np.ndarray], np.ndarray]:
        own = Scheduled(another(optimizer.keras), optimizer.learning_rate)
        model = functools.partial(Headed, torso=torso)
        trainer = SupervisedTrainer(data, model, task, own, batch_size, seed, steps, compile=compile)
        trainer.train(steps)
        score = trainer.evaluate(media=False).scalars[trainer.objective]
        _log.info("Pre-trained the torso on %d examples: %s %.4g.", trainer.step, trainer.objective, score)
        return trainer.network.torso.get_weights(), data.examples("train", 2)[0]

    with ThreadPoolExecutor(1) as pool:  # a strategy's scope, in which nothing can train, ends at a thread's border
        weights, inputs = pool.submit(train).result()
    network = torso()
    network(tf.constant(inputs))
    network.set_weights(weights)
    return network


def begin_with(model: tf.train.Checkpoint, source: Path, layers: Sequence[str] | None) -> None:
    """Take a checkpoint's weights into a model: all, or those whose names the regular expressions `layers` match whole.

    Raises UserError that lists the weights that do not fit, having assigned nothing.
    """
    if layers is None:
        try:
            checkpoint.restore_into(tf.train.Checkpoint(model=model), source)
        except UserError as error:
            raise UserError(f"{error} Or name what to take of it: run.warm_layers=['PATTERN', ...].") from error
        return
    here = {f"model/{name}": v for name, v in finite.variables(model).items()}
    there = checkpoint.contents(source)
    chosen = stages.matching(layers, [n.removeprefix("model/") for n in here], "run.warm_layers")
    faults = []
    for name in (f"model/{n}" for n in chosen):
        if name not in there:
            faults.append(f"not in the checkpoint: {name}")
        elif there[name][0][:2] != (here[name].dtype.base_dtype, here[name].shape):
            ours = Leaf(here[name].dtype.base_dtype, here[name].shape)
            faults.append(f"differs: {name} is {there[name][0]} in the checkpoint, {ours} here")
    if faults:
        raise UserError(f"Checkpoint {source} does not fit:" + "".join(f"\n  {f}" for f in faults[:20]))
    for name in chosen:
        here[f"model/{name}"].assign(there[f"model/{name}"][1]())
    _log.info("Took %d of %d variables: %s.", len(chosen), len(here), ", ".join(chosen[:6]))


def hold(model: tf.train.Checkpoint, layers: Sequence[str]) -> None:
    """Freeze the weights of a model whose names the regular expressions match whole: no optimizer moves them."""
    names = finite.variables(model)
    held = stages.matching(layers, list(names), "run.freeze") if layers else []
    for name in held:
        freeze(names[name])
    if held:
        _log.info("Frozen: %d variables: %s.", len(held), ", ".join(held[:6]))
