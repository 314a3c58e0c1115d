"""Check of a Gymnasium environment: everything that training would meet, said at once.

from sparring.envs.gymnasium_bridge.action_mask import sample
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.envs.testing.check_host import findings

for finding in findings(Gymnasium("my_module:MyEnv")):
    print(finding)
"""

from typing import Any, NamedTuple

import numpy as np

from sparring import nested
from sparring.envs.gymnasium_bridge.action_mask import sample
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.errors import UserError

LARGE = 100.0  # rewards beyond it make value losses of thousands


class Finding(NamedTuple):
    """Sentence about an environment; `problem`: whether training or resuming suffers from it."""

    problem: bool
    text: str


class Play(NamedTuple):
    """Random steps of one environment, T of them."""

    observations: Any  # [T + 1, ...], of one part or several
    rewards: np.ndarray  # [T] float32
    first: np.ndarray  # [T] bool: resets, whose reward of 0 is nobody's
    ended: np.ndarray  # [T] bool


def findings(environment: Gymnasium, steps: int = 1000, seed: int = 0) -> list[Finding]:
    """Play `steps` random steps, twice, and return what is to be said of the environment."""
    found = [Finding(False, text) for text in _spaces(environment)]
    try:
        play = _play(environment, steps, seed)
    except UserError as error:
        return [*found, Finding(True, str(error))]
    found += _episodes(environment, play)
    found += _numbers(play)
    found += _repeats(environment, play, seed)
    return [*found, *_picture(environment, seed)]


def _spaces(environment: Gymnasium) -> list[str]:
    seen = nested.map_parts(
        lambda box: f"{box.dtype} {list(box.shape)}", environment.observation_space
    )
    parts = seen.items() if isinstance(seen, dict) else [("", seen)]
    described = ", ".join(f"{name} {box}".strip() for name, box in parts)
    return [
        f"Observations: {environment.original_observation_space}; an agent sees {described}.",
        f"Actions: {environment.action_space}.",
    ]


def _play(environment: Gymnasium, steps: int, seed: int) -> Play:
    environment.action_space.seed(seed)
    vector = environment.vector(1, seed)
    try:
        observations = [_first(vector.reset())]
        rewards = []
        first = []
        ended = []
        for _ in range(steps):
            step = vector.step(np.asarray([sample(environment.action_space, observations[-1])]))
            observations.append(_first(step.observation))
            rewards.append(step.reward[0])
            first.append(step.first[0])
            ended.append(bool(step.terminated[0] or step.truncated[0]))
    finally:
        vector.close()
    seen = nested.map_parts(lambda *rows: np.array(rows), *observations)
    return Play(seen, np.array(rewards), np.array(first), np.array(ended))


def _first(observation: Any) -> Any:
    return nested.map_parts(lambda part: part[0], observation)


def _episodes(environment: Gymnasium, play: Play) -> list[Finding]:
    count = int(play.ended.sum())
    steps = len(play.ended)
    if count:
        return [Finding(False, f"Episodes: {count} ended in {steps} random steps.")]
    limit = environment.max_episode_steps
    if limit is None:
        return [
            Finding(
                True,
                f"Episodes: none ended in {steps} random steps, and there is no time limit. A "
                "policy that never reaches the end learns nothing of it: set "
                "env.max_episode_steps.",
            )
        ]
    return [Finding(False, f"Episodes: none ended in {steps} random steps; the limit is {limit}.")]


def _numbers(play: Play) -> list[Finding]:
    rewards = play.rewards[~play.first]
    low = float(rewards.min())
    high = float(rewards.max())
    text = f"Rewards: from {low:g} to {high:g}."
    if low == high:
        text += " They are all equal: only the length of episodes tells policies apart."
    if max(abs(low), abs(high)) > LARGE:
        return [
            Finding(True, f"{text} They are large: trainer.normalize_rewards=true with agent=ppo.")
        ]
    found = [Finding(False, text)]
    for seen in nested.leaves(play.observations):
        if seen.dtype != np.uint8 and float(np.abs(seen).max()) > LARGE:
            text = f"Observations go from {seen.min():g} to {seen.max():g}: they are large; "
            found.append(Finding(True, f"{text}agent.normalize_observations=true."))
    return found


def _repeats(environment: Gymnasium, play: Play, seed: int) -> list[Finding]:
    again = _play(environment, len(play.rewards), seed)
    pairs = list(
        zip(nested.leaves(play.observations), nested.leaves(again.observations), strict=True)
    )
    for t in range(len(play.rewards) + 1):
        same = all(one[t].tobytes() == other[t].tobytes() for one, other in pairs)
        if not same or (t and play.rewards[t - 1] != again.rewards[t - 1]):
            return [
                Finding(
                    True,
                    f"The same seed and actions come out differently at step {t}: a resumed run "
                    "opens new episodes. Draw random numbers from self.np_random alone.",
                )
            ]
    return [Finding(False, "The same seed and actions give the same episodes: runs are exact.")]


def _picture(environment: Gymnasium, seed: int) -> list[Finding]:
    if not environment.renders:
        return [Finding(False, "It draws no pictures: no videos.")]
    try:
        vector: Any = environment.vector(1, seed, render=True)
        try:
            vector.reset()
            frame = vector.render()
        finally:
            vector.close()
    except UserError as error:
        return [Finding(True, f"No videos: {error}")]
    return [Finding(False, f"Pictures: {frame.shape[1]} x {frame.shape[0]}.")]
