"""Training on-policy (PPO): learn from a rollout in epochs of minibatches, then discard it."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tf_agents.trajectories import time_step as ts

from sparring.agents.actors.slots import Reverb
from sparring.agents.networks import recurrent
from sparring.agents.networks.normalizers import RewardNormalizer
from sparring.agents.ppo import Minibatch
from sparring.agents.replay import row_bytes
from sparring.agents.training import time_breakdown
from sparring.agents.training.base import AgentTrainer
from sparring.agents.training.evaluation import EvaluationSettings
from sparring.agents.training.rollout import Rollout
from sparring.distribute import replicas as distribute_replicas
from sparring.distribute import sharding
from sparring.errors import UserError
from sparring.optim import optimizer as optim_optimizer
from sparring.processes import resources
from sparring.xla import random


class OnPolicyTrainer(AgentTrainer):
    """`epochs` passes over each rollout in `minibatches` minibatches, each pass in a new random
    order.

    `agent` is a factory called with (observation_space, action_space, network=, optimizer=); for a
    network or an optimizer of None it takes its own. `total_steps` is the length of the run, which
    schedules stretch over. Each minibatch holds num_envs * rollout_steps / minibatches steps,
    which must divide. Of an agent that remembers (see sparring.agents.networks.recurrent) it holds
    whole sequences: all steps of num_envs / minibatches environments.
    """

    def __init__(
        self,
        agent: Callable[..., Any],
        environment: Any,
        network: Callable[[], tf.keras.layers.Layer] | None = None,
        optimizer: optim_optimizer.Scheduled | None = None,
        num_envs: int = 8,
        rollout_steps: int = 128,
        epochs: int = 10,
        minibatches: int = 16,
        seed: int = 0,
        total_steps: int = 100_000,
        normalize_rewards: bool = True,
        compile: str = "auto",
        evaluation: EvaluationSettings | None = None,
        actors: Reverb | None = None,
    ) -> None:
        each = row_bytes(environment.observation_space, environment.action_space)
        resources.require_memory(
            float(num_envs) * (rollout_steps + 1) * each,
            f"trainer.num_envs={num_envs} trainer.rollout_steps={rollout_steps}: a rollout",
            "Choose fewer of one of them, or smaller observations.",
        )
        built = agent(
            environment.observation_space,
            environment.action_space,
            network=network,
            optimizer=optimizer,
        )
        self.epochs = epochs
        self.minibatches = minibatches
        share = distribute_replicas.Replicas().share(num_envs, "trainer.num_envs")
        self.sequences = bool(tf.nest.flatten(recurrent.start(built, 1)))
        # From which a replica's minibatches are drawn
        self.drawn = share if self.sequences else share * rollout_steps
        _check_minibatches(self.drawn, minibatches, self.sequences)
        self.rewards = RewardNormalizer(num_envs, built.discount) if normalize_rewards else None
        super().__init__(
            built,
            environment,
            num_envs,
            rollout_steps,
            seed,
            total_steps,
            compile,
            evaluation,
            actors,
        )
        self._shuffle = random.stream(seed, "minibatches")

    def _scalar_names(self) -> list[str]:
        return [*super()._scalar_names(), *_DESCRIPTIONS]

    @property
    def descriptions(self) -> dict[str, str]:
        """Tag -> what it measures."""
        return {**super().descriptions, **_DESCRIPTIONS}

    def _learning_state(self) -> dict[str, tf.Module]:
        return {} if self.rewards is None else {"rewards": self.rewards}

    def _shards(self) -> list[sharding.Sharded]:
        return [*super()._shards(), *([] if self.rewards is None else [self.rewards.shard])]

    def act(
        self, observation: tf.Tensor, keys: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        action, log_prob, value = self.agent.act(observation, keys)
        return action, {"log_prob": log_prob, "value": value}

    def learn(self, rollout: Rollout, iteration: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        run = self.replicas.run
        first = self.replicas.first
        total = self.count_episodes(rollout, total)
        steps, valid = run(self._prepare, rollout)
        progress = self.progress(iteration * self.steps_per_iteration)
        key = run(self._key, iteration)
        update_replicas = self.replicas.on_each(self._update)

        def update(
            i: tf.Tensor, order: tf.Tensor, kl: tf.Tensor, total: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            order, kl, total = update_replicas(steps, i, order, key, progress, total)
            return i + 1, order, first(kl), first(total)

        limit = self.epochs * self.minibatches
        ceiling = float("inf") if self.agent.target_kl is None else 1.5 * self.agent.target_kl
        updates, _, _, total = tf.while_loop(
            lambda i, order, kl, total: (i < limit) & (kl <= ceiling),
            update,
            (tf.constant(0), run(self._in_order), tf.constant(0.0), total),
            maximum_iterations=limit,
        )
        return first(run(self._summarise, steps, valid, progress, updates, total))

    def _in_order(self) -> tf.Tensor:
        return tf.range(self.drawn)

    def _update(
        self,
        steps: Minibatch,
        i: tf.Tensor,
        order: tf.Tensor,
        key: tf.Tensor,
        progress: tf.Tensor,
        total: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Update number `i` of an iteration, on the next of a replica's steps, or sequences, in
        their order.
        """
        part = i % self.minibatches
        epoch = i // self.minibatches
        order = tf.cond(part == 0, lambda: self.order(key, epoch), lambda: order)
        size = self.drawn // self.minibatches
        values = self.agent.update(
            self._minibatch(steps, tf.slice(order, [part * size], [size])), progress
        )
        return order, values["policy/approximate_kl"], self.means.add(total, values)

    def _minibatch(self, steps: Minibatch, drawn: tf.Tensor) -> Minibatch:
        """The steps `drawn`, or all steps of the environments `drawn`."""
        if not self.sequences:
            return tf.nest.map_structure(lambda x: tf.gather(x, drawn), steps)
        # time-major
        rows = tf.reshape(tf.range(self.rollout_steps)[:, tf.newaxis] * self.share + drawn, [-1])
        gathered = tf.nest.map_structure(lambda x: tf.gather(x, rows), steps._replace(state=()))
        return gathered._replace(state=tf.gather(steps.state, drawn))

    def _key(self, iteration: tf.Tensor) -> tf.Tensor:
        return random.fold(distribute_replicas.replica_key(self._shuffle), iteration)

    def order(self, key: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """The order of a replica's steps, or sequences, in an epoch, int32 [drawn]; `key` is an
        iteration's.
        """
        return random.permutation(random.fold(key, epoch), self.drawn)

    def time_breakdown(self, seconds: float = 1.0) -> dict[str, float]:
        """Shares of an iteration's time, each measured for about `seconds`: see
        sparring.agents.training.time_breakdown.
        """
        updates = self.epochs * self.minibatches

        def shuffle(i: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
            key = random.fold(self._shuffle, i)
            orders = [
                random.permutation(random.fold(key, e), self.drawn) for e in range(self.epochs)
            ]
            return total + tf.cast(tf.reduce_sum(tf.stack(orders)[:, 0]), tf.float32)

        parts = {"collect": time_breakdown.collecting(self), "shuffle": shuffle}
        return time_breakdown.shares(
            self, parts | {"optimizer": time_breakdown.optimizing(self, updates)}, seconds
        )

    def _prepare(self, rollout: Rollout) -> tuple[Minibatch, tf.Tensor]:
        """The rollout's steps, flattened to [T * B], with returns and advantages; and which of them
        count.
        """
        valid = tf.cast(~rollout.first, tf.float32)  # [T, B]
        reward = rollout.reward
        if self.rewards is not None:
            self.rewards.update(reward, tf.cast(rollout.ended, tf.float32), valid)
            reward = self.rewards.normalize(reward)
        return distribute_replicas.compile_in_replica(self._with_advantages)(
            rollout, reward, valid
        ), valid

    def _with_advantages(self, rollout: Rollout, reward: tf.Tensor, valid: tf.Tensor) -> Minibatch:
        ended = rollout.ended
        seen, _ = recurrent.see(self.agent, rollout.observation[-1], rollout.ended_with)
        last_value = self.agent.value(seen)  # [B]
        values = tf.concat([rollout.extras["value"], last_value[tf.newaxis]], axis=0)  # [T + 1, B]
        returns, advantages = self.agent.compute_return_and_advantage(
            ts.TimeStep(
                tf.transpose(tf.where(ended, ts.StepType.LAST, ts.StepType.MID)),
                tf.transpose(reward),
                tf.transpose(tf.where(rollout.terminated, 0.0, 1.0)),
                (),
            ),
            tf.transpose(values),
        )
        flat = Minibatch(
            rollout.observation[:-1],
            rollout.action,
            rollout.extras["log_prob"],
            rollout.extras["value"],
            tf.transpose(returns),
            tf.transpose(advantages),
            valid,
            rollout.first if self.sequences else (),
        )
        flat = tf.nest.map_structure(lambda x: tf.reshape(x, [-1, *x.shape[2:]]), flat)
        return flat._replace(state=rollout.began_with)

    def _summarise(
        self,
        steps: Minibatch,
        valid: tf.Tensor,
        progress: tf.Tensor,
        updates: tf.Tensor,
        total: tf.Tensor,
    ) -> tf.Tensor:
        """Add the scalars of an iteration, and update the observation statistics.

        These change after the last update, so that a whole iteration sees one set of them and the
        first ratio is exactly one.
        """
        if self.agent.observation_normalizer is not None:
            self.agent.observation_normalizer.update(steps.observation, steps.mask)
        count = tf.maximum(distribute_replicas.all_reduce_sum(tf.reduce_sum(steps.mask)), 1.0)

        def mean(x: tf.Tensor) -> tf.Tensor:
            return distribute_replicas.all_reduce_sum(tf.reduce_sum(x * steps.mask)) / count

        def variance(x: tf.Tensor) -> tf.Tensor:
            return mean(tf.square(x - mean(x)))

        unexplained = variance(steps.returns - steps.value) / tf.maximum(
            variance(steps.returns), 1e-12
        )
        values = {
            "value/explained_variance": 1.0 - unexplained,
            "value/mean": mean(steps.value),
            "rollout/reset_share": 1.0 - distribute_replicas.all_reduce_mean(tf.reduce_mean(valid)),
            "policy/updates_per_iteration": updates,
            "schedule/learning_rate": self.agent.scheduled.learning_rate(progress),
            "schedule/clip": self.agent.clip(progress),
        }
        return self.means.add(total, values)


_DESCRIPTIONS = {
    "value/explained_variance": "1 - Var(returns - values) / Var(returns) over a rollout: 1 is "
    "perfect, 0 a constant.",
    "value/mean": "Value of the states of a rollout when they were met, mean.",
    "rollout/reset_share": "Share of the environment steps that were resets between episodes.",
    "policy/updates_per_iteration": "Minibatch updates an iteration made before the KL limit "
    "stopped it.",
    "schedule/clip": "Clip range of the probability ratio.",
}


def _check_minibatches(drawn: int, minibatches: int, sequences: bool) -> None:
    replicas = distribute_replicas.num_replicas()
    if drawn % minibatches == 0:
        return
    near = sorted(
        (n for n in range(1, drawn + 1) if drawn % n == 0), key=lambda n: (abs(n - minibatches), n)
    )[:3]
    each = f", {drawn} for each of {replicas} replicas" if replicas > 1 else ""
    whole = (
        f"rollout of {drawn * replicas} steps (trainer.num_envs times trainer.rollout_steps{each})"
    )
    if sequences:
        whole = (
            f"{drawn * replicas} environments (trainer.num_envs{each}), whose sequences a memory "
            "needs whole"
        )
    raise UserError(
        f"trainer.minibatches={minibatches} does not divide the {whole}: take "
        f"{', '.join(map(str, sorted(near)))}."
    )
