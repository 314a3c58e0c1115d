"""Rules of a GAN's training, whatever its networks and losses, and what follows from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from sparring.distribute import replicas
from sparring.errors import UserError
from sparring.optim import precision
from sparring.optim.optimizer import Scheduled


@dataclass(frozen=True)
class GameSettings:
    """Rules of training.

    Args:
      batch_size: real examples of one discriminator step, and generated ones of a step of either
        player.
      n_critic: discriminator steps for each generator step.
      accumulation: parts of a batch whose gradients are added, to save memory. Statistics over a
        batch (batch normalisation, RaGAN's means, DRAGAN's standard deviation) are then over a
        part.
      pack: examples that the discriminator judges as one (PacGAN, Lin et al. 2018): a batch has
        batch_size / pack inputs.
      penalty_interval: discriminator steps between two steps on the penalties alone, which are then
        scaled by it (lazy regularisation, Karras et al. 2019, appendix B).
      weight_clip: bound on the absolute value of the discriminator's weights (Arjovsky et al.
        2017); null: none.
      conditional: whether both players see labels.
      joint: whether the discriminator sees real and generated examples in one batch, in both
        players' steps; matters to batch normalisation only, behind which penalties are then
        refused.
      generator_precision, discriminator_precision: float32 | bfloat16 (parameters and their updates
        are always float32).
    """

    batch_size: int = 64
    n_critic: int = 1
    accumulation: int = 1
    pack: int = 1
    penalty_interval: int = 1
    weight_clip: float | None = None
    conditional: bool = False
    joint: bool = False
    generator_precision: str = "float32"
    discriminator_precision: str = "float32"

    def __post_init__(self) -> None:
        if self.batch_size % (self.accumulation * self.pack):
            raise UserError(
                f"game.batch_size={self.batch_size} is no multiple of "
                f"game.accumulation={self.accumulation} times "
                f"game.pack={self.pack}."
            )
        if self.batch_size % (self.accumulation * self.pack * replicas.num_replicas()):
            raise UserError(
                f"game.batch_size={self.batch_size} is no multiple of "
                f"game.accumulation={self.accumulation} times "
                f"game.pack={self.pack} times the {replicas.num_replicas()} replicas that share it."
            )
        if self.pack > 1 and self.conditional:
            raise UserError(
                f"game.pack={self.pack}: packed examples have no label in common; set "
                "conditional=false."
            )
        for player in ("generator_precision", "discriminator_precision"):
            precision.check(getattr(self, player), f"game.{player}")

    @property
    def part(self) -> int:
        """Number of examples in a part of a batch, on one replica."""
        return self.batch_size // self.accumulation // replicas.num_replicas()


def check_joint(
    rules: GameSettings, penalties: Mapping[str, Any], discriminator: tf.keras.layers.Layer
) -> None:
    """Refuse penalties of a discriminator that normalises real and generated examples together.

    A penalty evaluates it on examples of one kind, or on points between both: alone, with
    statistics that it has in neither of the steps.
    """
    if not (rules.joint and penalties):
        return
    for layer in discriminator.submodules:
        coupled = getattr(layer, "coupled", False)
        if coupled or isinstance(layer, tf.keras.layers.BatchNormalization):
            raise UserError(
                "game.joint=true: a penalty judges examples apart, and batch normalisation would "
                "differ in it: set game.joint=false, penalty=none or "
                "network.discriminator.normalization=layer."
            )


def correct_for_interval(optimizer: Scheduled, interval: int) -> None:
    """Slow an optimizer that takes interval + 1 steps where it took interval.

    Karras et al. 2019, appendix B: the learning rate is scaled by c = interval / (interval + 1),
    decay rates of moments (Adam's betas, RMSprop's rho) are raised to the power c.
    """
    share = interval / (interval + 1.0)
    rate = optimizer.learning_rate
    optimizer.learning_rate = lambda progress: share * rate(progress)
    for name in ("beta_1", "beta_2", "rho"):
        decay = getattr(optimizer.keras, name, None)
        if decay is not None:
            setattr(optimizer.keras, name, decay**share)
