"""Stacked digits: three digits as the channels of one image, a thousand modes."""

import functools

import numpy as np
import tensorflow as tf

from sparring.data.arrays import digits
from sparring.data.dataset import Arrays, Order
from sparring.data.splits import SPLITS, known, permutation
from sparring.errors import UserError


class StackedDigits:
    """Images [8, 8, 3] whose channels are three random digits of scikit-learn; a `Data`.

    Metz et al. 2016 ("Unrolled GANs") stacked MNIST this way. The label is the number that the
    digits form, red first: 0 .. 999. `train` triples consist of the training digits and `test`
    triples of the others, the same in every run; `seed` fixes the order of the batches. Only the
    digits and the indices of each triple are held in memory.
    """

    classes = 1000

    def __init__(self, seed: int, train: int = 128_000, test: int = 26_000) -> None:
        if min(train, test) < 1:
            raise UserError(f"data.train={train}, data.test={test}: 1 at least.")
        self.digits: Arrays = digits(seed)
        self.shape = (*self.digits.shape[:2], 3)
        self.count = train
        self._parts = {s: self.digits.examples(s) for s in SPLITS}
        self._triples = {}
        for i, (split, size) in enumerate(zip(SPLITS, (train, test), strict=True)):
            self._triples[split] = _triples(len(self._parts[split][0]), size, i)
        self._order = Order(train, seed)

    def plan(self, first: int, steps: int, size: int) -> np.ndarray:
        """Plan batches, as `Data.plan`."""
        return self._order.plan(first, steps, size)

    def take(self, rows: tf.Tensor, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return examples by row, as `Data.take`; nothing is random."""
        triples, images, labels = self._on_device
        chosen = tf.gather(triples, rows)  # [B, 3]
        # [B, 3, 8, 8] -> [B, 8, 8, 3]
        stacked = tf.transpose(tf.gather(images, chosen)[..., 0], (0, 2, 3, 1))
        return stacked, tf.reduce_sum(
            tf.gather(labels, chosen) * tf.constant((100, 10, 1), tf.int64), axis=1
        )

    @functools.cached_property
    def _on_device(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        with tf.init_scope():
            return (tf.constant(self._triples["train"]), *map(tf.constant, self._parts["train"]))

    def examples(self, split: str, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return examples of a split, as `Data.examples`."""
        triples = self._triples[known(split)]
        if limit is not None and limit < len(triples):
            triples = triples[np.sort(permutation(len(triples), 0)[:limit])]
        images, labels = self._parts[split]
        return np.moveaxis(images[triples][..., 0], 1, -1), labels[triples] @ np.array((100, 10, 1))


def _triples(digits: int, count: int, stream: int) -> np.ndarray:
    """Return the indices of the digits of each triple, int64 [count, 3], evenly distributed."""
    words = np.random.Philox(key=np.array([0x57AC, stream], np.uint64)).random_raw(3 * count)
    return (words % np.uint64(digits)).astype(np.int64).reshape(count, 3)
