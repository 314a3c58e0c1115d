"""Recording of demonstrations: whole episodes of a policy in environments on the host's side."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf

from sparring import nested
from sparring.agents.imitation.demonstrations import Demonstrations
from sparring.agents.training import episodes as whole
from sparring.agents.training import film
from sparring.errors import UserError

_RANDOM_EPISODES = 20
_FILMED = 500  # steps of an episode at most


class Recorder:
    """Vector of environments that keeps every step which is made through it.

    It has what `sparring.agents.training.episodes.play_in` asks of a vector.
    """

    def __init__(self, vector: Any, action_space: gymnasium.Space) -> None:
        self.num_envs = vector.num_envs
        self.steps: list[tuple[Any, np.ndarray, Any]] = []  # observation, action, Step
        self._vector = vector
        self._space = action_space
        self._observation: Any = None

    @property
    def info(self) -> Mapping[str, np.ndarray]:
        """Numbers that the last step said."""
        found: Mapping[str, np.ndarray] = self._vector.info
        return found

    def reset(self, seed: int | None = None) -> Any:
        """Open the first episodes."""
        self.steps.clear()
        self._observation = self._vector.reset(seed)
        return self._observation

    def step(self, actions: np.ndarray) -> Any:
        """Step every environment, with vectors clipped to their bounds, and keep the step."""
        if isinstance(self._space, gymnasium.spaces.Box):
            actions = np.clip(actions, self._space.low, self._space.high)
        step = self._vector.step(actions)
        before = nested.map_parts(np.array, self._observation)
        self.steps.append((before, np.array(actions), step))
        self._observation = step.observation
        return step

    def close(self) -> None:
        """Close the environments."""
        self._vector.close()


def record(
    environment: Any,
    act: Callable[[Any, int], np.ndarray],
    count: int,
    seed: int,
    metadata: Mapping[str, Any] | None = None,
    forget: Callable[[np.ndarray], None] = lambda first: None,
) -> Demonstrations:
    """Record `count` whole episodes of a policy: an agent's, or one that a script writes out.

    `act(observations [B, ...], vector step)` returns actions [B, ...]; `forget` is told which
    environments [B] opened an episode. Episodes end at the environment's own limit, which it must
    have. The metadata gain the spaces, the seed, and the mean return of random play.
    """
    recorder = Recorder(
        environment.vector(min(count, whole.AT_ONCE), seed), environment.action_space
    )
    try:
        whole.play_in(recorder, act, count, seed, forget=forget)
    finally:
        recorder.close()
    about = {
        "observation_space": str(environment.observation_space),
        "action_space": str(environment.action_space),
        "seed": seed,
        "random_return": random_return(environment, seed),
        **(metadata or {}),
    }
    return _joined(recorder, count, about)


def demonstrated(
    evaluator: Any, path: Path, episodes: int, seed: int, sampled: bool, metadata: Mapping[str, Any]
) -> list[str]:
    """Record an agent's episodes in a file; return what to tell of them, in lines.

    `evaluator` is the agent's `sparring.agents.training.evaluation.Evaluator`, in whose environment
    it plays.

    Raises:
      UserError: the agent has a memory.
    """
    if tf.nest.flatten(evaluator.agent.start(1)):
        raise UserError(
            "This agent has a memory: its actions depend on more than the observations that "
            "demonstrations hold. Record one that learned without."
        )
    player = evaluator.player(sampled)
    about = {**metadata, "sampled": sampled}
    found = record(evaluator.environment, player, episodes, seed, about, player.forget)
    shown = film.video(evaluator.environment, evaluator.player(sampled), seed, _FILMED)
    replace(found, film=shown).save(path)
    returns = found.returns
    return [
        f"{path}: {found.episodes} episodes, {found.steps} steps",
        f"  return {returns.mean():.4g} ({returns.min():.4g} to {returns.max():.4g})",
    ]


def random_return(environment: Any, seed: int) -> float | None:
    """Return the mean return of random play; None where a mask says what may be played."""
    if nested.mask_of(environment.observation_space) is not None:
        return None
    act = _random_actions(environment, seed)
    return float(whole.play(environment, act, _RANDOM_EPISODES, seed).returns.mean())


def random_play(environment: Any, episodes: int, seed: int) -> Demonstrations:
    """Record episodes of random play, which teach nothing, for measurements of speed."""
    return record(environment, _random_actions(environment, seed), episodes, seed)


def _random_actions(environment: Any, seed: int) -> Callable[[Any, int], np.ndarray]:
    space = copy.deepcopy(environment.action_space)
    space.seed(seed)

    def act(observation: Any, t: int) -> np.ndarray:
        del t
        return np.stack([space.sample() for _ in range(nested.batch_size(observation))])

    return act


def _joined(recorder: Recorder, count: int, metadata: Mapping[str, Any]) -> Demonstrations:
    """Return the episodes one after the other, the first of each environment first."""
    steps = recorder.steps
    batch = recorder.num_envs
    quota = [len(range(i, count, batch)) for i in range(batch)]
    ended = np.stack([step.terminated | step.truncated for _, _, step in steps])  # [T, B]
    opened = np.stack([step.first for _, _, step in steps])  # [T, B]
    rows: list[tuple[int, int]] = []
    lasts: list[tuple[int, int]] = []
    for k in range(max(quota)):
        for i in (i for i in range(batch) if k < quota[i]):
            end = int(np.flatnonzero(ended[:, i])[k])
            resets = np.flatnonzero(opened[: end + 1, i])
            start = int(resets[-1]) + 1 if len(resets) else 0
            rows += [(t, i) for t in range(start, end + 1)]
            lasts.append((end, i))
    at = dict.fromkeys(lasts, True)
    is_last = np.array([row in at for row in rows])
    return Demonstrations(
        observation=_taken([before for before, _, _ in steps], rows),
        action=np.stack([steps[t][1][i] for t, i in rows]),
        reward=np.array([steps[t][2].reward[i] for t, i in rows], np.float32),
        terminated=np.array([steps[t][2].terminated[i] for t, i in rows]),
        truncated=np.array([steps[t][2].truncated[i] for t, i in rows]),
        first=np.concatenate([[True], is_last[:-1]]),
        last_observation=_taken([step.observation for _, _, step in steps], lasts),
        metadata=metadata,
    )


def _taken(observations: list[Any], rows: list[tuple[int, int]]) -> Any:
    """Return the observations of `rows`, pairs of a step and an environment, [N, ...] by part."""
    first = observations[0]
    if isinstance(first, Mapping):
        return {name: np.stack([observations[t][name][i] for t, i in rows]) for name in first}
    return np.stack([observations[t][i] for t, i in rows])
