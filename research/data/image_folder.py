"""Data sets from folders of png and jpeg images, with subfolders as classes."""

import collections
import itertools
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sparring.data.dataset import SPLITS, Arrays, split_off
from sparring.errors import UserError

_log = logging.getLogger("sparring")
SUFFIXES = (".png", ".jpg", ".jpeg")
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

    If it has the folders `train` and `test`, these are the splits; else `test_fraction` of the
    images, identical in every run, are kept for testing. Within a split, folders are classes, named
    in alphabetical order; images that lie in it directly have no labels.

    `size` is [height, width], or one integer for both: "crop" scales until the shorter side fits
    and keeps the centre, "stretch" scales both sides; bicubic and antialiased (Parmar et al. 2022,
    "On aliased resizing and surprising subtleties in GAN evaluation"). Without a size all images
    must be equally large. `channels`: convert all images to 1 (grey), 3 (RGB) or 4 (RGBA); null:
    keep the files' channels, which must be equal for all. Images that a camera rotated are turned
    upright.

    Files that cannot be read are named in the log and left out, up to `damaged_limit` of them.

    Raises:
        UserError: more files are damaged, the folder has no images, images differ in size or
          channels, or some lie beside class folders.
    """
    source = f"data.path={path}"
    root = Path(path)
    size = (size, size) if isinstance(size, int) else size
    _check_settings(size, resize, channels)
    if not root.is_dir():
        raise UserError(f"{source}: there is no such folder.")
    parted = all((root / s).is_dir() for s in SPLITS)
    files = {s: _files(root / s, source) for s in SPLITS} if parted else {"": _files(root, source)}
    names = sorted({c for _, c in itertools.chain(*files.values())})
    if "" in names and len(names) > 1:
        raise UserError(
            f"{source}: one of its splits has class folders, the other has none: give both or "
            "neither."
        )
    images = _Reader(size, resize, channels, damaged_limit, source).read(
        [f for f, _ in itertools.chain(*files.values())]
    )
    kept = {}
    for split, found in files.items():
        kept[split] = [(images[f], names.index(c)) for f, c in found if f in images]
    if not parted:
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


def _files(root: Path, source: str) -> list[tuple[Path, str]]:
    """Return (file, class) of every image in a split's folder.

    The class is "" if the images lie in it directly.
    """
    found = sorted(
        p
        for p in root.rglob("*")
        if p.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in p.relative_to(root).parts)
    )
    if not found:
        raise UserError(f"{source}: there is no {', '.join(SUFFIXES)} in {root}.")
    classes = [p.relative_to(root).parts[0] if p.parent != root else "" for p in found]
    if "" in classes and len(set(classes)) > 1:
        lone = found[classes.index("")]
        raise UserError(
            f"{source}: {lone.name} lies beside class folders: move it into one, or all images out "
            "of them."
        )
    return list(zip(found, classes, strict=True))


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
        if upright.mode not in _CHANNELS and (
            self.channels is None or upright.mode not in ("LA", "CMYK", "YCbCr")
        ):
            raise UserError(
                f"{self.source}: {file} is of mode {upright.mode}; eight bits a channel, grey, RGB "
                "or RGBA, can be "
                "read as they are: convert it, or set data.channels=3 for one in other colours."
            )
        return np.asarray(
            self._resized(upright.convert(_MODES[self.channels or _CHANNELS[upright.mode]]))
        ).reshape(*self._shape(upright))

    def _resized(self, image: Image.Image) -> Image.Image:
        if self.size is None:
            return image
        height, width = self.size
        if self.resize == "crop":
            return ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
        return image.resize((width, height), Image.Resampling.BICUBIC)

    def _shape(self, image: Image.Image) -> tuple[int, int, int]:
        height, width = self.size or (image.height, image.width)
        return height, width, self.channels or _CHANNELS[image.mode]

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
