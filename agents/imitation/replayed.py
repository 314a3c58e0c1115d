"""GAIL off-policy: the discriminator's fakes are an agent's replayed steps.

Kostrikov et al. 2019, "Discriminator-actor-critic: addressing sample inefficiency and reward bias
in adversarial imitation learning", algorithm 1. Rewards are computed as batches are drawn, by the
discriminator as it is.
"""

from typing import Any

import tensorflow as tf

from sparring.agents.agent import Scalars
from sparring.agents.imitation.adversarial import GAIL, KEPT, as_column
from sparring.agents.imitation.encoding import Rows as Encoded
from sparring.agents.imitation.expert import require_single_steps
from sparring.agents.replay import Ring, Rows, Transitions
from sparring.agents.training.rollout import Rollout
from sparring.distribute import replicas


class ReplayGAIL(GAIL):
    """Reward of a discriminator over replayed observations and actions; a `ReplaySource`.

    Observations are normalised by the moments of all that was stored so far. See `GAIL` for the
    settings.
    """

    def require(self, agent: Any) -> None:
        """Raise UserError for an agent that does not learn from single transitions."""
        require_single_steps(agent)

    @property
    def drawn(self) -> int:
        """Transitions of replay that a replica's share of a learning step is given."""
        return self.share

    def store(self, rollout: Rollout) -> Rollout:
        """Return a rollout without its rewards; the statistics of observations take it up."""
        own, mask = self.encoded(rollout)
        if self.normalizer is not None:
            self.normalizer.update(own.observation, mask)
        return rollout._replace(reward=tf.zeros_like(rollout.reward))

    def learn(self, fake: Transitions, number: tf.Tensor, progress: tf.Tensor) -> Scalars:
        """Take step `number` of the discriminator, on a batch of the expert and one of replay."""
        members = {name: self.members(key, number) for name, key in self.keys.items()}
        real = self.expert_rows(members["expert"])
        values: Scalars = self.discriminator.update(
            self.shown_in_batch(real, members["expert"]),
            self.shown_in_batch(self._encoded(fake), members["agent"]),
            members["discriminator"],
            progress,
        )
        return values | self.judged_expert(real)

    def own(self, count: int) -> int:
        """Return `count`: all of a batch is the agent's."""
        return count

    def batch(
        self, replay: Ring, rows: Rows, steps: int, key: tf.Tensor
    ) -> tuple[Transitions, Scalars]:
        """Return the transitions at `rows` with the discriminator's rewards of each step."""
        del key
        rewards = []
        values: Scalars = {}
        for k in range(steps):
            found = self._encoded(replay.gather(Rows(rows.slot + k, rows.env)))
            logits = self.discriminator.logits(self.shown(found))  # [M]
            rewards.append(self.with_absorbing(self.form(logits), found.terminated[:, 0]))
            if k == 0:
                values = self.judged(self.form(logits), logits, tf.ones_like(logits))
                self._keep_rewards(rewards[0])
        return replay.gather(rows, steps, self.agent.discount, rewards), values

    def _encoded(self, steps: Transitions) -> Encoded:
        """Return single transitions as rows of numbers."""
        return Encoded(
            self.encoder.observation(steps.observation),
            self.encoder.action(steps.action),
            self.encoder.observation(steps.next_observation),
            as_column(steps.discount == 0.0),
            as_column(tf.zeros_like(steps.discount)),
        )

    def _keep_rewards(self, reward: tf.Tensor) -> None:
        """Keep rewards of a batch, equal on all replicas."""
        some = tf.gather(reward, tf.range(KEPT) % reward.shape[0])
        self.kept.assign(replicas.broadcast_from_first(some))
