"""Batches, discriminator inputs, and players: networks with their optimizers."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from sparring.distribute import replicas
from sparring.gans.networks.layers import BatchNorm
from sparring.optim import fine_tuning
from sparring.optim.optimizer import Scheduled, is_frozen

Values = dict[str, tf.Tensor]

# Index of an example's random key, by purpose
KEY_DATA = 0
KEY_LATENT = 1
KEY_REAL = 2
KEY_FAKE = 3
KEY_PENALTY = 4
KEY_DROPOUT = 5
KEYS = 6


class Batch(NamedTuple):
    """Real examples [M, ...], labels [M], latents [M, Z], and random keys [M, KEYS, 2]."""

    real: tf.Tensor
    labels: tf.Tensor
    latents: tf.Tensor
    keys: tf.Tensor


class DiscriminatorInputs(NamedTuple):
    """Real and generated examples, augmented and packed: [M / pack, ...] each."""

    real: tf.Tensor
    fake: tf.Tensor


@dataclass
class Player:
    """Network and optimizer of one player; creates the optimizer's slots."""

    name: str  # in tags
    network: tf.keras.layers.Layer
    optimizer: Scheduled

    def __post_init__(self) -> None:
        fine_tuning.synchronise(self.network)
        self.optimizer.build(self.network.trainable_variables)

    @property
    def weights(self) -> list[tf.Variable]:
        return self.optimizer.variables

    @property
    def coupled(self) -> bool:
        """Whether replicas meet inside the network, as in batch normalisation."""
        ours = any(getattr(layer, "coupled", False) for layer in self.network.submodules)
        return ours or (replicas.num_replicas() > 1 and fine_tuning.coupled(self.network))

    def step(self, gradients: list[tf.Tensor], progress: tf.Tensor) -> Values:
        """Apply gradients; return the norms, by tag."""
        norms = self.optimizer.step(gradients, progress)
        return {
            f"gradient/{self.name}_{tag.removeprefix('gradient/')}": norm
            for tag, norm in norms.items()
        }

    def apply(self, gradients: list[tf.Tensor], values: Values, progress: tf.Tensor) -> Values:
        """Apply gradients; return the sum over replicas of `values`, and the gradient's norms."""
        return replicas.all_reduce_sum(values) | self.step(gradients, progress)


def hold_statistics(network: tf.keras.layers.Layer, *copies: tf.keras.layers.Layer) -> None:
    """Put batch-norm layers whose parameters are all frozen into inference mode.

    So are the same layers of `copies`, networks of the same architecture.
    """
    alike = zip(_normalizations(network), *map(_normalizations, copies), strict=True)
    for layer, *others in alike:
        own = [v for v in (layer.gamma, layer.beta) if v is not None]
        if own and all(is_frozen(v) for v in own):
            for held in (layer, *others):
                held.trainable = False


def _normalizations(network: tf.keras.layers.Layer) -> list[tf.keras.layers.Layer]:
    kinds = (BatchNorm, tf.keras.layers.BatchNormalization)
    return [layer for layer in network.submodules if isinstance(layer, kinds) and layer.built]


@contextlib.contextmanager
def unchanged(network: tf.keras.layers.Layer) -> Iterator[None]:
    """Restore a network's buffers on leaving.

    Statistics of batch normalisation then move in the network's own steps only.
    """
    buffers = network.non_trainable_variables
    before = [tf.identity(v) for v in buffers]
    yield
    for variable, value in zip(buffers, before, strict=True):
        variable.assign(value)


@contextlib.contextmanager
def watching(tensors: tf.Tensor | list[tf.Variable]) -> Iterator[tf.GradientTape]:
    """Record operations for the gradient with respect to `tensors` alone."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(tensors)
        yield tape
