"""Data sets from folders of png and jpeg images, with subfolders as classes."""

import collections
import itertools
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sparring.data import folder_layout
from sparring.data.dataset import Arrays
from sparring.data.pixel_values import eight_bits
from sparring.data.splits import SPLITS, split_off
from sparring.errors import UserError

_log = logging.getLogger("sparring")
RESIZES = ("crop", "stretch")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# Channels for Pillow's modes with at most eight bits a channel
_CHANNELS = {"1": 1, "L": 1, "P": 3, "RGB": 3, "RGBA": 4}


def folder(
    path: str,
    seed: int,
    size: int | Sequence[int] | None = None,
    resize: str = "crop",
    channels: int | None = None,
    damaged_limit: int = 10,
    test_fraction: float = 0.1,
) -> Arrays:
    """Return the images of a folder, held in memory as bytes [N, H, W, C].

    If it has the folders `train` and `test` (or `val`, without a `test`), these are the splits;
    else `test_fraction` of the images, identical in every run, are kept for testing. Within a
    split, folders are classes, named in alphabetical order; images that lie in it directly have no
    labels. Links are followed.

    `size` is [height, width], or one integer for both: "crop" scales until the shorter side fits
    and keeps the centre, "stretch" scales both sides; bicubic and antialiased (Parmar et al. 2022,
    "On aliased resizing and surprising subtleties in GAN evaluation"). Without a size all images
    must be equally large. `channels`: convert all images to 1 (grey), 3 (RGB) or 4 (RGBA); null:
    keep the files' channels, which must be equal for all. Without an alpha channel, what is
    transparent becomes white. Grey images of 16 bits are scaled to 8. Images that a camera rotated
    are turned upright.

    Files that cannot be read are named in the log and left out, up to `damaged_limit` of them.
    Files of other kinds are counted there.

    Raises:
        UserError: more files are damaged, the folder has no images, images differ in size or
          channels, or some lie beside class folders.
    """
    source = f"data.path={path}"
    size = (size, size) if isinstance(size, int) else size
    _check_settings(size, resize, channels)
    files = folder_layout.find(path, source)
    names = sorted({c for _, c in itertools.chain(*files.values())})
    images = _Reader(size, resize, channels, damaged_limit, source).read(
        [f for f, _ in itertools.chain(*files.values())]
    )
    kept = {}
    for split, found in files.items():
        kept[split] = [(images[f], names.index(c)) for f, c in found if f in images]
    if "" in kept:
        whole = kept[""]
        rows = split_off(len(whole), test_fraction, source, np.array([label for _, label in whole]))
        kept = {s: [whole[i] for i in r] for s, r in rows.items()}
    if not all(kept[s] for s in SPLITS):
        raise UserError(f"{source}: one of its splits has no readable image.")
    examples = {s: np.stack([image for image, _ in kept[s]]) for s in SPLITS}
    labels = (
        None
        if names == [""]
        else {s: np.array([label for _, label in kept[s]], np.int64) for s in SPLITS}
    )
    return Arrays(examples, labels, seed, None if labels is None else names, source)


def _check_settings(size: Sequence[int] | None, resize: str, channels: int | None) -> None:
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise UserError(
            f"data.size={list(size)}: give [height, width] in pixels, or null for no resize."
        )
    if resize not in RESIZES:
        raise UserError(f"data.resize={resize}: choose one of {', '.join(RESIZES)}.")
    if channels not in (None, *_MODES):
        raise UserError(
            f"data.channels={channels}: 1 (grey), 3 (RGB), 4 (RGBA) or null (as the files are)."
        )


