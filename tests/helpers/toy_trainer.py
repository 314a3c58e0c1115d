"""A trainer small enough to see through, which fits a line and can be told to misbehave at a known
step; runs of it.
"""

import dataclasses
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.errors import UserError
from sparring.training.loop import TrainingLoop
from sparring.training.outcome import Outcome
from sparring.training.progress import Progress
from sparring.training.schedule import Schedule
from sparring.training.trainer import Evaluation, Trainer
from sparring.xla.running_means import Means, Measured
from tests.helpers.board import points

BATCH = 4


class Line(Measured, Trainer):
    """Gradient descent with momentum on |w - (1, -2)|^2 along random directions; smaller is better.

    One batch is 4 examples. `at[s]` is called once the step s is done, in the middle of a call if
    it comes to that. `objectives(s)` replaces the distance that an evaluation at step s finds.
    """

    unit = "examples"
    objective = "eval/distance"
    maximize = False
    descriptions = {  # noqa: RUF012
        "loss/squared": "Squared error of the line, mean over examples.",
        "eval/distance": "Distance of the weights from the truth.",
    }
    charts = {"Fit": {"distance": ["eval/distance", "loss/squared"]}}  # noqa: RUF012

    def __init__(
        self,
        seed: int = 0,
        learning_rate: float = 0.05,
        at: Mapping[int, Callable[[], None]] | None = None,
        objectives: Callable[[int], float] | None = None,
        maximize: bool = False,
        ballast: int = 0,
    ) -> None:
        self.at = dict(at or {})
        self.objectives = objectives
        self.maximize = maximize
        self.learning_rate = learning_rate
        self.weights = tf.Variable([0.0, 0.0])
        self.momentum = tf.Variable([0.0, 0.0], trainable=False)
        self.batches = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.lowest = tf.Variable(np.inf, trainable=False)  # not finite until the first batch
        self.ballast = tf.Variable(tf.zeros([ballast]), trainable=False)
        self.means = Means(["loss/squared"])
        self.seed = seed
        self.closed = False
        self.calls: list[int] = []
        self._seconds = {"update": 0.0}
        self._done = 0

    @property
    def step(self) -> int:
        return self._done * BATCH

    @property
    def model(self) -> tf.train.Checkpoint:
        return tf.train.Checkpoint(weights=self.weights)

    @property
    def checkpoint(self) -> tf.train.Checkpoint:
        parts = {n: getattr(self, n) for n in ("momentum", "batches", "lowest", "ballast", "means")}
        return tf.train.Checkpoint(model=self.model, **parts)

    def train(self, steps: int) -> None:
        started = time.perf_counter()
        self.calls.append(steps)
        for _ in range(-(-steps // BATCH)):
            self._learn()
            self._done += 1
            if self.step in self.at:
                self.at[self.step]()
        self._seconds["update"] += time.perf_counter() - started

    def _learn(self) -> None:
        x = (
            np.random.default_rng([self.seed, int(self.batches.numpy())])
            .normal(size=(BATCH, 2))
            .astype(np.float32)
        )
        with np.errstate(all="ignore"):  # it may be told to diverge
            error = x @ (self.weights.numpy() - np.float32([1.0, -2.0]))  # [B]
            loss = np.mean(np.square(error))
            gradient = 2.0 * np.mean(error[:, np.newaxis] * x, axis=0)  # [2]
        self.momentum.assign(0.5 * self.momentum + gradient)
        self.weights.assign_sub(self.learning_rate * self.momentum)
        self.lowest.assign(np.minimum(self.lowest.numpy(), loss))
        self.means.total.assign(self.means.add(self.means.total, {"loss/squared": loss}))
        self.batches.assign_add(1)

    def evaluate(
        self, episodes: int | None = None, media: bool = True, step: int | None = None
    ) -> Evaluation:
        distance = float(np.linalg.norm(self.weights.numpy() - [1.0, -2.0]))
        value = (
            distance
            if self.objectives is None
            else self.objectives(self.step if step is None else step)
        )
        pictures = {"eval/weights": np.zeros([1, 2, 2, 1], np.uint8)} if media else {}
        return Evaluation(
            {"eval/distance": value}, images=pictures, notes={"distance": {"norm": 2}}
        )

    def host_state(self) -> dict[str, Any]:
        return {"done": self._done}

    def load_host_state(self, state: Mapping[str, Any]) -> list[str]:
        self._done = int(state["done"])
        return []

    def close(self) -> None:
        self.closed = True


# ---- what may happen to it at a step -------------------------------------------------------------


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def killed() -> None:
    raise SystemExit  # nothing is saved on the way out, as if the process had been killed here


def fault() -> None:
    raise UserError("the environment broke")


# ---- runs of it ----------------------------------------------------------------------------------

# A batch is 4: see BATCH
SCHEDULE = Schedule(steps=100, log_every=10, evaluate_every=30, checkpoint_every=40)


def fit(folder: Path, trainer: Line, **settings: Any) -> TrainingLoop:
    """A run as a process finds it: resumed, if the folder has a checkpoint."""
    one = TrainingLoop(trainer, dataclasses.replace(SCHEDULE, **settings), folder, Progress())
    one.resume(one.latest)
    return one


def run(folder: Path, trainer: Line | None = None, **settings: Any) -> Outcome:
    return fit(folder, trainer or Line(), **settings).run()


def steps(folder: Path, tag: str = "loss/squared") -> list[int]:
    """The steps of a curve in the order TensorBoard shows them."""
    return [step for step, _ in points(folder, tag)]
