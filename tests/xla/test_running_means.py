"""Running means: sums and weights by hand, the same inside a compiled loop, and carried over by a
checkpoint.
"""

import math

import numpy as np
import pytest
import tensorflow as tf

from sparring.errors import UserError
from sparring.xla.running_means import Means


def test_scalars_weigh_one_and_pairs_bring_their_weight():
    means = Means(["b", "a", "unused"])
    total = means.add(
        tf.convert_to_tensor(means.total), {"a": tf.constant(1.0), "b": (tf.constant(6.0), 3.0)}
    )
    total = means.add(total, {"a": tf.constant(4)})
    means.total.assign(means.add(total, {"b": (tf.constant(2.0), tf.constant(1.0))}))
    # a: (1 + 4) / 2; b: (6 + 2) / (3 + 1); nothing was added to `unused`, whose mean would be 0 / 0
    assert means.read() == {"a": 2.5, "b": 2.0}
    assert means.read() == {"a": 2.5, "b": 2.0}  # reading takes nothing away


def test_a_reset_starts_from_nothing():
    means = Means(["a"])
    means.total.assign(means.add(tf.convert_to_tensor(means.total), {"a": 7.0}))
    means.reset()
    assert means.read() == {}
    means.total.assign(means.add(tf.convert_to_tensor(means.total), {"a": 3.0}))
    assert means.read() == {"a": 3.0}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_told(bad):
    means = Means(["a", "b"])
    means.total.assign(
        means.add(tf.convert_to_tensor(means.total), {"a": bad, "b": (tf.constant(1.0), bad)})
    )
    assert not math.isfinite(means.read()["a"])
    assert "b" in means.read()  # a weight that is not a number counts as something added


def test_an_undeclared_name_is_an_error_that_names_it():
    means = Means(["loss"])
    with pytest.raises(UserError, match=r"^los: .* `descriptions`.*'los': 'What"):
        means.add(tf.convert_to_tensor(means.total), {"los": 1.0})


def test_a_compiled_loop_adds_up_the_same():
    means = Means(["i", "i2"])

    @tf.function(jit_compile=True, autograph=False)
    def run() -> None:
        def body(i, total):
            x = tf.cast(i, tf.float32)
            return i + 1, means.add(total, {"i": x, "i2": (x * x, x)})

        start = (tf.constant(0), tf.convert_to_tensor(means.total))
        _, total = tf.while_loop(lambda i, total: i < 5, body, start, maximum_iterations=5)
        means.total.assign(total)

    run()
    run()
    # i = 0 .. 4 twice: mean 2; sum of squares 30 over a weight of 10
    assert means.read() == {"i": 2.0, "i2": 3.0}


def test_a_checkpoint_carries_the_sums(tmp_path):
    means = Means(["a", "b"])
    means.total.assign([[5.0, 1.0], [2.0, 4.0]])
    path = tf.train.Checkpoint(means=means).write(str(tmp_path / "c"))
    other = Means(["b", "a"])  # the order of the names is their own, not the caller's
    tf.train.Checkpoint(means=other).read(path).assert_consumed()
    assert other.read() == {"a": 2.5, "b": 0.25}
    np.testing.assert_array_equal(other.total, means.total)
