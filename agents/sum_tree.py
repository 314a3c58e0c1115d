"""A tree of sums, by which rows are drawn in proportion to their weights."""

import itertools

import tensorflow as tf

from sparring.distribute import replicas

_BRANCHES = 16


class SumTree(tf.Module):
    """Weights of `count` rows, and sums of 16 of them, of 16 of these, and so on.

    A change of a weight changes one sum a level, each computed anew from its 16 parts, so that no
    error of rounding is carried on. Of several replicas each has weights of its own.
    """

    def __init__(self, count: int) -> None:
        super().__init__(name="sum_tree")
        self.levels: list[tf.Variable] = []  # the weights first; all padded to whole sixteens
        while True:
            parents = -(-count // _BRANCHES)
            self.levels.append(replicas.replicated(tf.zeros([parents * _BRANCHES])))
            if parents == 1:
                break
            count = parents

    def weights(self, rows: tf.Tensor) -> tf.Tensor:
        """Return the weights of `rows` [M]."""
        return tf.gather(replicas.local_variable(self.levels[0]), rows)

    def total(self) -> tf.Tensor:
        """Return the sum of all weights, []."""
        return tf.reduce_sum(replicas.local_variable(self.levels[-1]).value())

    def assign(self, *changes: tuple[tf.Tensor, tf.Tensor]) -> None:
        """Give rows [M] their weights [M], of each of `changes`; later ones go before earlier ones.

        Of a row that is twice in the rows of one change, either weight is taken.
        """
        # All weights before any sum: XLA copies a variable that it reads between two writes
        for rows, weights in changes:
            _scatter(self.levels[0], rows, weights)
        changed = tf.concat([rows for rows, _ in changes], axis=0)
        for below, level in itertools.pairwise(self.levels):
            changed //= _BRANCHES
            _scatter(level, changed, tf.reduce_sum(self._parts(below, changed), axis=1))

    def find(self, points: tf.Tensor) -> tf.Tensor:
        """Return the rows [M], int64, in whose share of the line from 0 to the total `points` [M]
        lie. A row without weight is not found, unless there is no weight at all.
        """
        rows = tf.zeros(points.shape, tf.int64)
        for level in reversed(self.levels):
            parts = self._parts(level, rows)  # [M, 16]
            ends = tf.matmul(parts, tf.linalg.band_part(tf.ones([_BRANCHES, _BRANCHES]), 0, -1))
            place = tf.reduce_sum(tf.cast(ends <= points[:, tf.newaxis], tf.int64), axis=1)
            number = tf.range(_BRANCHES, dtype=tf.int64)
            last = tf.reduce_max(tf.where(parts > 0.0, number, 0), axis=1)
            place = tf.minimum(place, last)  # rounding may have gone beyond it
            mine = tf.equal(number, place[:, tf.newaxis])
            points -= tf.reduce_sum(tf.where(mine, ends - parts, 0.0), axis=1)
            rows = rows * _BRANCHES + place
        return rows

    def _parts(self, level: tf.Variable, parents: tf.Tensor) -> tf.Tensor:
        """The 16 parts [M, 16] of each of `parents` [M] of a level above."""
        values = replicas.local_variable(level).value()
        return tf.gather(tf.reshape(values, [-1, _BRANCHES]), parents)


def _scatter(level: tf.Variable, rows: tf.Tensor, values: tf.Tensor) -> None:
    replicas.local_variable(level).scatter_update(tf.IndexedSlices(values, rows))
