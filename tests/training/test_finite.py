"""Numbers that are not finite are found by name; those that were not finite from the start are let
be.
"""

import numpy as np
import tensorflow as tf

from sparring.storage import variable_names
from sparring.training import finite


def checkpoint() -> tf.train.Checkpoint:
    layer = tf.Module()
    layer.kernel = tf.Variable([[1.0, 2.0]])
    layer.count = tf.Variable(3)
    layer.empty = tf.Variable(tf.zeros([0]))
    layer.lowest = tf.Variable(np.inf)
    return tf.train.Checkpoint(
        model=tf.train.Checkpoint(layer=layer),
        again=layer,
        half=tf.Variable(tf.zeros([2], tf.float16)),
    )


def test_variables_are_named_by_the_shortest_way_to_them() -> None:
    assert set(variable_names.named_variables(checkpoint())) == {
        "again/kernel",
        "again/count",
        "again/empty",
        "again/lowest",
        "half",
    }


def test_a_nan_or_an_infinity_is_found_in_any_place_and_type() -> None:
    root = checkpoint()
    watch = finite.Watch(root)
    assert watch.found() == []
    root.again.kernel.assign([[1.0, -np.inf]])
    assert watch.found() == ["again/kernel"]
    root.again.kernel.assign([[np.nan, 0.0]])
    root.half.assign([0.0, np.nan])
    assert set(watch.found()) == {"again/kernel", "half"}
    # Large, and their sum of squares is not: each is looked at by itself
    root.again.kernel.assign([[3e38, -3e38]])
    root.half.assign([0.0, 0.0])
    assert watch.found() == []


def test_what_was_not_finite_to_begin_with_is_left_out_unless_kept() -> None:
    root = checkpoint()
    watch = finite.Watch(root)
    root.again.lowest.assign(np.nan)
    assert watch.found() == []
    assert finite.Watch(root, keep=True).found() == ["again/lowest"]


def test_nothing_to_watch() -> None:
    assert finite.Watch(tf.train.Checkpoint(step=tf.Variable(1))).found() == []


def test_bad_values() -> None:
    values = {"a": 1.0, "b": float("nan"), "c": float("-inf"), "d": 0.0}
    assert set(finite.bad_values(values)) == {"b", "c"}
