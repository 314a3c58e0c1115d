"""Examples drawn from a trained generator, for `sparring sample`."""

from typing import Any

import numpy as np

from sparring.data import dataset
from sparring.data.pictures import levels
from sparring.errors import UserError, listed
from sparring.gans import image_grids
from sparring.gans.evaluation import Sampler
from sparring.training.trainer import Samples
from sparring.xla import random

_COLUMNS = 8  # of the grid, which has as many rows at most


def drawn(sampler: Sampler, count: int, seed: int, label: str | None = None) -> Samples:
    """Draw `count` examples by `seed`; fewer are the first of more.

    Images are written as bytes under `images`, vectors under `points`; data with a method
    `drawn(examples) -> Samples` says itself how its examples are written. Labels are written
    beside those of a conditional generator.

    Raises:
        UserError: `label` is asked for and there is no such class.
    """
    latents, labels = sampler.latents(random.stream(seed, "sampled"), count)
    if label is not None:
        labels = np.full(count, _number(sampler, label), np.int64)
    examples = sampler.of(latents, labels)
    found = _written(sampler.game.data, examples)
    if sampler.game.rules.conditional:
        found.arrays["labels"] = labels
    return found


def _written(data: Any, examples: np.ndarray) -> Samples:
    own = getattr(data, "drawn", None)  # optional in data
    if own is not None:
        written: Samples = own(examples)
        return written
    if examples.ndim == 4:
        images = levels(examples)
        return Samples({"images": images}, images, image_grids.grid(examples[:64], _COLUMNS))
    found = Samples({"points": examples})
    if examples.shape[1:] == (2,):
        found.grid = image_grids.scatter(data.examples("train", 2048)[0], examples)
    return found


def _number(sampler: Sampler, label: str) -> int:
    """Return the number of the class that `label` names, or is the number of."""
    if not sampler.game.rules.conditional:
        raise UserError(
            "--class: the generator of this run knows no classes; train one with "
            "game.conditional=true."
        )
    names = dataset.class_names(sampler.game.data)
    if label in names:
        return names.index(label)
    if label.isdecimal() and int(label) < len(names):
        return int(label)
    raise UserError(f"--class {label}: no such class. {listed(names)}")
