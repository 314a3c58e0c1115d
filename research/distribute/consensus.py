"""Agreement among the workers of one run: what the chief decides, all do.

Workers meet in the middle of a program, so that each has to make the same calls in the same order.
What depends on a clock, a file or a signal is therefore agreed on: `broadcast` and `any` are
reductions that all workers take part in.
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
    """Run of one process, which is its own chief."""

    chief = True
    several = False

    def broadcast(self, number: int) -> int:
        """Return the chief's `number`."""
        return number

    def any(self, flag: bool) -> bool:
        """Return whether `flag` holds for any worker."""
        return flag

    def gather(self, trainer: Any) -> None:
        """Have the chief's variables hold the parts of the state that other hosts have."""
        del trainer


class Workers(SingleWorker):
    """Run of several processes; each of them creates one in the run's strategy."""

    several = True

    def __init__(self, strategy: tf.distribute.Strategy, chief: bool) -> None:
        self.chief = chief
        with strategy.scope():
            self._replicas = replicas.Replicas()
        self._sum = self._replicas.function(functools.partial(self._replicas.run, _total), "graph")

    def broadcast(self, number: int) -> int:
        return self._total(number if self.chief else 0) // self._replicas.here

    def any(self, flag: bool) -> bool:
        return self._total(int(flag)) > 0

    def gather(self, trainer: Any) -> None:
        trainer.gather()

    def _total(self, number: int) -> int:
        summed = self._sum(tf.constant(np.int64(number)))
        return int(self._replicas.strategy.experimental_local_results(summed)[0].numpy())


def _total(number: tf.Tensor) -> tf.Tensor:
    return replicas.all_reduce_sum(tf.identity(number))  # on the replica's device


@contextlib.contextmanager
def lost_workers_named() -> Iterator[None]:
    """Raise a UserError for a worker that is gone, which the others notice where they meet."""
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
