"""Stacked digits: three digits as the channels of one image, a thousand modes."""

import functools

import numpy as np
import tensorflow as tf

from sparring.data.arrays import digits
from sparring.data.dataset import SPLITS, Arrays, Order, known, permutation
from sparring.errors import UserError


class StackedDigits:
    """Images [8, 8, 3] whose channels are three of scikit-learn's digits, chosen at random;
    satisfies `Data`.

    Metz et al. 2016 ("Unrolled GANs") stacked MNIST so. The label is the number the digits make,
    red first: 0 .. 999. `train` triples are made of the training digits and `test` triples of the
    others, the same in every run; `seed` fixes the order of the batches. What is held in memory are
    the digits and which of them each triple is.
    """

    classes = 1000

    def __init__(self, seed: int, train: int = 128_000, test: int = 26_000) -> None:
        if min(train, test) < 1:
            raise UserError(f"data.train={train}, data.test={test}: 1 at least.")
        self.digits: Arrays = digits(seed)
        self.shape = (*self.digits.shape[:2], 3)
        self.count = train
        self._parts = {s: self.digits.examples(s) for s in SPLITS}
        self._triples = {
            s: _triples(len(self._parts[s][0]), n, i)
            for i, (s, n) in enumerate(zip(SPLITS, (train, test), strict=True))
        }
        self._order = Order(train, seed)

    def plan(self, first: int, steps: int, size: int) -> np.ndarray:
        """As `Data.plan`."""
        return self._order.plan(first, steps, size)

    def take(self, rows: tf.Tensor, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """As `Data.take`; nothing is drawn."""
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
        """As `Data.examples`."""
        triples = self._triples[known(split)]
        if limit is not None and limit < len(triples):
            triples = triples[np.sort(permutation(len(triples), 0)[:limit])]
        images, labels = self._parts[split]
        return np.moveaxis(images[triples][..., 0], 1, -1), labels[triples] @ np.array((100, 10, 1))


def _triples(digits: int, count: int, stream: int) -> np.ndarray:
    """Which digits each triple is of, int64 [count, 3], evenly."""
    words = np.random.Philox(key=np.array([0x57AC, stream], np.uint64)).random_raw(3 * count)
    return (words % np.uint64(digits)).astype(np.int64).reshape(count, 3)
