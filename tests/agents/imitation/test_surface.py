"""Pictures of a learned reward whose every number is known."""

from typing import Any

import numpy as np
import tensorflow as tf

from sparring.agents.imitation import surface
from sparring.agents.imitation.demonstrations import Demonstrations
from sparring.agents.imitation.encoding import Encoder, Rows
from sparring.agents.imitation.expert import Expert
from tests.helpers.demonstrations import CARTPOLE, made_up


class Pushing:
    """Agent that pushes right where the first number is above 0."""

    def see(self, observation: Any, state: Any) -> tuple[Any, Any]:
        return observation, state

    def act_greedy(self, seen: tf.Tensor) -> tf.Tensor:
        return tf.cast(seen[:, 0] > 0.0, tf.int64)


def picture(learned: Any) -> np.ndarray:
    whole = made_up(*CARTPOLE, episodes=2, length=2)
    seen = np.float32([[-1.0, 0.0, 3.0, 1.0], [1.0, 2.0, 3.0, 1.0], [0, 1, 3, 1], [0, 1, 3, 1]])
    shown = Demonstrations(**{**vars(whole), "observation": seen})
    drawn = surface.draw(Pushing(), Expert(shown, *CARTPOLE), Encoder(*CARTPOLE), learned)
    assert drawn is not None
    assert drawn.shape == (1, 336 + 44, 336, 3)
    return drawn[0, :336]


def test_the_first_number_grows_to_the_right_and_the_second_upwards() -> None:
    rows: list[Rows] = []

    def learned(given: Rows) -> tf.Tensor:
        rows.append(given)
        return given.observation[:, 0] + 2.0 * given.observation[:, 1]

    shown = picture(learned)
    np.testing.assert_array_equal(shown[0, -1], [215, 70, 20])  # the highest reward
    np.testing.assert_array_equal(shown[-1, 0], [60, 110, 200])  # the lowest
    # A tenth of the range of 2 beyond it on each side: from -1.2 to 1.2 in 48 cells of 0.05
    corner = rows[0].observation[-1]
    np.testing.assert_allclose(corner, [1.2 - 0.025, -0.2 + 0.025, 3.0, 1.0], atol=1e-6)
    # The agent's own action: right in the right half
    np.testing.assert_array_equal(rows[0].action[:48, 1], [0.0] * 24 + [1.0] * 24)


def test_the_action_is_seen_and_the_experts_steps_are_dots() -> None:
    shown = picture(lambda rows: rows.action[:, 1])
    np.testing.assert_array_equal(shown[10, 100], [60, 110, 200])
    np.testing.assert_array_equal(shown[10, 250], [215, 70, 20])
    # At (1, 2): 2.2 / 2.4 of the width, 0.2 / 2.4 of the height from above
    np.testing.assert_array_equal(shown[28, 308], [20, 20, 20])


def test_there_is_none_of_other_observations_than_vectors() -> None:
    class Told:
        observation = {"a": tf.zeros([3, 2])}  # noqa: RUF012

    assert surface.draw(None, Told(), None, None) is None
    Told.observation = tf.zeros([3, 1])
    assert surface.draw(None, Told(), None, None) is None
