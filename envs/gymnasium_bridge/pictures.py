"""Layout of pictures in observations: networks here look at [H, W, C], channels last.

Gymnasium's own wrappers stack frames in front, [4, 84, 84] or [4, 84, 84, 3], and many environments
give channels first. A convolution would take either, and look along the wrong axes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from sparring.errors import UserError

CHANNELS = ("auto", "first", "last")
_FEW = 16  # channels, or stacked frames, at most, of what is recognised


class Layout(NamedTuple):
    """Order of a space's axes and, after that, the shape that agents see."""

    order: tuple[int, ...]
    shape: tuple[int, ...]

    def turn(self, batch: np.ndarray) -> np.ndarray:
        """Return a batch [B, ...] in this layout, as a fresh array."""
        axes = (0, *(axis + 1 for axis in self.order))
        return np.array(batch.transpose(axes), order="C").reshape(len(batch), *self.shape)

    def turn_bounds(self, bound: np.ndarray) -> np.ndarray:
        """Return the space's low or high in this layout."""
        return self.turn(bound[np.newaxis])[0]


def layout(space: spaces.Box, channels: str) -> Layout | None:
    """Return the layout to turn a Box's pictures to; None for what is no picture, or is right.

    Args:
        space: of the observations.
        channels: "first" or "last" as the environment has them, or "auto" to tell by the shape: of
            [4, 84, 84] the 4 are channels.

    Raises:
        UserError: `channels` is none of these.
    """
    if channels not in CHANNELS:
        raise UserError(f"env.channels={channels}: choose one of {', '.join(CHANNELS)}.")
    shape = tuple(space.shape)
    if len(shape) == 2 and space.dtype == np.uint8 and min(shape) > _FEW:
        return Layout((0, 1), (*shape, 1))
    if len(shape) == 3:
        first = _channels_first(shape) if channels == "auto" else channels == "first"
        return Layout((1, 2, 0), (*shape[1:], shape[0])) if first else None
    if len(shape) == 4 and shape[0] <= _FEW:
        return _unstacked(shape, channels)
    return None


def _unstacked(shape: Sequence[int], channels: str) -> Layout | None:
    """Return the layout that puts a stack of pictures' frames into their channels."""
    first = _channels_first(shape[1:]) if channels == "auto" else channels == "first"
    if first:
        stack, depth, height, width = shape
        return Layout((2, 3, 0, 1), (height, width, stack * depth))
    stack, height, width, depth = shape
    if depth > _FEW:
        return None
    return Layout((1, 2, 0, 3), (height, width, stack * depth))


def _channels_first(shape: Sequence[int]) -> bool:
    """Whether the first of three axes is the channels': few, and the others a picture's sides."""
    depth, height, width = shape
    if depth > _FEW or width <= 4:
        return False
    return min(height, width) > _FEW or height == width > depth
