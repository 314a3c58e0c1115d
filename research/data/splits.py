"""Splits of examples into those to learn from and those to test on, and choices among them."""

from collections.abc import Sequence

import numpy as np

from sparring.errors import UserError

SPLITS = ("train", "test")


def known(split: str) -> str:
    """Return `split` if there is such a split.

    Raises:
        UserError: there is none.
    """
    if split not in SPLITS:
        raise UserError(f"split={split}: there are {' and '.join(SPLITS)}.")
    return split


def permutation(count: int, seed: int, epoch: int = 0) -> np.ndarray:
    """Return a random order of 0 .. count - 1, int64 [count], from (seed, epoch).

    The order sorts Philox's words, whose stream is fixed for good; `Generator.permutation` may
    differ between versions of numpy.
    """
    words = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(count)
    return np.argsort(words, kind="stable")


def split_off(
    count: int, test_fraction: float, source: str, labels: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return the training and the test rows of `count` examples, int64, each ascending.

    They are identical in every run. With labels [count], the test split has its share of every
    class, to within one example.
    """
    test = round(count * test_fraction)
    if not 0 < test < count:
        raise UserError(
            f"{source}: test_fraction={test_fraction} of {count} examples leaves {count - test} "
            "for training and "
            f"{test} for testing: both need some."
        )
    shuffled = permutation(count, 0)
    by_class = shuffled if labels is None else shuffled[np.argsort(labels[shuffled], kind="stable")]
    chosen = np.zeros(count, bool)
    evenly = ((np.arange(test) + 0.5) * count / test).astype(np.int64)
    chosen[by_class[evenly]] = True
    return {"train": np.flatnonzero(~chosen), "test": np.flatnonzero(chosen)}


def few(labels: np.ndarray, only: Sequence[int], per_class: int | None, seed: int) -> np.ndarray:
    """Return the rows of the classes `only`, at most `per_class` of each, int64, ascending.

    The rows kept of a class are drawn by `seed`.
    """
    rows = np.flatnonzero(np.isin(labels, only))
    if per_class is None:
        return rows
    if per_class < 1:
        raise UserError(f"data.per_class={per_class}: 1 at least, or null for all.")
    shuffled = rows[permutation(len(rows), seed)]
    return np.sort(np.concatenate([shuffled[labels[shuffled] == c][:per_class] for c in only]))


def classes_of(only: Sequence[int] | None, count: int) -> list[int]:
    """Return the classes to keep of `count` existing ones: those in `only`, or all.

    Raises:
        UserError: `only` is not at least two different existing classes.
    """
    found = list(range(count)) if only is None else [int(c) for c in only]
    if len(found) < 2 or len(set(found)) < len(found) or not set(found) <= set(range(count)):
        raise UserError(f"data.only={found}: two classes of 0 to {count - 1} at least, each once.")
    return found
