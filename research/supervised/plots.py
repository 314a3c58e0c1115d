"""Images of predictions beside targets, drawn with Pillow: uint8 [1, H, W, C]."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from sparring.data.pictures import colours
from sparring.data.pixel_values import pixels

_INK = (20, 20, 20)
_BLUE = (60, 110, 200)
_ORANGE = (215, 70, 20)
_GREY = (150, 150, 150)
_CELLS = 30  # largest number of classes for which a confusion matrix shows counts
_LETTER = 6  # width of a letter of Pillow's own font in pixels


def confusion(named: np.ndarray, targets: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return a confusion matrix: rows are true classes, columns predicted ones.

    `named` (predictions) and `targets` are int64 [N]; shades are shares of a row.
    """
    classes = len(names)
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (targets, named), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # [C, C]
    side = max(8, min(36, 960 // classes))
    left = min(max(len(n) for n in names), 14) * _LETTER + 8
    picture = Image.new("RGB", (left + side * classes + 4, side * classes + 24), (255, 255, 255))
    draw = ImageDraw.Draw(picture)
    for row in range(classes):
        draw.text((4, row * side + side // 2 - 5), names[row][:14], fill=_INK)
        for column in range(classes):
            shade = tuple(
                int(255 - s * (255 - c))
                for s, c in zip([share[row, column]] * 3, _BLUE, strict=True)
            )
            x = left + column * side
            y = row * side
            draw.rectangle((x, y, x + side - 1, y + side - 1), fill=shade, outline=(225, 225, 225))
            if classes <= _CELLS and counts[row, column]:
                draw.text((x + 3, y + side // 2 - 5), str(counts[row, column]), fill=_INK)
    draw.text(
        (left, side * classes + 6),
        "columns: as named, in the same order; rows: as they are",
        fill=_INK,
    )
    return np.asarray(picture)[None]


def labelled(
    images: np.ndarray, words: Sequence[str], columns: int = 6, rows: int = 4
) -> np.ndarray:
    """Return the first images [N, h, w, C] in [-1, 1], each with its words under it."""
    cells = pixels(images[: columns * rows])
    width = 110
    height = round(width * cells.shape[1] / cells.shape[2])
    picture = Image.new(
        "RGB", (columns * width, -(-len(cells) // columns) * (height + 16)), (255, 255, 255)
    )
    draw = ImageDraw.Draw(picture)
    for i, cell in enumerate(cells):
        x = i % columns * width
        y = i // columns * (height + 16)
        picture.paste(
            colours(cell).resize((width - 4, height - 2), Image.Resampling.NEAREST), (x, y)
        )
        draw.text((x, y + height - 1), words[i][: (width - 2) // _LETTER], fill=_INK)
    return np.asarray(picture)[None]


def boxed(
    images: np.ndarray, found: np.ndarray, targets: np.ndarray, columns: int = 6, rows: int = 4
) -> np.ndarray:
    """Return images [N, h, w, C] with predicted boxes [N, 4] in orange and true ones in blue.

    Boxes are in shares of the image.
    """
    side = 120
    cells = pixels(images[: columns * rows])
    picture = Image.new("RGB", (columns * side, -(-len(cells) // columns) * side), (255, 255, 255))
    for i, cell in enumerate(cells):
        drawn = colours(cell).resize((side - 2, side - 2), Image.Resampling.NEAREST)
        for box, colour in ((targets[i], _BLUE), (found[i], _ORANGE)):
            top, left, bottom, right = (float(v) * (side - 3) for v in np.clip(box, 0.0, 1.0))
            corners = (min(left, right), min(top, bottom), max(left, right), max(top, bottom))
            ImageDraw.Draw(drawn).rectangle(corners, outline=colour, width=2)
        picture.paste(drawn, (i % columns * side, i // columns * side))
    return np.asarray(picture)[None]


def diagonal(outputs: np.ndarray, targets: np.ndarray, side: int = 320) -> np.ndarray:
    """Return a scatter plot of targets (across) and outputs (up), both [N, K].

    Points on the line are exact.
    """
    low = float(targets.min())
    high = float(targets.max())
    span = max(high - low, 1e-9)
    picture = Image.new("RGB", (side, side), (255, 255, 255))
    draw = ImageDraw.Draw(picture)
    draw.line((0, side - 1, side - 1, 0), fill=_GREY)
    across = (targets - low) / span * (side - 1)
    up = (1.0 - (outputs - low) / span) * (side - 1)
    for x, y in zip(across.ravel()[:2000], np.clip(up.ravel()[:2000], -9, side + 9), strict=True):
        draw.rectangle((x - 1, y - 1, x + 1, y + 1), fill=_BLUE)
    return np.asarray(picture)[None]


def curves(
    lines: Sequence[tuple[str, np.ndarray]], width: int = 900, height: int = 320
) -> np.ndarray:
    """Return a plot of series [T] over the same steps, with their names.

    The first is in grey under the others.
    """
    values = np.concatenate([line for _, line in lines])
    low = float(values.min())
    span = max(float(values.max() - values.min()), 1e-9)
    picture = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(picture)
    for i, (name, line) in enumerate(lines):
        colour = (_GREY, _ORANGE, _BLUE)[i % 3]
        x = np.linspace(4, width - 5, len(line))
        y = (height - 20) - (line - low) / span * (height - 28)
        draw.line([(float(a), float(b)) for a, b in zip(x, y, strict=True)], fill=colour, width=2)
        draw.text((8 + i * 140, height - 14), name, fill=colour)
    return np.asarray(picture)[None]
