"""Random numbers for generated data, reproducible on any version of numpy.

They come by plain formulas from the words of numpy's Philox, whose stream is fixed for good.
"""

import numpy as np


def uniform(count: int, *key: int) -> np.ndarray:
    """Return uniform numbers in [0, 1), float64 [count], each a multiple of 2**-53.

    `key` is one or two integers.
    """
    words = np.random.Philox(key=np.array([*key, 0][:2], np.uint64)).random_raw(count)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(count: int, *key: int) -> np.ndarray:
    """Return standard normal numbers, float64 [count] (Box and Muller 1958)."""
    u = uniform(2 * count, *key).reshape(2, count)
    return np.sqrt(-2.0 * np.log1p(-u[0])) * np.cos(2.0 * np.pi * u[1])


def choices(shares: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Return the index that u [N] in [0, 1) selects by each row of `shares` [N, K]; int64 [N].

    One row [K] serves for all. Shares need not sum to one.
    """
    edges = np.cumsum(shares, axis=-1)
    return np.minimum(
        (u[..., None] * edges[..., -1:] >= edges).sum(axis=-1), shares.shape[-1] - 1
    ).astype(np.int64)
