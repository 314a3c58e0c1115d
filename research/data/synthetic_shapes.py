"""Coloured shapes drawn by formula, whose class, colour, position and size are known exactly."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sparring.data import host_random
from sparring.data.dataset import Arrays, Pairs
from sparring.data.splits import SPLITS, classes_of, few, known
from sparring.errors import UserError

COLOURS = {
    "red": (230, 25, 25),
    "green": (25, 200, 25),
    "blue": (40, 60, 250),
    "yellow": (240, 230, 25),
    "magenta": (220, 25, 220),
    "white": (250, 250, 250),
}


# Signed distances, in units of x and y, to a shape that fills [-r, r] x [-r, r]: negative inside. y
# points down.


def _circle(x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) - r


def _square(x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    return np.maximum(abs(x), abs(y)) - r


def _triangle(x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    # Its apex at (0, -r), its base from (-r, r) to (r, r)
    side = (2.0 * abs(x) - y - r) / np.sqrt(5.0)
    return np.maximum(side, y - r)


def _cross(x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    bar = np.maximum(abs(x) - r, abs(y) - r / 3.0)
    return np.minimum(bar, np.maximum(abs(x) - r / 3.0, abs(y) - r))


SHAPES: Mapping[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
}
_SIZES = (0.18, 0.4)  # half a shape's extent, as a share of the image's
_BACKGROUND = 64  # greys from black up to this


class Shapes(Arrays):
    """Images [N, size, size, 3] of one shape each on a dark background.

    The class is shape * len(COLOURS) + colour. Shape, colour, position, extent and the background's
    grey are drawn independently and uniformly, the shape lying wholly inside the image; edges are
    antialiased. The images are identical in every run; `seed` fixes the order of the batches.
    `train` and `test` are the numbers of images drawn. `only` keeps some classes, as classes in
    that order, and `per_class` limits the training images of each, drawn by the seed.
    """

    def __init__(
        self,
        seed: int,
        train: int = 10000,
        test: int = 2000,
        size: int = 32,
        only: Sequence[int] | None = None,
        per_class: int | None = None,
    ) -> None:
        if min(train, test) < 1 or size < 8:
            raise UserError(
                f"data.train={train}, data.test={test}, data.size={size}: 1, 1 and 8 at least."
            )
        classes = classes_of(only, len(SHAPES) * len(COLOURS))
        drawn = {
            s: _draw(n, size, i) for i, (s, n) in enumerate(zip(SPLITS, (train, test), strict=True))
        }
        rows = {
            s: few(d[1], classes, per_class if s == "train" else None, seed)
            for s, d in drawn.items()
        }
        labels = {
            s: np.array([classes.index(c) for c in drawn[s][1][r]], np.int64)
            for s, r in rows.items()
        }
        self._boxes = {s: drawn[s][2][r] for s, r in rows.items()}
        names = [f"{colour} {shape}" for shape in SHAPES for colour in COLOURS]
        super().__init__(
            {s: drawn[s][0][r] for s, r in rows.items()}, labels, seed, [names[c] for c in classes]
        )

    def boxes(self, split: str, limit: int | None = None) -> np.ndarray:
        """Return the top, left, bottom and right edges as shares of the image, float32 [N, 4].

        They belong to the examples that `examples(split, limit)` returns, in that order.
        """
        return self._boxes[known(split)][self.rows(split, limit)]


def _draw(count: int, size: int, stream: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images uint8 [N, size, size, 3], labels int64 [N] and boxes float32 [N, 4]."""
    # Rows: shape, colour, extent, x, y, background
    u = host_random.uniform(count * 6, 0x5A4B, stream).reshape(6, count)
    shape = (u[0] * len(SHAPES)).astype(np.int64)
    colour = (u[1] * len(COLOURS)).astype(np.int64)
    r = size * (_SIZES[0] + u[2] * (_SIZES[1] - _SIZES[0]))  # [N] pixels
    x, y = (r + u[i] * (size - 2.0 * r) for i in (3, 4))  # [N] the centre
    ground = np.rint(u[5] * _BACKGROUND)  # [N]
    paint = np.array(list(COLOURS.values()), np.float32)[colour]  # [N, 3]
    images = np.empty((count, size, size, 3), np.uint8)
    at = np.arange(size) + 0.5  # centres of pixels
    # In parts, to bound the memory
    for rows in np.array_split(np.arange(count), max(1, count * size * size // 2**20)):
        cover = _cover(
            shape[rows],
            at[None, None, :] - x[rows, None, None],
            at[None, :, None] - y[rows, None, None],
            r[rows],
        )
        back = ground[rows, None, None, None]
        images[rows] = np.rint(back + cover[..., None] * (paint[rows, None, None, :] - back))
    boxes = np.stack([y - r, x - r, y + r, x + r], axis=1) / size
    return images, shape * len(COLOURS) + colour, boxes.astype(np.float32)


def _cover(shape: np.ndarray, x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Return the share of each pixel that lies in the shape, [N, size, size].

    It follows from the distance of the pixel's centre to the edge.
    """
    cover = np.empty((len(r), y.shape[1], x.shape[2]), np.float32)
    for index, distance in enumerate(SHAPES.values()):
        rows = shape == index
        cover[rows] = np.clip(0.5 - distance(x[rows], y[rows], r[rows, None, None]), 0.0, 1.0)
    return cover


class Boxes(Pairs):
    """Images of `Shapes`, uint8 [N, size, size, 3], with a box as target, float32 [N, 4]."""

    boxed = True

    def __init__(self, seed: int, train: int = 10000, test: int = 2000, size: int = 32) -> None:
        shapes = Shapes(seed, train, test, size)
        super().__init__(shapes._inputs, shapes._boxes, seed)
