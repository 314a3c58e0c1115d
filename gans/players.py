"""What a game is played with: a batch, what is shown of it, and the players."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from sparring.optim.optimizer import Scheduled

Values = dict[str, tf.Tensor]


class Batch(NamedTuple):
    """Real examples [M, ...], labels [M], latents [M, Z], and a key for each purpose [M, 5, 2]."""

    real: tf.Tensor
    labels: tf.Tensor
    latents: tf.Tensor
    keys: tf.Tensor


class DiscriminatorInputs(NamedTuple):
    """What the discriminator is shown, augmented and packed: [M / pack, ...]."""

    real: tf.Tensor
    fake: tf.Tensor


@dataclass
class Player:
    """A network and the optimizer of its weights, whose slots are made here."""

    network: tf.keras.layers.Layer
    optimizer: Scheduled

    def __post_init__(self) -> None:
        self.optimizer.build(self.network.trainable_variables)

    @property
    def weights(self) -> list[tf.Variable]:
        return self.optimizer.variables

    def step(self, gradients: list[tf.Tensor], progress: tf.Tensor, name: str) -> Values:
        """Apply gradients; the norms, by tags of this player."""
        norms = self.optimizer.step(gradients, progress)
        return {
            f"gradient/{name}_{tag.removeprefix('gradient/')}": norm for tag, norm in norms.items()
        }


@contextlib.contextmanager
def unchanged(network: tf.keras.layers.Layer) -> Iterator[None]:
    """Undo what happens to a network's buffers inside: statistics of batch normalisation move in
    its own steps only.
    """
    buffers = network.non_trainable_variables
    before = [tf.identity(v) for v in buffers]
    yield
    for variable, value in zip(buffers, before, strict=True):
        variable.assign(value)


@contextlib.contextmanager
def watching(weights: list[tf.Variable]) -> Iterator[tf.GradientTape]:
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(weights)
        yield tape
