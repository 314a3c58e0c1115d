"""The tree of sums, by hand."""

import numpy as np
import pytest
import tensorflow as tf

from sparring.agents.sum_tree import SumTree


@pytest.mark.parametrize("jit", [False, True])
def test_rows_are_found_by_where_a_point_falls_on_the_line(jit: bool) -> None:
    tree = SumTree(40)  # three sixteens, and one above them
    assert [int(level.shape[0]) for level in tree.levels] == [48, 16]
    assign = tf.function(tree.assign, jit_compile=jit, autograph=False)
    assign((tf.constant([3, 17, 39], tf.int64), tf.constant([1.0, 2.0, 4.0])))
    assert float(tree.total()) == 7.0
    # Row 3 has [0, 1) of the line, row 17 [1, 3), row 39 [3, 7)
    points = tf.constant([0.0, 0.99, 1.0, 2.9, 3.0, 6.9, 7.0])
    find = tf.function(tree.find, jit_compile=jit, autograph=False)
    assert find(points).numpy().tolist() == [3, 3, 17, 17, 39, 39, 39]  # never one of no weight
    # A later change goes before an earlier one; sums follow
    assign(
        (tf.constant([3, 17], tf.int64), tf.constant([5.0, 0.0])),
        (tf.constant([3, 3], tf.int64), tf.constant([8.0, 8.0])),
    )
    np.testing.assert_array_equal(tree.weights(tf.constant([3, 17, 39])), [8.0, 0.0, 4.0])
    assert float(tree.total()) == 12.0
    assert find(tf.constant([7.9, 8.0])).numpy().tolist() == [3, 39]


def test_many_changes_leave_no_error_of_rounding() -> None:
    tree = SumTree(1000)
    rng = np.random.default_rng(0)
    weights = np.zeros(1000, np.float32)
    for _ in range(50):
        rows = rng.choice(1000, 30, replace=False)
        new = rng.uniform(0, 1000, 30).astype(np.float32)
        weights[rows] = new
        tree.assign((tf.constant(rows), tf.constant(new)))
    back = np.arange(1000)
    tree.assign((tf.constant(back), tf.where(weights > 0.0, 0.5, 0.0)))
    assert float(tree.total()) == 0.5 * np.count_nonzero(weights)  # exact


def test_rows_are_found_in_proportion_to_their_weights() -> None:
    tree = SumTree(300)  # three levels
    assert len(tree.levels) == 3
    weights = np.random.default_rng(1).integers(0, 5, 300).astype(np.float32)
    tree.assign((tf.range(300), tf.constant(weights)))
    whole = int(weights.sum())
    rows = tree.find(tf.range(whole, dtype=tf.float32) + 0.5)  # each unit of the line once
    np.testing.assert_array_equal(np.bincount(rows, minlength=300), weights)
