"""A trainer whose second call is recorded by TensorFlow's profiler: what TensorBoard's profile dashboard shows."""

from pathlib import Path
from typing import Any

import tensorflow as tf


class Profiled:
    """A trainer (`research.trainer.Trainer`) that records `steps` of its steps in `folder`, once it is compiled.

    The first call traces and compiles, so the recording begins with the second. Everything else is the trainer's own.
    To look at it: `pip install tensorboard-plugin-profile`, then TensorBoard's dashboard "Profile".
    """

    def __init__(self, trainer: Any, folder: Path, steps: int) -> None:
        self._trainer, self._folder, self._steps, self._calls = trainer, folder, steps, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trainer, name)

    def train(self, steps: int) -> None:
        """Advance by at least `steps` steps, and by as few as its inner iterations allow."""
        self._calls += 1
        goal = self._trainer.step + steps
        if self._calls == 2:
            with tf.profiler.experimental.Profile(str(self._folder)):
                self._trainer.train(min(self._steps, steps))
        if self._trainer.step < goal:
            self._trainer.train(goal - self._trainer.step)
