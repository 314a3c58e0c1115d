"""Data from .npz files: scaled, split, and what is wrong with a file told by its own rows."""

import logging
import re
from pathlib import Path

import numpy as np
import pytest

from sparring.data import arrays, pixel_values
from sparring.errors import UserError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    images = np.arange(40 * 4, dtype=np.uint8).reshape(40, 2, 2)
    path = tmp_path / "my.npz"
    np.savez(
        path,
        images=images,
        labels=np.arange(40) % 4,
        floats=images / 255.0,
        objects=np.array([{}, 1]),
    )
    return path


def test_npz_keeps_images_and_labels_together(file):
    data = arrays.npz(str(file), seed=0, labels="labels", test_fraction=0.25)
    assert (data.count, data.shape, data.classes) == (30, (2, 2, 1), 4)
    images, labels = (
        np.concatenate(a) for a in zip(*(data.examples(s) for s in ("train", "test")), strict=True)
    )
    first = pixel_values.pixels(images)[:, 0, 0, 0]
    assert sorted(first.tolist()) == list(range(0, 160, 4))
    np.testing.assert_array_equal(labels, first // 4 % 4)


def test_npz_scales_floats_and_takes_a_test_split(file):
    whole = arrays.npz(str(file), 0, images="floats", test_images="floats", low=0.0, high=1.0)
    np.testing.assert_allclose(
        whole.examples("train")[0].ravel()[:2], [-1.0, 2 / 255 - 1], atol=1e-6
    )
    assert whole.classes == 0


def test_npz_scales_to_the_very_ends_of_any_range(tmp_path):
    # in float32 (-8.29 + 8.6) * 2 / 0.31 - 1 is 1.0000026, which Arrays would refuse
    np.savez(tmp_path / "my.npz", images=np.tile(np.float32([-8.6, -8.29]), (4, 2, 1)))
    data = arrays.npz(str(tmp_path / "my.npz"), 0, low=-8.6, high=-8.29, test_fraction=0.5)
    np.testing.assert_array_equal(data.examples("test")[0][0, ..., 0], [[-1.0, 1.0]] * 2)


def test_npz_asks_about_floats_that_begin_at_zero(file, caplog):
    logging.getLogger("sparring").addHandler(caplog.handler)
    try:
        arrays.npz(str(file), 0, images="floats", low=0.0)
        assert caplog.messages == []
        arrays.npz(str(file), 0, images="floats")
    finally:
        logging.getLogger("sparring").removeHandler(caplog.handler)
    assert "set data.low=0" in caplog.messages[0]


def test_npz_takes_arrays_of_sixteen_bits(tmp_path):
    deep = np.full((4, 2, 2), 40000, np.uint16)  # 40000 / 257 = 155.6
    np.savez(tmp_path / "my.npz", images=deep)
    data = arrays.npz(str(tmp_path / "my.npz"), 0, test_fraction=0.25)
    assert data.kept == np.uint8
    assert (pixel_values.pixels(data.examples("train")[0]) == 156).all()


@pytest.mark.parametrize("shape", [(40, 2, 2), (40, 4)])
def test_npz_names_the_row_of_the_file_that_holds_nan(tmp_path, shape):
    images = np.zeros(shape)
    images[[17, 33], 1, ...] = np.nan
    np.savez(tmp_path / "my.npz", images=images)
    with pytest.raises(
        UserError,
        match=r"my\.npz: images: 2 of 40 examples hold NaN or infinity, first number 17\.",
    ):
        arrays.npz(str(tmp_path / "my.npz"), 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"images": "pictures"}, "no array pictures; there are floats, images, labels, objects"),
        ({"images": "objects"}, "it holds Python objects, which are never unpickled"),
        ({"images": "labels"}, "is int64 [36]"),
        ({"labels": "labels", "test_images": "images"}, "give labels to both splits"),
        (
            {"images": "floats", "low": 1.0, "high": 0.0},
            "data.low=1.0 must lie below data.high=0.0",
        ),
        (
            {"images": "floats", "high": 0.5},
            "floats has values from 0 to 0.623529, beyond data.low=-1 and data.high=0.5",
        ),
        (
            {"test_fraction": 0.0},
            "test_fraction=0.0 of 40 examples leaves 40 for training and 0 for testing",
        ),
    ],
)
def test_npz_says_what_is_wrong_with_a_file(file, arguments, said):
    with pytest.raises(UserError, match=re.escape(said)):
        arrays.npz(str(file), 0, **arguments)


def test_npz_says_what_is_no_npz(tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "bare.npy", np.zeros(3))
    for name, said in (
        ("none.npz", "no such file"),
        ("text.npz", "cannot be read as .npz"),
        ("bare.npy", "bare array"),
    ):
        with pytest.raises(UserError, match=said):
            arrays.npz(str(tmp_path / name), 0)
