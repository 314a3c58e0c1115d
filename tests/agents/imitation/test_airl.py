"""AIRL's logit against eq. 4 of Fu et al. 2018, by hand."""

from typing import Any

import numpy as np
import tensorflow as tf

from sparring.agents.imitation.airl import AIRLNetwork


class Weighted(tf.keras.layers.Layer):
    """Sum of the inputs, with weights 1, 10, 100, ..."""

    def __init__(self, shape: Any, classes: int) -> None:
        super().__init__()
        del classes
        self.weights_of_inputs = tf.constant([10.0**i for i in range(shape[0])])

    def call(self, rows: tf.Tensor, labels: tf.Tensor, training: bool = False) -> tf.Tensor:
        return tf.linalg.matvec(rows, self.weights_of_inputs)


# observation (one number), action (two), next observation, terminated, log pi
GOES_ON = [2.0, 0.0, 1.0, 5.0, 0.0, -0.25]
ENDS = [2.0, 0.0, 1.0, 5.0, 1.0, -0.25]
LABELS = tf.zeros([2], tf.int64)


def test_the_logit_is_f_minus_the_log_probability_and_no_h_follows_a_termination() -> None:
    network = AIRLNetwork(Weighted, (1, 2), discount=0.9)
    # g = 2 + 10 * 0 + 100 * 1 = 102, h(s) = 2, h(s') = 5:
    # f = 102 + 0.9 * 5 - 2 = 104.5, or 102 - 2 = 100 at the end; minus -0.25
    logits = network(tf.constant([GOES_ON, ENDS]), LABELS)
    np.testing.assert_allclose(logits, [104.75, 100.25])
    alone = AIRLNetwork(Weighted, (1, 2), discount=0.9, state_only=True)
    # g = 2 of the observation alone: 2 + 4.5 - 2, and 2 - 2
    np.testing.assert_allclose(alone(tf.constant([GOES_ON, ENDS]), LABELS), [4.75, 0.25])


def test_no_gradient_reaches_the_log_probability_and_the_end() -> None:
    network = AIRLNetwork(Weighted, (1, 2), discount=0.9)
    rows = tf.constant([GOES_ON, ENDS])
    with tf.GradientTape() as tape:
        tape.watch(rows)
        total = tf.reduce_sum(network(rows, LABELS))
    # d/ds = 1 - 1 of g and of -h, d/da = 10 and 100, d/ds' = 0.9 unless it ended
    expected = [[0.0, 10.0, 100.0, 0.9, 0.0, 0.0], [0.0, 10.0, 100.0, 0.0, 0.0, 0.0]]
    np.testing.assert_allclose(tape.gradient(total, rows), expected, atol=1e-6)


def test_shaping_telescopes_over_an_episode() -> None:
    """Check that discounted sums of f and of g differ by -h of the first observation alone."""
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(4, 1)).astype(np.float32)
    network = AIRLNetwork(Weighted, (1, 2), discount=0.9)
    rows = np.zeros((3, 6), np.float32)
    rows[:, 0] = seen[:3, 0]
    rows[:, 3] = seen[1:, 0]
    rows[2, 4] = 1.0  # the third step terminates
    f = network(tf.constant(rows), LABELS).numpy()
    g = seen[:3, 0]
    powers = 0.9 ** np.arange(3)
    np.testing.assert_allclose((powers * f).sum() - (powers * g).sum(), -seen[0, 0], rtol=1e-5)
