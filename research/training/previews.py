"""Images of a run as PNG files in its folder, at a pace that follows the clock.

The first is there before training begins; between two lie 20 seconds at first, then twice as long
each time, up to ten minutes. `samples/NAME.png` is the newest, and each evaluation leaves
`samples/NAME-STEP.png` besides.
"""

import io
import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from sparring.storage.atomic import write_bytes
from sparring.training.trainer import Trainer

_log = logging.getLogger("sparring")
FOLDER = "samples"
_FIRST = 20.0
_LONGEST = 600.0
_PATIENCE = 20.0  # least time between two, in times of what one takes


class Previews:
    """Writer of a trainer's previews; it does nothing for a trainer that has none.

    Args:
      folder: of the run.
      trainer: whose `preview` is called.
      clock: returns seconds.
    """

    def __init__(
        self, folder: Path, trainer: Trainer, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder / FOLDER
        self._trainer = trainer
        self._clock = clock
        self._interval = _FIRST
        self._due = 0.0
        self._failed = False

    def write_if_due(self) -> None:
        """Write the newest images, if the last ones are old enough."""
        if self._clock() < self._due:
            return
        seconds = self.write()
        self._due = self._clock() + max(self._interval, _PATIENCE * seconds)
        self._interval = min(2.0 * self._interval, _LONGEST)

    def write(self, keep: bool = False) -> float:
        """Write the newest images, under the step's number too if they are to be kept.

        Returns the seconds it took.
        """
        started = self._clock()
        for name, image in self._trainer.preview().items():
            names = [f"{name}.png"]
            if keep:
                names.append(f"{name}-{self._trainer.step:012d}.png")
            for file in names:
                self._save(file, image)
        return self._clock() - started

    def _save(self, file: str, image: np.ndarray) -> None:
        content = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(content, "PNG")
        try:
            self._folder.mkdir(exist_ok=True)
            write_bytes(self._folder / file, content.getvalue())
        except OSError as error:  # such as a full disk, which must not end the run
            if not self._failed:
                _log.warning("%s cannot be written: %s.", self._folder / file, error.strerror)
            self._failed = True
