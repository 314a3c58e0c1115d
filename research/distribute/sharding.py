"""Variables of which each replica has a part: as a whole in a checkpoint, apart while a program
runs.
"""

import functools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from sparring.distribute import cluster
from sparring.distribute import replicas as distribute_replicas


class Sharded:
    """A variable of which each replica has a part, cut along `axis`.

    `whole` is what a checkpoint holds, whatever the number of replicas; between `spread` and
    `gather`, at the beginning and the end of a program, the parts count. On one device both are one
    variable.
    """

    def __init__(self, initial: tf.Tensor, axis: int = 0) -> None:
        self.axis = axis
        size = int(initial.shape[axis])
        self.whole = tf.Variable(initial, trainable=False)
        self.part = self.whole
        self._size = size // distribute_replicas.num_replicas()
        if distribute_replicas.num_replicas() > 1:
            self.part = distribute_replicas.replicated(
                tf.split(initial, distribute_replicas.num_replicas(), axis=axis)[0]
            )

    def spread(self) -> None:
        """Every replica takes its part; called in a part of the program."""
        if distribute_replicas.num_replicas() > 1:
            begin = [0] * self.whole.shape.rank
            begin[self.axis] = distribute_replicas.replica_index() * self._size
            self.part.assign(tf.slice(tf.convert_to_tensor(self.whole), begin, self.part.shape))


class Apart:
    """A module of `replicated` variables whose values differ between replicas, as parts of a
    checkpoint, by name.

    Of several hosts each holds copies of what the others hold, which `gather` brings up to date
    before a save.
    """

    def __init__(
        self, replicas: distribute_replicas.Replicas, name: str, module: tf.Module
    ) -> None:
        self.replicas = replicas
        self.parts = {name: module}
        self._of_others: list[tuple[tf.Variable, dict[int, tf.Variable]]] = []
        if replicas.count > 1:
            variables = {k: v for k, v in vars(module).items() if isinstance(v, tf.Variable)}
            each = {k: self._by_replica(v) for k, v in variables.items()}
            self.parts = {
                f"{name}_of_replica_{i}": tf.train.Checkpoint(
                    **{k: parts[i] for k, parts in each.items()}
                )
                for i in range(replicas.count)
            }

    def _by_replica(self, variable: tf.Variable) -> dict[int, tf.Variable]:
        first = (
            0
            if self.replicas.here == self.replicas.count
            else cluster.Process.of({"workers": None}).rank * self.replicas.here
        )
        parts = dict(enumerate(self.replicas.strategy.experimental_local_results(variable), first))
        with tf.device("/cpu:0"):
            others = {
                i: tf.Variable(tf.zeros(variable.shape, variable.dtype), trainable=False)
                for i in range(self.replicas.count)
                if i not in parts
            }
        self._of_others.append((variable, others))
        return parts | others

    def gather(self) -> None:
        """Have every host hold what all hold; called by all of them, outside of a program."""
        if self.replicas.here < self.replicas.count:
            self._gather()

    @functools.cached_property
    def _gather(self) -> Any:
        def program() -> None:
            for variable, others in self._of_others:
                mine = self.replicas.run(lambda variable=variable: _carried(variable)[tf.newaxis])
                everyone = self.replicas.strategy.gather(mine, axis=0)  # [R, ...]
                for i, other in others.items():
                    other.assign(tf.cast(everyone[i], other.dtype))

        return self.replicas.function(program, "graph")


def _carried(value: tf.Tensor) -> tf.Tensor:
    """`value` in a type that a gathering of hosts takes, and that holds it exactly."""
    return tf.cast(
        value,
        {tf.bool: tf.float16, tf.uint8: tf.float16, tf.uint32: tf.int64}.get(
            value.dtype, value.dtype
        ),
    )


def gather(replicas: distribute_replicas.Replicas, shards: Sequence[Sharded]) -> None:
    """Put the parts together again; called around parts."""
    if replicas.count == 1:
        return
    for shard in shards:
        parts = replicas.run(lambda shard=shard: _carried(shard.part))
        shard.whole.assign(
            tf.cast(replicas.strategy.gather(parts, axis=shard.axis), shard.whole.dtype)
        )
