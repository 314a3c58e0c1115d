"""Distances between two sets of feature vectors, in float64 and in blocks: memory does not grow with their product.

Features are arrays [N, D] of any float type; `real` is the reference. Each function is plain numpy.
"""

from collections.abc import Iterator

import numpy as np

_BLOCK_BYTES = 32 * 2**20  # of one block of distances


class Moments:
    """Mean [D] and covariance [D, D] of vectors that come in blocks, merged without cancellation (Chan et al. 1979)."""

    def __init__(self, dimension: int) -> None:
        self.count = 0
        self.mean = np.zeros(dimension)
        self._scatter = np.zeros((dimension, dimension))

    def add(self, features: np.ndarray) -> None:
        """Take in further vectors [N, D]."""
        block = features.astype(np.float64)
        mean, count = block.mean(axis=0), len(block)
        total, shift = self.count + count, mean - self.mean
        block -= mean
        self._scatter += block.T @ block + np.outer(shift, shift) * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased: divided by N - 1."""
        return self._scatter / (self.count - 1)


def moments(features: np.ndarray) -> Moments:
    """The moments of vectors [N, D], taken in in blocks."""
    found = Moments(features.shape[1])
    for start, stop in _blocks(len(features), features.shape[1]):
        found.add(features[start:stop])
    return found


def frechet(a: Moments, b: Moments) -> float:
    """The squared Frechet distance between two Gaussians (Dowson, Landau 1982), as in Heusel et al. 2017.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). The trace of the root is that of the symmetric C1^(1/2) C2 C1^(1/2),
    by eigenvalues; rank-deficient covariances, as of fewer samples than dimensions, are no trouble.
    """
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    inner = root @ b.covariance @ root
    spectrum = np.linalg.eigvalsh((inner + inner.T) / 2.0)
    cross = np.sqrt(np.maximum(spectrum, 0.0)).sum()
    traces = np.trace(a.covariance) + np.trace(b.covariance)
    return float(max(np.sum((a.mean - b.mean) ** 2) + traces - 2.0 * cross, 0.0))


def kernel_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """The squared maximum mean discrepancy under (x.y / D + 1)^3, unbiased (Binkowski et al. 2018, "Demystifying MMD").

    Over all pairs instead of random subsets: exact and of the least variance. It may be below zero, as unbiased
    estimates of a distance of zero must be.
    """
    within = [_kernel_sum(x, x) - _kernel_diagonal(x) for x in (real, fake)]
    m, n = len(real), len(fake)
    return within[0] / (m * (m - 1)) + within[1] / (n * (n - 1)) - 2.0 * _kernel_sum(real, fake) / (m * n)


def _kernel_sum(x: np.ndarray, y: np.ndarray) -> float:
    columns, total = y.T.astype(np.float64), 0.0
    for start, stop in _blocks(len(x), len(y)):
        total += float(((x[start:stop].astype(np.float64) @ columns / x.shape[1] + 1.0) ** 3).sum())
    return total


def _kernel_diagonal(x: np.ndarray) -> float:
    squares = np.einsum("nd,nd->n", x, x, dtype=np.float64)
    return float(((squares / x.shape[1] + 1.0) ** 3).sum())


def neighbours(real: np.ndarray, fake: np.ndarray, k: int) -> dict[str, float]:
    """Precision, recall (Kynkaanniemi et al. 2019), density, coverage (Naeem et al. 2020) by k-th neighbours' balls.

    precision: share of fake examples in some real example's ball, whose radius is the distance to its k-th nearest
    real neighbour; recall: share of real ones in some fake one's ball. density: how many real balls a fake example is
    in, divided by k; above 1 where fakes crowd. coverage: share of real examples whose ball holds a fake one.
    """
    real_radius, fake_radius = _radii(real, k), _radii(fake, k)  # squared, [M], [N]
    inside = np.zeros(len(fake), np.int64)  # real balls that each fake example is in
    recalled = covered = 0
    for rows, squares in _squared_distances(real, fake):
        balls = squares < real_radius[rows, np.newaxis]  # [b, N]
        inside += balls.sum(axis=0)
        covered += int(balls.any(axis=1).sum())
        recalled += int((squares < fake_radius).any(axis=1).sum())
    return {
        "precision": float((inside > 0).mean()),
        "recall": recalled / len(real),
        "density": float(inside.mean()) / k,
        "coverage": covered / len(real),
    }


def nearest(examples: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each vector [N, D] the nearest of `others` [M, D]: its index int64 [N] and distance float64 [N]."""
    index, distance = np.empty(len(examples), np.int64), np.empty(len(examples))
    for rows, squares in _squared_distances(examples, others):
        index[rows] = squares.argmin(axis=1)
        distance[rows] = np.sqrt(squares.min(axis=1))
    return index, distance


def _radii(x: np.ndarray, k: int) -> np.ndarray:
    """Squared distance of each vector to its k-th nearest other, [N]."""
    radius = np.empty(len(x))
    for rows, squares in _squared_distances(x, x):
        squares[np.arange(len(squares)), np.arange(rows.start, rows.stop)] = np.inf  # itself
        radius[rows] = np.partition(squares, k - 1, axis=1)[:, k - 1]
    return radius


def _squared_distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows of x and their squared distances to all of y, [b, M]."""
    center = y.mean(axis=0, dtype=np.float64)  # distances stay, |x|^2 + |y|^2 - 2 x.y cancels less
    columns = y.astype(np.float64) - center
    y_squares = np.einsum("md,md->m", columns, columns)
    for start, stop in _blocks(len(x), len(y)):
        block = x[start:stop].astype(np.float64) - center
        squares = np.einsum("nd,nd->n", block, block)[:, np.newaxis] + y_squares
        squares -= 2.0 * (block @ columns.T)
        yield slice(start, stop), np.maximum(squares, 0.0, out=squares)


def sliced_wasserstein(real: np.ndarray, fake: np.ndarray, directions: np.ndarray) -> float:
    """The root of the mean over `directions` [P, D] of the squared 2-Wasserstein distance between projections.

    Bonneel et al. 2015. As many real as fake vectors, [N, D] each: along a line the k-th smallest go together.
    """
    total = 0.0
    for start, stop in _blocks(len(directions), len(real)):
        lines = directions[start:stop].T.astype(np.float64)  # [D, p]
        gap = np.sort(real @ lines, axis=0) - np.sort(fake @ lines, axis=0)  # [N, p]
        total += float((gap**2).mean(axis=0).sum())
    return float(np.sqrt(total / len(directions)))


def _blocks(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Pieces of so many rows that a float64 matrix of them and the columns has 32 MiB."""
    size = max(1, _BLOCK_BYTES // (8 * columns))
    for start in range(0, rows, size):
        yield start, min(rows, start + size)
