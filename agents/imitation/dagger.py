"""DAgger: an imitator's policy learns the expert's actions at what the imitator itself visits.

Ross et al. 2011, "A reduction of imitation learning and structured prediction to no-regret online
learning", algorithm 3.1.
"""

import functools
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium
import tensorflow as tf

from sparring.agents import requirements
from sparring.agents.agent import OnPolicyAgent, Scalars, require
from sparring.agents.imitation.cloning import TRAINING, clone
from sparring.agents.imitation.expert import require_imitator
from sparring.agents.replay import Ring, row_bytes
from sparring.agents.training.base import AgentTrainer
from sparring.agents.training.evaluation import EvaluationSettings
from sparring.agents.training.rollout import Rollout
from sparring.distribute import replicas, sharding
from sparring.errors import UserError
from sparring.optim import optimizer as optim_optimizer
from sparring.optim.schedules import Schedule, as_schedule
from sparring.processes import resources
from sparring.storage.run_folder import RunFolder
from sparring.training.trained_model import restored
from sparring.xla import loops, random

Expert = Callable[[Any], tf.Tensor]  # observations [B, ...] -> actions [B, ...], in the program
AGREEMENT = "imitation/agreement"


class DAggerTrainer(AgentTrainer):
    """Trainer of a policy on an expert's actions at the steps of its own rollouts.

    In each iteration, a round of the paper, the imitator acts for `rollout_steps` steps of
    `num_envs` environments, greedily, and the expert is asked at each of them. At a step the expert
    acts itself with probability `beta`, a number or a schedule of the run's progress; in the first
    round it always does. All steps so far are kept, and `updates` batches of `batch_size` are drawn
    from them uniformly.

    Args:
      agent: factory of an agent with `sparring.agents.agent.Likelihood`, such as PPO, of which the
        actor learns and the critic stays as it is.
      expert: factory of an `Expert`, called with the environment after the agent is made.
    """

    def __init__(
        self,
        agent: Callable[..., Any],
        environment: Any,
        expert: Callable[[Any], Expert],
        network: Callable[[], tf.keras.layers.Layer] | None = None,
        optimizer: optim_optimizer.Scheduled | None = None,
        num_envs: int = 8,
        rollout_steps: int = 128,
        updates: int = 256,
        batch_size: int = 64,
        beta: Schedule | float = 0.0,
        seed: int = 0,
        total_steps: int = 50_000,
        compile: str = "auto",
        evaluation: EvaluationSettings | None = None,
    ) -> None:
        spaces = environment.observation_space, environment.action_space
        resources.require_memory(
            float(total_steps) * row_bytes(*spaces),
            f"run.steps={total_steps}: DAgger keeps all of them",
            "Choose fewer, or smaller observations.",
        )
        built = agent(*spaces, network=network, optimizer=optimizer)
        require(built, OnPolicyAgent)
        require_imitator(built)
        self.updates = updates
        self.beta = as_schedule(beta)
        self._discrete = not isinstance(environment.action_space, gymnasium.spaces.Box)
        super().__init__(
            built, environment, num_envs, rollout_steps, seed, total_steps, compile, evaluation
        )
        self.batch_share = self.replicas.share(batch_size, "trainer.batch_size")
        self.expert = expert(environment)
        self._drawing = random.stream(seed, "aggregate")

    @functools.cached_property
    def aggregate(self) -> Ring:
        """Return the ring of all steps so far, with the expert's actions in place of those done."""
        spaces = self.environment.observation_space, self.environment.action_space
        rounds = -(-self.total_steps // self.steps_per_iteration)
        with self.replicas.scope():
            return Ring(rounds * self.share * self.rollout_steps, self.share, *spaces)

    @functools.cached_property
    def _aggregates(self) -> sharding.Apart:
        return sharding.Apart(self.replicas, "aggregate", self.aggregate)

    def gather(self) -> None:
        """Have what is saved hold the aggregate of all hosts."""
        self._aggregates.gather()

    # ---- contract --------------------------------------------------------------------------------

    @functools.cached_property
    def descriptions(self) -> Mapping[str, str]:
        """Tag -> what it measures."""
        return {**super().descriptions, **self._measured}

    @property
    def charts(self) -> Mapping[str, Mapping[str, list[str]]]:
        """TensorBoard's custom scalars."""
        agreement = {"Imitation": {"agreement": [AGREEMENT]}} if self._discrete else {}
        return {**super().charts, **agreement}

    @property
    def _measured(self) -> dict[str, str]:
        return {**TRAINING, _BETA: _DESCRIPTIONS[_BETA], **(_OF_CHOICES if self._discrete else {})}

    def _scalar_names(self) -> list[str]:
        return [*super()._scalar_names(), *self._measured]

    def _learning_state(self) -> dict[str, Any]:
        return self._aggregates.parts

    # ---- the program -----------------------------------------------------------------------------

    def act(
        self, observation: Any, keys: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        own = self.agent.act_greedy(observation)
        label = tf.cast(self.expert(observation), own.dtype)
        asked = random.uniform(random.fold(keys, 0), 1)[:, 0] < self._beta(step)  # [B]
        asked = tf.reshape(asked, [-1] + [1] * (own.shape.rank - 1))
        return tf.where(asked, label, own), {"label": label, "own": own}

    def _beta(self, step: tf.Tensor) -> tf.Tensor:
        """Return the probability [] that the expert acts at environment step `step` [] itself."""
        return tf.where(step < self.steps_per_iteration, 1.0, self.beta(self.progress(step)))

    def learn(self, rollout: Rollout, iteration: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        total = self.count_episodes(rollout, total)
        found = self.replicas.first(self.replicas.run(self._store, rollout))
        begun = iteration * self.steps_per_iteration
        total = self.means.add(total, found | {_BETA: self._beta(begun)})
        update = self.replicas.agreed(self._update)
        progress = self.progress(begun)

        def step(i: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
            return self.means.add(total, update(iteration * self.updates + i, progress))

        return loops.repeated(step, total, self.updates, most=self.updates)

    def _store(self, rollout: Rollout) -> Scalars:
        """Add a rollout to the aggregate; return the share of choices that were the expert's."""
        r = rollout
        label = r.extras["label"]
        self.aggregate.write(
            r.observation, label, tf.zeros_like(r.reward), r.terminated, r.truncated, r.first, {}
        )
        if not self._discrete:
            return {}
        same = tf.cast(tf.equal(label, r.extras["own"]), tf.float32)
        alike = tf.reduce_min(tf.reshape(same, [*r.first.shape, -1]), axis=-1)  # [T, B]
        counts = tf.cast(~r.first, tf.float32)
        sums = [tf.reduce_sum(alike * counts), tf.reduce_sum(counts)]
        agreed, count = replicas.all_reduce_sum(sums)
        return {AGREEMENT: agreed / count}

    def _update(self, number: tf.Tensor, progress: tf.Tensor) -> Scalars:
        key = random.fold(replicas.replica_key(self._drawing), number)
        batch = self.aggregate.sample(key, self.batch_share)
        return clone(self.agent, batch.observation, batch.action, progress)


class RunExpert:
    """The greedy policy of a run, as an `Expert`.

    Args:
      environment: that the imitator is in.
      run: the run's folder.
      checkpoint: "best" or "latest".

    Raises:
      UserError: it is no run of an agent, acts in other spaces, or has a memory.
    """

    def __init__(self, environment: Any, run: str, checkpoint: str = "best") -> None:
        if replicas.num_replicas() > 1:
            raise UserError(
                f"expert={run}: a run's policy is on one device, out of reach of other replicas: "
                "choose strategy=one_device, or hand over a scripted expert."
            )
        cfg = RunFolder.named_in_config(run, "expert").read_config()
        # A strategy's scope is a thread's: the expert is built in none
        with ThreadPoolExecutor(1) as elsewhere:
            trainer = elsewhere.submit(_trainer_of, Path(run), cfg, checkpoint).result()
        self.agent = trainer.agent
        requirements.require_same_spaces(run, trainer.environment, environment)
        if tf.nest.flatten(self.agent.start(1)):
            raise UserError(requirements.refused_expert(run))

    def __call__(self, observation: Any) -> tf.Tensor:
        """Return the actions [B, ...] at observations [B, ...]."""
        seen, _ = self.agent.see(observation, ())
        action: tf.Tensor = self.agent.act_greedy(seen)
        return action


def _trainer_of(run: Path, cfg: Any, checkpoint: str) -> Any:
    with restored(run, cfg, checkpoint) as (trainer, _):
        return trainer


_BETA = "schedule/expert_acts"
_DESCRIPTIONS = {_BETA: "Probability that the expert acts at a step of a rollout itself."}
_OF_CHOICES = {
    AGREEMENT: "Share of a rollout's steps at which the imitator would have chosen as the expert."
}
