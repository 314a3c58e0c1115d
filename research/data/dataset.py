"""Data sets: the order of examples in batches, and their way to the device.

A batch is a function of (seed, position) alone, so a run that is killed and resumed at batch k gets
the batches it would have got: of the order nothing needs saving but k.
"""

import functools
import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from sparring.data.checks import (
    check_examples,
    check_range,
    listed_some,
    numbered,
    tell_of_empty_classes,
    whole_numbers,
)
from sparring.data.pixel_values import scaled, unit
from sparring.data.splits import SPLITS, known, permutation
from sparring.errors import UserError

_log = logging.getLogger("sparring")


class Data(Protocol):
    """Protocol of data that a trainer learns from. Images are float32 in [-1, 1]."""

    shape: tuple[int, ...]  # of one example, such as (2,) or (32, 32, 3)
    classes: int  # number of classes; 0: there are no labels
    count: int  # number of training examples; 0: endless, each drawn anew

    def plan(self, first: int, steps: int, size: int) -> np.ndarray:
        """Return the rows of the batches first, first + 1, ...: int64 [steps, size], on the host.

        Every example occurs once an epoch. Batches run on across the end of an epoch, so that all
        have the same size and none is dropped: the one at the border holds the last examples of one
        epoch and the first of the next.
        """

    def take(self, rows: tf.Tensor, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return examples float32 [B, *shape] and labels int64 [B] of `rows`, in a compiled step.

        `rows` is int64 [B]. Labels are zero if there are no classes. Random numbers are drawn from
        `keys`, uint32 [B, 2], one for each example.
        """

    def examples(self, split: str, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return examples float32 [N, *shape] and labels int64 [N] of a split, on the host.

        `split` is "train" or "test". `limit`: that many of them, chosen at random but identically
        every time; None: all (of endless data, a fixed number).
        """


def check(
    data: Data, batch_size: int, labelled: bool = False, key: str = "trainer.batch_size"
) -> None:
    """Raise UserError if `data` cannot fill a batch, or has no labels that are needed.

    `labelled` says that a conditional model needs labels; `key` is the setting of the batch's size.
    """
    if 0 < data.count < batch_size:
        raise UserError(
            f"data: {data.count} training examples do not fill a batch of {batch_size}: lower "
            f"{key}."
        )
    if labelled and data.classes == 0:
        raise UserError(
            "data: it has no labels, which a conditional model needs: give data.labels, sort "
            "images into one folder a "
            "class, or train an unconditional model."
        )


def labels(data: Any, split: str) -> np.ndarray:
    """Return all labels of a split, without its examples where the data is in memory."""
    if isinstance(data, Pairs):
        return data.targets(split)
    return data.examples(split)[1]


def class_names(data: Any) -> list[str]:
    """Return the names of the classes of data: its own, or their numbers."""
    names = data.names if isinstance(data, Pairs) else ()
    return list(names) or [str(i) for i in range(data.classes)]


def fingerprint(data: Any) -> dict[str, Any]:
    """Return the fingerprint of data in memory; of other data, which is drawn, an empty one."""
    return data.fingerprint if isinstance(data, Pairs) else {}


def changes(before: Mapping[str, Any], data: Any, labelled: bool = True) -> list[str]:
    """Compare the fingerprint `before` with that of `data`; return a sentence if they differ.

    `labelled` says that a model depends on the order of classes.

    Raises:
        UserError: numbers stand for other classes, columns or words than those that were learned.
    """
    now = fingerprint(data)
    if not (before and now) or before == now:
        return []
    for kind, names in now["meaning"].items():
        old = before["meaning"].get(kind)
        if old not in (None, names) and (labelled or kind != "classes"):
            raise UserError(
                f"data: its {kind} are {_described(names)}, and the run began with "
                f"{_described(old)}, which the model knows by number. Put the data back as it was, "
                "or choose another run.name to train on this."
            )
    counts = [
        f"{before['examples'][s]} -> {now['examples'][s]} examples in the {s} split" for s in SPLITS
    ]
    return [f"The data has changed since the run began: {', '.join(counts)}, other content."]


def _described(names: Any) -> str:
    return names if isinstance(names, str) else listed_some(names) or "none"


class Order:
    """Order of `count` examples: a new permutation every epoch, from (seed, epoch)."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        # Two epochs are cached: batches come in order, and one may lie across an epoch's end
        self._epoch = functools.lru_cache(maxsize=2)(functools.partial(permutation, count, seed))

    def plan(self, first: int, steps: int, size: int) -> np.ndarray:
        """Return the rows of batches, as `Data.plan` does."""
        start = first * size
        stop = (first + steps) * size
        rows = np.empty(stop - start, np.int64)
        for epoch in range(start // self.count, -(-stop // self.count)):
            begin = epoch * self.count
            end = (epoch + 1) * self.count
            a = max(start, begin)
            b = min(stop, end)
            rows[a - start : b - start] = self._epoch(epoch)[a - begin : b - begin]
        return rows.reshape(steps, size)


class Pairs:
    """Inputs in memory with a target for each, in a train and a test split.

    It implements `Data`, except that inputs may have any shape and dtype (numbers, ids int64) and a
    target is anything with a shape: a class int64 [], a vector, a box. `seed` fixes the order of
    the batches.
    """

    classes = 0
    names: tuple[str, ...] = ()

    def __init__(
        self, inputs: Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray], seed: int
    ) -> None:
        self.shape = tuple(int(n) for n in inputs["train"].shape[1:])
        self.count = len(inputs["train"])
        self._inputs = dict(inputs)
        self._targets = dict(targets)
        self._order = Order(self.count, seed)

    @property
    def kept(self) -> np.dtype:
        """Dtype in which inputs are stored: uint8 for images that are scaled when taken."""
        return self._inputs["train"].dtype

    def plan(self, first: int, steps: int, size: int) -> np.ndarray:
        """Return the rows of batches, as `Data.plan` does."""
        return self._order.plan(first, steps, size)

    def restored(self, outputs: tf.Tensor) -> tf.Tensor:
        """Return a model's outputs [B, ...] for numeric targets in the targets' own units."""
        return outputs

    def take(self, rows: tf.Tensor, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return inputs [B, *shape] and targets [B, ...] of `rows` int64 [B]; nothing is drawn."""
        inputs, targets = self._on_device
        return scaled(tf.gather(inputs, rows)), tf.gather(targets, rows)

    @functools.cached_property
    def _on_device(self) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.init_scope():  # otherwise they would be constants of the graph that is being traced
            return tf.constant(self._inputs["train"]), tf.constant(self._targets["train"])

    def examples(self, split: str, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the inputs and targets of a split, on the host, as `Data.examples` does."""
        rows = self.rows(split, limit)
        return unit(self._inputs[split][rows]), self._targets[split][rows]

    @property
    def meaning(self) -> dict[str, Any]:
        """Order of what inputs and outputs stand for, by kind: a model learns it by number."""
        return {"classes": list(self.names)}

    @functools.cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Plain values by which a resumed run knows whether its data is still the same."""
        content = hashlib.blake2b(digest_size=16)
        for arrays in (self._inputs, self._targets):
            for split in SPLITS:
                content.update(np.ascontiguousarray(arrays[split]).data.cast("B"))
        counts = {s: len(self._targets[s]) for s in SPLITS}
        return {"meaning": self.meaning, "examples": counts, "content": content.hexdigest()}

    def targets(self, split: str) -> np.ndarray:
        """Return the targets of a split, on the host."""
        return self._targets[known(split)]

    def rows(self, split: str, limit: int | None = None) -> np.ndarray:
        """Return the rows of a split that `examples` returns, int64 [N]."""
        count = len(self._targets[known(split)])
        return (
            np.arange(count)
            if limit is None or limit >= count
            else np.sort(permutation(count, 0)[:limit])
        )


class Arrays(Pairs):
    """Examples in memory with optional labels, in a train and a test split; implements `Data`.

    Examples are uint8 images [N, H, W, C], kept as bytes and scaled to [-1, 1] when taken; float
    images [N, H, W, C] within [-1, 1]; or float vectors [N, F] of any range. `labels` are integers
    [N], or None in both splits. With the classes' `names` they are in [0, classes); without, the
    classes are those labels that occur, numbered from 0 in ascending order and named by their
    labels. `source` begins error messages, such as "data.path=my.npz".

    Raises:
        UserError: there are no examples, they have other shapes than these, values are not finite
            or out of range, or labels do not fit.
    """

    def __init__(
        self,
        examples: Mapping[str, np.ndarray],
        labels: Mapping[str, np.ndarray] | None,
        seed: int,
        names: Sequence[str] | None = None,
        source: str = "data",
    ) -> None:
        for split in SPLITS:
            check_examples(examples[split], f"{source}: {split} split")
        if examples["train"].shape[1:] != examples["test"].shape[1:]:
            raise UserError(
                f"{source}: the train split's examples are {examples['train'].shape[1:]}, the test "
                "split's "
                f"{examples['test'].shape[1:]}: they must be alike."
            )
        targets = {s: np.zeros(len(examples[s]), np.int64) for s in SPLITS}
        if labels is not None:
            targets = {
                s: whole_numbers(labels[s], len(examples[s]), f"{source}: {s} split")
                for s in SPLITS
            }
            if not names:
                targets, names = numbered(targets, source)
            self.classes = len(names)
            for split in SPLITS:
                check_range(targets[split], self.classes, f"{source}: {split} split")
            tell_of_empty_classes(targets["train"], names, source)
        self.names = tuple(names or ())
        super().__init__({s: _compact(examples[s]) for s in SPLITS}, targets, seed)


def _compact(examples: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(examples, np.uint8 if examples.dtype == np.uint8 else np.float32)
