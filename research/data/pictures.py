"""Conversion of examples to uint8 images."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from sparring.data.pixel_values import pixels

_LETTER = 6  # width of a letter of Pillow's own font, in pixels
_LINE = 14


def colours(image: np.ndarray) -> Image.Image:
    """Return bytes [h, w, C], C of 1, 3 or 4, as a Pillow image in RGB."""
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert("RGB")


def levels(images: np.ndarray) -> np.ndarray:
    """Return images [N, h, w, C] in [-1, 1] as bytes with 1, 3 or 4 channels.

    Two channels get an empty third one; of more than four the first three are kept.
    """
    cells = pixels(np.asarray(images, np.float32))
    channels = cells.shape[-1]
    if channels == 2:
        return np.concatenate([cells, np.zeros_like(cells[..., :1])], axis=-1)
    return cells if channels in (1, 3, 4) else cells[..., :3]


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Return images [N, h, w, C] in [-1, 1] as small ones, uint8 [N, H, W, 3 or 4].

    A side has 16 pixels or more, about 64 at most.
    """
    cells = levels(images)
    cells = cells.repeat(3, axis=-1) if cells.shape[-1] == 1 else cells
    larger = -(-16 // min(cells.shape[1:3]))
    smaller = -(-max(cells.shape[1:3]) // 64)
    return cells.repeat(larger, axis=1).repeat(larger, axis=2)[:, ::smaller, ::smaller]


def labelled_columns(picture: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Write names above the columns of a grid, bytes [H, W, C]; they are cut to what fits.

    A picture whose columns are too narrow for a name is enlarged, to four times at most.
    """
    _, width, channels = picture.shape
    longest = min(max(len(name) for name in names), 8)
    larger = min(-(-longest * _LETTER * len(names) // width), 4)
    picture = picture.repeat(larger, axis=0).repeat(larger, axis=1)
    column = width * larger / len(names)
    strip = Image.new("L", (width * larger, _LINE), 255)
    draw = ImageDraw.Draw(strip)
    for i, name in enumerate(names):
        draw.text((round(i * column) + 2, 1), name[: int(column) // _LETTER], fill=20)
    head = np.asarray(strip)[..., np.newaxis].repeat(channels, axis=2)
    if channels == 4:
        head[..., 3] = 255
    return np.concatenate([head, picture])
