"""Replicas of a trainer: running them, and reducing over them.

Sizes are global: of environments, batches and replay, each of R replicas has an R-th. A trainer's
program is written once, for any number of replicas:

- `Replicas` belongs to the trainer. Its `function` is the program. Inside, `run` has every replica
  do a part, and loops and conditions go around `run`; the parts return each replica's own values,
  and `first` returns what is equal on all of them.
- Inside a part, `all_reduce_sum` and `all_reduce_mean` reduce over replicas, and `replica_index`
  tells which share of a batch is its own. Reductions stand outside of loops there, because replicas
  meet in them.
- `compile_in_replica` wraps what XLA may compile of a part: loss and gradients, without a reduction
  inside.

On one device a part is called as it is and sums are the summed values: nothing is added to the
program.
"""

import contextlib
import functools
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf

from sparring.errors import UserError
from sparring.xla import compilation, random

T = TypeVar("T")
Make = Callable[[Callable[..., Any], str], Any]  # a program of a function and a mode
# Strategies whose replicas' parts XLA compiles, while their programs are traced.
_compiled_in_replicas: weakref.WeakSet[tf.distribute.Strategy] = weakref.WeakSet()


class Replicas:
    """The replicas of the strategy in whose scope this is made."""

    def __init__(self) -> None:
        self.strategy = tf.distribute.get_strategy()
        self.count = self.strategy.num_replicas_in_sync
        # In this process
        self.here = self.count if self.count == 1 else len(self.strategy.extended.worker_devices)
        self._xla = False

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Return the scope in which variables are created after the trainer."""
        return contextlib.nullcontext() if self.count == 1 else self.strategy.scope()

    def function(
        self, python_function: Callable[..., Any], mode: str, make: Make = compilation.function
    ) -> Any:
        """A program in a resolved mode of `sparring.xla.compilation`; of several replicas XLA
        compiles the parts alone.
        """
        if self.count == 1:
            return make(python_function, mode)
        self._xla = mode == "xla"

        def scoped(*arguments: Any) -> Any:
            with self.strategy.scope():
                return python_function(*arguments)

        return make(scoped, "graph" if self._xla else mode)

    def run(self, part: Callable[..., Any], *arguments: Any) -> Any:
        """Return `part(*arguments)` of every replica.

        Each is given its own component of what an earlier part returned.
        """
        if self.count == 1 or not tf.distribute.in_cross_replica_context():
            return part(*arguments)
        if self._xla:
            _compiled_in_replicas.add(self.strategy)
        else:
            _compiled_in_replicas.discard(self.strategy)
        return self.strategy.run(part, args=arguments)

    def on_each(self, part: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that runs `part` on every replica; on one device `part` itself."""
        if self.count == 1 or not tf.distribute.in_cross_replica_context():
            return part
        return functools.partial(self.run, part)

    def first(self, values: T) -> T:
        """Return one replica's component of `values`, a nest that is equal on all of them."""
        if self.count == 1 or not tf.distribute.in_cross_replica_context():
            return values
        return tf.nest.map_structure(
            lambda v: self.strategy.experimental_local_results(v)[0], values
        )

    def agreed(self, part: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that runs `part` on every replica and returns what all agree on.

        It returns the first replica's result. On one device it is `part` itself.
        """
        if self.count == 1:
            return part
        return lambda *arguments: self.first(self.run(part, *arguments))

    def share(self, size: int, key: str) -> int:
        """Return a replica's share of a global size.

        Raises UserError, with the config's `key`, if the size has no whole share.
        """
        if size % self.count:
            raise UserError(
                f"{key}={size} is no multiple of the {self.count} replicas that share it."
            )
        return size // self.count


# ---- inside a replica's part ---------------------------------------------------------------------


def num_replicas() -> int:
    """Return the number of replicas."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def replica_index() -> tf.Tensor | int:
    """Return the index of this replica, a plain number where TensorFlow knows it while tracing."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return 0
    number = context.replica_id_in_sync_group
    static = tf.get_static_value(number)
    return number if static is None else int(static)


def replica_key(key: tf.Tensor) -> tf.Tensor:
    """A random key of this replica's own; on one device the key itself."""
    return key if num_replicas() == 1 else random.fold(key, replica_index())


def all_reduce_sum(values: T) -> T:
    """The sum over replicas of each tensor of a nest, all of one type; differentiable."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    flat = tf.nest.flatten(values)
    if len(flat) == 1:
        return tf.nest.pack_sequence_as(
            values, [context.all_reduce(tf.distribute.ReduceOp.SUM, flat[0])]
        )
    # One reduction, not one for each tensor
    vector = tf.concat([tf.reshape(v, [-1]) for v in flat], axis=0)
    summed = context.all_reduce(tf.distribute.ReduceOp.SUM, vector)
    parts = tf.split(summed, [v.shape.num_elements() for v in flat])
    shaped = [tf.reshape(part, v.shape) for part, v in zip(parts, flat, strict=True)]
    return tf.nest.pack_sequence_as(values, shaped)


def all_reduce_mean(values: T) -> T:
    """The mean over replicas of each tensor of a nest: of means over equal shares, the mean over
    all.
    """
    return all_reduce_sum(tf.nest.map_structure(share_of_mean, values))


def share_of_mean(mean: tf.Tensor) -> tf.Tensor:
    """Return the contribution of the mean over this replica's share to the mean over all."""
    return mean if num_replicas() == 1 else mean / num_replicas()


def standard_deviation(values: tf.Tensor, axis: int | None = None) -> tf.Tensor:
    """The standard deviation of `values` over all axes or over `axis`, of which each replica has an
    equal share.
    """
    mean = all_reduce_mean(tf.reduce_mean(values, axis, keepdims=True))
    return tf.sqrt(all_reduce_mean(tf.reduce_mean(tf.square(values - mean), axis)))


def broadcast_from_first(value: tf.Tensor) -> tf.Tensor:
    """The first replica's `value`."""
    return (
        value
        if num_replicas() == 1
        else all_reduce_sum(tf.where(tf.equal(replica_index(), 0), value, tf.zeros_like(value)))
    )


def all_reduce_max(value: tf.Tensor) -> tf.Tensor:
    """The largest over replicas of a scalar."""
    return (
        value
        if num_replicas() == 1
        else tf.reduce_max(
            all_reduce_sum(tf.one_hot(replica_index(), num_replicas(), dtype=value.dtype) * value)
        )
    )


def compile_in_replica(python_function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `python_function`, compiled by XLA in a program of several replicas.

    XLA does not compile such a program as a whole. On one device the function is returned as it is.
    """
    if tf.distribute.get_strategy() not in _compiled_in_replicas:
        return python_function
    return tf.function(python_function, jit_compile=True, autograph=False)


def assign(variable: tf.Variable, value: tf.Tensor) -> None:
    """`variable.assign(value)` where all replicas have the same value for it, in a part or around
    parts.
    """
    context = tf.distribute.get_replica_context()
    own = variable.synchronization == tf.VariableSynchronization.ON_READ
    if context is None or context.num_replicas_in_sync == 1 or own:
        variable.assign(value)
        return

    def update(everywhere: tf.distribute.Strategy, values: Any) -> None:
        everywhere.extended.update(variable, lambda v, x: v.assign(x), args=(values,))

    context.merge_call(update, args=(value,))


# ---- variables -----------------------------------------------------------------------------------

replicated = (
    functools.partial(  # which every replica assigns, all the same value: running statistics
        tf.Variable,
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )
)


def counter() -> tf.Variable:
    """Return an int64 counter that starts at zero and that every replica advances alike.

    TensorFlow's global step, TF-Agents' default, is placed on the first CPU, where a part that XLA
    compiles on another replica may not read it.
    """
    return tf.Variable(
        0, dtype=tf.int64, trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
    )


def local_variable(variable: tf.Variable) -> tf.Variable:
    """Return this replica's component of a `replicated` variable, which can scatter, say."""
    if num_replicas() == 1:
        return variable
    if not isinstance(replica_index(), int):
        raise UserError(
            "A replay buffer cannot be shared over the cores of a TPU yet: choose another strategy."
        )
    components = tf.distribute.get_strategy().experimental_local_results(variable)
    return components[replica_index() % len(components)]
