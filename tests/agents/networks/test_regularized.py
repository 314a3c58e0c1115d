"""Dropout from keys, and batch renormalisation, by hand."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from sparring.agents.networks.regularized import (
    ACTING,
    BatchRenorm,
    Learning,
    RegularizedMLP,
    dropout,
)
from sparring.errors import UserError
from sparring.xla import random


def keys(count: int) -> tf.Tensor:
    return random.members(random.stream(0, "updates"), count)


def test_dropout_zeroes_a_share_and_keeps_the_mean():
    ones = tf.ones([2000, 10])
    dropped = dropout(ones, 0.25, keys(2000)).numpy()
    np.testing.assert_allclose(np.unique(dropped), [0.0, 4.0 / 3.0], rtol=1e-6)
    # 20 000 draws: five standard errors of the share are 5 sqrt(0.25 * 0.75 / 20 000) = 0.0153
    assert abs(np.mean(dropped == 0.0) - 0.25) < 0.0153


def test_a_row_is_dropped_by_its_own_key():
    ones = tf.ones([6, 8])
    together = dropout(ones, 0.5, keys(6)).numpy()
    np.testing.assert_array_equal(dropout(ones[:1], 0.5, keys(6)[4:5])[0], together[4])
    assert np.any(together[0] != together[1])


# Two columns of two rows: means 2 and 10, variances 1 and 4
ROWS = tf.constant([[1.0, 12.0], [3.0, 8.0]])


def test_batch_renormalisation_warms_up_as_batch_normalisation_and_takes_up_the_moments():
    layer = BatchRenorm(momentum=0.75, epsilon=0.0, warmup=1)
    found = layer(ROWS, Learning(weights=tf.ones([2])))
    np.testing.assert_allclose(found, [[-1.0, 1.0], [1.0, -1.0]], rtol=1e-6)
    # A quarter of the way from means 0 and variances 1
    np.testing.assert_allclose(layer.mean, [0.5, 2.5])
    np.testing.assert_allclose(layer.variance, [1.0, 1.75])
    assert float(layer.batches) == 1.0


def test_batch_renormalisation_is_the_running_one_within_its_bounds():
    layer = BatchRenorm(momentum=0.75, epsilon=0.0, warmup=0, r_max=3.0, d_max=5.0)
    layer(ROWS)  # makes the variables
    layer.mean.assign([1.0, 0.0])
    layer.variance.assign([0.25, 0.25])
    # Column 0: r = 1 / 0.5 = 2, d = (2 - 1) / 0.5 = 2: the running one's (1 - 1) / 0.5 and
    # (3 - 1) / 0.5. Column 1: r = 2 / 0.5 is held at 3, d = 10 / 0.5 at 5: 1 * 3 + 5, -1 * 3 + 5
    found = layer(ROWS, Learning(weights=tf.ones([2])))
    np.testing.assert_allclose(found, [[0.0, 8.0], [4.0, 2.0]], rtol=1e-5)


def test_acting_uses_the_running_moments_and_leaves_them():
    layer = BatchRenorm(epsilon=0.0)
    layer(ROWS)
    layer.mean.assign([1.0, 2.0])
    layer.variance.assign([4.0, 1.0])
    np.testing.assert_allclose(layer(ROWS), [[0.0, 10.0], [1.0, 6.0]], rtol=1e-6)
    np.testing.assert_array_equal(layer.mean, [1.0, 2.0])
    assert float(layer.batches) == 0.0


def test_rows_without_weight_and_batches_without_rows_teach_nothing():
    layer = BatchRenorm(momentum=0.0, epsilon=0.0)
    three = tf.concat([ROWS, [[1e3, -1e3]]], axis=0)
    layer(three, Learning(weights=tf.constant([1.0, 1.0, 0.0])))
    np.testing.assert_allclose(layer.mean, [2.0, 10.0])
    np.testing.assert_allclose(layer.variance, [1.0, 4.0])
    layer(three, Learning(weights=tf.zeros([3])))
    layer(three, Learning(weights=tf.ones([3]), update=0.0))
    np.testing.assert_allclose(layer.mean, [2.0, 10.0])
    assert float(layer.batches) == 1.0


def test_no_gradient_passes_through_r_and_d():
    """Of two rows, (x - mean) / deviation is 1 and -1 whatever they are: no input moves it. With r
    of 1 / 0.5 let through, the first row would move the first output by 1 / 0.5 / 2; with d, all
    of a column their sum by 2 / 0.5.
    """
    layer = BatchRenorm(epsilon=0.0, warmup=0)
    layer(ROWS)
    layer.variance.assign([0.25, 0.25])
    with tf.GradientTape() as tape:
        tape.watch(ROWS)
        first = layer(ROWS, Learning(weights=tf.ones([2])))[0, 0]
    np.testing.assert_allclose(tape.gradient(first, ROWS), np.zeros([2, 2]), atol=1e-5)


def identity(network: RegularizedMLP) -> RegularizedMLP:
    """The network with kernels that pass on what they are given."""
    network(tf.zeros([1, 2]))
    for layer in network.hidden:
        layer.kernel.assign(tf.eye(2))
    return network


def test_layer_norm_stands_before_the_activation():
    network = identity(RegularizedMLP((2,), layer_norm=True))
    # (3, 1) is (1, -1) when normalised, which the rectifier makes (1, 0)
    np.testing.assert_allclose(network(tf.constant([[3.0, 1.0]])), [[1.0, 0.0]], atol=1e-3)


def test_dropout_stands_before_the_layer_norm_and_is_off_when_acting():
    network = identity(RegularizedMLP((2,), layer_norm=True, dropout=0.5))
    rows = tf.fill([200, 2], 3.0)
    # Both kept or both dropped: (0, 0) when normalised. One kept: (1, -1), rectified (1, 0)
    found = network(rows, Learning(keys=keys(200))).numpy()
    assert {tuple(row) for row in found.round(2)} == {(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)}
    np.testing.assert_array_equal(network(rows, ACTING), np.zeros([200, 2]))


def test_renormalisation_is_of_the_inputs_and_behind_each_activation():
    network = identity(
        RegularizedMLP((2,), batch_renorm=functools.partial(BatchRenorm, epsilon=0.0))
    )
    found = network(ROWS, Learning(weights=tf.ones([2])))
    # Inputs (-1, 1) and (1, -1), rectified (0, 1) and (1, 0), normalised (-1, 1) and (1, -1)
    np.testing.assert_allclose(found, [[-1.0, 1.0], [1.0, -1.0]], rtol=1e-5)
    first, last = network.renorms
    np.testing.assert_allclose(first.mean, [0.02, 0.1], rtol=1e-5)
    np.testing.assert_allclose(last.mean, [0.005, 0.005], rtol=1e-5)


def test_a_dropout_of_everything_is_refused():
    with pytest.raises(UserError, match=r"network: dropout=1.0 is no share of features"):
        RegularizedMLP(dropout=1.0)
