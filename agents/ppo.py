"""PPO (Schulman et al. 2017): TF-Agents' PPOClipAgent, mended.

What is mended, each with a test in tests/agents/test_ppo.py or tests/agents/test_advantages.py:
1. the last step of a rollout bootstraps from V(s_T), not from V(s_{T-1}) (tensorflow/agents#953);
2. a truncated episode bootstraps from the value of its final observation; only a termination has
value zero; 3. advantages are normalised over the steps that count, not over padding and reset
steps; 4. every loss is a mean over the steps that count; 5. the defaults are PPO's: clipping on,
GAE on, value targets from GAE, no KL penalty.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf
from tf_agents.agents.ppo import ppo_clip_agent
from tf_agents.trajectories import time_step as ts
from tf_agents.utils import common

from sparring import nested
from sparring.agents.advantages import Minibatch, normalize_advantages, reverse_sum
from sparring.agents.agent import Estimate, OneOptimizer, Scalars
from sparring.agents.networks import distributions, headed, masks, specs
from sparring.agents.networks.headed import HeadedNetwork, Squeeze, Torso
from sparring.agents.networks.normalizers import observation_normalizer
from sparring.agents.networks.recurrent import Memories, Memory, Part, State
from sparring.agents.training.rollout import Rollout
from sparring.distribute import replicas
from sparring.errors import warn_once
from sparring.networks.mlp import MLP
from sparring.optim import optimizer as optim_optimizer
from sparring.optim.schedules import Schedule, as_schedule


class PPO(OneOptimizer, ppo_clip_agent.PPOClipAgent):
    """PPO with a clipped surrogate objective for Discrete, MultiDiscrete and Box actions.

    Without a `network`, actor and critic are two layers of 64 tanh units each; without an
    `optimizer`, Adam at 3e-4 with gradients clipped to a norm of 0.5.
    `clip` and `entropy_coefficient` are numbers or schedules of the run's progress. `value_clip`
    limits how far a value may move from the one stored in the rollout (None: not at all limited).
    `target_kl` ends an iteration's updates once the approximate KL divergence passes 1.5 times it
    (None: never). `head` makes the policy's last layer from the action space (None: that of
    sparring.agents.networks.distributions, whose Normal begins at `log_std`). With a `memory`,
    actor and critic each have one of their own in front of their network (see
    sparring.agents.networks.recurrent). With `share_network` they have one network, and one memory,
    between them, which learns from both losses in the same step of the optimizer.
    """

    extra: Mapping[str, gymnasium.Space] = {}

    def __init__(
        self,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        network: Torso | None = None,
        optimizer: optim_optimizer.Scheduled | None = None,
        discount: float = 0.99,
        gae_lambda: float = 0.95,
        clip: Schedule | float = 0.2,
        value_clip: float | None = None,
        value_coefficient: float = 0.5,
        entropy_coefficient: Schedule | float = 0.0,
        normalize_advantage: bool = True,
        normalize_observations: bool = True,
        target_kl: float | None = None,
        log_std: float = 0.0,
        head: Callable[[gymnasium.Space], tf.keras.layers.Layer] | None = None,
        memory: Callable[[], Memory] | None = None,
        share_network: bool = False,
    ) -> None:
        if network is None:
            network = MLP
        if share_network:
            network = functools.cache(network)
        if optimizer is None:
            optimizer = optim_optimizer.adam(3e-4, epsilon=1e-5, global_clipnorm=0.5)
        self.scheduled = optimizer
        self.discount = discount
        self.target_kl = target_kl
        self.clip = as_schedule(clip)
        self.entropy_coefficient = as_schedule(entropy_coefficient)
        self.normalize_advantage = normalize_advantage
        seen_space = nested.without_mask(observation_space)
        self.observation_normalizer = (
            observation_normalizer(seen_space) if normalize_observations else None
        )
        masks.require(observation_space, action_space)
        self._action_space = action_space
        _tell_reach(action_space, log_std)
        if head is None:
            head = functools.partial(distributions.head, log_std=log_std)
        time_step_spec = specs.time_step_spec(seen_space)
        self.memories: Memories | None = None
        make = functools.partial(self._network, time_step_spec.observation, network)
        if memory is not None:
            self.memories = Memories(
                memory,
                1 if share_network else 2,
                time_step_spec.observation,
                self.observation_normalizer,
            )
            time_step_spec = specs.time_step_spec(self.memories.space)
            make = functools.partial(self._network_behind, time_step_spec.observation, network)
        super().__init__(
            time_step_spec,
            specs.action_spec(action_space),
            optimizer=optimizer.keras,
            actor_net=make(functools.partial(head, action_space), 0),
            value_net=make(Squeeze, 1),
            # Only says that there is a clip: its size is the schedule's
            importance_ratio_clipping=1.0,
            lambda_value=gae_lambda,
            discount_factor=discount,
            entropy_regularization=1.0,  # likewise; see entropy_regularization_loss
            value_pred_loss_coef=value_coefficient,
            value_clipping=value_clip,
            num_epochs=1,
            use_gae=True,
            use_td_lambda_return=True,
            normalize_rewards=False,
            normalize_observations=False,
            compute_value_and_advantage_in_train=False,
            update_normalizers_in_train=False,
            train_step_counter=replicas.counter(),
        )
        self._progress: tf.Tensor = tf.constant(0.0)
        self._policy_metrics: dict[str, tf.Tensor] = {}
        remembering = [] if self.memories is None else self.memories.weights
        self.trainable = headed.unique(
            [*remembering, *self._actor_net.trainable_weights, *self._value_net.trainable_weights]
        )
        headed.check_layers([self._actor_net, self._value_net])
        optimizer.build(self.trainable)

    def parts(self) -> dict[str, tf.Module]:
        """Return the modules that were learned: enough to act and to estimate values."""
        more = {"normalizer": self.observation_normalizer, "memories": self.memories}
        return {"actor": self._actor_net, "critic": self._value_net} | {
            k: v for k, v in more.items() if v is not None
        }

    def _network(self, spec: Any, torso: Torso, head: Torso, number: int) -> HeadedNetwork:
        return HeadedNetwork(spec, torso, head, self.observation_normalizer, _NAMES[number])

    def _network_behind(self, spec: Any, torso: Torso, head: Torso, number: int) -> HeadedNetwork:
        """A network behind its memory, which has normalised what it was shown."""
        assert self.memories is not None
        width = self.memories.width
        mine = number % len(self.memories.each)  # of those in what is seen
        return HeadedNetwork(spec, lambda: Part(torso, mine, width), head, name=_NAMES[number])

    # ---- remembering -----------------------------------------------------------------------------

    def start(self, batch: int) -> State:
        """Return the state before the first step of `batch` episodes.

        See sparring.agents.networks.recurrent.
        """
        return () if self.memories is None else self.memories.start(batch)

    def see(self, observation: Any, state: State) -> tuple[Any, State]:
        """Return the input of all methods below for observations, and the state after a step."""
        if self.memories is None:
            return observation, ()
        seen, state = self.memories.step(nested.without_mask(observation), state)
        return masks.beside(seen, observation), state

    def _seen(self, batch: Minibatch) -> Any:
        """The same of a minibatch, by the memory as it is now."""
        if self.memories is None:
            return batch.observation
        observation = nested.without_mask(batch.observation)
        seen = self.memories.sequence(observation, batch.first, batch.state)
        return masks.beside(seen, batch.observation)

    # ---- acting ----------------------------------------------------------------------------------

    def distribution(self, observation: Any) -> distributions.tfd.Distribution:
        """The policy at observations [B, ...], over the actions that their mask allows."""
        policy = self._actor_net(nested.without_mask(observation))[0]
        mask = nested.mask_of(observation)
        return policy if mask is None else masks.masked(policy, mask, self._action_space)

    def value(self, observation: Any) -> tf.Tensor:
        """V(s) [B] of observations [B, ...]."""
        return self._value_net(nested.without_mask(observation))[0]

    def act(
        self, observation: tf.Tensor, keys: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Sampled actions [B, ...], their log probabilities [B] and values [B]; `keys` [B, 2]."""
        policy = self.distribution(observation)
        action = distributions.sample(policy, keys)
        log_prob = common.log_probability(policy, action, self.action_spec)
        return action, {"log_prob": log_prob, "value": self.value(observation)}

    def act_greedy(self, observation: tf.Tensor) -> tf.Tensor:
        """The likeliest actions [B, ...]."""
        return tf.cast(self.distribution(observation).mode(), self.action_spec.dtype)

    def act_sampled(
        self, observation: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor
    ) -> tf.Tensor:
        """Actions [B, ...] as they are sampled in training."""
        del progress
        return distributions.sample(self.distribution(observation), keys)

    def scores(self, observation: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the parameters of the policy.

        They are logits [B, A] or [B, K, A], or mean and stddev [B, D].
        """
        return distributions.parameters(self.distribution(observation))

    def estimates(self) -> dict[str, Estimate]:
        """Return the parameters of the policy, and the value, for export."""
        return {
            "scores": Estimate(self.scores, "The greedy action, and what it was chosen by.", True),
            "value": Estimate(
                lambda seen: {"value": self.value(seen)},
                "V(s), the discounted return to be expected.",
            ),
        }

    # ---- learning --------------------------------------------------------------------------------

    def examples(self, rollout: Rollout, reward: tf.Tensor) -> Minibatch:
        """The rollout's steps [T, B, ...] with returns and advantages."""
        ended = rollout.ended
        seen, _ = self.see(rollout.reached, rollout.ended_with)
        last_value = self.value(seen)  # [B]
        values = tf.concat([rollout.extras["value"], last_value[tf.newaxis]], axis=0)  # [T + 1, B]
        returns, advantages = self.compute_return_and_advantage(
            ts.TimeStep(
                tf.transpose(tf.where(ended, ts.StepType.LAST, ts.StepType.MID)),
                tf.transpose(reward),
                tf.transpose(tf.where(rollout.terminated, 0.0, 1.0)),
                (),
            ),
            tf.transpose(values),
        )
        return Minibatch(
            nested.map_parts(lambda x: x[:-1], rollout.observation),
            rollout.action,
            rollout.extras["log_prob"],
            rollout.extras["value"],
            tf.transpose(returns),
            tf.transpose(advantages),
            tf.cast(~rollout.first, tf.float32),
            () if self.memories is None else rollout.first,
            rollout.began_with,
        )

    def compute_return_and_advantage(
        self, next_time_steps: ts.TimeStep, value_preds: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """GAE (Schulman et al. 2015, eq. 16) and its value targets, both [B, T].

        `next_time_steps` [B, T] hold reward, discount (0 at a termination, else 1) and step type
        after each action; `value_preds` [B, T + 1] the values of the states acted in, and of the
        last state reached. At a truncation the next value is that of the final observation, which
        it bootstraps from; the sum stops there, as at a termination.
        """
        discount = self._discount_factor * next_time_steps.discount  # [B, T]
        delta = next_time_steps.reward + discount * value_preds[:, 1:] - value_preds[:, :-1]
        trace = discount * self._lambda * tf.cast(~next_time_steps.is_last(), tf.float32)
        advantages = reverse_sum(delta, trace)
        return advantages + value_preds[:, :-1], advantages

    def policy_gradient_loss(
        self,
        time_steps: ts.TimeStep,
        actions: tf.Tensor,
        sample_action_log_probs: tf.Tensor,
        advantages: tf.Tensor,
        current_policy_distribution: distributions.tfd.Distribution,
        weights: tf.Tensor,
        debug_summaries: bool = False,
    ) -> tf.Tensor:
        """The clipped surrogate (Schulman et al. 2017, eq. 7), its clip a schedule, as a mean
        weighted by `weights`.
        """
        log_prob = common.log_probability(current_policy_distribution, actions, self.action_spec)
        log_ratio = log_prob - sample_action_log_probs  # [M]
        ratio = tf.exp(log_ratio)
        clip = self.clip(self._progress)
        objective = tf.minimum(
            ratio * advantages, tf.clip_by_value(ratio, 1.0 - clip, 1.0 + clip) * advantages
        )
        outside = tf.cast(tf.abs(ratio - 1.0) > clip, tf.float32)
        self._policy_metrics = {
            "policy/clip_fraction": _share(outside * weights),
            # the low-variance, never negative estimate of Schulman, "Approximating KL divergence"
            # (2020), k3
            "policy/approximate_kl": _share((ratio - 1.0 - log_ratio) * weights),
        }
        return common.aggregate_losses(
            per_example_loss=-objective, sample_weight=weights
        ).total_loss

    def entropy_regularization_loss(
        self,
        time_steps: ts.TimeStep,
        entropy: tf.Tensor,
        weights: tf.Tensor,
        debug_summaries: bool = False,
    ) -> tf.Tensor:
        """Minus the entropy, times its coefficient, which is a schedule here."""
        self._policy_metrics["policy/entropy"] = _share(entropy * weights)
        mean = common.aggregate_losses(per_example_loss=-entropy, sample_weight=weights).total_loss
        return mean * self.entropy_coefficient(self._progress)

    def update(self, batch: Minibatch, key: tf.Tensor, progress: tf.Tensor) -> Scalars:
        """Take a gradient step on a minibatch, in which nothing is drawn.

        A minibatch that is masked as a whole gives a zero gradient.

        Of several replicas, each gives its share of the minibatch; the scalars are those of the
        whole.
        """
        del key
        count = replicas.all_reduce_sum(tf.reduce_sum(batch.mask))
        size = batch.mask.shape[0] * replicas.num_replicas()
        weights = batch.mask * (float(size) / tf.maximum(count, 1.0))  # mean 1 over valid
        advantage = (
            normalize_advantages(batch.advantage, batch.mask)
            if self.normalize_advantage
            else batch.advantage
        )
        gradients, values = replicas.compile_in_replica(self._gradients)(
            batch, advantage, weights, progress
        )
        norms = self.scheduled.step(gradients, progress)
        self.train_step_counter.assign_add(1)
        return replicas.all_reduce_sum(values) | norms

    def goes_on(self, scalars: Scalars) -> tf.Tensor:
        """Return whether the KL divergence is within 1.5 times its target."""
        ceiling = float("inf") if self.target_kl is None else 1.5 * self.target_kl
        return scalars["policy/approximate_kl"] <= ceiling

    def finish(self, batch: Minibatch, progress: tf.Tensor) -> Scalars:
        """Update the observation statistics; return the scalars of an iteration.

        The statistics change after the last update, so that a whole iteration sees one set of them
        and the first ratio is exactly one.
        """
        if self.observation_normalizer is not None:
            seen = nested.without_mask(batch.observation)
            self.observation_normalizer.update(seen, batch.mask)
        count = tf.maximum(replicas.all_reduce_sum(tf.reduce_sum(batch.mask)), 1.0)

        def mean(x: tf.Tensor) -> tf.Tensor:
            return replicas.all_reduce_sum(tf.reduce_sum(x * batch.mask)) / count

        def variance(x: tf.Tensor) -> tf.Tensor:
            return mean(tf.square(x - mean(x)))

        unexplained = variance(batch.returns - batch.value) / tf.maximum(
            variance(batch.returns), 1e-12
        )
        return {
            "value/explained_variance": 1.0 - unexplained,
            "value/mean": mean(batch.value),
            "schedule/clip": self.clip(progress),
        }

    def _gradients(
        self, batch: Minibatch, advantage: tf.Tensor, weights: tf.Tensor, progress: tf.Tensor
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """A replica's share of the gradients and of the scalars."""
        self._progress = progress
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.trainable)
            seen = self._seen(batch)
            policy = self.distribution(seen)
            entropy = common.entropy(policy, self.action_spec, outer_rank=1)  # [M]
            losses = {
                "loss/policy": self.policy_gradient_loss(
                    (), batch.action, batch.log_prob, advantage, policy, weights
                ),
                "loss/value": self.value_loss(self.value(seen), batch, weights),
                "loss/entropy": self.entropy_regularization_loss((), entropy, weights),
            }
            loss = tf.add_n([*losses.values(), self._regularization_loss()])
        return tape.gradient(loss, self.trainable), {
            "loss/total": loss,
            **losses,
            **self._policy_metrics,
        }

    def value_loss(self, value: tf.Tensor, batch: Minibatch, weights: tf.Tensor) -> tf.Tensor:
        """Squared error of values [M], times its coefficient, as a mean weighted by `weights`.

        With `value_clip` it is the larger of that error and of the clipped value's, which moves
        from the rollout's by no more than the clip.
        """
        error = tf.math.squared_difference(batch.returns, value)
        if self._value_clipping > 0.0:
            change = tf.clip_by_value(
                value - batch.value, -self._value_clipping, self._value_clipping
            )
            error = tf.maximum(
                error, tf.math.squared_difference(batch.returns, batch.value + change)
            )
        mean = common.aggregate_losses(per_example_loss=error, sample_weight=weights).total_loss
        return mean * self._value_pred_loss_coef

    def _regularization_loss(self) -> tf.Tensor:
        """Sum of the losses that layers add of their own, a shared layer's once."""
        both = tf.keras.layers.Layer()  # which knows a layer that it finds twice
        both.networks = [self._actor_net, self._value_net]
        return tf.nn.scale_regularization_loss(tf.add_n(both.losses)) if both.losses else 0.0

    descriptions = optim_optimizer.DESCRIPTIONS | {
        "loss/total": "Policy, value and entropy loss together, with what layers of the networks "
        "add, such as kernel regularizers; mean over minibatches.",
        "loss/policy": "Clipped surrogate loss (Schulman et al. 2017, eq. 7), mean over "
        "minibatches.",
        "loss/value": "Squared error of the value, times its coefficient, mean over minibatches.",
        "loss/entropy": "Minus the policy's entropy, times its coefficient, mean over minibatches.",
        "policy/clip_fraction": "Share of steps whose probability ratio left the clip range.",
        "policy/approximate_kl": "KL divergence of the old policy from the new, in nats, estimated "
        "from samples.",
        "policy/entropy": "Entropy of the policy, in nats, mean over steps.",
        "value/explained_variance": "1 - Var(returns - values) / Var(returns) over a rollout: 1 is "
        "perfect, 0 a constant.",
        "value/mean": "Value of the states of a rollout when they were met, mean.",
        "schedule/clip": "Clip range of the probability ratio.",
    }


_NAMES = ("actor", "critic")


def _share(values: tf.Tensor) -> tf.Tensor:
    """Return the contribution of the mean of this replica's values to the mean of all."""
    return replicas.share_of_mean(tf.reduce_mean(values))


def _tell_reach(space: gymnasium.Space, log_std: float) -> None:
    """Say so if the first policy, a Normal around 0, cannot reach much of a Box of actions."""
    if not isinstance(space, gymnasium.spaces.Box):
        return
    reach = 10.0 * np.exp(log_std)
    if np.all(space.low >= -reach) and np.all(space.high <= reach):
        return
    warn_once(
        f"Actions go from {space.low.min():g} to {space.high.max():g}, and the policy begins "
        f"around 0 with a standard deviation of {np.exp(log_std):.3g}: it hardly reaches most of "
        "them. Rescale them, by env.rescale_actions=true of env=gymnasium and in "
        "sparring.envs.compiled.rescaled.Rescaled of a compiled environment; or raise "
        "agent.log_std."
    )
