"""What every agent's trainer shares: driving environments, counting, evaluating, saving."""

import abc
import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from agents import evaluation
from agents.rollout import EpisodeStatistics, Rollout
from research import compile as compilation
from research import random
from research.means import Means
from research.trainer import Evaluation


@dataclass(frozen=True)
class EvaluationSettings:
    """How often and how thoroughly an agent is looked at.

    `episodes` whole episodes greedily and, if `sampled`, as many with the actions sampled as in training. Every
    `video_every`-th evaluation films one episode of up to `video_steps` steps (0: never).
    """

    episodes: int = 20
    sampled: bool = True
    video_every: int = 5
    video_steps: int = 500


class AgentTrainer(abc.ABC):
    """Collects rollouts with an agent and learns from them, by turns; satisfies `research.trainer.Trainer`.

    One iteration is `rollout_steps` steps of `num_envs` environments and the learning that follows. A step is one step
    of one environment; the reset between two episodes counts as one, since it takes the place of one.
    """

    unit = "environment steps"
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
    ) -> None:
        self.agent, self.environment = agent, environment
        self.num_envs, self.rollout_steps, self.total_steps = num_envs, rollout_steps, total_steps
        self.seed, self.settings = seed, evaluation or EvaluationSettings()
        self.mode = compilation.resolve(compile, agent.trainable)
        self.iterations = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.episodes = EpisodeStatistics(num_envs)
        self.means = Means(self._scalar_names())
        self._done = 0  # iterations, as a plain number
        self._evaluations = 0
        self._seconds = {"collect": 0.0, "update": 0.0, "evaluate": 0.0}
        self._vector: Any = None
        self._observation = np.zeros(0)

    # ---- the two methods a kind of agent adds --------------------------------------------------------------------

    @abc.abstractmethod
    def act(self, observation: tf.Tensor, keys: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Actions [B, ...] for collecting at environment step `step`, and what to remember of them, each [B]."""

    @abc.abstractmethod
    def learn(self, rollout: Rollout, iteration: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        """Learn from a rollout; returns `total`, the sums of `self.means`, with this iteration's added."""

    # ---- contract ------------------------------------------------------------------------------------------------

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps of one iteration."""
        return self.num_envs * self.rollout_steps

    @property
    def step(self) -> int:
        """Environment steps done."""
        return self._done * self.steps_per_iteration

    @functools.cached_property
    def descriptions(self) -> Mapping[str, str]:
        """Tag -> what it measures."""
        return {
            **self.agent.descriptions,
            **EpisodeStatistics.descriptions,
            "eval/episode_return": "Undiscounted return of evaluation episodes played greedily, mean.",
            "eval/episode_return_std": "Standard deviation of the greedy evaluation returns.",
            "eval/episode_length": "Length in steps of the greedy evaluation episodes, mean.",
            "eval/episode_return_sampled": "Return of evaluation episodes with actions sampled as in training, mean.",
        }

    @property
    def charts(self) -> Mapping[str, Mapping[str, list[str]]]:
        """TensorBoard's custom scalars."""
        losses = sorted(t for t in self.descriptions if t.startswith("loss/"))
        return {
            "Return": {
                "evaluation and training": ["eval/episode_return", "rollout/episode_return"],
                "length": ["eval/episode_length", "rollout/episode_length"],
            },
            "Learning": {"losses": losses, "norms": ["gradient/norm", "gradient/update_norm"]},
        }

    @functools.cached_property
    def model(self) -> tf.train.Checkpoint:
        """What acts: the networks (with the target's) and the observation normaliser."""
        return tf.train.Checkpoint(**self.agent.parts())

    @functools.cached_property
    def checkpoint(self) -> tf.train.Checkpoint:
        """Every variable."""
        return tf.train.Checkpoint(
            model=self.model,
            agent=self.agent,
            optimizer=self.agent.scheduled.keras,
            iterations=self.iterations,
            episodes=self.episodes,
            means=self.means,
            **self._learning_state(),
        )

    def _learning_state(self) -> dict[str, tf.Module]:
        """Further modules whose variables the next step depends on."""
        return {}

    def _scalar_names(self) -> list[str]:
        return [*self.agent.descriptions, *EpisodeStatistics.descriptions]

    def train(self, steps: int) -> None:
        """Advance by whole iterations until at least `steps` more steps are done."""
        for _ in range(-(-steps // self.steps_per_iteration)):
            self._iterate()

    def scalars(self) -> dict[str, float]:
        values = self.means.read()
        self.means.reset()
        return values

    def peek(self) -> dict[str, float]:
        return self.means.read()

    def timings(self) -> dict[str, float]:
        seconds = dict(self._seconds)
        self._seconds = dict.fromkeys(seconds, 0.0)
        return seconds

    def host_state(self) -> dict[str, Any]:
        vector = None if self._vector is None else self._vector.snapshot()
        return {"done": self._done, "evaluations": self._evaluations, "environments": vector}

    def load_host_state(self, state: Mapping[str, Any]) -> list[str]:
        self._done, self._evaluations = int(state["done"]), int(state["evaluations"])
        if state["environments"] is None:
            return [] if self._done == 0 else ["The environments' state was not saved: their episodes start anew."]
        self._open()
        complaints = self._vector.restore(state["environments"])
        self._observation = self._vector.observation
        return list(complaints)

    def close(self) -> None:
        if self._vector is not None:
            self._vector.close()
            self._vector = None

    # ---- host environments ---------------------------------------------------------------------------------------

    @functools.cached_property
    def _keys(self) -> tf.Tensor:
        return random.stream(self.seed, "policy")

    @functools.cached_property
    def _compiled_act(self) -> Any:
        def act(observation: tf.Tensor, vector_step: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
            keys = random.members(random.fold(self._keys, vector_step), self.num_envs)
            return self.act(observation, keys, vector_step * self.num_envs)

        return compilation.Direct(act, self.mode)

    @functools.cached_property
    def _compiled_learn(self) -> Any:
        def learn(rollout: Rollout) -> None:
            total = self.means.add(tf.convert_to_tensor(self.means.total), self.episodes.update(rollout))
            self.means.total.assign(self.learn(rollout, tf.convert_to_tensor(self.iterations), total))
            self.iterations.assign_add(1)

        return compilation.Direct(learn, self.mode)

    def _open(self) -> None:
        if self._vector is None:
            self._vector = self.environment.vector(self.num_envs, self.seed)
            self._observation = self._vector.reset()

    def _iterate(self) -> None:
        self._open()
        started = time.perf_counter()
        rollout = self._collect()
        collected = time.perf_counter()
        self._compiled_learn(rollout)
        self._done += 1
        self._seconds["collect"] += collected - started
        self._seconds["update"] += time.perf_counter() - collected

    def _collect(self) -> Rollout:
        """T vector steps, the policy one compiled call each."""
        observations, rows, first_step = [self._observation], [], self._done * self.rollout_steps
        for t in range(self.rollout_steps):
            action, extras = self._compiled_act(observations[-1], np.int64(first_step + t))
            action = np.asarray(action)
            step = self._vector.step(action)
            observations.append(step.observation)
            rows.append((action, step, extras))
        self._observation = observations[-1]
        actions, steps, extras = zip(*rows, strict=True)
        return Rollout(
            np.stack(observations),
            np.stack(actions),
            *(np.stack([getattr(s, f) for s in steps]) for f in ("reward", "terminated", "truncated", "first")),
            extras={k: np.stack([np.asarray(e[k]) for e in extras]) for k in extras[0]},
        )

    # ---- evaluation ----------------------------------------------------------------------------------------------

    @functools.cached_property
    def _compiled_greedy(self) -> Any:
        return compilation.Direct(self.agent.act_greedy, self.mode)

    @functools.cached_property
    def _compiled_sampled(self) -> Any:
        def act(observation: tf.Tensor, key: tf.Tensor, t: tf.Tensor, progress: tf.Tensor) -> tf.Tensor:
            keys = random.members(random.fold(key, t), observation.shape[0])
            return self.agent.act_sampled(observation, keys, progress)

        return compilation.Direct(act, self.mode)

    def progress(self, step: tf.Tensor) -> tf.Tensor:
        """The share of the run that is done at `step`, float32 in [0, 1]."""
        return tf.minimum(tf.cast(step, tf.float32) / float(self.total_steps), 1.0)

    def evaluate(self, episodes: int | None = None, media: bool = True, step: int | None = None) -> Evaluation:
        started, count = time.perf_counter(), episodes or self.settings.episodes
        step = self.step if step is None else step
        seed = _evaluation_seed(self.seed, step)
        returns, lengths = evaluation.episodes(self.environment, self._greedy, count, seed)
        result = Evaluation(
            {
                "eval/episode_return": float(returns.mean()),
                "eval/episode_return_std": float(returns.std()),
                "eval/episode_length": float(lengths.mean()),
            },
            histograms={"eval/episode_returns": returns},
        )
        if self.settings.sampled:
            returns, _ = evaluation.episodes(self.environment, self._sampler(step), count, seed)
            result.scalars["eval/episode_return_sampled"] = float(returns.mean())
        every = self.settings.video_every
        if media and every and self._evaluations % every == 0:
            frames = evaluation.video(self.environment, self._greedy, seed, self.settings.video_steps)
            if frames is not None:
                result.videos["eval/episode"] = frames
        self._evaluations += 1
        self._seconds["evaluate"] += time.perf_counter() - started
        return result

    def _greedy(self, observation: np.ndarray, t: int) -> np.ndarray:
        del t
        return np.asarray(self._compiled_greedy(observation))

    def _sampler(self, step: int) -> evaluation.Act:
        key = random.fold(random.stream(self.seed, "evaluation"), step)
        progress = self.progress(tf.constant(step))

        def act(observation: np.ndarray, t: int) -> np.ndarray:
            return np.asarray(self._compiled_sampled(observation, key, np.int64(t), progress))

        return act


def _evaluation_seed(seed: int, step: int) -> int:
    """A seed for evaluation environments that no training environment has, new at every step."""
    return int(np.random.SeedSequence([seed, step, 0x5EED]).generate_state(1)[0] >> 1)
