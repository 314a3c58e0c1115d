"""Small canvas for images of environments, in their own units, drawn with Pillow."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

WHITE = (255, 255, 255)
BLACK = (40, 40, 40)
GREY = (170, 170, 170)
BLUE = (50, 100, 180)
ORANGE = (220, 140, 50)
GREEN = (70, 150, 80)
RED = (190, 60, 60)

Colour = tuple[int, int, int]
Point = tuple[float, float]


class Canvas:
    """Image of the rectangle from (left, bottom) to (right, top), with y upwards.

    It is `width` pixels wide; its height follows from the rectangle.
    """

    def __init__(
        self, left: float, bottom: float, right: float, top: float, width: int = 300
    ) -> None:
        self._left = left
        self._top = top
        self._scale = width / (right - left)
        self._image = Image.new("RGB", (width, round((top - bottom) * self._scale)), WHITE)
        self._draw = ImageDraw.Draw(self._image)

    def _at(self, point: Point) -> Point:
        return (
            float(point[0] - self._left) * self._scale,
            float(self._top - point[1]) * self._scale,
        )

    def line(self, points: Sequence[Point], colour: Colour = BLACK, thickness: float = 0.0) -> None:
        """Draw a line through `points`, at least one pixel thick."""
        self._draw.line(
            [self._at(p) for p in points], colour, max(1, round(thickness * self._scale))
        )

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        """Draw a filled polygon."""
        self._draw.polygon([self._at(p) for p in points], colour)

    def box(self, left: float, bottom: float, right: float, top: float, colour: Colour) -> None:
        """Draw a filled rectangle."""
        self.polygon([(left, bottom), (left, top), (right, top), (right, bottom)], colour)

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        """Draw a filled circle."""
        x, y = self._at(centre)
        r = radius * self._scale
        self._draw.ellipse([x - r, y - r, x + r, y + r], colour)

    def pixels(self) -> np.ndarray:
        """Return the image, uint8 [H, W, 3]."""
        return np.array(self._image)


def tiles(colours: np.ndarray, width: int = 240) -> np.ndarray:
    """Return an image of a board with one colour per cell, uint8 [rows, columns, 3].

    The image is about `width` pixels wide and has lines between the cells.
    """
    side = max(3, width // colours.shape[1])
    picture = colours.repeat(side, axis=0).repeat(side, axis=1)
    picture[::side] = WHITE
    picture[:, ::side] = WHITE
    return picture
