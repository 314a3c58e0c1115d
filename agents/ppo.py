"""PPO (Schulman et al. 2017): TF-Agents' PPOClipAgent, mended.

What is mended, each with a test in tests/agents/test_ppo.py or tests/agents/test_advantages.py:
1. the last step of a rollout bootstraps from V(s_T), not from V(s_{T-1}) (tensorflow/agents#953);
2. a truncated episode bootstraps from the value of its final observation; only a termination has
value zero; 3. advantages are normalised over the steps that count, not over padding and reset
steps; 4. every loss is a mean over the steps that count; 5. the defaults are PPO's: clipping on,
GAE on, value targets from GAE, no KL penalty.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf
from tf_agents.agents.ppo import ppo_clip_agent
from tf_agents.trajectories import time_step as ts
from tf_agents.utils import common

from sparring import nested
from sparring.agents import intrinsic as agents_intrinsic
from sparring.agents import kl_penalty as agents_kl_penalty
from sparring.agents.actor_critic import ActorCritic
from sparring.agents.advantages import (
    Minibatch,
    explained_variance,
    mean_of_valid,
    normalize_advantages,
    reverse_sum,
    share_of_mean,
)
from sparring.agents.agent import OneOptimizer, Scalars
from sparring.agents.networks import distributions, headed, masks, specs, state_dependent_noise
from sparring.agents.networks.headed import Squeeze, Torso
from sparring.agents.networks.recurrent import Memory
from sparring.agents.training.rollout import Rollout
from sparring.distribute import replicas
from sparring.errors import warn_once
from sparring.networks.mlp import MLP
from sparring.optim import optimizer as optim_optimizer
from sparring.optim.schedules import Schedule, as_schedule


class PPO(ActorCritic, OneOptimizer, ppo_clip_agent.PPOClipAgent):
    """PPO with a clipped surrogate objective for Discrete, MultiDiscrete and Box actions.

    Without a `network`, actor and critic are two layers of 64 tanh units each; without an
    `optimizer`, Adam at 3e-4 with gradients clipped to a norm of 0.5.
    `clip` and `entropy_coefficient` are numbers or schedules of the run's progress; a `clip` of
    None leaves the surrogate as it is. `value_clip` limits how far a value may move from the one
    stored in the rollout (None: not at all limited). `target_kl` ends an iteration's updates before
    the one whose approximate KL divergence passes 1.5 times it (None: never). `kl_penalty` makes
    the penalty on that divergence (see sparring.agents.kl_penalty), `intrinsic` the reward for
    what is new (see sparring.agents.intrinsic). `head` makes the policy's last layer from the
    action space (None: that of sparring.agents.networks.distributions, whose Normal begins at
    `log_std`). Actions of `noise_steps` steps in a row are drawn from one key, which is for
    sparring.agents.networks.state_dependent_noise. With a `memory`, each network has one of its own
    in front of it (see sparring.agents.networks.recurrent). With `share_network` they have one
    network, and one memory, between them, which learns from all losses in the same step of the
    optimizer.
    """

    extra: Mapping[str, gymnasium.Space] = {}
    kl_penalty: agents_kl_penalty.AdaptiveKL | None = None
    intrinsic: agents_intrinsic.RND | None = None
    # Of the minibatch whose losses are computed: the share of the run, and what was measured
    _progress: tf.Tensor
    _policy_metrics: dict[str, tf.Tensor]

    def __init__(
        self,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        network: Torso | None = None,
        optimizer: optim_optimizer.Scheduled | None = None,
        discount: float = 0.99,
        gae_lambda: float = 0.95,
        clip: Schedule | float | None = 0.2,
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
        kl_penalty: Callable[[], agents_kl_penalty.AdaptiveKL] | None = None,
        intrinsic: Callable[..., agents_intrinsic.RND] | None = None,
        noise_steps: int = 1,
    ) -> None:
        masks.require(observation_space, action_space)
        _tell_reach(action_space, log_std)
        network = network or MLP
        head = head or functools.partial(distributions.head, log_std=log_std)
        self.scheduled = optimizer or optim_optimizer.adam(3e-4, epsilon=1e-5, global_clipnorm=0.5)
        self.discount = discount
        self.target_kl = target_kl
        self.clip = None if clip is None else as_schedule(clip)
        self.entropy_coefficient = as_schedule(entropy_coefficient)
        self.normalize_advantage = normalize_advantage
        self.noise_steps = noise_steps
        self._action_space = action_space
        heads: dict[str, Torso] = {"actor": functools.partial(head, action_space)}
        critics = ["critic"] if intrinsic is None else ["critic", "intrinsic_critic"]
        heads |= dict.fromkeys(critics, Squeeze)
        time_step_spec, networks = self.make_networks(
            observation_space, network, heads, memory, share_network, normalize_observations
        )
        super().__init__(
            time_step_spec,
            specs.action_spec(action_space),
            actor_net=networks[0],
            value_net=networks[1],
            **self._tf_agents_settings(gae_lambda, value_coefficient, value_clip),
        )
        if kl_penalty is not None:
            self.kl_penalty = kl_penalty()
            self._describe(agents_kl_penalty.DESCRIPTIONS)
        if intrinsic is not None:
            space = nested.without_mask(observation_space)
            self.intrinsic = intrinsic(space, network, networks[2])
            self._describe(agents_intrinsic.DESCRIPTIONS)
        state_dependent_noise.require(networks[0], noise_steps)
        self._build_optimizer(networks)

    def _describe(self, scalars: Mapping[str, str]) -> None:
        """Add scalars, tag -> what it measures, to those that are returned."""
        self.descriptions = {**self.descriptions, **scalars}

    def _tf_agents_settings(
        self, gae_lambda: float, value_coefficient: float, value_clip: float | None
    ) -> dict[str, Any]:
        """Arguments of TF-Agents' constructor; what it would do of `update`'s part is off."""
        return {
            "optimizer": self.scheduled.keras,
            # Only says that there is a clip: its size is the schedule's
            "importance_ratio_clipping": 1.0,
            "lambda_value": gae_lambda,
            "discount_factor": self.discount,
            "entropy_regularization": 1.0,  # likewise; see entropy_regularization_loss
            "value_pred_loss_coef": value_coefficient,
            "value_clipping": value_clip,
            "num_epochs": 1,
            "use_gae": True,
            "use_td_lambda_return": True,
            "normalize_rewards": False,
            "normalize_observations": False,
            "compute_value_and_advantage_in_train": False,
            "update_normalizers_in_train": False,
            "train_step_counter": replicas.counter(),
        }

    def _build_optimizer(self, networks: Sequence[headed.HeadedNetwork]) -> None:
        """Collect what is learned, refuse layers that draw numbers, and create the slots."""
        learned = [] if self.memories is None else list(self.memories.weights)
        for network in networks[:2]:
            learned += network.trainable_weights
        if self.intrinsic is not None:
            learned += self.intrinsic.trainable
            networks = [*networks, *self.intrinsic.networks]
        self.trainable = headed.unique(learned)
        headed.check_layers(networks)
        self.scheduled.build(self.trainable)

    def parts(self) -> dict[str, tf.Module]:
        """Return the modules that were learned: enough to act and to estimate values."""
        more = {} if self.intrinsic is None else {"intrinsic": self.intrinsic}
        return super().parts() | more

    def kept_beside(
        self, observation: Any, policy: distributions.tfd.Distribution
    ) -> dict[str, tf.Tensor]:
        """Return what the penalty and the intrinsic reward need of a step, each [B, ...]."""
        kept: dict[str, tf.Tensor] = {}
        if self.kl_penalty is not None:
            kept |= self.kl_penalty.kept(policy)
        if self.intrinsic is not None:
            kept |= {"intrinsic_value": self.intrinsic.value(observation)}
        return kept

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
        steps = Minibatch(
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
        if self.kl_penalty is not None:
            steps = steps._replace(policy=self.kl_penalty.parameters(rollout.extras))
        if self.intrinsic is None:
            return steps
        novelty, bonus = self.intrinsic.examples(rollout, seen, self._lambda)
        return steps._replace(advantage=steps.advantage + bonus, intrinsic=novelty)

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
        objective = ratio * advantages
        # the low-variance, never negative estimate of Schulman, "Approximating KL divergence"
        # (2020), k3
        self._policy_metrics["policy/approximate_kl"] = share_of_mean(
            ratio - 1.0 - log_ratio, weights
        )
        if self.clip is not None:
            clip = self.clip(self._progress)
            clipped = tf.clip_by_value(ratio, 1.0 - clip, 1.0 + clip)
            objective = tf.minimum(objective, clipped * advantages)
            outside = tf.cast(tf.abs(ratio - 1.0) > clip, tf.float32)
            self._policy_metrics["policy/clip_fraction"] = share_of_mean(outside, weights)
        return share_of_mean(-objective, weights)

    def entropy_regularization_loss(
        self,
        time_steps: ts.TimeStep,
        entropy: tf.Tensor,
        weights: tf.Tensor,
        debug_summaries: bool = False,
    ) -> tf.Tensor:
        """Minus the entropy, times its coefficient, which is a schedule here."""
        mean = share_of_mean(entropy, weights)
        self._policy_metrics["policy/entropy"] = mean
        return -mean * self.entropy_coefficient(self._progress)

    def update(self, batch: Minibatch, key: tf.Tensor, progress: tf.Tensor) -> Scalars:
        """Take a gradient step on a minibatch, whatever its KL divergence; return all scalars."""
        gradients, scalars = self.gradients(batch, key, progress)
        return scalars | self.step(gradients, progress)

    def gradients(
        self, batch: Minibatch, key: tf.Tensor, progress: tf.Tensor
    ) -> tuple[list[tf.Tensor], Scalars]:
        """Return the gradients of a minibatch, in which nothing is drawn, and its scalars.

        A minibatch that is masked as a whole gives a zero gradient.

        Of several replicas, each gives its share of the minibatch, and gets its share of the
        gradients; the scalars are those of the whole.
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
        return gradients, replicas.all_reduce_sum(values)

    def goes_on(self, scalars: Scalars) -> tf.Tensor:
        """Return whether the KL divergence is within 1.5 times its target."""
        if self.target_kl is None:
            return tf.constant(True)
        return scalars["policy/approximate_kl"] <= 1.5 * self.target_kl

    def step(self, gradients: Sequence[tf.Tensor], progress: tf.Tensor) -> Scalars:
        """Take the step of `gradients`; return its norms."""
        self.train_step_counter.assign_add(1)
        return super().step(gradients, progress)

    def finish(self, batch: Minibatch, progress: tf.Tensor) -> Scalars:
        """Adapt the penalty, update the statistics; return the scalars of an iteration.

        The statistics change after the last update, so that a whole iteration sees one set of them
        and the first ratio is exactly one.
        """
        scalars = {
            "value/explained_variance": explained_variance(batch),
            "value/mean": mean_of_valid(batch.value, batch.mask),
        }
        if self.clip is not None:
            scalars["schedule/clip"] = self.clip(progress)
        if self.kl_penalty is not None:
            policy = self.distribution(self._seen(batch))
            scalars |= self.kl_penalty.adapt(batch, policy)
        if self.intrinsic is not None:
            scalars |= self.intrinsic.finish(batch)
        self.take_up(batch.observation, batch.mask)
        return scalars

    def _seen(self, batch: Minibatch) -> Any:
        """The input of the networks for a minibatch."""
        return self.see_sequences(batch.observation, batch.first, batch.state)

    def _gradients(
        self, batch: Minibatch, advantage: tf.Tensor, weights: tf.Tensor, progress: tf.Tensor
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """A replica's share of the gradients and of the scalars."""
        self._progress = progress
        self._policy_metrics = {}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.trainable)
            losses = self._losses(batch, advantage, weights)
            loss = tf.add_n([*losses.values(), self._regularization_loss()])
        return tape.gradient(loss, self.trainable), {
            "loss/total": loss,
            **losses,
            **self._policy_metrics,
        }

    def _losses(
        self, batch: Minibatch, advantage: tf.Tensor, weights: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """A replica's share of each loss, by its tag."""
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
        if self.kl_penalty is not None:
            losses["loss/kl"] = self.kl_penalty.loss(batch, policy, weights)
        if self.intrinsic is not None:
            losses |= self.intrinsic.losses(seen, batch, self._value_pred_loss_coef)
        return losses

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
        return share_of_mean(error, weights) * self._value_pred_loss_coef

    def _regularization_loss(self) -> tf.Tensor:
        """Sum of the losses that layers add of their own, a shared layer's once."""
        every = tf.keras.layers.Layer()  # which knows a layer that it finds twice
        every.networks = [self._actor_net, self._value_net]
        if self.intrinsic is not None:
            every.networks += [self.intrinsic.critic, self.intrinsic.predictor]
        return tf.nn.scale_regularization_loss(tf.add_n(every.losses)) if every.losses else 0.0

    descriptions: Mapping[str, str] = optim_optimizer.DESCRIPTIONS | {
        "loss/total": "All losses together, with what layers of the networks add, such as kernel "
        "regularizers; mean over minibatches.",
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
