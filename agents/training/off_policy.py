"""Training off-policy: store every transition, learn from samples of the newest ones."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from sparring import nested
from sparring.agents.actors.settings import Ray
from sparring.agents.agent import OffPolicyAgent, Scalars, learning_rates, require
from sparring.agents.replay import Ring, Rows, Sequences, Transitions, row_bytes
from sparring.agents.training import time_breakdown
from sparring.agents.training.base import AgentTrainer
from sparring.agents.training.evaluation import EvaluationSettings
from sparring.agents.training.reward_source import ReplaySource
from sparring.agents.training.rollout import Rollout
from sparring.distribute import replicas, sharding
from sparring.errors import UserError, warn_once
from sparring.optim import optimizer as optim_optimizer
from sparring.processes import resources
from sparring.xla import loops, random


class OffPolicyTrainer(AgentTrainer):
    """After every `rollout_steps` steps of `num_envs` environments, `updates` gradient steps on
    replayed batches.

    `agent` is a factory of a `sparring.agents.agent.OffPolicyAgent`, called with
    (observation_space, action_space, network=, optimizer=); for a network or an optimizer of None
    it takes its own. `replay` is a factory of a `sparring.agents.replay.Ring`, called with
    (capacity, num_envs, observation_space, action_space, extra, span): `extra` is what the agent
    asks to have kept of each step, `span` the steps that what is drawn goes over. `total_steps` is
    the length of the run, which schedules stretch over.
    The first `learning_starts` steps act at random and learn nothing.
    `n_step` is the length of the return (Sutton 1988). An agent whose `sequence` is not 0 learns
    from sequences of so many transitions; `batch_size` counts these then.
    With a `reward_source`, a factory of a `sparring.agents.training.reward_source.ReplaySource`,
    the agent learns from its rewards; those of the environment are counted in returns, and reach no
    weight.
    """

    def __init__(
        self,
        agent: Callable[..., Any],
        environment: Any,
        network: Callable[[], tf.keras.layers.Layer] | None = None,
        optimizer: optim_optimizer.Scheduled | None = None,
        num_envs: int = 1,
        rollout_steps: int = 4,
        updates: int = 4,
        batch_size: int = 64,
        capacity: int = 100_000,
        learning_starts: int = 1000,
        seed: int = 0,
        total_steps: int = 100_000,
        n_step: int = 3,
        compile: str = "auto",
        evaluation: EvaluationSettings | None = None,
        actors: Ray | None = None,
        replay: Callable[..., Ring] = Ring,
        reward_source: Callable[..., ReplaySource] | None = None,
    ) -> None:
        if learning_starts >= total_steps:
            warn_once(
                f"trainer.learning_starts={learning_starts} is not before the end of the run at "
                f"{total_steps} steps: nothing will be learned. Choose fewer, or more run.steps."
            )
        self.updates = updates
        self.batch_size = batch_size
        self.n_step = n_step
        built = agent(
            environment.observation_space,
            environment.action_space,
            network=network,
            optimizer=optimizer,
        )
        require(built, OffPolicyAgent)
        self.span = n_step + max(built.sequence - 1, 0)  # steps that what is drawn goes over
        _check_capacity(capacity, num_envs, rollout_steps, self.span)
        self.learning_starts = max(learning_starts, num_envs * self.span)
        _check_extra(built, environment)
        _check_memory(environment, capacity, built.extra)
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
            reward_source,
        )
        self.phases = (self.learning_starts,)
        self.batch_share = self.replicas.share(batch_size, "trainer.batch_size")
        self._capacity = -(-capacity // self.replicas.count)
        self._make_replay = replay
        self._sampling = random.stream(seed, "replay")
        self._drawing = random.stream(seed, "updates")
        self._shown = random.stream(seed, "reward source")

    @functools.cached_property
    def replay(self) -> Any:
        """Made at its first use: an actor, which only acts, has no need of so much memory."""
        with self.replicas.scope():
            spaces = self.environment.observation_space, self.environment.action_space
            return self._make_replay(
                self._capacity, self.share, *spaces, self.agent.extra, self.span
            )

    def _learning_state(self) -> dict[str, Any]:
        return {**self._replays.parts, **super()._learning_state()}

    @functools.cached_property
    def _replays(self) -> sharding.Apart:
        return sharding.Apart(self.replicas, "replay", self.replay)

    def gather(self) -> None:
        """Have what is saved hold the replay of all hosts."""
        self._replays.gather()

    def act(
        self, observation: tf.Tensor, keys: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        action = self.agent.act_sampled(observation, random.fold(keys, 0), self.progress(step))
        unguided = self.agent.act_random(observation, random.fold(keys, 1))
        action = tf.where(step < self.learning_starts, unguided, action)
        return action, self.agent.keep(observation, action, self.progress(step))

    def learn(self, rollout: Rollout, iteration: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        run = self.replicas.run
        first = self.replicas.first
        total = self.count_episodes(rollout, total)
        run(self._store, rollout)
        done = (iteration + 1) * self.steps_per_iteration
        progress = self.progress(done)
        if self.reward_source is not None:
            total = self._source_learns(iteration, done, total)
        key = run(self._key, iteration)
        update_replicas = self.replicas.on_each(self._update)

        def update(i: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return i + 1, first(update_replicas(key, iteration, i, progress, total))

        limit = tf.where(done >= self.learning_starts, self.updates, 0)
        _, total = tf.while_loop(
            lambda i, total: i < limit,
            update,
            (tf.constant(0), total),
            maximum_iterations=self.updates,
        )
        return total

    def _source_learns(self, iteration: tf.Tensor, done: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        """Have the reward source learn in an iteration; return `total` with its scalars."""
        updates = self.reward_source.updates
        learn = self.replicas.agreed(self._source_step)
        progress = self.progress(done)

        def step(i: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
            return self.means.add(total, learn(iteration * updates + i, progress))

        count = tf.where(done >= self.learning_starts, tf.constant(updates, tf.int64), 0)
        return loops.repeated(step, total, count, most=updates)

    def _source_step(self, number: tf.Tensor, progress: tf.Tensor) -> Scalars:
        source: ReplaySource = self.reward_source
        key = random.fold(replicas.replica_key(self._shown), number)
        rows = self.replay.choose(key, source.drawn, self.span, progress)
        return source.learn(self.replay.gather(rows), number, progress)

    def _store(self, rollout: Rollout) -> None:
        r = rollout if self.reward_source is None else self.reward_source.store(rollout)
        said = {**r.extras, **r.info}
        extra = {name: said[name] for name in self.agent.extra}
        ends = r.terminated, r.truncated, r.first
        self.replay.write(r.observation, r.action, r.reward, *ends, extra)

    def _key(self, iteration: tf.Tensor) -> tf.Tensor:
        return random.fold(replicas.replica_key(self._sampling), iteration)

    def _update(
        self,
        key: tf.Tensor,
        iteration: tf.Tensor,
        i: tf.Tensor,
        progress: tf.Tensor,
        total: tf.Tensor,
    ) -> tf.Tensor:
        given: Scalars = {}
        if self.reward_source is None:
            rows, batch = self.sample(key, i, progress)
        else:
            rows, batch, given = self._rewarded(self.reward_source, random.fold(key, i), progress)
        drawing = random.fold(replicas.replica_key(self._drawing), iteration)
        values, errors = self.agent.update(batch, random.fold(drawing, i), progress)
        if self.reward_source is not None:  # what it added has no row
            errors = errors[: self.reward_source.own(self.batch_share)]
        self.replay.learned(rows, errors, progress)
        return self.means.add(total, given | values | learning_rates(self.agent, progress))

    def _rewarded(
        self, source: ReplaySource, key: tf.Tensor, progress: tf.Tensor
    ) -> tuple[Rows, Transitions, Scalars]:
        """A replica's share of a batch with the rewards of a source, whose first transitions are at
        the rows that are returned; and scalars of it.
        """
        own = source.own(self.batch_share)
        rows = self.replay.choose(key, own, self.span, progress)
        batch, values = source.batch(self.replay, rows, self.n_step, random.fold(key, 0))
        return rows, batch, values

    def sample(
        self, key: tf.Tensor, i: tf.Tensor, progress: tf.Tensor
    ) -> tuple[Any, Transitions | Sequences]:
        """A replica's share of the batch of an iteration's update number `i`, and its rows in the
        replay; `key` is the iteration's.
        """
        rows = self.replay.choose(random.fold(key, i), self.batch_share, self.span, progress)
        return rows, self._gather(rows)

    def _gather(self, rows: Rows) -> Transitions | Sequences:
        """The transitions, or sequences, to learn from that begin at `rows`."""
        if not self.agent.sequence:
            return self.replay.gather(rows, self.n_step, self.agent.discount)
        return self.replay.sequences(rows, self.agent.sequence, self.n_step, self.agent.discount)

    def time_breakdown(self, seconds: float = 1.0) -> dict[str, float]:
        """Shares of an iteration's time, each measured for about `seconds`: see
        sparring.agents.training.time_breakdown.
        """

        def sample(i: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
            for k in range(self.updates):
                key = random.fold(random.fold(self._sampling, i), k)
                rows = self.replay.choose(key, self.batch_size, self.span, tf.constant(0.5))
                batch = self._gather(rows)
                columns = tf.nest.flatten(batch)
                total += sum(tf.reduce_sum(tf.cast(x, tf.float32)) for x in columns)
            return total

        parts = {"collect": time_breakdown.collecting(self), "sample": sample}
        return time_breakdown.shares(
            self, parts | {"optimizer": time_breakdown.optimizing(self, self.updates)}, seconds
        )


def _check_capacity(capacity: int, num_envs: int, rollout_steps: int, span: int) -> None:
    least = num_envs * (rollout_steps + span)
    if capacity < least:
        raise UserError(
            f"trainer.capacity={capacity} holds less than one rollout: it must be at least {least} "
            f"(num_envs times rollout_steps + {span}, the steps that are learned from together)."
        )


def _check_extra(agent: Any, environment: Any) -> None:
    """Refuse an agent that wants something kept which neither it nor the environment says."""
    observation = nested.map_parts(
        lambda box: tf.zeros([1, *box.shape], box.dtype), environment.observation_space
    )
    seen, _ = agent.see(observation, agent.start(1))
    own = agent.keep(seen, agent.act_greedy(seen), tf.constant(0.0)) if agent.extra else {}
    for name in agent.extra:
        if name not in own and name not in environment.info:
            raise UserError(
                f"agent: it wants `{name}` kept of each step, which its `keep` does not return and "
                f"{environment.name} does not say: env.info=[{name}] has it taken from a step's "
                "info, if it is there."
            )


def _check_memory(environment: Any, capacity: int, extra: Mapping[str, Any]) -> None:
    """Refuse a replay that cannot fit, before it is allocated."""
    each = row_bytes(environment.observation_space, environment.action_space, extra)
    resources.require_memory(
        float(capacity) * each,
        f"trainer.capacity={capacity}: a replay of {each} bytes a transition",
        "Choose a smaller trainer.capacity, or smaller observations.",
    )
