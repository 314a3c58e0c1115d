"""Data sets in arrays: scikit-learn's digits, and the user's .npz files."""

import logging
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sparring.data.checks import check_finite, not_found
from sparring.data.dataset import Arrays
from sparring.data.pixel_values import eight_bits
from sparring.data.splits import classes_of, few, split_off
from sparring.errors import UserError

_log = logging.getLogger("sparring")


def digits(
    seed: int,
    test_fraction: float = 0.2,
    only: Sequence[int] | None = None,
    per_class: int | None = None,
    shifts: int = 0,
) -> Arrays:
    """Return scikit-learn's 1 797 handwritten digits: 8x8x1 in [-1, 1], 10 classes.

    Alpaydin and Kaynak 1998. The split is identical in every run; `seed` fixes the order of the
    batches.

    Args:
        seed: for the order of the batches, and for `per_class`.
        test_fraction: the share of examples that is kept for testing.
        only: digits to keep, as classes in that order; None: all.
        per_class: the number of training examples of each class, drawn by the seed; the test split
            is unchanged.
        shifts: training examples are also moved by up to this many pixels up or down and left or
            right.
    """
    from sklearn.datasets import load_digits  # takes a second to import

    found = load_digits()
    # [N, 8, 8, 1], of 17 grey levels
    images = (found.images[..., np.newaxis] / 8.0 - 1.0).astype(np.float32)
    rows = split_off(len(images), test_fraction, "data", found.target)
    classes = classes_of(only, 10)
    rows = {
        s: r[few(found.target[r], classes, per_class if s == "train" else None, seed)]
        for s, r in rows.items()
    }
    labels = {s: np.array([classes.index(c) for c in found.target[r]]) for s, r in rows.items()}
    kept = {s: images[r] for s, r in rows.items()}
    if shifts:
        kept["train"] = _shifted(kept["train"], shifts)
        times = (2 * shifts + 1) ** 2
        labels["train"] = np.tile(labels["train"], times)
    return Arrays(kept, labels, seed, [str(c) for c in classes])


def _shifted(images: np.ndarray, by: int) -> np.ndarray:
    """Return images [N, H, W, C] moved by up to `by` pixels both ways, with dark borders.

    The result is [N * (2 by + 1)^2, H, W, C].
    """
    _, height, width, _ = images.shape
    padded = np.pad(images, [(0, 0), (by, by), (by, by), (0, 0)], constant_values=-1.0)
    moved = []
    for y in range(2 * by + 1):
        for x in range(2 * by + 1):
            moved.append(padded[:, y : y + height, x : x + width])
    return np.concatenate(moved)


def npz(
    path: str,
    seed: int,
    images: str = "images",
    labels: str | None = None,
    test_images: str | None = None,
    test_labels: str | None = None,
    low: float = -1.0,
    high: float = 1.0,
    test_fraction: float = 0.1,
) -> Arrays:
    """Return examples from a file of numpy's `savez`; nothing in it is unpickled.

    `images` and `labels` name its arrays: images uint8, uint16 or float [N, H, W] or [N, H, W, C],
    or vectors [N, F]; labels integers [N], or null for none. `test_images`, `test_labels` name
    those of the test split; without them `test_fraction` of the examples, identical in every run,
    are kept for testing. Values of 16 bits are scaled to 8. Float images from `low` to `high` are
    scaled to [-1, 1]; vectors are unchanged.

    Raises:
        UserError: the file is missing or no .npz, an array does not exist or holds Python objects,
            or `Arrays` refuses the examples.
    """
    source = f"data.path={path}"
    if (test_images is None or labels is None) != (test_labels is None):
        raise UserError(
            f"{source}: give labels to both splits, data.labels and data.test_labels, or to none."
        )
    if not low < high:
        raise UserError(f"{source}: data.low={low} must lie below data.high={high}.")
    names = [n for n in (images, labels, test_images, test_labels) if n is not None]
    arrays = _read(Path(path), names, source)
    x = _images(arrays[images], low, high, f"{source}: {images}")
    y = None if labels is None else arrays[labels]
    if test_images is not None:
        examples = {
            "train": x,
            "test": _images(arrays[test_images], low, high, f"{source}: {test_images}"),
        }
        marks = (
            None if y is None or test_labels is None else {"train": y, "test": arrays[test_labels]}
        )
        return Arrays(examples, marks, seed, source=source)
    return _split(x, y, seed, test_fraction, source)


def from_array(
    examples: np.ndarray,
    labels: np.ndarray | None = None,
    seed: int = 0,
    low: float = -1.0,
    high: float = 1.0,
    test_fraction: float = 0.1,
) -> Arrays:
    """Return examples in memory as data to train on; see `npz` for the arguments.

    Raises:
        UserError: `Arrays` refuses the examples.
    """
    x = _images(np.asarray(examples), low, high, "examples")
    y = None if labels is None else np.asarray(labels)
    return _split(x, y, seed, test_fraction, "examples")


def _split(
    x: np.ndarray, y: np.ndarray | None, seed: int, test_fraction: float, source: str
) -> Arrays:
    """Keep `test_fraction` of the examples for testing, identical in every run."""
    if y is not None and y.shape != (len(x),):
        raise UserError(
            f"{source}: labels of shape {list(y.shape)}, though there are {len(x)} examples."
        )
    rows = split_off(len(x), test_fraction, source, y)
    marks = None if y is None else {s: y[r] for s, r in rows.items()}
    return Arrays({s: x[r] for s, r in rows.items()}, marks, seed, source=source)


def _read(path: Path, names: list[str], source: str) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as opened:  # np.load leaves a damaged file open
            file = np.load(opened, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise UserError(
                    f"{source} holds one bare array: write it by np.savez(path, images=...)."
                )
            missing = [n for n in names if n not in file.files]
            if missing:
                raise UserError(
                    f"{source}: no array {missing[0]}; there are {', '.join(sorted(file.files))}."
                )
            return {n: file[n] for n in names}
    except FileNotFoundError:
        raise not_found(str(path), source, "file") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        said = str(error).split("\n")[0]
        if "allow_pickle" in said or "pickle" in said:
            said = "it holds Python objects, which are never unpickled; save plain arrays"
        raise UserError(f"{source} cannot be read as .npz: {said}.") from error


def _images(array: np.ndarray, low: float, high: float, source: str) -> np.ndarray:
    """Return float images scaled from [low, high] to [-1, 1], images of 16 bits as bytes.

    Others are unchanged.
    Errors give values as they are in the file.
    """
    if array.ndim == 3:
        array = array[..., np.newaxis]  # grey
    if array.dtype == np.uint16 and array.ndim == 4:
        return eight_bits(array)
    if array.dtype.kind != "f" or array.size == 0:
        return array
    check_finite(array, source)
    if array.ndim != 4:
        return array
    array = array.astype(np.promote_types(array.dtype, np.float32), copy=False)
    # Bounds are compared in the array's own type, in which 0.1 is another number
    bottom = array.dtype.type(low)
    top = array.dtype.type(high)
    least = array.min()
    most = array.max()
    if not (bottom <= least and most <= top):
        raise UserError(
            f"{source} has values from {least:g} to {most:g}, beyond data.low={low:g} and "
            f"data.high={high:g}: set "
            "these to what the values run from and to, or give bytes."
        )
    if low < 0.0 <= least:
        _log.warning(
            "%s has values from %g to %g: if they begin at 0, set data.low=0.", source, least, most
        )
    return np.clip((array - bottom) * (2.0 / (high - low)) - 1.0, -1.0, 1.0).astype(np.float32)
