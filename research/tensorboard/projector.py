"""TensorBoard's projector: embedding vectors, each with its labels and a small image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from google.protobuf import text_format  # type: ignore[import-untyped]
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

_CONFIG = "projector_config.pbtxt"  # where the projector looks, in the folder of a run
_FOLDER = "projector"
_SHEET = 8192  # largest side of a sheet of images in pixels, the projector's own limit


@dataclass(frozen=True)
class Embedding:
    """Points of the projector.

    Args:
        vectors: [N, D].
        labels: column -> its text for each of the N points.
        pictures: images, uint8 [N, h, w, 3 or 4], or None.
    """

    vectors: np.ndarray
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    pictures: np.ndarray | None = None

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.labels.items()}
        lengths |= {} if self.pictures is None else {"pictures": len(self.pictures)}
        wrong = {name: length for name, length in lengths.items() if length != len(self.vectors)}
        if self.vectors.ndim != 2 or wrong:
            raise ValueError(
                f"an embedding is [N, D] and N of all else; this is {self.vectors.shape} and "
                f"{wrong}"
            )


def write(folder: Path, embeddings: Mapping[str, Embedding]) -> None:
    """Write embeddings, by tag, where the projector finds them in the folder of a run.

    An embedding replaces the older one of its tag. The config is written last and renamed into
    place, so that a reader never meets one whose files are missing.
    """
    config = ProjectorConfig()
    if (folder / _CONFIG).is_file():
        text_format.Parse((folder / _CONFIG).read_text(), config)
    for tag, embedding in embeddings.items():
        stem = f"{_FOLDER}/{tag.replace('/', '_')}"
        _write_files(folder, stem, embedding)
        for old in [i for i, known in enumerate(config.embeddings) if known.tensor_name == tag]:
            del config.embeddings[old]
        entry = config.embeddings.add(tensor_name=tag, tensor_path=f"{stem}.tsv")
        entry.metadata_path = f"{stem}_labels.tsv" if embedding.labels else ""
        if embedding.pictures is not None:
            entry.sprite.image_path = f"{stem}.png"
            entry.sprite.single_image_dim.extend(embedding.pictures.shape[2:0:-1])  # width, height
    _replace(folder / _CONFIG, text_format.MessageToString(config).encode())


def _write_files(folder: Path, stem: str, embedding: Embedding) -> None:
    (folder / _FOLDER).mkdir(parents=True, exist_ok=True)
    rows = ["\t".join(f"{number:.6g}" for number in vector) for vector in embedding.vectors]
    _replace(folder / f"{stem}.tsv", "\n".join(rows).encode())
    if embedding.labels:
        _replace(folder / f"{stem}_labels.tsv", _table(embedding.labels).encode())
    if embedding.pictures is not None:
        Image.fromarray(sheet(embedding.pictures)).save(folder / f"{stem}.part.png")
        (folder / f"{stem}.part.png").replace(folder / f"{stem}.png")


def _table(labels: Mapping[str, Sequence[str]]) -> str:
    """Return tab-separated values.

    The projector takes a first row of names only if there are several columns.
    """
    head = ["\t".join(labels)] if len(labels) > 1 else []
    lines = []
    for row in zip(*labels.values(), strict=True):
        lines.append("\t".join(str(word).replace("\t", " ").replace("\n", " ") for word in row))
    return "\n".join([*head, *lines])


def sheet(pictures: np.ndarray) -> np.ndarray:
    """Arrange images [N, h, w, C] row by row in the smallest square grid -> [H, W, C].

    Raises:
        ValueError: the grid is larger than the projector takes.
    """
    count, h, w, c = pictures.shape
    side = int(np.ceil(np.sqrt(count)))
    if side * max(h, w) > _SHEET:
        raise ValueError(
            f"{count} pictures of {h}x{w} make a sheet of over {_SHEET} pixels: show fewer, or "
            "smaller ones"
        )
    cells = np.concatenate([pictures, np.zeros([side * side - count, h, w, c], np.uint8)])
    return cells.reshape(side, side, h, w, c).swapaxes(1, 2).reshape(side * h, side * w, c)


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    part.replace(path)
