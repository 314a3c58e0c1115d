"""Magnitude pruning during training.

The smallest weights of every kernel become zero, more of them as the run goes on, and stay zero.
"""

import tensorflow as tf

from sparring.errors import UserError


class Magnitude:
    """Magnitude pruning by the schedule of Zhu and Gupta.

    Zhu and Gupta 2017, "To prune, or not to prune", section 3, equation 1. In each kernel (a
    variable of two dimensions or more) the share s of the weights is zero at the progress p of the
    run,

        s = sparsity * (1 - (1 - (p - begin) / (end - begin))^3)

    and the others go on learning. A weight that has become zero is held there: zero itself is the
    mask, so that a checkpoint needs no other, and a run resumes to the bit; a kernel that is made
    of zeros therefore stays so from `begin` on. The smallest weights are determined at every
    `every`th update, as sorting a large kernel takes longer than its update.

    Raises:
        UserError: the sparsity is outside (0, 1), or the schedule is invalid.
    """

    def __init__(
        self, sparsity: float = 0.8, begin: float = 0.0, end: float = 0.5, every: int = 10
    ) -> None:
        if not 0.0 < sparsity < 1.0:
            raise UserError(
                f"prune.sparsity={sparsity}: the share of weights that become zero, above 0 and "
                "below 1."
            )
        if not 0.0 <= begin < end <= 1.0 or every < 1:
            raise UserError(
                f"prune.begin={begin}, prune.end={end}, prune.every={every}: shares of the run, 0 "
                "<= begin < end <= 1, "
                "and a number of updates."
            )
        self.sparsity = float(sparsity)
        self.begin = float(begin)
        self.end = float(end)
        self.every = int(every)

    def share(self, progress: tf.Tensor) -> tf.Tensor:
        """Return the share of weights that are zero, 0 to `sparsity`."""
        gone = tf.clip_by_value((progress - self.begin) / (self.end - self.begin), 0.0, 1.0)
        return self.sparsity * (1.0 - (1.0 - gone) ** 3)

    def kept(
        self, value: tf.Tensor, before: tf.Tensor, progress: tf.Tensor, update: tf.Tensor
    ) -> tf.Tensor:
        """Return a kernel's values after an update, pruned.

        `before` are the values before the update, `update` is its index.
        """
        if value.shape.rank < 2:
            return value
        held = tf.where((before != 0.0) | (progress < self.begin), value, tf.zeros_like(value))

        def pruned() -> tf.Tensor:
            size = tf.abs(held)
            smallest = tf.sort(tf.reshape(size, [-1]))  # [N]
            count = tf.cast(
                tf.round(self.share(progress) * float(held.shape.num_elements())), tf.int64
            )
            # Gathered, not sliced: to XLA the beginning of a slice is a constant, for each value of
            # which it would compile anew.
            limit = tf.where(count > 0, tf.gather(smallest, tf.maximum(count - 1, 0)), -1.0)
            return tf.where(size > limit, held, tf.zeros_like(held))

        return tf.cond(tf.equal(update % self.every, 0), pruned, lambda: held)
