"""Compilation of a step: what "auto" means, and that each mode really is what it says."""

from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from sparring.errors import UserError
from sparring.xla import compilation

DENSE = tf.Variable(tf.zeros([3, 4]))
CONVOLUTION = tf.Variable(tf.zeros([3, 3, 1, 2]))


def test_auto_is_xla_for_dense_layers_and_a_graph_for_convolutions_on_a_cpu():
    assert compilation.resolve("auto") == "xla"
    assert compilation.resolve("auto", [DENSE]) == "xla"
    assert compilation.resolve("auto", [DENSE, CONVOLUTION]) == "graph"
    layer = tf.keras.layers.Conv2D(2, 3)
    layer.build([None, 8, 8, 1])
    assert compilation.resolve("auto", layer.trainable_weights) == "graph"


@pytest.mark.parametrize("kind", ["GPU", "TPU"])
def test_auto_is_xla_on_an_accelerator(monkeypatch, kind):
    monkeypatch.setattr(
        tf.config, "list_logical_devices", lambda asked: [kind] if asked == kind else []
    )
    assert compilation.resolve("auto", [CONVOLUTION]) == "xla"


@pytest.mark.parametrize("mode", ["xla", "graph", "eager"])
def test_a_mode_that_was_chosen_stays(mode):
    assert compilation.resolve(mode, [DENSE]) == mode
    assert compilation.resolve(mode, [CONVOLUTION]) == mode


def test_an_unknown_mode_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="compile=jit: choose one of auto, xla, graph, eager"):
        compilation.resolve("jit")


def where_it_runs(x: tf.Tensor) -> tf.Tensor:
    """x, by way of an operation that XLA has not."""
    return tf.strings.to_number(tf.strings.as_string(x))


def test_eager_is_the_function_itself():
    assert compilation.function(where_it_runs, "eager") is where_it_runs


def test_graph_runs_any_operation():
    traces = []

    def f(x):
        traces.append(x)
        return where_it_runs(x)

    compiled = compilation.function(f, "graph")
    assert [float(compiled(tf.constant(x))) for x in (1.0, 2.0)] == [1.0, 2.0]
    assert len(traces) == 1  # compiled once


def test_xla_refuses_what_xla_cannot_compile():
    with pytest.raises(
        (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError), match=r"XLA|tf2xla"
    ):
        compilation.function(where_it_runs, "xla")(tf.constant(1.0))
    assert float(compilation.function(lambda x: x + 1.0, "xla")(tf.constant(1.0))) == 2.0


@pytest.mark.parametrize("mode", ["xla", "graph"])
def test_conditions_are_not_rewritten(mode):
    def f(x):
        return x if x > 0.0 else -x  # AutoGraph would make this a tf.cond

    with pytest.raises(tf.errors.OperatorNotAllowedInGraphError, match="bool"):
        compilation.function(f, mode)(tf.constant(1.0))


class Pair(NamedTuple):
    left: tf.Tensor
    right: dict[str, tf.Tensor]


@pytest.mark.parametrize("mode", ["xla", "graph", "eager"])
def test_a_direct_call_takes_and_gives_nests_of_arrays(mode):
    variable = tf.Variable(1.0)
    traces = []

    def f(pair, scale):
        traces.append(mode)
        variable.assign_add(1.0)
        return {"sum": pair.left + pair.right["x"] * scale, "count": variable.read_value()}

    direct = compilation.CachedCall(f, mode)
    for call in range(2):
        result = direct(
            Pair(np.array([1.0, 2.0], np.float32), {"x": tf.constant([10.0, 20.0])}),
            np.float32(2.0),
        )
        np.testing.assert_array_equal(result["sum"], [21.0, 42.0])
        assert float(result["count"]) == 2.0 + call
    assert len(traces) == (2 if mode == "eager" else 1)


@pytest.mark.parametrize("mode", ["xla", "graph"])
def test_a_direct_call_gives_the_structure_that_was_returned(mode):
    def f(x):
        return Pair(x, {"b": [x + 1.0, ()], "a": (x + 2.0,)}), None, x + 3.0

    pair, nothing, last = compilation.CachedCall(f, mode)(np.float32(0.0))
    assert isinstance(pair, Pair)
    assert (
        float(pair.left),
        float(pair.right["b"][0]),
        float(pair.right["a"][0]),
        float(last),
    ) == (0, 1, 2, 3)
    assert pair.right["b"][1] == ()
    assert isinstance(pair.right["b"], list)
    assert nothing is None


def test_a_direct_call_of_another_shape_or_type_is_traced_anew():
    traces = []

    def f(x):
        traces.append((x.shape.rank, x.dtype))
        return x + x

    direct = compilation.CachedCall(f, "graph")
    for x in (
        np.float32(1.0),
        np.ones(1, np.float32),
        np.ones(1, np.int32),
        np.float32(2.0),
        np.ones(1, np.int32),
    ):
        np.testing.assert_array_equal(direct(x), x + x)
    assert traces == [(0, tf.float32), (1, tf.float32), (1, tf.int32)]


def test_a_direct_call_is_compiled_as_asked():
    with pytest.raises(
        (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError), match=r"XLA|tf2xla"
    ):
        compilation.CachedCall(where_it_runs, "xla")(tf.constant(1.0))
    assert float(compilation.CachedCall(where_it_runs, "graph")(tf.constant(1.0))) == 1.0
