"""Batching of simultaneous requests into one call of the model.

A signature runs one batch at a time. Requests that arrive while it runs form the next batch, so
under load batches grow by themselves; `delay` is how long the first request of an idle signature
waits for others.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np

Arrays = Mapping[str, np.ndarray]
Call = Callable[[Arrays], dict[str, np.ndarray]]


class _Waiting(NamedTuple):
    inputs: Arrays
    rows: int
    answer: asyncio.Future
    since: float


class Batcher:
    """Batched calls of `call` for several requests at once, in a thread of `executor`.

    Args:
        call: the function of a batch.
        executor: its threads.
        rows: of a batch at most; a request with more rows goes alone.
        delay: seconds that a request waits for others when nothing runs; 0: none.
        quick: whether a call takes no longer than handing it to a thread does; it is then made in
          the event loop.
        seen: called with the rows of each batch, the seconds its oldest request waited, and the
          seconds it ran.
    """

    def __init__(
        self,
        call: Call,
        executor: Executor,
        rows: int,
        delay: float,
        quick: bool = False,
        seen: Callable[[int, float, float], None] = lambda rows, waited, ran: None,
    ) -> None:
        self._call = call
        self._executor = executor
        self._rows = rows
        self._delay = delay
        self._quick = quick
        self._seen = seen
        self._waiting: list[_Waiting] = []
        self._task: asyncio.Task | None = None
        self._full = asyncio.Event()

    async def __call__(self, inputs: Arrays, rows: int) -> dict[str, np.ndarray]:
        """Return the outputs of `inputs`, arrays [rows, ...]."""
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(inputs, rows, answer, time.perf_counter()))
        if sum(w.rows for w in self._waiting) >= self._rows:
            self._full.set()
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        try:
            if self._delay > 0.0 and not self._full.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._full.wait(), self._delay)
            while batch := self._take():
                await self._run(batch)
        finally:
            self._task = None
            self._full.clear()
            if self._waiting and not asyncio.get_running_loop().is_closed():
                self._task = asyncio.create_task(self._work())

    def _take(self) -> list[_Waiting]:
        """Return the oldest requests that fit into a batch, without cancelled ones."""
        self._waiting = [w for w in self._waiting if not w.answer.done()]
        count = 0
        rows = 0
        for waiting in self._waiting:
            if count and rows + waiting.rows > self._rows:
                break
            count = count + 1
            rows = rows + waiting.rows
        batch = self._waiting[:count]
        self._waiting = self._waiting[count:]
        return batch

    async def _run(self, batch: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        started = time.perf_counter()
        try:
            if self._quick and sum(w.rows for w in batch) <= self._rows:
                outputs = self._call(_joined(batch))
            else:
                outputs = await loop.run_in_executor(self._executor, self._call, _joined(batch))
            _share(batch, outputs)
        except Exception as error:
            if len(batch) == 1:
                _fail(batch[0], error)
            else:  # run each by itself, so that only the faulty request fails
                for waiting in batch:
                    await self._run([waiting])
            return
        self._seen(
            sum(w.rows for w in batch), started - batch[0].since, time.perf_counter() - started
        )


def _joined(batch: list[_Waiting]) -> Arrays:
    if len(batch) == 1:
        return batch[0].inputs
    return {name: np.concatenate([w.inputs[name] for w in batch]) for name in batch[0].inputs}


def _share(batch: list[_Waiting], outputs: Arrays) -> None:
    first = 0
    for waiting in batch:
        part = {name: array[first : first + waiting.rows] for name, array in outputs.items()}
        first += waiting.rows
        if not waiting.answer.done():
            waiting.answer.set_result(part)


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
