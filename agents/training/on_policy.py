"""Training on-policy: learn from a rollout in epochs of minibatches, then discard it."""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from sparring.agents.actors.settings import Ray
from sparring.agents.agent import OnPolicyAgent, learning_rates, require
from sparring.agents.networks.normalizers import RewardNormalizer
from sparring.agents.replay import row_bytes
from sparring.agents.training import time_breakdown
from sparring.agents.training.base import AgentTrainer
from sparring.agents.training.evaluation import EvaluationSettings
from sparring.agents.training.reward_source import RewardSource
from sparring.agents.training.rollout import Rollout
from sparring.distribute import replicas as distribute_replicas
from sparring.distribute import sharding
from sparring.errors import UserError
from sparring.optim import optimizer as optim_optimizer
from sparring.processes import resources
from sparring.training.trainer import Evaluation
from sparring.xla import loops, random


class OnPolicyTrainer(AgentTrainer):
    """`epochs` passes over each rollout in `minibatches` minibatches, each pass in a new random
    order.

    `agent` is a factory of a `sparring.agents.agent.OnPolicyAgent`, called with (observation_space,
    action_space, network=, optimizer=); for a network or an optimizer of None it takes its own.
    `total_steps` is the length of the run, which schedules stretch over. Each minibatch holds
    num_envs * rollout_steps / minibatches steps, which must divide. Of an agent that remembers (see
    sparring.agents.networks.recurrent) it holds whole sequences: all steps of num_envs /
    minibatches environments. With a `reward_source`, a factory of a
    `sparring.agents.training.reward_source.RewardSource`, the agent learns from its rewards; those
    of the environment are counted in returns, and reach no weight.
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
        actors: Ray | None = None,
        reward_source: Callable[..., RewardSource] | None = None,
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
        require(built, OnPolicyAgent)
        self.epochs = epochs
        self.minibatches = minibatches
        share = distribute_replicas.Replicas().share(num_envs, "trainer.num_envs")
        self.sequences = bool(tf.nest.flatten(built.start(1)))
        # From which a replica's minibatches are drawn
        self.drawn = share if self.sequences else share * rollout_steps
        _check_minibatches(self.drawn, minibatches, self.sequences)
        self.rewards = RewardNormalizer(num_envs, built.discount) if normalize_rewards else None
        self.reward_source: RewardSource | None = None
        if reward_source is not None:
            self.reward_source = reward_source(
                agent=built,
                observation_space=environment.observation_space,
                action_space=environment.action_space,
                seed=seed,
            )
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
        self._drawing = random.stream(seed, "updates")

    def _scalar_names(self) -> list[str]:
        source = self.reward_source
        return [
            *super()._scalar_names(),
            *_DESCRIPTIONS,
            *([] if source is None else source.descriptions),
        ]

    @property
    def descriptions(self) -> dict[str, str]:
        """Tag -> what it measures."""
        found = {**super().descriptions, **_DESCRIPTIONS}
        source = self.reward_source
        return found if source is None else {**found, **source.descriptions, **source.reported}

    @property
    def charts(self) -> Mapping[str, Mapping[str, list[str]]]:
        """TensorBoard's custom scalars; with a reward source, its own too."""
        found = super().charts
        return found if self.reward_source is None else {**found, **self.reward_source.charts}

    def _learning_state(self) -> dict[str, Any]:
        found: dict[str, Any] = {} if self.rewards is None else {"rewards": self.rewards}
        if self.reward_source is not None:
            found["reward_source"] = tf.train.Checkpoint(**self.reward_source.state)
        return found

    def _shards(self) -> list[sharding.Sharded]:
        return [*super()._shards(), *([] if self.rewards is None else [self.rewards.shard])]

    def act(
        self, observation: tf.Tensor, keys: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        return self.agent.act(observation, keys, self.progress(step))

    def sampling_key(self, vector_step: tf.Tensor) -> tf.Tensor:
        """The key [2] of a vector step, which `noise_steps` of the agent have in common."""
        return super().sampling_key(vector_step // self.agent.noise_steps)

    def learn(self, rollout: Rollout, iteration: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        run = self.replicas.run
        first = self.replicas.first
        total = self.count_episodes(rollout, total)
        progress = self.progress(iteration * self.steps_per_iteration)
        if self.reward_source is not None:
            rollout, total = self._rewarded(self.reward_source, rollout, iteration, total)
        steps = run(self._prepare, rollout)
        key = run(self._key, iteration)
        gradients_of = self.replicas.on_each(self._gradients)
        step = self.replicas.on_each(self._step)

        def update(
            i: tf.Tensor, order: tf.Tensor, goes_on: tf.Tensor, total: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            order, gradients, goes_on, total = gradients_of(
                steps, iteration, i, order, key, progress, total
            )
            goes_on = first(goes_on)
            total = _only_if(
                goes_on, lambda: first(step(gradients, progress, total)), lambda: first(total)
            )
            return i + tf.cast(goes_on, tf.int32), order, goes_on, total

        limit = self.epochs * self.minibatches
        updates, _, _, total = tf.while_loop(
            lambda i, order, goes_on, total: (i < limit) & goes_on,
            update,
            (tf.constant(0), run(self._in_order), tf.constant(True), total),
            maximum_iterations=limit,
        )
        return first(run(self._finish, rollout, steps, progress, updates, total))

    def _rewarded(
        self, source: RewardSource, rollout: Rollout, iteration: tf.Tensor, total: tf.Tensor
    ) -> tuple[Rollout, tf.Tensor]:
        """Return a rollout with the rewards of a source, which has learned from it first, and
        `total` with the source's scalars added.
        """
        progress = self.progress(iteration * self.steps_per_iteration)
        taken = self.replicas.run(source.take_up, rollout)
        update = self.replicas.agreed(source.update)

        def step(i: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
            return self.means.add(total, update(taken, iteration * source.updates + i, progress))

        total = loops.repeated(step, total, source.updates, most=source.updates)

        def rewarded(rollout: Rollout, taken: Any) -> tuple[Rollout, Any]:
            reward, values = source.rewards(rollout, taken, iteration)
            return rollout._replace(reward=reward), values

        rollout, values = self.replicas.run(rewarded, rollout, taken)
        return rollout, self.means.add(total, self.replicas.first(values))

    def _in_order(self) -> tf.Tensor:
        return tf.range(self.drawn)

    def _gradients(
        self,
        steps: Any,
        iteration: tf.Tensor,
        i: tf.Tensor,
        order: tf.Tensor,
        key: tf.Tensor,
        progress: tf.Tensor,
        total: tf.Tensor,
    ) -> tuple[tf.Tensor, list[tf.Tensor], tf.Tensor, tf.Tensor]:
        """The gradients of update number `i` of an iteration, on the next of a replica's steps, or
        sequences, in their order; and whether their step is to be taken.
        """
        part = i % self.minibatches
        epoch = i // self.minibatches
        order = tf.cond(part == 0, lambda: self.order(key, epoch), lambda: order)
        size = self.drawn // self.minibatches
        batch = self._minibatch(steps, tf.slice(order, [part * size], [size]))
        drawing = random.fold(distribute_replicas.replica_key(self._drawing), iteration)
        gradients, values = self.agent.gradients(batch, random.fold(drawing, i), progress)
        return order, gradients, self.agent.goes_on(values), self.means.add(total, values)

    def _step(self, gradients: list[tf.Tensor], progress: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        return self.means.add(total, self.agent.step(gradients, progress))

    def _minibatch(self, steps: Any, drawn: tf.Tensor) -> Any:
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

    def scalars(self) -> dict[str, float]:
        """Return the means since the last call; a reward source looks at them."""
        values = super().scalars()
        if self.reward_source is not None:
            self.reward_source.watch(values, self.step)
        return values

    def measure(self, episodes: int | None, media: bool, step: int) -> Evaluation:
        """Evaluate the agent; a reward source adds to what was found."""
        found = super().measure(episodes, media, step)
        if self.reward_source is not None:
            self.reward_source.report(found, media)
        return found

    def host_state(self) -> dict[str, Any]:
        """Return the state outside of variables, and what a reward source was given."""
        if self.reward_source is None:
            return super().host_state()
        return {**super().host_state(), "reward_source": dict(self.reward_source.fingerprint)}

    def check_state(self, state: Mapping[str, Any]) -> list[str]:
        """Return a sentence if a reward source was given something else before."""
        before = state.get("reward_source")
        if self.reward_source is None or before in (None, dict(self.reward_source.fingerprint)):
            return []
        return ["The demonstrations are not those that the run has learned from so far."]

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

    def _prepare(self, rollout: Rollout) -> Any:
        """The agent's examples of a rollout, flattened to [T * B, ...]."""
        reward = rollout.reward
        if self.rewards is not None:
            valid = tf.cast(~rollout.first, tf.float32)  # [T, B]
            self.rewards.update(reward, tf.cast(rollout.ended, tf.float32), valid)
            reward = self.rewards.normalize(reward)
        return distribute_replicas.compile_in_replica(self._examples)(rollout, reward)

    def _examples(self, rollout: Rollout, reward: tf.Tensor) -> Any:
        steps = self.agent.examples(rollout, reward)
        flat = tf.nest.map_structure(
            lambda x: tf.reshape(x, [-1, *x.shape[2:]]), steps._replace(state=())
        )
        return flat._replace(state=steps.state)

    def _finish(
        self,
        rollout: Rollout,
        steps: Any,
        progress: tf.Tensor,
        updates: tf.Tensor,
        total: tf.Tensor,
    ) -> tf.Tensor:
        """Have the agent end its iteration, and add the iteration's scalars."""
        valid = tf.reduce_mean(tf.cast(~rollout.first, tf.float32))
        values = self.agent.finish(steps, progress) | {
            "rollout/reset_share": 1.0 - distribute_replicas.all_reduce_mean(valid),
            "policy/updates_per_iteration": updates,
        }
        return self.means.add(total, values | learning_rates(self.agent, progress))


_DESCRIPTIONS = {
    "rollout/reset_share": "Share of the environment steps that were resets between episodes.",
    "policy/updates_per_iteration": "Minibatch updates an iteration made, without the one that the "
    "agent did not take.",
}


def _only_if(
    condition: tf.Tensor, taken: Callable[[], tf.Tensor], otherwise: Callable[[], tf.Tensor]
) -> tf.Tensor:
    """Return `taken()` or `otherwise()`, without a branch in the program if it is known which."""
    known = tf.get_static_value(condition)
    if known is None:
        return tf.cond(condition, taken, otherwise)
    return taken() if known else otherwise()


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
