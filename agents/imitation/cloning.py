"""Behaviour cloning: an agent's policy learns an expert's actions by maximum likelihood.

Pomerleau 1991, "Efficient training of artificial neural networks for autonomous navigation". It
never acts in the environment, but to be evaluated.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from sparring import nested
from sparring.agents.agent import OnPolicyAgent, Scalars, learning_rates, require
from sparring.agents.imitation.demonstrations import Demonstrations
from sparring.agents.imitation.expert import DESCRIPTIONS as EXPERT
from sparring.agents.imitation.expert import SHARE, Expert, require_imitator
from sparring.agents.imitation.recording import demonstrated
from sparring.agents.training import policy_export
from sparring.agents.training.evaluation import DESCRIPTIONS as EVALUATION
from sparring.agents.training.evaluation import EvaluationSettings, Evaluator
from sparring.distribute import replicas
from sparring.export.signatures import Export
from sparring.optim import optimizer as optim_optimizer
from sparring.training.batch_trainer import BatchTrainer
from sparring.training.trainer import Evaluation
from sparring.xla import compilation, random


class CloningTrainer(BatchTrainer):
    """Trainer of an agent's policy on the steps of an expert; a step of the run is one of them.

    Args:
      agent: factory of an agent with `sparring.agents.agent.Likelihood`, such as PPO, of which the
        actor learns and the critic stays as it is.
      environment: what the expert acted in, and evaluations are of.
      demonstrations: its episodes. Batches are drawn from them with replacement, by keys.
      batch_size: of all replicas together.
    """

    unit = "expert_steps"
    objective = "eval/episode_return"
    maximize = True

    def __init__(
        self,
        agent: Callable[..., Any],
        environment: Any,
        demonstrations: Demonstrations,
        network: Callable[[], tf.keras.layers.Layer] | None = None,
        optimizer: optim_optimizer.Scheduled | None = None,
        batch_size: int = 64,
        seed: int = 0,
        total_steps: int = 500_000,
        compile: str = "auto",
        evaluation: EvaluationSettings | None = None,
    ) -> None:
        super().__init__()
        spaces = (environment.observation_space, environment.action_space)
        self.agent = agent(*spaces, network=network, optimizer=optimizer)
        require(self.agent, OnPolicyAgent)
        require_imitator(self.agent)
        self.expert = Expert(demonstrations, *spaces)
        self.environment = environment
        self.batch_size = batch_size
        self.share = self.replicas.share(batch_size, "trainer.batch_size")
        self.seed = seed
        mode = compilation.resolve(compile, self.agent.trainable)
        self.prepare(mode, total_steps, TRAINING, parts=("plan", "update"))
        self.evaluator = Evaluator(self.agent, environment, mode, seed, evaluation)
        self._keys = random.stream(seed, "cloning")

    # ---- contract --------------------------------------------------------------------------------

    @property
    def steps_per_iteration(self) -> int:
        """Expert's steps of a batch."""
        return self.batch_size

    @property
    def descriptions(self) -> Mapping[str, str]:
        """Tag -> what it measures."""
        info = {f"eval/{name}": f"`{name}` at last steps." for name in self.environment.info}
        return {**TRAINING, **EVALUATION, **EXPERT, **info}

    @property
    def charts(self) -> Mapping[str, Mapping[str, list[str]]]:
        """TensorBoard's custom scalars."""
        return {
            "Return": {"evaluation": ["eval/episode_return$"], "share": [SHARE]},
            "Learning": {"losses": ["loss/.*"], "norms": ["gradient/.*norm"]},
        }

    @functools.cached_property
    def model(self) -> tf.train.Checkpoint:
        """Modules that act: the networks and the observation normalizer."""
        return tf.train.Checkpoint(**self.agent.parts())

    @functools.cached_property
    def checkpoint(self) -> tf.train.Checkpoint:
        """Every variable."""
        optimizers = {name: each.keras for name, each in self.agent.optimizers.items()}
        return tf.train.Checkpoint(
            model=self.model,
            agent=self.agent,
            iterations=self.iterations,
            means=self.means,
            **optimizers,
        )

    def host_state(self) -> dict[str, Any]:
        fingerprint = self.expert.demonstrations.fingerprint
        return {**super().host_state(), "demonstrations": fingerprint}

    def check_state(self, state: Mapping[str, Any]) -> list[str]:
        before = state.get("demonstrations")
        if before in (None, self.expert.demonstrations.fingerprint):
            return []
        return ["The demonstrations are not those that the run has learned from so far."]

    def measure(self, episodes: int | None, media: bool, step: int) -> Evaluation:
        progress = self.progress(tf.constant(step))
        found = self.evaluator(step, progress, episodes, media, self._evaluations)
        self.expert.report(found)
        return found

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

    # ---- the program -----------------------------------------------------------------------------

    def collect(
        self, plan: tuple[tf.Tensor, ...], row: tf.Tensor, iteration: tf.Tensor, carry: Any
    ) -> tuple[Any, Any]:
        """Return the keys' number of a batch, which is drawn where it is learned from."""
        del plan, row
        return iteration, carry

    def learn(self, batch: tf.Tensor, iteration: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        values = self.replicas.first(self.replicas.run(self._learn, batch))
        return self.means.add(total, values)

    def _learn(self, number: tf.Tensor) -> Scalars:
        """Take a step on a replica's share of batch `number` []; return scalars of the whole."""
        progress = self.progress((number + 1) * self.batch_size)
        first = replicas.replica_index() * self.share
        members = random.members(random.fold(self._keys, number), self.share, first)
        chosen = random.integers(members, 1, self.expert.count)[:, 0]  # [M]
        observation = nested.map_parts(
            lambda part: tf.ensure_shape(tf.gather(part, chosen), [self.share, *part.shape[1:]]),
            self.expert.observation,
        )
        return clone(self.agent, observation, tf.gather(self.expert.action, chosen), progress)


def clone(agent: Any, observation: Any, action: tf.Tensor, progress: tf.Tensor) -> Scalars:
    """Have a policy take a step of maximum likelihood, on a replica's share of a batch.

    The agent has the members of `OnPolicyAgent` and `Likelihood`, and no memory. Observations and
    an expert's actions are [M, ...] each; `progress` [] is the share of the run that is done.
    Returns scalars of the whole batch.
    """
    gradients_of = functools.partial(_gradients, agent)
    gradients, values = replicas.compile_in_replica(gradients_of)(observation, action)
    values = replicas.all_reduce_sum(values) | agent.step(gradients, progress)
    agent.take_up(observation, tf.ones([action.shape[0]]))
    return values | learning_rates(agent, progress)


def _gradients(agent: Any, observation: Any, action: tf.Tensor) -> tuple[list[tf.Tensor], Scalars]:
    """Return a replica's share of the gradients and of the scalars of a batch."""
    seen, _ = agent.see(observation, ())
    weights = agent.trainable
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(weights)
        log_prob = agent.log_probability(seen, action)  # [M]
        loss = replicas.share_of_mean(-tf.reduce_mean(log_prob))
    gradients = tape.gradient(loss, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return gradients, {"loss/cloning": loss}


TRAINING = {
    "loss/cloning": "Negative log likelihood of the expert's actions, in nats, mean over batches.",
    **optim_optimizer.DESCRIPTIONS,
}
