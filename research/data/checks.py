"""Checks of examples and labels, and how their faults are told."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparring.data.splits import SPLITS
from sparring.errors import UserError

_log = logging.getLogger("sparring")
CHANNELS = (1, 3, 4)  # of an image: grey, RGB, RGB with alpha


def check_examples(examples: np.ndarray, source: str) -> None:
    if len(examples) == 0:
        raise UserError(f"{source} is empty.")
    if examples.ndim not in (2, 4) or not (
        examples.dtype == np.uint8 or examples.dtype.kind == "f"
    ):
        raise UserError(
            f"{source} is {examples.dtype} {list(examples.shape)}: images are uint8 or float [N, "
            "height, width, "
            "channels], vectors are float [N, features]."
        )
    if examples.ndim == 4 and examples.shape[-1] not in CHANNELS:
        raise UserError(
            f"{source} has images of {examples.shape[-1]} channels; 1, 3 or 4 are possible: [N, H, "
            "W, C]."
        )
    if examples.dtype == np.uint8:
        return
    check_finite(examples, source)
    low = float(examples.min())
    high = float(examples.max())
    if examples.ndim == 4 and not (low >= -1.0 and high <= 1.0):
        raise UserError(
            f"{source} has values from {low:g} to {high:g}: give data.low and data.high, or bytes."
        )


def check_finite(examples: np.ndarray, source: str) -> None:
    """Raise UserError if some of the floats [N, ...] are not finite.

    The message gives the index of the first example with one, from 0.
    """
    bad = np.flatnonzero(~np.isfinite(examples.reshape(len(examples), -1)).all(axis=1))
    if len(bad):
        raise UserError(
            f"{source}: {len(bad)} of {len(examples)} examples hold NaN or infinity, first number "
            f"{bad[0]}."
        )


def whole_numbers(labels: Any, count: int, source: str) -> np.ndarray:
    """Return labels as int64 [count].

    Raises:
        UserError: they are not one integer for each example.
    """
    labels = np.asarray(labels)
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise UserError(
            f"{source}: labels are {labels.dtype} {list(labels.shape)}, though one whole number is "
            "needed for each of "
            f"{count} examples."
        )
    return labels.astype(np.int64)


def check_range(labels: np.ndarray, classes: int, source: str) -> None:
    """Raise UserError if a label is not in [0, classes)."""
    if labels.min() < 0 or labels.max() >= classes:
        raise UserError(
            f"{source}: labels run from {labels.min()} to {labels.max()}, though there are "
            f"{classes} classes, 0 to "
            f"{classes - 1}."
        )


def numbered(
    labels: Mapping[str, np.ndarray], source: str
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return labels as classes that are numbered without gaps, and the classes' names."""
    found = np.unique(np.concatenate([labels[s] for s in SPLITS]))
    if found[0] < 0:
        raise UserError(
            f"{source}: labels run from {found[0]} to {found[-1]}, and none may be negative: leave "
            "out examples without a class."
        )
    if found[-1] >= len(found):
        _log.warning(
            "%s: its %d classes are numbered from 0 and named by their labels, which run from %d "
            "to %d.",
            source,
            len(found),
            found[0],
            found[-1],
        )
    return {s: np.searchsorted(found, labels[s]) for s in SPLITS}, [str(c) for c in found]


def tell_of_empty_classes(labels: np.ndarray, names: Sequence[str], source: str) -> None:
    """Say which classes cannot be learned, as only the test split has examples of them."""
    counts = np.bincount(labels, minlength=len(names))
    empty = [names[i] for i in np.flatnonzero(counts == 0)]
    if empty:
        _log.warning(
            "%s: %d of %d classes have no example in the train split: %s.",
            source,
            len(empty),
            len(names),
            listed_some(empty),
        )


def listed_some(names: Sequence[str]) -> str:
    """Return the first five names, and how many there are more."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def not_found(path: str, source: str, kind: str) -> UserError:
    """Return the error of a path at which there is no file or folder (`kind`)."""
    relative = ""
    if not Path(path).is_absolute():
        relative = f" The path is relative to the working folder, {Path.cwd()}."
    return UserError(f"{source}: there is no such {kind}.{relative}")
