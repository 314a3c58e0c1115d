"""Forms of rewards against their definitions by D."""

import math

import numpy as np
import tensorflow as tf

from sparring.agents.imitation import rewards

# D = 1 / (1 + exp(-logit)): of ln 3 it is 3/4, of 0 it is 1/2, of -ln 3 it is 1/4
LOGITS = tf.constant([math.log(3.0), 0.0, -math.log(3.0)])
D = np.array([0.75, 0.5, 0.25])


def test_forms_are_those_of_d() -> None:
    np.testing.assert_allclose(rewards.positive(LOGITS), -np.log(1.0 - D), rtol=1e-6)
    np.testing.assert_allclose(rewards.negative(LOGITS), np.log(D), rtol=1e-6)
    np.testing.assert_allclose(rewards.logit(LOGITS), np.log(D) - np.log(1.0 - D), atol=1e-6)


def test_extreme_logits_give_finite_rewards_of_the_right_sign() -> None:
    far = tf.constant([-1000.0, 1000.0])
    np.testing.assert_array_equal(rewards.positive(far), [0.0, 1000.0])
    np.testing.assert_array_equal(rewards.negative(far), [-1000.0, 0.0])
    np.testing.assert_array_equal(rewards.logit(far), [-1000.0, 1000.0])
