"""Munchausen's reward and value by hand."""

import numpy as np
import pytest
import tensorflow as tf

from sparring.agents.munchausen import Munchausen
from sparring.errors import UserError

# At a temperature of 2 the values 2 log 3 and 0 make a policy of 3/4 and 1/4
VALUES = tf.constant([[2.0 * np.log(3.0), 0.0]], tf.float32)


def test_the_reward_is_the_clipped_log_policy() -> None:
    part = Munchausen(temperature=2.0, weight=0.5, lowest=-1.0)
    both = tf.repeat(VALUES, 2, axis=0)
    found = part.reward(both, None, tf.constant([0, 1]))
    # 1/2 of 2 log(3/4); of 2 log(1/4) = -2.77, which is clipped to -1
    np.testing.assert_allclose(found, [np.log(0.75), -0.5], rtol=1e-6)


def test_the_next_value_is_soft() -> None:
    part = Munchausen(temperature=2.0)
    # 2 log(3 + 1), the log-sum-exp
    np.testing.assert_allclose(part.mean(VALUES, VALUES, None), [2 * np.log(4.0)], rtol=1e-6)
    # Of quantiles: each less the action's log policy, 2 log(3/4) and 2 log(1/4), by the policy
    outputs = tf.constant([[[1.0, 2.0], [5.0, 6.0]]])
    entropy = -2 * (0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    expected = [[0.75 * 1 + 0.25 * 5 + entropy, 0.75 * 2 + 0.25 * 6 + entropy]]
    np.testing.assert_allclose(part.mean(outputs, VALUES, None), expected, rtol=1e-6)


def test_what_is_not_allowed_is_no_part_of_the_policy() -> None:
    part = Munchausen(temperature=2.0)
    wide = tf.concat([VALUES, [[50.0]]], axis=1)
    mask = tf.constant([[1, 1, 0]], tf.uint8)
    np.testing.assert_allclose(part.mean(wide, wide, mask), [2 * np.log(4.0)], rtol=1e-6)
    found = part.reward(wide, mask, tf.constant([0]))
    np.testing.assert_allclose(found, 0.9 * 2 * np.log(0.75), rtol=1e-5)


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(UserError, match=r"agent.munchausen.temperature=0.0: take one above 0"):
        Munchausen(temperature=0.0)