class _Reader:
    """Reader of image files to bytes [H, W, C] of one shape, with the settings of `folder`."""

    def __init__(
        self,
        size: Sequence[int] | None,
        resize: str,
        channels: int | None,
        damaged_limit: int,
        source: str,
    ) -> None:
        self.size = size
        self.resize = resize
        self.channels = channels
        self.damaged_limit = damaged_limit
        self.source = source
        self._brightest: list[int] = []  # largest value of each image of 16 bits

    def read(self, files: Sequence[Path]) -> Mapping[Path, np.ndarray]:
        """Return the images of the files that can be read."""
        images: dict[Path, np.ndarray] = {}
        damaged: list[str] = []
        with ThreadPoolExecutor() as pool:  # decoding releases the interpreter lock
            for file, image in zip(files, pool.map(self._read, files), strict=True):
                if isinstance(image, str):
                    damaged.append(f"{file} ({image})")
                else:
                    images[file] = image
        if len(damaged) > self.damaged_limit:
            raise UserError(
                f"{self.source}: {len(damaged)} of {len(files)} images cannot be read, more than "
                f"data.damaged_limit={self.damaged_limit}: {', '.join(damaged[:3])}, ..."
            )
        for line in damaged:
            _log.warning("Left out, as it cannot be read: %s.", line)
        if not images:
            raise UserError(f"{self.source}: none of its {len(files)} images can be read.")
        self._name_deep_images()
        self._check_alike(images)
        return images

    def _read(self, file: Path) -> np.ndarray | str:
        """Return one image, or the reason why it cannot be read."""
        try:
            with Image.open(file, formats=["PNG", "JPEG"]) as image:
                image.load()
                upright = ImageOps.exif_transpose(image)
        except UnidentifiedImageError:
            return "neither png nor jpeg"
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            return " ".join(str(error).split()) or type(error).__name__
        if upright.mode.startswith("I"):  # 16 bits, which Pillow's other modes do not have
            upright = self._of_eight_bits(upright)
        if upright.mode not in _CHANNELS and self.channels is None:
            raise UserError(
                f"{self.source}: {file} is of mode {upright.mode}, which is neither grey, RGB nor "
                "RGBA: set data.channels=3 to have it converted."
            )
        channels = self.channels or _CHANNELS[upright.mode]
        pixels = np.asarray(self._resized(_converted(upright, channels)))
        return pixels.reshape(*self._shape(upright, channels))

    def _of_eight_bits(self, image: Image.Image) -> Image.Image:
        values = np.asarray(image)
        self._brightest.append(int(values.max()))
        return Image.fromarray(eight_bits(values))

    def _name_deep_images(self) -> None:
        """Say that images of 16 bits were scaled, and how bright they are."""
        if not self._brightest:
            return
        brightest = max(self._brightest)
        dark = " They will be dark: scale them to the whole range first." * (brightest < 16384)
        _log.warning(
            "%s: %d images have 16 bits and are scaled to 8, 65535 to 255; their largest value is "
            "%d.%s",
            self.source,
            len(self._brightest),
            brightest,
            dark,
        )

    def _resized(self, image: Image.Image) -> Image.Image:
        if self.size is None:
            return image
        height, width = self.size
        if self.resize == "crop":
            return ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
        return image.resize((width, height), Image.Resampling.BICUBIC)

    def _shape(self, image: Image.Image, channels: int) -> tuple[int, int, int]:
        height, width = self.size or (image.height, image.width)
        return height, width, channels

    def _check_alike(self, images: Mapping[Path, np.ndarray]) -> None:
        first, *others = collections.Counter(i.shape for i in images.values())
        if not others:
            return
        one = next(f for f, i in images.items() if i.shape == first)
        other = next(f for f, i in images.items() if i.shape == others[0])
        if first[2] != others[0][2]:
            raise UserError(
                f"{self.source}: {one} has {first[2]} channels, {other} has {others[0][2]}: set "
                "data.channels=1, 3 or 4."
            )
        raise UserError(
            f"{self.source}: {one} is {first[0]} pixels high and {first[1]} wide, {other} "
            f"{others[0][0]} and "
            f"{others[0][1]}: set data.size=[height,width] to resize them."
        )


def _converted(image: Image.Image, channels: int) -> Image.Image:
    """Return an image with 1, 3 or 4 channels of eight bits, on white if it loses its alpha."""
    transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    if transparent:
        image = image.convert("RGBA")
        if channels != 4:
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, image).convert("RGB")
    elif image.mode not in _CHANNELS:  # such as CMYK
        image = image.convert("RGB")
    return image.convert(_MODES[channels])
