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
from sparring.agents.advantages import mean_of_valid
from sparring.agents.agent import Scalars
from sparring.agents.imitation import rewards as imitation_rewards
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
_KEPT = 256  # rewards of a histogram
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
    ) -> None:
        require_imitator(agent)
        self.agent = agent
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
        self._kept = replicas.replicated(tf.zeros([_KEPT]))
        self._keys = {
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

    @property
    def width(self) -> int:
        """Numbers of a step that the discriminator is shown."""
        return self.encoder.observation_width + self.encoder.action_width

    def network(self, factory: Callable[..., Any]) -> Callable[..., Any]:
        """Return the factory of the discriminator's network."""
        return factory

    def shown(self, rows: Rows) -> tf.Tensor:
        """Return steps as the discriminator is shown them, [N, width]."""
        return tf.concat([self._normalized(rows.observation), rows.action], axis=-1)

    def expert_log_prob(self, observation: Any, action: tf.Tensor) -> tf.Tensor:
        """Return the agent's log probabilities [M] of the expert's actions: nobody asks for it."""
        del observation
        return tf.zeros([action.shape[0]])

    # ---- reward source ---------------------------------------------------------------------------

    @property
    def descriptions(self) -> dict[str, str]:
        """Tag -> what it measures, of every scalar."""
        return {**self.discriminator.descriptions, **DESCRIPTIONS}

    @property
    def reported(self) -> dict[str, str]:
        """Tag -> what it measures, of what an evaluation gains."""
        return EXPERT

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
        return {**self.discriminator.state, **normalizer, "kept_rewards": self._kept}

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Fingerprint of the demonstrations."""
        return self.expert.demonstrations.fingerprint

    def take_up(self, rollout: Rollout) -> Taken:
        """Return a rollout's steps as rows; the statistics of observations take them up."""
        steps = rollout.reward.shape[0]
        mask = tf.reshape(tf.cast(~rollout.first, tf.float32), [-1])  # [T * B]
        before = nested.map_parts(lambda x: x[:-1], rollout.observation)
        after = nested.map_parts(lambda x: x[1:], rollout.observation)
        own = Rows(
            self.encoder.observation(_flat(before)),
            self.encoder.action(_flat(rollout.action)),
            self.encoder.observation(_flat(after)),
            _column(rollout.terminated),
            _column(rollout.extras.get("log_prob", tf.zeros_like(rollout.reward))),
        )
        if self.normalizer is not None:
            self.normalizer.update(own.observation, mask)
        whole = _gathered(tf.concat([*own, mask[:, tf.newaxis]], axis=-1), steps)
        *columns, counts = tf.split(whole, [x.shape[-1] for x in own] + [1], axis=-1)
        valid = tf.cast(counts[:, 0], tf.int32)  # [R * T * B]
        order = tf.argsort(-valid, stable=True)
        return Taken(own, mask, Rows(*columns), order, tf.reduce_sum(valid))

    def update(self, taken: Taken, number: tf.Tensor, progress: tf.Tensor) -> Scalars:
        """Take step `number` of the discriminator, on batches drawn by its keys."""
        members = {name: self._members(key, number) for name, key in self._keys.items()}
        drawn = random.integers(members["agent"], 1, taken.count)[:, 0]
        chosen = tf.gather(taken.order, drawn)
        fake = Rows(*(tf.gather(column, chosen) for column in taken.pool))
        real = self._expert_rows(members["expert"])
        found: Scalars = self.discriminator.update(
            self.shown(real), self.shown(fake), members["discriminator"], progress
        )
        return found

    def rewards(
        self, rollout: Rollout, taken: Taken, iteration: tf.Tensor
    ) -> tuple[tf.Tensor, Scalars]:
        """Return the rewards [T, B] by the discriminator as it is now, and its accuracy."""
        logits = self.discriminator.logits(self.shown(taken.own))  # [T * B]
        reward = self.form(logits) * taken.mask
        real = self._expert_rows(self._members(self._keys["accuracy"], iteration))
        expert = self.discriminator.logits(self.shown(real))  # [M]
        self._keep(taken)
        mean = mean_of_valid(reward, taken.mask)
        squares = mean_of_valid(tf.square(reward - mean), taken.mask)
        every = tf.ones_like(expert)
        return tf.reshape(reward, rollout.reward.shape), {
            "imitation/reward": mean,
            "imitation/reward_std": tf.sqrt(squares),
            "imitation/expert_reward": mean_of_valid(self.form(expert), every),
            "discriminator/expert_accuracy": mean_of_valid(
                tf.cast(expert > 0.0, tf.float32), every
            ),
            "discriminator/policy_accuracy": mean_of_valid(
                tf.cast(logits < 0.0, tf.float32), taken.mask
            ),
        }

    def report(self, found: Evaluation, media: bool) -> None:
        """Add the share of the expert's return, and the rewards of the last rollout's steps."""
        del media
        self.expert.report(found)
        found.histograms["imitation/rewards"] = self._kept.numpy()

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

    # ---- parts -----------------------------------------------------------------------------------

    def _members(self, key: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        """Keys [M, 2] of this replica's members of a batch."""
        first = replicas.replica_index() * self.share
        return random.members(random.fold(key, number), self.share, first)

    def _expert_rows(self, members: tf.Tensor) -> Rows:
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
            _column(taken(expert.terminated)),
            _column(self.expert_log_prob(observation, action)),
        )

    def _normalized(self, observation: tf.Tensor) -> tf.Tensor:
        return observation if self.normalizer is None else self.normalizer.normalize(observation)

    def _keep(self, taken: Taken) -> None:
        """Keep the rewards of some of the rollout's steps, equal on all replicas."""
        some = taken.order[:_KEPT]
        rows = Rows(*(tf.gather(column, some) for column in taken.pool))
        reward = self.form(self.discriminator.logits(self.shown(rows)))
        self._kept.assign(tf.gather(reward, tf.range(_KEPT) % reward.shape[0]))


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

    def expert_log_prob(self, observation: Any, action: tf.Tensor) -> tf.Tensor:
        """Return the log probabilities [M] of the expert's actions under the policy as it is."""
        seen, _ = self.agent.see(observation, ())
        return tf.stop_gradient(self.agent.log_probability(seen, action))


def _flat(value: Any) -> Any:
    """Return [T, B, ...] as [T * B, ...], of each part."""
    return nested.map_parts(lambda x: tf.reshape(x, [-1, *x.shape[2:]]), value)


def _column(values: tf.Tensor) -> tf.Tensor:
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
