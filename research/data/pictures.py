"""Conversion of examples to uint8 images."""

import numpy as np
from PIL import Image

from sparring.data.dataset import pixels


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
