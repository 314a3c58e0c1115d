"""The projector's files, as its own reader takes them."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from sparring.tensorboard import projector
from sparring.tensorboard.projector import Embedding
from sparring.tensorboard.writer import Writer


def config(folder: Path) -> ProjectorConfig:
    return text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())


def points(numbers: list[list[float]], **rest: object) -> Embedding:
    return Embedding(np.array(numbers), **rest)


def test_vectors_labels_and_pictures_lie_where_the_config_says(tmp_path: Path) -> None:
    # H 2, w 4
    pictures = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((3, 2, 4, 3), np.uint8)
    labels = {"kind": ["real", "real", "generated"], "label": ["a\tb", "1", "2"]}
    vectors = [[1.5, -2], [0, 1e-9], [3, 4]]
    projector.write(
        tmp_path, {"samples/features": points(vectors, labels=labels, pictures=pictures)}
    )
    (entry,) = config(tmp_path).embeddings
    assert entry.tensor_name == "samples/features"
    assert list(entry.sprite.single_image_dim) == [4, 2]  # width, then height
    assert (tmp_path / entry.tensor_path).read_text() == "1.5\t-2\n0\t1e-09\n3\t4"
    assert (
        tmp_path / entry.metadata_path
    ).read_text() == "kind\tlabel\nreal\ta b\nreal\t1\ngenerated\t2"
    sprite = np.asarray(Image.open(tmp_path / entry.sprite.image_path))
    # Two by two cells, the last of nothing
    np.testing.assert_array_equal(sprite[::2, ::4, 0], [[0, 1], [2, 0]])
    assert sprite.shape == (4, 8, 3)


def test_one_column_has_no_head_and_a_tag_replaces_itself(tmp_path: Path) -> None:
    projector.write(
        tmp_path, {"a": points([[1.0]]), "b": points([[2.0], [3.0]], labels={"kind": ["x", "y"]})}
    )
    projector.write(tmp_path, {"a": points([[7.0]])})
    found = {entry.tensor_name: entry for entry in config(tmp_path).embeddings}
    assert len(config(tmp_path).embeddings) == 2
    assert (tmp_path / found["a"].tensor_path).read_text() == "7"
    assert (tmp_path / found["b"].metadata_path).read_text() == "x\ny"
    assert found["a"].metadata_path == ""
    assert not list(tmp_path.rglob("*.part*"))


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 1\) and \{'kind': 3\}"):
        points([[1.0], [2.0]], labels={"kind": ["x"] * 3})
    with pytest.raises(
        ValueError, match="9 pictures of 4096x4096 make a sheet of over 8192 pixels"
    ):
        projector.sheet(np.broadcast_to(np.zeros((), np.uint8), (9, 4096, 4096, 3)))


def test_a_full_disk_costs_the_points_but_not_the_run(tmp_path: Path, caplog, monkeypatch) -> None:
    monkeypatch.setattr(
        projector,
        "_replace",
        lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")),
    )
    with contextlib.closing(Writer(tmp_path)) as writer:
        writer.embeddings({"a": points([[1.0]])})
    assert "projector's points could not be written" in caplog.text
