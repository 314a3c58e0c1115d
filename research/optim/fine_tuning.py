"""Fine-tuning: freezing weights by name, and unfreezing them in stages."""

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import tensorflow as tf

from sparring.distribute import replicas
from sparring.errors import UserError
from sparring.optim.optimizer import Scheduled, another
from sparring.optim.schedules import Schedule
from sparring.storage import variable_names


class Stage:
    """Part of a run in which more weights begin to train.

    Args:
        train: regular expressions of names of weights, such as "head/.*"; those they match whole
          begin to train here.
        at: the share of the run at which the stage begins.
        learning_rate: of all that trains in it, a number or a schedule; None: the optimizer's own.
    """

    def __init__(
        self, train: Sequence[str], at: float = 0.0, learning_rate: Schedule | float | None = None
    ) -> None:
        self.train = tuple(train)
        self.at = float(at)
        self.learning_rate = learning_rate


@dataclass(frozen=True)
class Active:
    """Stage with the weights that train in it, one optimizer for each stage's weights so far."""

    optimizers: Sequence[Scheduled]
    first: int  # the iteration it begins with

    @property
    def weights(self) -> list[tf.Variable]:
        return [v for optimizer in self.optimizers for v in optimizer.variables]


def matching(patterns: Iterable[str], names: Sequence[str], key: str) -> list[str]:
    """Return the names that at least one of the patterns matches whole.

    Raises:
        UserError: a pattern is no regular expression, or matches none of the names.
    """
    found: set[str] = set()
    for pattern in patterns:
        try:
            hits = {n for n in names if re.fullmatch(pattern, n)}
        except re.error as error:
            raise UserError(f"{key}: {pattern} is no regular expression ({error}).") from error
        if not hits:
            shown = ", ".join(names[:12]) + (
                f" and {len(names) - 12} more" if len(names) > 12 else ""
            )
            raise UserError(f"{key}: {pattern} matches none of the names, which are {shown}.")
        found |= hits
    return [n for n in names if n in found]


def plan(
    network: tf.keras.layers.Layer,
    optimizer: Scheduled,
    stages: Mapping[str, Stage],
    iterations: int,
) -> list[Active]:
    """Return the stages of a run of `iterations`; without any, one in which everything trains.

    Weights that begin to train later have an optimizer of their own, with the first one's settings:
    its moments and its count of steps begin with them, as Adam's correction for the start asks.
    """
    trainable = {id(v) for v in network.trainable_variables}
    names = {
        name: v for name, v in variable_names.named_variables(network).items() if id(v) in trainable
    }
    if not stages:
        optimizer.build(list(network.trainable_variables))
        return [Active([optimizer], 0)]
    _check(stages)
    groups = _groups(names, stages)
    keras = [optimizer.keras, *(another(optimizer.keras) for _ in groups[1:])]
    planned = []
    for i, stage in enumerate(stages.values()):
        parts = []
        for one, group in zip(keras[: i + 1], groups, strict=False):
            rate = optimizer.learning_rate if stage.learning_rate is None else stage.learning_rate
            part = Scheduled(one, rate, prune=optimizer.prune)
            part.build(group)
            parts.append(part)
        planned.append(Active(parts, math.ceil(round(stage.at * iterations, 6))))
    return planned


def _check(stages: Mapping[str, Stage]) -> None:
    shares = [s.at for s in stages.values()]
    if shares[0] != 0.0 or any(b <= a for a, b in itertools.pairwise(shares)) or shares[-1] >= 1.0:
        raise UserError(
            f"stages begin at {shares} of the run: the first at 0, each later, all before 1."
        )


def _groups(
    names: Mapping[str, tf.Variable], stages: Mapping[str, Stage]
) -> list[list[tf.Variable]]:
    """Return the weights that each stage unfreezes and none before it did."""
    groups = []
    taken = set[str]()
    for key, stage in stages.items():
        fresh = [
            n for n in matching(stage.train, list(names), f"stages.{key}.train") if n not in taken
        ]
        if not fresh:
            raise UserError(f"stages.{key}.train={list(stage.train)}: all of that trains already.")
        groups.append([names[n] for n in fresh])
        taken |= set(fresh)
    return groups


def still(network: tf.keras.layers.Layer, weights: Iterable[tf.Variable]) -> None:
    """Put batch-norm layers whose parameters are not in `weights` into inference mode.

    They use and keep the statistics they have. Layers without parameters are left training.
    """
    active = {id(v) for v in weights}
    for layer in _normalisations(network):
        own = [v for v in (layer.gamma, layer.beta) if v is not None]
        layer.trainable = not own or any(id(v) in active for v in own)


def coupled(network: tf.keras.layers.Layer) -> bool:
    """Return whether batch normalization makes an output depend on the rest of its batch."""
    return any(layer.trainable for layer in _normalisations(network))


def _normalisations(network: tf.keras.layers.Layer) -> Iterator[tf.keras.layers.BatchNormalization]:
    for layer in network.submodules:
        if isinstance(layer, tf.keras.layers.BatchNormalization) and layer.built:
            yield layer


def synchronise(network: tf.keras.layers.Layer) -> None:
    """Make batch normalization use the statistics of all replicas' shares of a batch."""
    for layer in _normalisations(network) if replicas.num_replicas() > 1 else ():
        layer.synchronized = True
        layer.fused = False  # as Keras sets it for a layer made with synchronized=True
