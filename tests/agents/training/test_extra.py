"""Numbers kept of each step beside its action, from the environment to the batch that an agent
learns from, on the host and compiled.
"""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from sparring.agents.conformance import check_agent
from sparring.agents.dqn import DQN
from sparring.agents.replay import Rows, row_bytes
from sparring.envs.compiled.base import CompiledEnvironment
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.errors import UserError
from tests.helpers.small_trainers import off_policy

pytestmark = pytest.mark.long


class Walk(gymnasium.Env):
    """Steps counted up to five; a step costs the square of what is reached, and an action more."""

    observation_space = spaces.Box(-10.0, 10.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.place = 0
        return np.float32([0.0]), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.place += 1
        info = {"cost": self.place**2, "words": "none"}
        return np.float32([self.place]), 1.0, self.place == 5, False, info


class CompiledWalk(CompiledEnvironment):
    """The same in TensorFlow ops."""

    name = "CompiledWalk"
    observation_space = Walk.observation_space
    action_space = Walk.action_space
    info = ("cost",)

    def initial(self, keys: tf.Tensor) -> tf.Tensor:
        return tf.zeros(keys.shape[:1])

    def observe(self, state: tf.Tensor) -> tf.Tensor:
        return state[:, tf.newaxis]

    def transition(
        self, state: tf.Tensor, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return state + 1.0, tf.ones_like(state), state + 1.0 == 5.0

    def measure(self, state: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"cost": tf.square(state)}


class Frugal(DQN):
    """Keeps each step's cost, and twice what it saw, and adds the cost to the loss' scalars."""

    extra = {  # noqa: RUF012
        "cost": spaces.Box(0.0, 100.0, (), np.float32),
        "double": spaces.Box(-20.0, 20.0, (1,), np.float32),
    }
    descriptions = DQN.descriptions | {"frugal/cost": "Cost of the replayed steps, mean."}

    def keep(self, seen: Any, action: tf.Tensor, progress: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"double": 2.0 * seen}

    def update(self, batch: Any, key: tf.Tensor, progress: tf.Tensor) -> Any:
        scalars, errors = super().update(batch, key, progress)
        return scalars | {"frugal/cost": tf.reduce_mean(batch.extra["cost"])}, errors


def on_host() -> Gymnasium:
    return Gymnasium(f"{__name__}:Walk", info=["cost"])


@pytest.mark.parametrize("environment", [on_host, CompiledWalk])
def test_a_batch_has_what_was_kept_of_each_transitions_first_step(environment: Any) -> None:
    """The step from 2 to 3 costs 9, and twice what was seen before it is 4."""
    whole = off_policy(environment(), Frugal, rollout_steps=3, learning_starts=12, n_step=1)
    whole.train(60)
    assert 1.0 < whole.scalars()["frugal/cost"] < 25.0
    slot = tf.range(10, dtype=tf.int64)
    batch = whole.replay.gather(Rows(slot, tf.ones_like(slot)))
    places = [0, 1, 2, 3, 4, 5, 0, 1, 2, 3]  # from 5 there is a reset
    assert batch.observation[:, 0].numpy().tolist() == places
    assert batch.extra["double"][:, 0].numpy().tolist() == [2 * p for p in places]
    costs = batch.extra["cost"].numpy()
    assert [costs[i] for i, p in enumerate(places) if p < 5] == [1, 4, 9, 16, 25, 1, 4, 9, 16]
    # The observation, cost, double, action and reward of 4 bytes each, and two flags
    assert whole.replay.bytes_per_transition == 22
    assert row_bytes(Walk.observation_space, Walk.action_space, Frugal.extra) == 22
    whole.close()


def test_an_agent_that_keeps_something_is_held_against_what_it_says() -> None:
    check_agent(Frugal, Walk.observation_space, Walk.action_space)

    class Wrong(Frugal):
        """Keeps a vector where it says a number."""

        extra: Mapping[str, spaces.Box] = {
            "cost": Frugal.extra["cost"],
            "double": spaces.Box(0, 1, ()),
        }

    with pytest.raises(AssertionError, match=r"keep: double is \(4, 1\), and extra says \(4,\)"):
        check_agent(Wrong, Walk.observation_space, Walk.action_space)


def test_what_nobody_says_is_refused() -> None:
    with pytest.raises(UserError, match=r"wants `cost` kept .* env.info=\[cost\] has it taken"):
        off_policy(Gymnasium(f"{__name__}:Walk"), Frugal)
