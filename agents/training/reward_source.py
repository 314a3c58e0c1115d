"""Protocols of a source of rewards that stands in the environment's place, and learns itself."""

from collections.abc import Mapping
from typing import Any, Protocol

import tensorflow as tf

from sparring.agents.agent import Scalars
from sparring.agents.replay import Ring, Rows, Transitions
from sparring.agents.training.rollout import Rollout
from sparring.training.trainer import Evaluation


class Source(Protocol):
    """Members of every source of rewards; the environment's own are counted alone.

    A replica does each part of it on its share of the environments or of a batch (see
    sparring.distribute.replicas). A factory makes it, called with `agent`, `observation_space`,
    `action_space` and `seed`.
    """

    updates: int  # of an iteration
    descriptions: Mapping[str, str]  # tag -> what it measures, of every scalar that it returns
    reported: Mapping[str, str]  # the same of what `report` adds
    charts: Mapping[str, Mapping[str, list[str]]]  # TensorBoard's custom scalars of them
    state: Mapping[str, Any]  # trackables of all that its next step depends on, by name
    fingerprint: Mapping[str, Any]  # plain values of what it was given, such as a file's hash

    def report(self, found: Evaluation, media: bool) -> None:
        """Add to an evaluation of the agent; images only if `media` is true."""

    def watch(self, values: Mapping[str, float], step: int) -> None:
        """Look at a point of the log, and warn of what is wrong."""


class RewardSource(Source, Protocol):
    """Source of the rewards that an agent learns from on-policy.

    In each iteration `take_up` is called on the rollout, `update` as many times as `updates` says,
    then `rewards`: so it has learned before the agent does.
    """

    def take_up(self, rollout: Rollout) -> Any:
        """Return what it keeps of a rollout for the updates and the rewards."""

    def update(self, taken: Any, number: tf.Tensor, progress: tf.Tensor) -> Scalars:
        """Take learning step `number` [] of the run, at the share `progress` [] of it."""

    def rewards(
        self, rollout: Rollout, taken: Any, iteration: tf.Tensor
    ) -> tuple[tf.Tensor, Scalars]:
        """Return the rewards [T, B] of the rollout, 0 in reset steps, and scalars of them."""


class ReplaySource(Source, Protocol):
    """Source of the rewards that an agent learns from off-policy, given as batches are drawn.

    In each iteration `store` is called on the rollout; once the agent learns, `learn` as many times
    as `updates` says, on `drawn` transitions of replay, and then `batch` at each of the agent's
    updates. Rewards so are those of the source as it is, not as it was when a step was made.
    """

    drawn: int  # transitions of replay that a replica's share of a learning step is given

    def store(self, rollout: Rollout) -> Rollout:
        """Return a rollout as replay is to hold it."""

    def learn(self, fake: Transitions, number: tf.Tensor, progress: tf.Tensor) -> Scalars:
        """Take learning step `number` [] on single transitions of replay, at `progress` []."""

    def own(self, count: int) -> int:
        """Return how many transitions of a batch of `count` are drawn from replay."""

    def batch(
        self, replay: Ring, rows: Rows, steps: int, key: tf.Tensor
    ) -> tuple[Transitions, Scalars]:
        """Return the batch that the agent learns from, and scalars of it.

        It begins with the transitions of up to `steps` steps at `rows` of replay, with their
        rewards; what is added follows, drawn from `key` [2].
        """
