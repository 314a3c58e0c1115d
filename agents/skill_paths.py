"""Picture of the paths of skills in the plane."""

import colorsys

import numpy as np
from PIL import Image, ImageDraw

_SIDE = 480  # pixels
_MARGIN = 24


def picture(paths: np.ndarray, skills: int) -> np.ndarray:
    """Draw paths [T, N, 4] in one image, uint8 [H, W, 3], a colour for each skill.

    A step is its place in the plane, its skill, and whether it belongs to the step before: 0 where
    an episode began. A dot marks the end of each path.
    """
    places = paths[..., :2]
    low = places.min(axis=(0, 1))
    scale = (_SIDE - 2 * _MARGIN) / max(float((places.max(axis=(0, 1)) - low).max()), 1e-6)
    image = Image.new("RGB", (_SIDE, _SIDE), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    pixels = _MARGIN + (places - low) * scale  # [T, N, 2]
    pixels[..., 1] = _SIDE - pixels[..., 1]  # y points up
    for path, points in zip(paths.swapaxes(0, 1), pixels.swapaxes(0, 1), strict=True):
        starts = [*np.flatnonzero(path[1:, 3] == 0.0) + 1, len(path)]
        begin = 0
        for end in starts:
            colour = _colour(int(path[begin, 2]), skills)
            line = [(float(x), float(y)) for x, y in points[begin:end]]
            draw.line(line, colour, 1)
            x, y = line[-1]
            draw.ellipse([x - 3, y - 3, x + 3, y + 3], colour)
            begin = end
    return np.array(image)


def _colour(skill: int, skills: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(skill / skills, 1.0, 0.8)
    return round(255 * red), round(255 * green), round(255 * blue)
