"""Expert's transitions on the device, and the agent's share of the expert's return."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from scipy import stats

from sparring import nested
from sparring.agents.agent import Agent, Likelihood, require
from sparring.agents.imitation.demonstrations import Demonstrations
from sparring.agents.training import film
from sparring.errors import UserError
from sparring.training.trainer import Evaluation

SHARE = "imitation/expert_share"
BETTER = "imitation/probability_of_improvement"
P_VALUE = "imitation/permutation_p_value"
FILMS = "imitation/expert_and_agent"
FILM = "eval/episode"
RETURNS = "eval/episode_returns"
_RELABELLINGS = 9999
CHARTS: Mapping[str, Mapping[str, list[str]]] = {
    "Imitation": {"share of the expert's return": [SHARE]}
}
DESCRIPTIONS = {
    SHARE: "Evaluated return over the demonstrations' mean return, both above that of random play "
    "where it is known.",
    BETTER: "Probability that an evaluated episode returns more than a demonstrated one, ties "
    "counting half.",
    P_VALUE: "Probability of means of evaluated and demonstrated returns that differ as much, if "
    "both came from one distribution: a permutation test.",
    FILMS: "An episode of the expert, left, and one of the agent.",
}


class Expert:
    """Transitions of demonstrations as tensors, from which batches are taken by their rows.

    Raises:
      UserError: the demonstrations are not of these spaces.
    """

    def __init__(
        self, demonstrations: Demonstrations, observation_space: Any, action_space: Any
    ) -> None:
        demonstrations.check_spaces(observation_space, action_space)
        self.demonstrations = demonstrations
        steps = demonstrations.transitions()
        self.count = demonstrations.steps
        integers = not np.issubdtype(steps.action.dtype, np.floating)
        action = steps.action.astype(np.int32 if integers else np.float32)
        self.observation = nested.map_parts(tf.constant, steps.observation)
        self.following = nested.map_parts(tf.constant, steps.following)
        self.action = tf.constant(action)
        self.terminated = tf.constant(steps.terminated)

    def share(self, value: float) -> float | None:
        """Return what part of the expert's return an evaluated return is; None if unknown.

        Without the return of random play, a share of a return below 0 means nothing.
        """
        mean = float(self.demonstrations.returns.mean())
        lowest = self.demonstrations.random_return
        if lowest is None:
            return value / mean if mean > 0.0 else None
        return (value - lowest) / (mean - lowest) if mean > lowest else None

    def report(self, found: Evaluation) -> None:
        """Add to an evaluation: the share, a comparison of the returns, the expert's film."""
        value = found.scalars.get("eval/episode_return")
        share = None if value is None else self.share(value)
        if share is not None:
            found.scalars[SHARE] = share
        if RETURNS in found.histograms:
            found.scalars |= compared(found.histograms[RETURNS], self.demonstrations.returns)
        if FILM in found.videos and self.demonstrations.film is not None:
            found.videos[FILMS] = film.beside(self.demonstrations.film, found.videos[FILM])


def compared(agent: np.ndarray, expert: np.ndarray) -> dict[str, float]:
    """Compare the returns of an agent's episodes [N] with those of an expert's [M].

    The probability that an episode of the agent returns more than one of the expert, ties counting
    half; and the share of random relabellings of the N + M episodes under which the means differ
    at least as much: a permutation test of two sides, exact where there are few relabellings, and
    left out where N or M is one.
    """
    greater = np.mean(agent[:, np.newaxis] > expert)
    equal = np.mean(agent[:, np.newaxis] == expert)
    better = {BETTER: float(greater + equal / 2.0)}
    if min(len(agent), len(expert)) == 1:
        return better
    test = stats.permutation_test(
        (agent, expert),
        lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis),
        vectorized=True,
        n_resamples=_RELABELLINGS,
        random_state=0,
    )
    return {**better, P_VALUE: float(test.pvalue)}


def require_imitator(agent: Agent) -> None:
    """Raise UserError for an agent that cannot learn from demonstrations on-policy."""
    require(agent, Likelihood)
    require_single_steps(agent)


def require_single_steps(agent: Agent) -> None:
    """Raise UserError for an agent that learns from more than single steps."""
    if tf.nest.flatten(agent.start(1)):
        raise UserError(
            "memory: demonstrations are learned from step by step, out of their order, and a "
            "memory could remember nothing: leave it out."
        )
