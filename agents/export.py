"""What leaves an agent's run: its policy, greedy and sampled, and what it thinks of an observation."""

from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf

from agents import evaluation
from research import random
from research.compile import Direct
from research.signatures import Arrays, Export, Function, Signature, seed_spec

_ENVIRONMENTS, _EPISODES = 16, 20
_SAMPLES_SEED = 0x5A3D1E5


def policy(trainer: Any) -> Export:
    """The signatures of an `agents.trainer.AgentTrainer`.

    `greedy` and `sampled` give the action [B, ...], in the space the agent acts in: choices count from 0, and vectors
    are clipped to the environment's bounds. `scores` adds what the action was chosen by, and `value`, of an agent that
    has one, is V(s). Bytes are scaled and observations normalised inside.
    """
    acting = _Acting(trainer)
    space = trainer.environment.observation_space
    seen = {"observation": tf.TensorSpec(space.shape, tf.as_dtype(space.dtype))}
    signatures = {
        "greedy": Signature(acting.greedy, seen, "The likeliest, or highest valued, action."),
        "sampled": Signature(
            acting.sampled, {**seen, "seed": seed_spec()}, "An action as in training, drawn from the member's seed."
        ),
    }
    if hasattr(trainer.agent, "scores"):
        signatures["scores"] = Signature(acting.scores, seen, "The greedy action, and what it was chosen by.")
    if hasattr(trainer.agent, "value"):
        signatures["value"] = Signature(acting.value, seen, "V(s), the discounted return to be expected.")
    edge = "scores" if "scores" in signatures else "greedy"
    notes = {"action_space": str(trainer.environment.action_space), "observation_space": str(space)}
    return Export(signatures, edge, acting.samples, acting.judge, notes)


class _Acting:
    """A trainer's agent as functions of named tensors."""

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.agent, self.environment = trainer, trainer.agent, trainer.environment
        self._stream = random.stream(trainer.seed, "export")
        self._progress = tf.constant(1.0)  # schedules of exploration at the end of the run

    def _clipped(self, action: tf.Tensor) -> tf.Tensor:
        space = self.environment.action_space
        if isinstance(space, gymnasium.spaces.Box):
            return tf.clip_by_value(action, space.low, space.high)
        return action

    def greedy(self, observation: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"action": self._clipped(self.agent.act_greedy(observation))}

    def sampled(self, observation: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        keys = random.fold(self._stream[tf.newaxis], seed)  # [B, 2]
        return {"action": self._clipped(self.agent.act_sampled(observation, keys, self._progress))}

    def scores(self, observation: tf.Tensor) -> dict[str, tf.Tensor]:
        return self.greedy(observation) | self.agent.scores(observation)

    def value(self, observation: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"value": self.agent.value(observation)}

    def samples(self, count: int) -> dict[str, np.ndarray]:
        """Observations [count, ...] met by the sampled policy, from episodes that no training environment has seen."""
        act = Direct(self.sampled, self.trainer.mode)
        vector = self.environment.vector(_ENVIRONMENTS, _SAMPLES_SEED)
        seen = [vector.reset()]
        try:
            for t in range(-(-count // _ENVIRONMENTS) - 1):
                seeds = np.arange(_ENVIRONMENTS, dtype=np.int64) + t * _ENVIRONMENTS
                seen.append(vector.step(np.asarray(act(np.asarray(seen[-1]), seeds)["action"])).observation)
        finally:
            vector.close()
        return {"observation": np.concatenate([np.array(x) for x in seen])[:count]}

    def judge(self, function: Function, seed: int) -> dict[str, float]:
        """The return of episodes that `function` plays."""

        def act(observation: np.ndarray, t: int) -> np.ndarray:
            inputs: Arrays = {"observation": np.asarray(observation)}
            return function(inputs)["action"]

        returns, _ = evaluation.episodes(self.environment, act, _EPISODES, seed)
        return {"episode_return": float(returns.mean())}
