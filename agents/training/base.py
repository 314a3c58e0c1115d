"""Base of the agents' trainers: driving environments, counting, evaluating, saving."""

import abc
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from sparring import nested
from sparring.agents.actors.driver import ACTORS, ActorsDriver
from sparring.agents.actors.settings import Ray
from sparring.agents.drivers.on_device import CompiledDriver
from sparring.agents.drivers.on_host import Collector, HostDriver, HostRollout, add_sums
from sparring.agents.imitation.recording import demonstrated
from sparring.agents.networks import recurrent
from sparring.agents.training import policy_export
from sparring.agents.training.evaluation import DESCRIPTIONS as EVALUATION
from sparring.agents.training.evaluation import EvaluationSettings, Evaluator
from sparring.agents.training.rollout import EpisodeStatistics, Rollout, RolloutSpec
from sparring.distribute import replicas, sharding
from sparring.errors import UserError
from sparring.export.signatures import Export
from sparring.training.batch_trainer import BatchTrainer
from sparring.training.trainer import Evaluation
from sparring.xla import compilation, random
from sparring.xla.compilation import CachedCall


class AgentTrainer(BatchTrainer):
    """Collects rollouts with an agent and learns from them, by turns; satisfies
    `sparring.training.trainer.Trainer`.

    One iteration is `rollout_steps` steps of `num_envs` environments and the learning that follows.
    A step is one step of one environment; the reset between two episodes counts as one, since it
    takes the place of one.

    Replicas share the environments. `act` is a part that each of them does (see
    sparring.distribute.replicas); `learn` stands around parts.
    """

    unit = "env_steps"
    objective = "eval/episode_return"
    maximize = True

    def __init__(
        self,
        agent: Any,
        environment: Any,
        num_envs: int,
        rollout_steps: int,
        seed: int,
        total_steps: int,
        compile: str = "auto",
        evaluation: EvaluationSettings | None = None,
        actors: Ray | None = None,
        reward_source: Callable[..., Any] | None = None,
    ) -> None:
        if actors is not None:
            actors.check(environment, num_envs)
        super().__init__()
        # Environments of one replica
        self.share = self.replicas.share(num_envs, "trainer.num_envs")
        if self.replicas.here < self.replicas.count and not environment.compiled:
            raise UserError(
                "strategy=multi_worker: environments of the host are stepped by one process: "
                "choose a compiled one, "
                "such as env=cartpole, or strategy=mirrored."
            )
        self.agent = agent
        self.environment = environment
        self.actors = actors
        self.num_envs = num_envs
        self.rollout_steps = rollout_steps
        self.source = RolloutSpec(
            environment,
            num_envs,
            rollout_steps,
            environment.first_seed(seed),
            max(total_steps // num_envs, 1),
            tuple(name for name in agent.extra if name in environment.info),
        )
        self.seed = seed
        self.reward_source: Any = None  # see sparring.agents.training.reward_source
        if reward_source is not None:
            self.reward_source = reward_source(
                agent=agent,
                observation_space=environment.observation_space,
                action_space=environment.action_space,
                seed=seed,
            )
        mode = compilation.resolve(compile, agent.trainable)
        self.episodes = EpisodeStatistics(num_envs)
        self.prepare(mode, total_steps, self._scalar_names(), parts=())
        self.evaluator = Evaluator(agent, environment, mode, seed, evaluation)
        self._keys = random.stream(seed, "policy")
        self._noted: dict[str, tuple[float, float]] = {}  # tag -> sum and weight of the interval
        if environment.compiled:
            self._seconds = {"collect_and_update": 0.0}

    # ---- the two methods a kind of agent adds ----------------------------------------------------

    @abc.abstractmethod
    def act(
        self, observation: tf.Tensor, keys: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Actions [B, ...] for collecting at environment step `step`, and what to keep of them,
        each [B, ...].

        `observation` is what the agent sees: of one that remembers, not the environment's own (see
        sparring.agents.networks.recurrent).
        """

    @abc.abstractmethod
    def learn(self, rollout: Rollout, iteration: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        """Learn from a rollout; returns `total`, the sums of `self.means`, with this iteration's
        added.
        """

    # ---- contract --------------------------------------------------------------------------------

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps of one iteration."""
        return self.num_envs * self.rollout_steps

    @functools.cached_property
    def descriptions(self) -> Mapping[str, str]:
        """Tag -> what it measures."""
        return {
            **self.agent.descriptions,
            **EpisodeStatistics.descriptions,
            **({} if self.actors is None else ACTORS),
            **self._descriptions_of_info(),
            **{
                f"schedule/env_{name}": f"`{name}` of the environment, for episodes that begin now."
                for name in self.environment.curriculum
            },
            **EVALUATION,
            **({} if self.reward_source is None else self.reward_source.descriptions),
            **({} if self.reward_source is None else self.reward_source.reported),
        }

    def _descriptions_of_info(self) -> dict[str, str]:
        named = {
            "rollout": ("training", self.environment.info),
            "eval": ("greedy evaluation", self.evaluator.environment.info),
        }
        return {
            f"{part}/{name}": f"`{name}` at the last steps of {kind} episodes, mean."
            for part, (kind, names) in named.items()
            for name in names
        }

    @property
    def charts(self) -> Mapping[str, Mapping[str, list[str]]]:
        """TensorBoard's custom scalars."""
        return {
            "Return": {
                "evaluation and training": ["eval/episode_return$", "rollout/episode_return$"],
                "length": ["eval/episode_length$", "rollout/episode_length$"],
            },
            # Equal for all agents, as TensorBoard shows a chart for each that differs
            "Learning": {"losses": ["loss/.*"], "norms": ["gradient/.*norm"]},
            **({} if self.reward_source is None else self.reward_source.charts),
        }

    @functools.cached_property
    def model(self) -> tf.train.Checkpoint:
        """Modules that act: the networks (with the target's) and the observation normalizer."""
        return tf.train.Checkpoint(**self.agent.parts())

    @functools.cached_property
    def checkpoint(self) -> tf.train.Checkpoint:
        """Every variable."""
        return tf.train.Checkpoint(
            model=self.model,
            agent=self.agent,
            **{
                name if name == "optimizer" else f"{name}_optimizer": each.keras
                for name, each in self.agent.optimizers.items()
            },
            iterations=self.iterations,
            episodes=self.episodes,
            means=self.means,
            **self._learning_state(),
            **(
                {"environments": self.device_driver.carry}
                if isinstance(self.driver, CompiledDriver)
                else {}
            ),
        )

    def _learning_state(self) -> dict[str, Any]:
        """Further modules whose variables the next step depends on."""
        if self.reward_source is None or not self.reward_source.state:
            return {}
        return {"reward_source": tf.train.Checkpoint(**self.reward_source.state)}

    def _shards(self) -> list[sharding.Sharded]:
        """The variables of which each replica has a part."""
        return [self.episodes.shard]

    def _scalar_names(self) -> list[str]:
        # Of environments on the host they are noted beside the means
        info = self.environment.info if self.environment.compiled else ()
        measured = [f"rollout/{name}" for name in info]
        given = () if self.reward_source is None else self.reward_source.descriptions
        return [*self.agent.descriptions, *EpisodeStatistics.descriptions, *measured, *given]

    def scalars(self) -> dict[str, float]:
        values = self.peek()
        self.means.reset()
        self._noted.clear()
        if self.reward_source is not None:
            self.reward_source.watch(values, self.step)
        return values

    def peek(self) -> dict[str, float]:
        noted = {tag: total / weight for tag, (total, weight) in self._noted.items()}
        progress = min(self.step / self.total_steps, 1.0)
        parameters = {
            f"schedule/env_{name}": float(course(progress))
            for name, course in self.environment.curriculum.items()
        }
        return self.means.read() | noted | parameters

    def timings(self) -> dict[str, float]:
        if self.environment.compiled:
            return super().timings()
        seconds = self.host_driver.seconds
        self.host_driver.seconds = dict.fromkeys(seconds, 0.0)
        return seconds

    def host_state(self) -> dict[str, Any]:
        state = super().host_state()
        state["environments"] = self.driver.snapshot() if self._done else None
        if self._noted:
            state["noted"] = dict(self._noted)
        if self.reward_source is not None:
            state["reward_source"] = dict(self.reward_source.fingerprint)
        return state

    def check_state(self, state: Mapping[str, Any]) -> list[str]:
        """Return a sentence if a reward source was given something else before."""
        before = state.get("reward_source")
        if self.reward_source is None or before in (None, dict(self.reward_source.fingerprint)):
            return []
        return [
            "What the agent is paid by is not what the run has learned from so far: its "
            "demonstrations, or the run that the reward is of, are others."
        ]

    def load_host_state(self, state: Mapping[str, Any]) -> list[str]:
        complaints = super().load_host_state(state)
        self._noted.clear()
        self._noted.update(
            {tag: (pair[0], pair[1]) for tag, pair in state.get("noted", {}).items()}
        )
        if state["environments"] is not None:
            return [*complaints, *self.driver.restore(state["environments"])]
        if self._done > 0:
            complaints.append("The environments' state was not saved: their episodes start anew.")
        return complaints

    def export(self) -> Export:
        """The policy, greedy and sampled."""
        return policy_export.policy(self)

    def demonstrate(
        self, path: Path, episodes: int, seed: int, sampled: bool, metadata: Mapping[str, Any]
    ) -> list[str]:
        """Record whole episodes of the agent; see `sparring.agents.imitation.recording`."""
        return demonstrated(self.evaluator, path, episodes, seed, sampled, metadata)

    def close(self) -> None:
        self.evaluator.close()
        self.driver.close()

    # ---- the program -----------------------------------------------------------------------------

    @property
    def driver(self) -> HostDriver | CompiledDriver | ActorsDriver:
        """Driver of the environments: on the device if they are compiled, else on the host."""
        return self.device_driver if self.environment.compiled else self.host_driver

    @functools.cached_property
    def device_driver(self) -> CompiledDriver:
        """Driver of compiled environments."""
        self._learning_state()  # created before a program is traced that uses it
        known = self.agent.start(self.num_envs)
        with self.replicas.scope():
            return CompiledDriver(self.source, self._act, known)

    @functools.cached_property
    def host_driver(self) -> HostDriver | ActorsDriver:
        """Driver of environments on the host: here, or of actors."""
        self._learning_state()  # created before a program is traced that uses it
        learn = self.replicas.function(self._learn_once, self.mode, CachedCall)
        note = functools.partial(add_sums, self._noted)
        known = self.agent.start(self.num_envs)
        if self.actors is not None:
            return ActorsDriver(self.source, learn, self.model, known, note, self.actors)
        act = CachedCall(self._act, self.mode)
        return HostDriver(self.source, act, learn, known, note)

    def program(self) -> Callable[..., Any]:
        if not self.environment.compiled:
            return self._iterate_on_host
        self.device_driver.open(self._done)
        return super().program()

    def add_seconds(self, planning: float, program: float) -> None:
        if self.environment.compiled:  # drivers on the host count theirs
            self._seconds["collect_and_update"] += program

    def open_carry(self) -> Any:
        return self.replicas.run(self._read_carry)

    def _read_carry(self) -> Any:
        for shard in self._all_shards():
            shard.spread()
        return self.device_driver.carry.read()

    def collect(
        self, plan: tuple[tf.Tensor, ...], row: tf.Tensor, iteration: tf.Tensor, carry: Any
    ) -> tuple[Any, Any]:
        del plan, row
        return self.replicas.run(self.device_driver.advance, carry, iteration)

    def close_carry(self, carry: Any) -> None:
        self.replicas.run(self.device_driver.carry.assign, carry)
        sharding.gather(self.replicas, self._all_shards())

    def _all_shards(self) -> list[sharding.Sharded]:
        return [*self.device_driver.carry.shards, *self._shards()]

    def _iterate_on_host(self, count: tf.Tensor) -> None:
        self.host_driver.iterate(self._done, int(count))

    def collector(
        self, number: int, count: int, note: Callable[[dict[str, tuple[float, float]]], None]
    ) -> Collector:
        """Return the collector of actor `number` of `count`, with its share of a rollout."""
        share = self.source.share(number, count)
        act = CachedCall(functools.partial(self._act, first=number * share.num_envs), self.mode)
        return Collector(share, act, self.agent.start(share.num_envs), note)

    def _act(
        self,
        observation: tf.Tensor,
        known: recurrent.State,
        vector_step: tf.Tensor,
        first: int | None = None,
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor], recurrent.State]:
        count = nested.batch_size(
            observation
        )  # a replica's environments, or an actor's; else all of them
        first = replicas.replica_index() * count if first is None else first
        keys = random.members(self.sampling_key(vector_step), count, first)
        seen, known = self.agent.see(observation, known)
        return *self.act(seen, keys, vector_step * self.num_envs), known

    def sampling_key(self, vector_step: tf.Tensor) -> tf.Tensor:
        """The key [2] that the actions of vector step `vector_step` of the run are drawn from."""
        return random.fold(self._keys, vector_step)

    def count_episodes(self, rollout: Rollout, total: tf.Tensor) -> tf.Tensor:
        """Return `total` with the episodes that ended in a rollout added."""
        return self.replicas.first(self.replicas.run(self._count, rollout, total))

    def _count(self, rollout: Rollout, total: tf.Tensor) -> tf.Tensor:
        return self.means.add(total, self.episodes.update(rollout))

    def _learn_once(self, packed: HostRollout, next_step: tf.Tensor) -> Any:
        rollout = packed.unpack()
        mine = self.replicas.run(self._my_part, rollout)
        total = tf.identity(self.means.total)
        self.means.total.assign(self.learn(mine, tf.identity(self.iterations), total))
        self.iterations.assign_add(1)
        sharding.gather(self.replicas, self._shards())
        return self._act(rollout.reached, rollout.ended_with, next_step)

    def _my_part(self, rollout: Rollout) -> Rollout:
        """A replica's environments' part of a rollout that the host collected."""
        for shard in self._shards():
            shard.spread()
        if self.replicas.count == 1:
            return rollout
        first = replicas.replica_index() % self.replicas.here * self.share
        return tf.nest.map_structure(lambda x: x[:, first : first + self.share], rollout)

    # ---- evaluation ------------------------------------------------------------------------------

    def measure(self, episodes: int | None, media: bool, step: int) -> Evaluation:
        progress = self.progress(tf.constant(step))
        found = self.evaluator(step, progress, episodes, media, self._evaluations)
        if self.reward_source is not None:
            self.reward_source.report(found, media)
        return found
