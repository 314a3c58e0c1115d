"""Step of a discriminator on real and fake examples that are handed to it.

In adversarial imitation the fakes are an agent's steps, through which no gradient flows: there is
no generator. The gradients are those of `sparring.gans.adversarial_step`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from sparring.distribute import replicas
from sparring.errors import UserError
from sparring.gans.adversarial_step import DiscriminatorGradients
from sparring.gans.losses import Loss
from sparring.gans.networks import spectral_norm
from sparring.gans.networks.pair import Factory, Pair
from sparring.gans.penalties import Penalty
from sparring.gans.players import KEYS, Batch, Player, Values
from sparring.gans.settings import GameSettings
from sparring.gans.state import objective_state
from sparring.optim.optimizer import Scheduled
from sparring.xla import random


class DiscriminatorStep(DiscriminatorGradients):
    """Discriminator of vectors that is shown real and fake ones, and the step that trains it.

    Args:
      width: of a vector.
      network: factory of the network, called as a GAN's is.
      loss, penalties: those of a GAN; of the loss, the discriminator's half is used.
      optimizer: of the network.
      batch_size: real vectors of a step, and fake ones, of all replicas together.
    """

    def __init__(
        self,
        width: int,
        batch_size: int,
        network: Factory,
        loss: Loss,
        optimizer: Scheduled,
        penalties: Mapping[str, Penalty] | None = None,
    ) -> None:
        shape = (width,)
        if isinstance(network, Pair):
            raise UserError(
                "discriminator: this is a GAN's pair of networks; choose discriminator=mlp."
            )
        layer = Pair(network, network, 1).build_discriminator(shape, 0, "float32")
        player = Player("discriminator", layer, optimizer)
        rules = GameSettings(batch_size=batch_size)
        super().__init__(player, shape, loss, penalties or {}, {}, rules)

    @property
    def relative(self) -> bool:
        """Whether the loss compares logits with each other, and leaves their level open."""
        return bool(self.objective.loss.relativistic)

    @property
    def state(self) -> dict[str, Any]:
        """Trackables of all that the next step depends on, by name."""
        return {
            "discriminator": self.discriminator.network,
            "discriminator_optimizer": self.discriminator.optimizer.keras,
            **objective_state(self.objective),
        }

    @property
    def descriptions(self) -> dict[str, str]:
        """Tag -> what it measures, of every scalar that `update` returns."""
        penalties = {
            f"penalty/{name}": f"The penalty {name} with its weight, mean over steps."
            for name in self.objective.penalties
        }
        return DESCRIPTIONS | penalties

    def update(
        self, real: tf.Tensor, fake: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor
    ) -> Values:
        """Take a step on a replica's share of the batch, [M, width] each; return scalars to log.

        `keys` [M, 2] are the members', which penalties draw from.
        """
        spectral_norm.power_step(self.discriminator.network)
        labels = tf.zeros([real.shape[0]], tf.int64)
        purposes = tf.range(KEYS, dtype=tf.int64)
        batch = Batch(real, labels, (), random.fold(keys[:, tf.newaxis], purposes))
        inputs = self.objective.discriminator_inputs(batch, fake, progress)
        coupled = self.objective.coupled or self.discriminator.coupled
        learn: Callable[..., Any] = self.discriminator_gradients
        if not coupled:
            learn = replicas.compile_in_replica(learn)
        gradients, values = learn(batch, inputs, progress)
        rate = self.discriminator.optimizer.learning_rate(progress)
        return self.discriminator.apply(gradients, values, progress) | {
            "schedule/discriminator_learning_rate": rate
        }

    def logits(self, examples: tf.Tensor) -> tf.Tensor:
        """Return the logits [N] of examples [N, width], in inference mode."""
        labels = tf.zeros([tf.shape(examples)[0]], tf.int64)
        return tf.cast(self.discriminator.network(examples, labels, training=False), tf.float32)


DESCRIPTIONS = {
    "loss/discriminator": "The discriminator's loss without penalties, mean over its steps.",
    "discriminator/accuracy": "Share of pairs of a real and a fake example that the logits order "
    "right.",
    "discriminator/real_logit": "The discriminator's logit of real examples, mean.",
    "discriminator/fake_logit": "The discriminator's logit of fake examples, mean.",
    "gradient/discriminator_norm": "Global norm of the discriminator's gradient before clipping, "
    "mean over its steps.",
    "gradient/discriminator_update_norm": "Global norm of the change one step makes to the "
    "discriminator's weights.",
    "schedule/discriminator_learning_rate": "The discriminator's learning rate.",
}
