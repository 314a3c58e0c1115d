"""Protocol of a source of rewards that stands in the environment's place, and learns itself."""

from collections.abc import Mapping
from typing import Any, Protocol

import tensorflow as tf

from sparring.agents.agent import Scalars
from sparring.agents.training.rollout import Rollout
from sparring.training.trainer import Evaluation


class RewardSource(Protocol):
    """Source of the rewards that an agent learns from; the environment's own are counted alone.

    In each iteration `take_up` is called on the rollout, `update` as many times as `updates` says,
    then `rewards`: so it has learned before the agent does. A replica does each of these as a part
    (see sparring.distribute.replicas), on its share of the environments. A factory makes it,
    called with `agent`, `observation_space`, `action_space` and `seed`.
    """

    updates: int  # of an iteration
    descriptions: Mapping[str, str]  # tag -> what it measures, of every scalar that it returns
    reported: Mapping[str, str]  # the same of what `report` adds
    charts: Mapping[str, Mapping[str, list[str]]]  # TensorBoard's custom scalars of them
    state: Mapping[str, Any]  # trackables of all that its next step depends on, by name
    fingerprint: Mapping[str, Any]  # plain values of what it was given, such as a file's hash

    def take_up(self, rollout: Rollout) -> Any:
        """Return what it keeps of a rollout for the updates and the rewards."""

    def update(self, taken: Any, number: tf.Tensor, progress: tf.Tensor) -> Scalars:
        """Take learning step `number` [] of the run, at the share `progress` [] of it."""

    def rewards(
        self, rollout: Rollout, taken: Any, iteration: tf.Tensor
    ) -> tuple[tf.Tensor, Scalars]:
        """Return the rewards [T, B] of the rollout, 0 in reset steps, and scalars of them."""

    def report(self, found: Evaluation, media: bool) -> None:
        """Add to an evaluation of the agent; images only if `media` is true."""

    def watch(self, values: Mapping[str, float], step: int) -> None:
        """Look at a point of the log, and warn of what is wrong."""
