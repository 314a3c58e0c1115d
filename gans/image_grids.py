"""Grids of images, scatter plots of points, and interpolated latents."""

from collections.abc import Sequence

import numpy as np

from sparring.data.pictures import levels

_SIDE = 256  # minimum side of an image, in pixels; smaller ones are enlarged
_CANVAS = 384
_MARGIN = 0.3
_REAL = np.array([150, 150, 150])
_FAKE = np.array([215, 70, 20])


def grid(examples: np.ndarray, columns: int) -> np.ndarray:
    """Arrange images [N, h, w, C] in [-1, 1] row by row in one image uint8 [H, W, 1, 3 or 4].

    Small images are enlarged.
    """
    cells = levels(examples)  # [N, h, w, C]
    rows = -(-len(cells) // columns)
    lacking = np.full([rows * columns - len(cells), *cells.shape[1:]], 255, np.uint8)
    cells = np.pad(
        np.concatenate([cells, lacking]), [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=255
    )
    _, h, w, c = cells.shape
    picture = cells.reshape(rows, columns, h, w, c).swapaxes(1, 2).reshape(rows * h, columns * w, c)
    factor = -(-_SIDE // max(picture.shape[:2]))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def beside(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Concatenate two images of equal height with a gap between them."""
    gap = np.full([left.shape[0], max(left.shape[1] // 32, 2), left.shape[2]], 255, np.uint8)
    return np.concatenate([left, gap, right], axis=1)


def scatter(real: np.ndarray, fake: np.ndarray) -> np.ndarray:
    """Plot points [N, 2], generated ones in orange on real ones in grey: uint8 [H, W, 3].

    The real points set the scale.
    """
    low = real.min(axis=0)
    high = real.max(axis=0)
    middle = (low + high) / 2.0
    half = max(float(np.max(high - low)) / 2.0, 1e-6) * (1.0 + _MARGIN)
    picture = np.full([_CANVAS, _CANVAS, 3], 255, np.uint8)
    for points, color in ((real, _REAL), (fake, _FAKE)):
        place = (points - middle) / half  # [N, 2]
        place = place[(np.abs(place) < 1.0).all(axis=1)]  # visible points; drops NaN
        column = ((place[:, 0] + 1.0) / 2.0 * (_CANVAS - 1)).astype(int)
        row = ((1.0 - place[:, 1]) / 2.0 * (_CANVAS - 1)).astype(int)
        for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
            picture[row + dy, column + dx] = color
    return picture


def between(start: np.ndarray, end: np.ndarray, steps: int) -> np.ndarray:
    """Interpolate from latents `start` [R, Z] to `end` along great circles (White 2016).

    Returns [R * steps, Z], row by row. Straight lines between normal vectors would leave the shell
    in which nearly all training latents lie.
    """
    share = np.linspace(0.0, 1.0, steps)[:, np.newaxis]  # [S, 1]
    rows: Sequence[np.ndarray] = [_arc(a, b, share) for a, b in zip(start, end, strict=True)]
    return np.concatenate(rows).astype(np.float32)


def _arc(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    angle = np.arccos(np.clip(np.dot(a, b) / max(float(norms), 1e-12), -1.0, 1.0))
    if np.sin(angle) < 1e-6:
        return (1.0 - share) * a + share * b
    return (np.sin((1.0 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)
