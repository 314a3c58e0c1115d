"""Skills without a reward of the environment: diversity is all you need, DIAYN.

Eysenbach et al. 2019, "Diversity is all you need: learning skills without a reward function",
equation 3 and algorithm 1. Skills are drawn by `sparring.envs.compiled.skills.Skills`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from gymnasium import spaces

from sparring.agents import skill_paths
from sparring.agents.advantages import mean_of_valid
from sparring.agents.agent import Scalars
from sparring.agents.networks import specs
from sparring.agents.networks.headed import HeadedNetwork, Torso
from sparring.agents.networks.normalizers import observation_normalizer
from sparring.agents.training.rollout import Rollout
from sparring.distribute import replicas
from sparring.errors import UserError
from sparring.optim.optimizer import Scheduled
from sparring.training.trainer import Evaluation

_STEPS = 50  # of the paths that are drawn
_PATHS = 64  # environments whose paths are drawn


class Taken(NamedTuple):
    """Steps of a rollout: what was reached [N, F], under which skill int32 [N]; mask [N].

    `accuracy` [] and `loss` [] are those of the discriminator before it learned from them.
    """

    reached: tf.Tensor
    skill: tf.Tensor
    mask: tf.Tensor
    accuracy: tf.Tensor
    loss: tf.Tensor


class DIAYN:
    """Reward log q(z | s) - log p(z) of a discriminator q of skills; a `RewardSource`.

    p(z) is uniform, s the state that a step reached. The discriminator takes `updates` steps on
    the whole rollout by cross-entropy before it rewards it. Resets count in nothing.

    Args:
      observation_space: a vector, whose last `skills` numbers are the skill, one-hot.
      network: factory of the discriminator's torso.
      optimizer: of the discriminator.
      skills: their number.
      updates: of the discriminator in an iteration.
      normalize: whether its observations are normalised, by their running moments.
      drawn: the two numbers of an observation whose paths are drawn.
    """

    reported = {  # noqa: RUF012
        "diayn/paths": "Paths of the last rollout, a colour for each skill."
    }
    charts = {  # noqa: RUF012
        "Skills": {"accuracy": ["diayn/accuracy"], "reward": ["diayn/reward"]}
    }
    fingerprint: Mapping[str, Any] = {}

    def __init__(
        self,
        agent: Any,
        observation_space: Any,
        action_space: Any,
        seed: int,
        network: Torso,
        optimizer: Scheduled,
        skills: int,
        updates: int = 4,
        normalize: bool = True,
        drawn: Sequence[int] = (0, 1),
    ) -> None:
        del agent, action_space, seed  # nothing is drawn at random
        low = observation_space.low[:-skills]
        high = observation_space.high[:-skills]
        inner = spaces.Box(low, high, dtype=observation_space.dtype)
        if len(drawn) != 2 or not all(0 <= axis < len(low) for axis in drawn):
            raise UserError(
                f"reward_source.drawn={list(drawn)}: two of the observation's numbers 0 to "
                f"{len(low) - 1}."
            )
        self.skills = skills
        self.updates = updates
        self.drawn = list(drawn)
        self.normalizer = observation_normalizer(inner) if normalize else None
        self.network = HeadedNetwork(
            specs.time_step_spec(inner).observation,
            network,
            lambda: tf.keras.layers.Dense(skills),
            self.normalizer,
            "skill_discriminator",
        )
        self.network.create_variables()
        self.optimizer = optimizer
        self.optimizer.build(self.network.trainable_weights)
        # Place, skill, and whether a step was no reset, of the paths that are drawn
        self._paths = replicas.replicated(tf.zeros([_STEPS, _PATHS, 4]))

    # ---- reward source ---------------------------------------------------------------------------

    @property
    def descriptions(self) -> dict[str, str]:
        """Tag -> what it measures, of every scalar."""
        return DESCRIPTIONS | {"diayn/chance": f"Accuracy of a guess: 1 / {self.skills}."}

    @property
    def state(self) -> dict[str, Any]:
        """Trackables of all that the next step depends on, by name."""
        normalizer = {} if self.normalizer is None else {"normalizer": self.normalizer}
        return {
            "discriminator": self.network,
            "discriminator_optimizer": self.optimizer.keras,
            "paths": self._paths,
            **normalizer,
        }

    def take_up(self, rollout: Rollout) -> Taken:
        """Return the states that steps reached; the statistics take them up, and the picture."""
        after = rollout.observation[1:]  # [T, B, F + skills]
        mask = tf.cast(~rollout.first, tf.float32)  # [T, B]
        self._keep(after, mask)
        rows = tf.reshape(after, [-1, after.shape[-1]])
        reached = rows[:, : -self.skills]
        skill = tf.argmax(rows[:, -self.skills :], axis=-1, output_type=tf.int32)
        flat = tf.reshape(mask, [-1])
        if self.normalizer is not None:
            self.normalizer.update(reached, flat)
        log_q, right = self._judged(reached, skill)
        accuracy = mean_of_valid(right, flat)
        return Taken(reached, skill, flat, accuracy, mean_of_valid(-log_q, flat))

    def update(self, taken: Taken, number: tf.Tensor, progress: tf.Tensor) -> Scalars:
        """Take a step of cross-entropy on all of a rollout's steps."""
        del number
        count = replicas.all_reduce_sum(tf.reduce_sum(taken.mask))
        learn = replicas.compile_in_replica(self._gradients)
        norms = self.optimizer.step(learn(taken, tf.maximum(count, 1.0)), progress)
        return {
            "gradient/discriminator_norm": norms["gradient/norm"],
            "gradient/discriminator_update_norm": norms["gradient/update_norm"],
            "schedule/discriminator_learning_rate": self.optimizer.learning_rate(progress),
        }

    def rewards(
        self, rollout: Rollout, taken: Taken, iteration: tf.Tensor
    ) -> tuple[tf.Tensor, Scalars]:
        """Return log q(z | s) - log p(z) [T, B] by the discriminator as it is now."""
        del iteration
        log_q, _ = self._judged(taken.reached, taken.skill)
        reward = (log_q + np.log(self.skills)) * taken.mask
        return tf.reshape(reward, rollout.reward.shape), {
            "diayn/reward": mean_of_valid(reward, taken.mask),
            "diayn/accuracy": taken.accuracy,
            "diayn/chance": tf.constant(1.0 / self.skills),
            "loss/discriminator": taken.loss,
        }

    def report(self, found: Evaluation, media: bool) -> None:
        """Add the paths of the last rollout, a colour for each skill."""
        if not media:
            return
        found.images["diayn/paths"] = skill_paths.picture(self._paths.numpy(), self.skills)

    def watch(self, values: Mapping[str, float], step: int) -> None:
        """Look at a point of the log: there is nothing to warn of."""

    # ---- parts -----------------------------------------------------------------------------------

    def _judged(self, reached: tf.Tensor, skill: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return log q(z | s) [N], and whether the skill is the likeliest, float32 [N]."""
        log_probs = tf.nn.log_softmax(self.network(reached)[0])  # [N, skills]
        right = tf.argmax(log_probs, axis=-1, output_type=tf.int32) == skill
        return tf.gather(log_probs, skill, batch_dims=1), tf.cast(right, tf.float32)

    def _gradients(self, taken: Taken, count: tf.Tensor) -> list[tf.Tensor]:
        """Return a replica's share of the gradients of the mean cross-entropy."""
        weights = self.network.trainable_weights
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            log_q, _ = self._judged(taken.reached, taken.skill)
            loss = -tf.reduce_sum(log_q * taken.mask) / count
        gradients: list[tf.Tensor] = tape.gradient(loss, weights)
        return gradients

    def _keep(self, after: tf.Tensor, mask: tf.Tensor) -> None:
        """Keep the paths of some environments for the picture, equal on all replicas."""
        place = tf.gather(after, self.drawn, axis=-1)  # [T, B, 2]
        skill = tf.argmax(after[..., -self.skills :], axis=-1, output_type=tf.int32)
        rows = tf.concat([place, tf.cast(skill, tf.float32)[..., None], mask[..., None]], axis=-1)
        steps = tf.minimum(tf.range(_STEPS), rows.shape[0] - 1)  # the last again, if too few
        rows = tf.gather(rows, steps)  # [S, B, 4]
        count = replicas.num_replicas()
        mine = tf.one_hot(replicas.replica_index(), count)[:, None, None, None]
        every = replicas.all_reduce_sum(mine * rows[None])  # [R, S, B, 4]
        every = tf.reshape(tf.transpose(every, [1, 0, 2, 3]), [_STEPS, -1, 4])
        self._paths.assign(tf.gather(every, tf.range(_PATHS) % every.shape[1], axis=1))


DESCRIPTIONS = {
    "diayn/accuracy": "Share of the steps of a rollout whose skill the discriminator finds in the "
    "state reached, before it learns from them.",
    "diayn/reward": "log q(z | s) - log p(z) in nats, mean over steps: log(skills) at best.",
    "loss/discriminator": "Cross-entropy of the skill in nats, before learning from the rollout.",
    "gradient/discriminator_norm": "Global norm of the discriminator's gradient before clipping.",
    "gradient/discriminator_update_norm": "Global norm of the change one step makes to the "
    "discriminator's weights.",
    "schedule/discriminator_learning_rate": "The discriminator's learning rate.",
}
