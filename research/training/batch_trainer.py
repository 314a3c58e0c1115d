"""Base class of trainers that learn from batches in compiled calls."""

import abc
import time
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from sparring.distribute.replicas import Replicas
from sparring.training.trainer import Evaluation, Trainer
from sparring.xla.running_means import Means, Measured


class BatchTrainer(Measured, Trainer):
    """Trainer of iterations that each collect a batch and learn from it, many in one program.

    A subclass defines `steps_per_iteration`, `learn`, `measure` and what the contract asks of it
    besides, and calls `prepare` once its networks exist. A batch is a row of the `plan` of a call
    (indices of examples) unless `collect` is overridden, as agents do, which step environments.

    Attributes:
      replicas: the replicas of the strategy in whose scope the trainer was made.
      iterations: int64 variable, the iterations done.
      means: running means of the scalars that are logged.
    """

    largest_call: int | None = None  # iterations of one call, where the plan needs a fixed shape

    def __init__(self) -> None:
        self.replicas = Replicas()
        self._done = 0  # iterations, as a plain number
        self._evaluations = 0
        self._program: Callable[..., Any] | None = None

    def prepare(self, mode: str, total_steps: int, tags: Any, parts: tuple[str, ...]) -> None:
        """Set the mode and length of the run, and create its counters and means.

        Args:
          mode: "xla", "graph" or "eager", as `sparring.xla.compilation.resolve` returns it.
          total_steps: the steps of the run, which `progress` is measured by.
          tags: of the scalars that `learn` returns means of.
          parts: names of the seconds that `timings` reports: ("plan", "update"), unless
            `add_seconds` is overridden.
        """
        self.mode = mode
        self.total_steps = total_steps
        self.iterations = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.means = Means(tags)
        self._seconds = dict.fromkeys(parts, 0.0)

    # ---- defined by a kind of trainer ------------------------------------------------------------

    @property
    @abc.abstractmethod
    def steps_per_iteration(self) -> int:
        """Steps of the run that one iteration takes."""

    @abc.abstractmethod
    def learn(self, batch: Any, iteration: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        """Learn from a batch in iteration number `iteration` [] of the run.

        Returns `total`, the sums of `self.means` [2, N], with those of this iteration added.
        """

    @abc.abstractmethod
    def measure(self, episodes: int | None, media: bool, step: int) -> Evaluation:
        """Evaluate the model as of `step`; see `Trainer.evaluate`."""

    def plan(self, count: int) -> tuple[tf.Tensor, ...]:
        """Return the batches of the next `count` iterations, int64 [largest_call, ...]; or ()."""
        del count
        return ()

    def collect(
        self, plan: tuple[tf.Tensor, ...], row: tf.Tensor, iteration: tf.Tensor, carry: Any
    ) -> tuple[Any, Any]:
        """Return the batch of an iteration, and the state `carry` after it."""
        del iteration
        return plan[0][row], carry

    def open_carry(self) -> Any:
        """Return the nest of tensors that iterations of a call hand on to each other."""
        return ()

    def close_carry(self, carry: Any) -> None:
        """Keep the state after the last iteration of a call."""

    def iterations_ahead(self) -> int | None:
        """Return how many iterations the present program may do; None if there is no limit."""
        return self.largest_call

    # ---- contract --------------------------------------------------------------------------------

    @property
    def step(self) -> int:
        """Steps done."""
        return self._done * self.steps_per_iteration

    def train(self, steps: int) -> None:
        """Advance by whole iterations until at least `steps` more steps are done."""
        left = -(-steps // self.steps_per_iteration)
        while left > 0:
            most = self.iterations_ahead()
            count = left if most is None else min(left, most)
            started = time.perf_counter()
            plan = self.plan(count)
            planned = time.perf_counter()
            program = self.program()
            try:
                program(*plan, tf.constant(count, tf.int64))
            finally:  # a failing environment leaves whole iterations behind, which are saved
                self._done = int(self.iterations.numpy())
            self.add_seconds(planned - started, time.perf_counter() - planned)
            left -= count

    def evaluate(
        self, episodes: int | None = None, media: bool = True, step: int | None = None
    ) -> Evaluation:
        found = self.measure(episodes, media, self.step if step is None else step)
        self._evaluations += 1
        return found

    def add_seconds(self, planning: float, program: float) -> None:
        """Count the seconds of a call: of its plan, and of the program."""
        self._seconds["plan"] += planning
        self._seconds["update"] += program

    def media_due(self, media: bool, every: int) -> bool:
        """Whether this evaluation is one of every `every` that show images; 0: none does."""
        return media and every > 0 and self._evaluations % every == 0

    def progress(self, step: tf.Tensor) -> tf.Tensor:
        """Return the share of the run that is done at `step`, float32 in [0, 1]."""
        return tf.minimum(tf.cast(step, tf.float32) / float(self.total_steps), 1.0)

    def host_state(self) -> dict[str, Any]:
        return {"done": self._done, "evaluations": self._evaluations}

    def load_host_state(self, state: Mapping[str, Any]) -> list[str]:
        self._done = int(state["done"])
        self._evaluations = int(state["evaluations"])
        return []

    # ---- the program -----------------------------------------------------------------------------

    def program(self) -> Callable[..., Any]:
        """Return the compiled program (*plan, count) -> None of the iterations ahead."""
        if self._program is None:
            self._program = self.replicas.function(self.iterate, self.mode)
        return self._program

    def iterate(self, *arguments: tf.Tensor) -> None:
        """Do `count` iterations, the last of `arguments`, on the batches planned in the others."""
        *plan, count = arguments
        start = tf.identity(self.iterations)

        def body(i: tf.Tensor, carry: Any, total: tf.Tensor) -> tuple[Any, ...]:
            batch, carry = self.collect(tuple(plan), i, start + i, carry)
            return i + 1, carry, self.learn(batch, start + i, total)

        _, carry, total = tf.while_loop(
            lambda i, *_: i < count,
            body,
            (tf.constant(0, tf.int64), self.open_carry(), tf.identity(self.means.total)),
            parallel_iterations=1,
            maximum_iterations=self.largest_call,
        )
        self.close_carry(carry)
        self.means.total.assign(total)
        self.iterations.assign_add(count)
