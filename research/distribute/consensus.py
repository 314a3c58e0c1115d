"""The workers of one run as its loop sees them: what the chief decides, all do.

Workers meet in the middle of a program, so that each has to make the same calls in the same order.
What depends on a clock, a file or a signal is therefore agreed on: `told` and `any` are reductions
that all workers take part in.
"""

import contextlib
import functools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.distribute import cluster, replicas
from sparring.errors import UserError


class SingleWorker:
    """A run of one process: its own chief."""

    alone = True

    def told(self, number: int) -> int:
        """The chief's `number`."""
        return number

    def any(self, flag: bool) -> bool:
        """Whether `flag` holds for any worker."""
        return flag

    def gather(self, trainer: Any) -> None:
        """Have the chief's variables hold what it is about to save of the others'."""
        del trainer


class Workers(SingleWorker):
    """A run of several processes, made by each; `place` is its strategy."""

    alone = False

    def __init__(self, place: tf.distribute.Strategy, chief: bool) -> None:
        self.chief = chief
        with place.scope():
            self._replicas = replicas.Replicas()
        self._sum = self._replicas.function(functools.partial(self._replicas.run, _total), "graph")

    def told(self, number: int) -> int:
        return self._total(number if self.chief else 0) // self._replicas.here

    def any(self, flag: bool) -> bool:
        return self._total(int(flag)) > 0

    def gather(self, trainer: Any) -> None:
        if hasattr(trainer, "gather"):
            trainer.gather()

    def _total(self, number: int) -> int:
        summed = self._sum(tf.constant(np.int64(number)))
        return int(self._replicas.strategy.experimental_local_results(summed)[0].numpy())


def _total(number: tf.Tensor) -> tf.Tensor:
    return replicas.all_reduce_sum(tf.identity(number))  # on the replica's device


@contextlib.contextmanager
def complete() -> Iterator[None]:
    """A worker that is gone, which the others notice where they should meet it, is a UserError."""
    try:
        yield
    except tf.errors.OpError as error:
        said = re.search(r"Collective ops is aborted by: (.*)", error.message)
        if said is None:
            raise
        task = re.search(r"/job:(\w+)/(?:replica:0/)?task:(\d+)", error.message[said.start() :])
        who = f"{task[1]} {task[2]}" if task else "another worker"
        raise UserError(
            f"{who} of this run {cluster.GONE} ({said[1][:80].rstrip('. ')}). {cluster.GO_ON}"
        ) from error
