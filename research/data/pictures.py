"""Conversion of examples to uint8 pictures."""

import numpy as np
from PIL import Image

from sparring.data.dataset import pixels


def colours(image: np.ndarray) -> Image.Image:
    """Bytes [h, w, C], C of 1, 3 or 4, as a picture in colours."""
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert("RGB")


def levels(images: np.ndarray) -> np.ndarray:
    """Images [N, h, w, C] in [-1, 1] as bytes with a number of channels that a picture may have: 1,
    3 or 4.
    """
    cells = pixels(np.asarray(images, np.float32))
    channels = cells.shape[-1]
    if channels == 2:
        return np.concatenate([cells, np.zeros_like(cells[..., :1])], axis=-1)
    return cells if channels in (1, 3, 4) else cells[..., :3]


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Images [N, h, w, C] in [-1, 1] -> uint8 [N, H, W, 3 or 4], of 16 pixels a side or more, about
    64 at most.
    """
    cells = levels(images)
    cells = cells.repeat(3, axis=-1) if cells.shape[-1] == 1 else cells
    larger = -(-16 // min(cells.shape[1:3]))
    smaller = -(-max(cells.shape[1:3]) // 64)
    return cells.repeat(larger, axis=1).repeat(larger, axis=2)[:, ::smaller, ::smaller]
