"""Distances between two sets of feature vectors, in float64 and in blocks.

Memory does not grow with the product of their sizes. Features are arrays [N, D] of any float type;
`real` is the reference. Each function is plain numpy.
"""

from collections.abc import Iterator

import numpy as np

_BLOCK_BYTES = 32 * 2**20  # of one block of distances


class Moments:
    """Running mean [D] and covariance [D, D], merged without cancellation (Chan et al. 1979)."""

    def __init__(self, dimension: int) -> None:
        self.count = 0
        self.mean = np.zeros(dimension)
        self._scatter = np.zeros((dimension, dimension))

    def add(self, features: np.ndarray) -> None:
        """Add vectors [N, D]."""
        block = features.astype(np.float64)
        mean = block.mean(axis=0)
        count = len(block)
        total = self.count + count
        shift = mean - self.mean
        block -= mean
        self._scatter += block.T @ block + np.outer(shift, shift) * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased covariance [D, D]: divided by N - 1."""
        return self._scatter / (self.count - 1)


def moments(features: np.ndarray) -> Moments:
    """Compute the moments of vectors [N, D] in blocks."""
    found = Moments(features.shape[1])
    for start, stop in _blocks(len(features), features.shape[1]):
        found.add(features[start:stop])
    return found


def frechet(a: Moments, b: Moments) -> float:
    """Compute the squared Frechet distance between two Gaussians (Dowson, Landau 1982).

    As in Heusel et al. 2017: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). The trace of the root is
    that of the symmetric C1^(1/2) C2 C1^(1/2), by eigenvalues; rank-deficient covariances, as of
    fewer samples than dimensions, are handled.
    """
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    inner = root @ b.covariance @ root
    spectrum = np.linalg.eigvalsh((inner + inner.T) / 2.0)
    cross = np.sqrt(np.maximum(spectrum, 0.0)).sum()
    traces = np.trace(a.covariance) + np.trace(b.covariance)
    return float(max(np.sum((a.mean - b.mean) ** 2) + traces - 2.0 * cross, 0.0))


def kernel_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Compute the squared maximum mean discrepancy under (x.y / D + 1)^3, unbiased.

    Binkowski et al. 2018, "Demystifying MMD", over all pairs instead of random subsets: exact and
    of least variance. Like any unbiased estimate of a distance near zero, it may be negative.
    """
    return kernel_within(real) + kernel_within(fake) - 2.0 * kernel_between(real, fake)


def kernel_within(x: np.ndarray) -> float:
    """Average the kernel over pairs of different vectors of x [N, D]."""
    squares = np.einsum("nd,nd->n", x, x, dtype=np.float64)
    alone = float(((squares / x.shape[1] + 1.0) ** 3).sum())
    count = len(x)
    return (kernel_between(x, x) * count**2 - alone) / (count * (count - 1))


def kernel_between(x: np.ndarray, y: np.ndarray) -> float:
    """Average the kernel over pairs of one vector of x [M, D] and one of y [N, D]."""
    total = 0.0
    for _, inner in _products(x, y, np.zeros(x.shape[1])):
        inner /= x.shape[1]
        inner += 1.0
        # A power takes ten times as long
        total += float(np.einsum("mn,mn,mn->", inner, inner, inner))
    return total / (len(x) * len(y))


def neighbours(
    real: np.ndarray, fake: np.ndarray, k: int, real_radius: np.ndarray | None = None
) -> dict[str, float]:
    """Compute precision, recall, density and coverage from k-nearest-neighbour balls.

    Precision, recall: Kynkaanniemi et al. 2019; density, coverage: Naeem et al. 2020.

    precision: share of fake examples in some real example's ball, whose radius is the distance to
    its k-th nearest real neighbour; recall: share of real examples in some fake one's ball.
    density: number of real balls a fake example is in, divided by k; above 1 where fakes crowd.
    coverage: share of real examples whose ball holds a fake one. `real_radius` is `radii(real, k)`,
    if known.
    """
    # [M], [N]
    real_radius = radii(real, k) if real_radius is None else real_radius
    fake_radius = radii(fake, k)
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
    """Find the nearest of `others` [M, D] to each vector [N, D].

    Returns indices, int64 [N], and distances, float64 [N].
    """
    index = np.empty(len(examples), np.int64)
    distance = np.empty(len(examples))
    for rows, squares in _squared_distances(examples, others):
        index[rows] = squares.argmin(axis=1)
        distance[rows] = np.sqrt(squares.min(axis=1))
    return index, distance


def radii(x: np.ndarray, k: int) -> np.ndarray:
    """Compute the squared distance of each vector to its k-th nearest other, [N]."""
    radius = np.empty(len(x))
    for rows, squares in _squared_distances(x, x):
        squares[np.arange(len(squares)), np.arange(rows.start, rows.stop)] = np.inf  # itself
        squares.partition(k - 1, axis=1)
        radius[rows] = squares[:, k - 1]
    return radius


def _squared_distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield rows of x and their squared distances to all of y, [b, M]."""
    center = y.mean(axis=0, dtype=np.float64)  # distances stay, |x|^2 + |y|^2 - 2 x.y cancels less
    x_squares = _norms(x, center)
    y_squares = _norms(y, center)
    for rows, squares in _products(x, y, center):
        squares *= -2.0
        squares += x_squares[rows, np.newaxis]
        squares += y_squares
        yield rows, np.maximum(squares, 0.0, out=squares)


def _norms(x: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Compute squared norms of x - center, [N]."""
    parts = (x[start:stop] - center for start, stop in _blocks(*x.shape))
    return np.concatenate([np.einsum("nd,nd->n", part, part) for part in parts])


def _products(
    x: np.ndarray, y: np.ndarray, center: np.ndarray
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield rows of x and the inner products of x - center with all of y - center, [b, M].

    In float64; y too is converted a block at a time, so that neither is copied whole.
    """
    for start, stop in _blocks(len(x), len(y)):
        block = x[start:stop] - center
        products = np.empty((stop - start, len(y)))
        for first, last in _blocks(*y.shape):
            np.matmul(block, (y[first:last] - center).T, out=products[:, first:last])
        yield slice(start, stop), products


def sliced_wasserstein(real: np.ndarray, fake: np.ndarray, directions: np.ndarray) -> float:
    """Compute the sliced 2-Wasserstein distance along `directions` [P, D].

    The root of the mean over directions of the squared distance between projections (Bonneel et al.
    2015). As many real as fake vectors, [N, D] each: the k-th smallest projections are paired.
    """
    total = 0.0
    for start, stop in _blocks(len(directions), max(real.shape)):
        # [D, p]; other types would copy all vectors
        lines = directions[start:stop].T.astype(real.dtype)
        gap = np.sort(real @ lines, axis=0) - np.sort(fake @ lines, axis=0)  # [N, p]
        total += float((gap**2).mean(axis=0).sum())
    return float(np.sqrt(total / len(directions)))


def _blocks(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Yield slices of rows such that a float64 matrix of them and the columns has 32 MiB."""
    size = max(1, _BLOCK_BYTES // (8 * columns))
    for start in range(0, rows, size):
        yield start, min(rows, start + size)
