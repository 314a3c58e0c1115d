"""GAIL and AIRL: a discriminator between an expert's steps and an agent's is the agent's reward.

Generative adversarial imitation learning, Ho and Ermon 2016, algorithm 1; adversarial inverse
reinforcement learning, Fu et al. 2018, algorithm 1. The discriminator is handed over ready to be
built, so that its loss, penalties, network and optimizer are those of GANs
(`sparring.gans.discriminator_step`); here are the steps that it is shown and the rewards.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from sparring import nested
from sparring.agents import requirements
from sparring.agents.advantages import mean_of_valid
from sparring.agents.agent import Scalars
from sparring.agents.imitation import rewards as imitation_rewards
from sparring.agents.imitation import surface
from sparring.agents.imitation.airl import AIRLNetwork
from sparring.agents.imitation.demonstrations import Demonstrations
from sparring.agents.imitation.encoding import Encoder, Rows
from sparring.agents.imitation.expert import DESCRIPTIONS as EXPERT
from sparring.agents.imitation.expert import Expert, require_imitator
from sparring.agents.networks.normalizers import ObservationNormalizer
from sparring.agents.training.rollout import Rollout
from sparring.distribute import replicas
from sparring.training.trainer import Evaluation
from sparring.xla import random

_log = logging.getLogger("sparring")
KEPT = 256  # rewards of a histogram
_SATURATED = 0.99  # share of pairs ordered right from which the reward says little
_POINTS = 20  # of the log in a row, until that is said


class Taken(NamedTuple):
    """Rollout as a discriminator is shown it.

    `own` are this replica's steps, [T * B, ...], `mask` [T * B] is one where they count; `pool`
    are all replicas' steps that count, first in `order`, `count` [] of them.
    """

    own: Rows
    mask: tf.Tensor
    pool: Rows
    order: tf.Tensor
    count: tf.Tensor


class GAIL:
    """Reward of a discriminator over observations and actions; a `RewardSource`.

    Batches are drawn with replacement, from the demonstrations and from the present rollout, by
    keys. Observations are normalised by the moments of all rollouts so far.

    Args:
      agent: has the members of `sparring.agents.agent.Likelihood`, and no memory.
      demonstrations: of the environment that the agent is in.
      discriminator: factory, called with `width`, `batch_size` and `network`.
      network: factory of the discriminator's network.
      form: reward of logits, see `sparring.agents.imitation.rewards`.
      batch_size: expert's steps of an update, and agent's steps.
      updates: of the discriminator in an iteration.
      normalize: whether observations are normalised.
      absorbing: whether an end leads to a state whose reward the discriminator gives, for ever
        (Kostrikov et al. 2019, "Discriminator-actor-critic", section 3.2); else it leads to 0.
    """

    def __init__(
        self,
        agent: Any,
        observation_space: Any,
        action_space: Any,
        seed: int,
        demonstrations: Demonstrations,
        discriminator: Callable[..., Any],
        network: Callable[..., tf.keras.layers.Layer],
        form: Callable[[tf.Tensor], tf.Tensor] = imitation_rewards.positive,
        batch_size: int = 256,
        updates: int = 8,
        normalize: bool = True,
        absorbing: bool = False,
    ) -> None:
        self.require(agent)
        self.agent = agent
        self.absorbing = absorbing
        if absorbing:
            requirements.refuse_absorbing(isinstance(self, AIRL), agent.discount)
        self.expert = Expert(demonstrations, observation_space, action_space)
        self.encoder = Encoder(observation_space, action_space)
        self.form = form
        self.updates = updates
        self.batch_size = batch_size
        self.share = replicas.Replicas().share(batch_size, "reward_source.batch_size")
        self.normalizer: ObservationNormalizer | None = None
        if normalize:
            self.normalizer = ObservationNormalizer((self.encoder.observation_width,))
        built = self.network(network)
        self.discriminator = discriminator(width=self.width, batch_size=batch_size, network=built)
        self.kept = replicas.replicated(tf.zeros([KEPT]))
        self.keys = {
            name: random.stream(seed, f"imitation {name}")
            for name in ("expert", "agent", "discriminator", "accuracy")
        }
        self._saturated = 0
        if self.discriminator.relative:
            _log.warning(
                "loss: a relativistic loss leaves the level of the logits open, and the level of "
                "the reward with it: where episodes can end early, it may pay for lasting or for "
                "ending."
            )

    # ---- what a kind of imitation defines --------------------------------------------------------

    def require(self, agent: Any) -> None:
        """Raise UserError for an agent that cannot learn from this source."""
        require_imitator(agent)

    @property
    def width(self) -> int:
        """Numbers of a step that the discriminator is shown; of absorbing states, a flag more."""
        flag = int(self.absorbing)
        return self.encoder.observation_width + self.encoder.action_width + flag

    def network(self, factory: Callable[..., Any]) -> Callable[..., Any]:
        """Return the factory of the discriminator's network."""
        return factory

    def shown(self, rows: Rows) -> tf.Tensor:
        """Return steps as the discriminator is shown them, [N, width]."""
        flag = tf.zeros_like(rows.terminated)[:, : int(self.absorbing)]
        return tf.concat([self._normalized(rows.observation), rows.action, flag], axis=-1)

    def learned(self, rows: Rows) -> tf.Tensor:
        """Return what was learned as a reward [N] of steps, for another agent to be paid by."""
        return self.form(self.discriminator.logits(self.shown(rows)))

    def expert_log_prob(self, observation: Any, action: tf.Tensor) -> tf.Tensor:
        """Return the agent's log probabilities [M] of the expert's actions: nobody asks for it."""
        del observation
        return tf.zeros([action.shape[0]])

    # ---- reward source ---------------------------------------------------------------------------

    @property
    def descriptions(self) -> dict[str, str]:
        """Tag -> what it measures, of every scalar."""
        absorbing = _ABSORBING if self.absorbing else {}
        return {**self.discriminator.descriptions, **DESCRIPTIONS, **absorbing}

    @property
    def reported(self) -> dict[str, str]:
        """Tag -> what it measures, of what an evaluation gains."""
        return {**EXPERT, surface.NAME: surface.DESCRIPTION}

    @property
    def charts(self) -> Mapping[str, Mapping[str, list[str]]]:
        """TensorBoard's custom scalars."""
        return {
            "Imitation": {
                "share of the expert's return": ["imitation/expert_share"],
                "accuracy": ["discriminator/.*accuracy"],
                "rewards": ["imitation/reward", "imitation/expert_reward"],
            }
        }

    @property
    def state(self) -> dict[str, Any]:
        """Trackables of all that the next step depends on, by name."""
        normalizer = {} if self.normalizer is None else {"normalizer": self.normalizer}
        return {**self.discriminator.state, **normalizer, "kept_rewards": self.kept}

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Fingerprint of the demonstrations."""
        return self.expert.demonstrations.fingerprint

    def encoded(self, rollout: Rollout) -> tuple[Rows, tf.Tensor]:
        """Return a rollout's steps as rows, and a mask [T * B] that is one where they count."""
        before = nested.map_parts(lambda x: x[:-1], rollout.observation)
        after = nested.map_parts(lambda x: x[1:], rollout.observation)
        rows = Rows(
            self.encoder.observation(_flat(before)),
            self.encoder.action(_flat(rollout.action)),
            self.encoder.observation(_flat(after)),
            as_column(rollout.terminated),
            as_column(rollout.extras.get("log_prob", tf.zeros_like(rollout.reward))),
        )
        return rows, tf.reshape(tf.cast(~rollout.first, tf.float32), [-1])

    def take_up(self, rollout: Rollout) -> Taken:
        """Return a rollout's steps as rows; the statistics of observations take them up."""
        steps = rollout.reward.shape[0]
        own, mask = self.encoded(rollout)
        if self.normalizer is not None:
            self.normalizer.update(own.observation, mask)
        whole = _gathered(tf.concat([*own, mask[:, tf.newaxis]], axis=-1), steps)
        *columns, counts = tf.split(whole, [x.shape[-1] for x in own] + [1], axis=-1)
        valid = tf.cast(counts[:, 0], tf.int32)  # [R * T * B]
        order = tf.argsort(-valid, stable=True)
        return Taken(own, mask, Rows(*columns), order, tf.reduce_sum(valid))

    def update(self, taken: Taken, number: tf.Tensor, progress: tf.Tensor) -> Scalars:
        """Take step `number` of the discriminator, on batches drawn by its keys."""
        members = {name: self.members(key, number) for name, key in self.keys.items()}
        drawn = random.integers(members["agent"], 1, taken.count)[:, 0]
        chosen = tf.gather(taken.order, drawn)
        fake = Rows(*(tf.gather(column, chosen) for column in taken.pool))
        real = self.expert_rows(members["expert"])
        found: Scalars = self.discriminator.update(
            self.shown_in_batch(real, members["expert"]),
            self.shown_in_batch(fake, members["agent"]),
            members["discriminator"],
            progress,
        )
        return found

    def rewards(
        self, rollout: Rollout, taken: Taken, iteration: tf.Tensor
    ) -> tuple[tf.Tensor, Scalars]:
        """Return the rewards [T, B] by the discriminator as it is now, and its accuracy."""
        logits = self.discriminator.logits(self.shown(taken.own))  # [T * B]
        reward = self.form(logits)
        self._keep(taken)
        real = self.expert_rows(self.members(self.keys["accuracy"], iteration))
        values = self.judged(reward, logits, taken.mask) | self.judged_expert(real)
        given = self.with_absorbing(reward, taken.own.terminated[:, 0]) * taken.mask
        return tf.reshape(given, rollout.reward.shape), values

    def judged(self, reward: tf.Tensor, logits: tf.Tensor, mask: tf.Tensor) -> Scalars:
        """Return scalars of the rewards [N] and logits [N] of an agent's steps."""
        mean = mean_of_valid(reward, mask)
        squares = mean_of_valid(tf.square(reward - mean), mask)
        told = tf.cast(logits < 0.0, tf.float32)
        found = {
            "imitation/reward": mean,
            "imitation/reward_std": tf.sqrt(squares),
            "discriminator/policy_accuracy": mean_of_valid(told, mask),
        }
        if self.absorbing:
            found["imitation/absorbing_reward"] = self._absorbing_reward()
        return found

    def judged_expert(self, real: Rows) -> Scalars:
        """Return scalars of steps of the expert."""
        logits = self.discriminator.logits(self.shown(real))  # [M]
        every = tf.ones_like(logits)
        told = tf.cast(logits > 0.0, tf.float32)
        return {
            "imitation/expert_reward": mean_of_valid(self.form(logits), every),
            "discriminator/expert_accuracy": mean_of_valid(told, every),
        }

    def report(self, found: Evaluation, media: bool) -> None:
        """Add the comparison with the expert, the reward's surface, the last rollout's rewards."""
        self.expert.report(found)
        if media:
            surface.add(found, self.agent, self.expert, self.encoder, self.learned)
        found.histograms["imitation/rewards"] = self.kept.numpy()

    def watch(self, values: Mapping[str, float], step: int) -> None:
        """Warn, once, of a discriminator that has told all steps apart for long."""
        accuracy = values.get("discriminator/accuracy", 0.5)
        self._saturated = self._saturated + 1 if accuracy >= _SATURATED else 0
        if self._saturated == _POINTS:
            _log.warning(
                "Step %d: the discriminator has ordered %.1f%% of pairs right for %d points of the "
                "log, and its reward may say little. Try penalty=r1 (or more of it), a lower "
                "discriminator_optimizer.learning_rate, or fewer reward_source.updates.",
                step,
                100.0 * accuracy,
                _POINTS,
            )

    # ---- absorbing states ------------------------------------------------------------------------

    def shown_in_batch(self, rows: Rows, members: tf.Tensor) -> tf.Tensor:
        """Return a batch [M, width] of the discriminator; keys [M, 2] are the rows'.

        With absorbing states, every other step that ended an episode is shown as the state that it
        led to: each end is as often in a batch as without.
        """
        shown = self.shown(rows)
        if not self.absorbing:
            return shown
        replaced = random.uniform(random.fold(members, 1), 1) < 0.5 * rows.terminated  # [M, 1]
        return tf.where(replaced, self._absorbing_row(), shown)

    def with_absorbing(self, reward: tf.Tensor, terminated: tf.Tensor) -> tf.Tensor:
        """Return rewards [N] to which, where `terminated` [N] is one, those of all steps in the
        absorbing state are added: gamma / (1 - gamma) times its reward.
        """
        if not self.absorbing:
            return reward
        discount = self.agent.discount
        return reward + terminated * discount / (1.0 - discount) * self._absorbing_reward()

    def _absorbing_reward(self) -> tf.Tensor:
        return self.form(self.discriminator.logits(self._absorbing_row()))[0]

    def _absorbing_row(self) -> tf.Tensor:
        """Return the absorbing state as the discriminator is shown it, [1, width]: a flag alone."""
        return tf.one_hot([self.width - 1], self.width)

    # ---- parts -----------------------------------------------------------------------------------

    def members(self, key: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        """Keys [M, 2] of this replica's members of a batch."""
        first = replicas.replica_index() * self.share
        return random.members(random.fold(key, number), self.share, first)

    def expert_rows(self, members: tf.Tensor) -> Rows:
        """Draw steps of the expert, one by each of the keys [M, 2]."""
        expert = self.expert
        chosen = random.integers(members, 1, expert.count)[:, 0]

        def taken(part: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(tf.gather(part, chosen), [self.share, *part.shape[1:]])

        observation = nested.map_parts(taken, expert.observation)
        action = taken(expert.action)
        return Rows(
            self.encoder.observation(observation),
            self.encoder.action(action),
            self.encoder.observation(nested.map_parts(taken, expert.following)),
            as_column(taken(expert.terminated)),
            as_column(self.expert_log_prob(observation, action)),
        )

    def _normalized(self, observation: tf.Tensor) -> tf.Tensor:
        return observation if self.normalizer is None else self.normalizer.normalize(observation)

    def _keep(self, taken: Taken) -> None:
        """Keep the rewards of some of the rollout's steps, equal on all replicas."""
        some = taken.order[:KEPT]
        rows = Rows(*(tf.gather(column, some) for column in taken.pool))
        reward = self.form(self.discriminator.logits(self.shown(rows)))
        self.kept.assign(tf.gather(reward, tf.range(KEPT) % reward.shape[0]))


class AIRL(GAIL):
    """Reward of a discriminator whose logit is f(s, a, s') - log pi(a | s); a `RewardSource`.

    Fu et al. 2018, eq. 4 and algorithm 1, with f(s, a, s') = g(s, a) + discount h(s') - h(s): see
    `sparring.agents.imitation.airl`. `network` makes g and h alike. With `state_only` g is of the
    observation alone, which the paper's theorem 5.1 asks for.
    """

    def __init__(self, *arguments: Any, state_only: bool = False, **settings: Any) -> None:
        self._state_only = state_only
        super().__init__(*arguments, **settings)

    @property
    def width(self) -> int:
        """Numbers of a step that the discriminator is shown: both observations and more."""
        return 2 * self.encoder.observation_width + self.encoder.action_width + 2

    def network(self, factory: Callable[..., Any]) -> Callable[..., Any]:
        """Return the factory of f - log pi, whose g and h are networks of `factory`."""

        def make(shape: tuple[int, ...], classes: int) -> AIRLNetwork:
            del shape, classes
            widths = (self.encoder.observation_width, self.encoder.action_width)
            return AIRLNetwork(factory, widths, self.agent.discount, self._state_only)

        return make

    def shown(self, rows: Rows) -> tf.Tensor:
        """Return steps with the observations that they led to, [N, width]."""
        before = self._normalized(rows.observation)
        after = self._normalized(rows.following)
        return tf.concat([before, rows.action, after, rows.terminated, rows.log_prob], axis=-1)

    def learned(self, rows: Rows) -> tf.Tensor:
        """Return g [N] of steps: the reward without the shaping and without log pi."""
        network: AIRLNetwork = self.discriminator.discriminator.network
        return network.reward(self._normalized(rows.observation), rows.action)

    def expert_log_prob(self, observation: Any, action: tf.Tensor) -> tf.Tensor:
        """Return the log probabilities [M] of the expert's actions under the policy as it is."""
        seen, _ = self.agent.see(observation, ())
        return tf.stop_gradient(self.agent.log_probability(seen, action))


def _flat(value: Any) -> Any:
    """Return [T, B, ...] as [T * B, ...], of each part."""
    return nested.map_parts(lambda x: tf.reshape(x, [-1, *x.shape[2:]]), value)


def as_column(values: tf.Tensor) -> tf.Tensor:
    return tf.reshape(tf.cast(values, tf.float32), [-1, 1])


def _gathered(rows: tf.Tensor, steps: int) -> tf.Tensor:
    """Return the rows [T * B, W] of all replicas' environments, [T * R * B, W], time-major."""
    count = replicas.num_replicas()
    if count == 1:
        return rows
    mine = tf.one_hot(replicas.replica_index(), count)[:, tf.newaxis, tf.newaxis]  # [R, 1, 1]
    every = replicas.all_reduce_sum(mine * rows[tf.newaxis])  # [R, T * B, W]
    width = rows.shape[-1]
    by_time = tf.transpose(tf.reshape(every, [count, steps, -1, width]), [1, 0, 2, 3])
    return tf.reshape(by_time, [-1, width])


DESCRIPTIONS = {
    "imitation/reward": "Reward that the discriminator gives the agent's steps, mean.",
    "imitation/reward_std": "Standard deviation of that reward over a rollout.",
    "imitation/expert_reward": "Reward that the discriminator would give the expert's steps, mean.",
    "discriminator/expert_accuracy": "Share of the expert's steps whose logit is above 0, after an "
    "iteration's updates.",
    "discriminator/policy_accuracy": "Share of the agent's steps whose logit is below 0, after an "
    "iteration's updates.",
}
_ABSORBING = {
    "imitation/absorbing_reward": "Reward of a step in the absorbing state, which ends lead to."
}
