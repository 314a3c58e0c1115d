"""Image folders: splits, classes, sizes, colours, and what is wrong with files, each in
one line.
"""

import logging
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparring.data.image_folder import folder
from sparring.data.pixel_values import pixels
from sparring.errors import UserError

pytestmark = pytest.mark.long


def save(path: Path, array: np.ndarray, **more) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8)).save(path, **more)


def flat(value: int, height: int = 4, width: int = 4, channels: int | None = 3) -> np.ndarray:
    return np.full((height, width) if channels is None else (height, width, channels), value)


def read(path: Path, **more):
    return folder(str(path), seed=0, **more)


def test_folders_are_classes_and_images_keep_their_labels(tmp_path):
    for value in range(20):
        save(tmp_path / ("cat" if value % 2 else "dog") / f"{value}.png", flat(value))
    data = read(tmp_path, test_fraction=0.25)
    assert (data.count, data.shape, data.classes, data.names) == (15, (4, 4, 3), 2, ("cat", "dog"))
    images, labels = (
        np.concatenate(a) for a in zip(*(data.examples(s) for s in ("train", "test")), strict=True)
    )
    values = pixels(images)[:, 0, 0, 0]
    assert sorted(values.tolist()) == list(range(20))
    np.testing.assert_array_equal(labels, 1 - values % 2)  # odd values are cats, class 0


def test_folders_train_and_test_are_the_splits(tmp_path):
    for split, count in (("train", 6), ("test", 3)):
        for i in range(count):
            save(tmp_path / split / f"{i}.PNG", flat(10 * count + i, channels=None))
    data = read(tmp_path)
    assert (data.classes, data.shape) == (0, (4, 4, 1))
    assert pixels(data.examples("train")[0])[:, 0, 0, 0].tolist() == [60, 61, 62, 63, 64, 65]
    assert pixels(data.examples("test")[0])[:, 0, 0, 0].tolist() == [30, 31, 32]


def test_crop_keeps_the_centre_and_stretch_keeps_everything(tmp_path):
    wide = np.zeros((4, 12), np.uint8)
    wide[:, 4:8] = 255  # the middle third is white
    for i in range(2):
        save(tmp_path / f"{i}.png", wide)
    crop = pixels(read(tmp_path, size=[4, 4], test_fraction=0.5).examples("train")[0])[0, ..., 0]
    np.testing.assert_array_equal(crop, np.full((4, 4), 255))
    stretch = pixels(
        read(tmp_path, size=[4, 6], resize="stretch", test_fraction=0.5).examples("train")[0]
    )[0, ..., 0]
    assert stretch.shape == (4, 6)
    assert stretch[0, 0] < 20
    assert stretch[0, 5] < 20
    assert stretch[0, 2] > 235


def test_shrinking_is_antialiased(tmp_path):
    # every other column white: shrunk to half, an average of 127.5; picking pixels would give black
    # or white
    for i in range(2):
        save(tmp_path / f"{i}.png", np.tile([0, 255], (16, 8)))
    half = pixels(read(tmp_path, size=8, test_fraction=0.5).examples("train")[0])[0, 2:-2, 2:-2]
    assert abs(half.astype(float) - 127.5).max() < 5


def test_channels_are_converted_when_asked(tmp_path):
    save(tmp_path / "a.png", np.tile([255, 0, 0], (4, 4, 1)))
    save(tmp_path / "b.png", flat(76, channels=None))
    grey = pixels(read(tmp_path, channels=1, test_fraction=0.5).examples("train")[0])
    assert grey.ravel().tolist() == [76] * 16  # ITU-R 601: 0.299 of red
    assert read(tmp_path, channels=3, test_fraction=0.5).shape == (4, 4, 3)
    with pytest.raises(
        UserError, match=r"a\.png has 3 channels, .*b\.png has 1: set data\.channels=1, 3 or 4"
    ):
        read(tmp_path)


def test_sixteen_bits_become_eight(tmp_path, caplog):
    # 257 of 65 536 values are one of 256: 1000 / 257 = 3.9, 40000 / 257 = 155.6
    for i, value in enumerate((0, 1000, 40000, 65535)):
        Image.fromarray(np.full((4, 4), value, np.uint16)).save(tmp_path / f"{i}.png")
    with caplog.at_level(logging.WARNING, "sparring"):
        data = read(tmp_path, test_fraction=0.25)
    found = [pixels(data.examples(s)[0])[:, 0, 0, 0] for s in ("train", "test")]
    assert sorted(np.concatenate(found).tolist()) == [0, 4, 156, 255]
    assert data.shape == (4, 4, 1)
    assert "4 images have 16 bits" in caplog.text
    assert "dark" not in caplog.text
    assert read(tmp_path, channels=3, size=2, test_fraction=0.25).shape == (2, 2, 3)


def test_sixteen_bits_of_which_few_are_used_are_said_to_be_dark(tmp_path, caplog):
    for i in range(2):
        Image.fromarray(np.full((4, 4), 4095, np.uint16)).save(tmp_path / f"{i}.png")
    with caplog.at_level(logging.WARNING, "sparring"):
        read(tmp_path, test_fraction=0.5)
    assert "their largest value is 4095. They will be dark" in caplog.text


def _half_red() -> list[Image.Image]:
    """Return transparent red in each mode that a png can say it in, and RGBA at a half."""
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0] + [0] * 765)
    palette.info["transparency"] = 0
    keyed = Image.new("RGB", (4, 4), (255, 0, 0))
    keyed.info["transparency"] = (255, 0, 0)
    grey = Image.new("LA", (4, 4), (76, 0))
    return [Image.new("RGBA", (4, 4), (255, 0, 0, 0)), palette, keyed, grey]


@pytest.mark.parametrize("kind", range(4))
def test_what_is_transparent_is_white_without_an_alpha_channel(tmp_path, kind):
    for i in range(2):
        _half_red()[kind].save(tmp_path / f"{i}.png")
    for channels in (1, 3):
        found = read(tmp_path, channels=channels, test_fraction=0.5).examples("train")[0]
        np.testing.assert_array_equal(pixels(found), np.full((1, 4, 4, channels), 255))


def test_what_is_half_transparent_is_half_white_and_alpha_is_kept_where_asked(tmp_path):
    for i in range(2):
        Image.new("RGBA", (4, 4), (255, 0, 0, 51)).save(tmp_path / f"{i}.png")
    # alpha 51 / 255 = 0.2: 0.2 * 0 + 0.8 * 255 = 204
    found = pixels(read(tmp_path, channels=3, test_fraction=0.5).examples("train")[0])
    assert found[0, 0, 0].tolist() == [255, 204, 204]
    found = pixels(read(tmp_path, test_fraction=0.5).examples("train")[0])
    assert found[0, 0, 0].tolist() == [255, 0, 0, 51]


def test_a_class_without_an_example_to_learn_from_is_named(tmp_path, caplog):
    for i, name in enumerate(("train/ant", "train/ant", "val/ant", "val/bee")):
        save(tmp_path / name / f"{i}.png", flat(i))
    with caplog.at_level(logging.WARNING, "sparring"):
        assert read(tmp_path).names == ("ant", "bee")
    assert "1 of 2 classes have no example in the train split: bee." in caplog.text


def test_a_turned_photograph_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    image = np.zeros((8, 16, 3))
    image[:, :8] = 255  # the left half is white: upright, the upper half
    for i in range(2):
        save(tmp_path / f"{i}.jpg", image, exif=exif, quality=100)
    found = pixels(read(tmp_path, test_fraction=0.5).examples("train")[0])[0]
    assert found.shape == (16, 8, 3)
    assert found[2, 4, 0] > 250
    assert found[13, 4, 0] < 5


def test_damaged_files_are_named_and_left_out_up_to_a_limit(tmp_path, caplog):
    for i in range(6):
        save(tmp_path / f"{i}.png", np.random.default_rng(i).integers(0, 255, (16, 16, 3)))
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "2.png").write_text("no image")
    with caplog.at_level(logging.WARNING, "sparring"):
        data = read(tmp_path, damaged_limit=2, test_fraction=0.25)
    assert data.count + len(data.examples("test")[1]) == 4
    assert [re.search(r"(\d\.png)", line)[1] for line in caplog.messages] == ["1.png", "2.png"]
    assert "neither png nor jpeg" in caplog.messages[1]
    with pytest.raises(
        UserError, match=r"2 of 6 images cannot be read, more than data\.damaged_limit=1: .*1\.png"
    ):
        read(tmp_path, damaged_limit=1)


def test_other_formats_are_not_read_under_a_false_name(tmp_path):
    for i in range(3):
        save(tmp_path / f"{i}.png", flat(i))
    Image.fromarray(flat(9).astype(np.uint8)).save(tmp_path / "x.png", format="TIFF")
    with pytest.raises(
        UserError, match=r"1 of 4 images cannot be read.*x\.png \(neither png nor jpeg\)"
    ):
        read(tmp_path, damaged_limit=0)


def _unequal(path: Path) -> None:
    save(path / "a.png", flat(0, 4, 4))
    save(path / "b.png", flat(0, 4, 6))


def _lone(path: Path) -> None:
    save(path / "cat" / "a.png", flat(0))
    save(path / "b.png", flat(0))


def _half_labelled(path: Path) -> None:
    save(path / "train" / "cat" / "a.png", flat(0))
    save(path / "test" / "b.png", flat(0))


def _grey_with_alpha(path: Path) -> None:
    Image.new("LA", (4, 4)).save(path / "a.png")


@pytest.mark.parametrize(
    ("prepare", "arguments", "said"),
    [
        (_unequal, {}, "a.png is 4 pixels high and 4 wide, "),
        (_unequal, {}, "b.png 4 and 6: set data.size=[height,width] to resize them."),
        (_lone, {}, "b.png lies beside class folders"),
        (_half_labelled, {}, "one of its splits has class folders, the other has none"),
        (_grey_with_alpha, {}, "a.png is of mode LA, which is neither grey, RGB nor RGBA: set"),
        (lambda path: None, {}, "there is no .png, .jpg, .jpeg in "),
        (
            lambda path: save(path / "a.png", flat(0)),
            {},
            "test_fraction=0.1 of 1 examples leaves 1 for training and 0",
        ),
        (lambda path: (path / "a.png").touch(), {}, "none of its 1 images can be read"),
        (lambda path: None, {"size": [32]}, "data.size=[32]: give [height, width]"),
        (lambda path: None, {"resize": "zoom"}, "data.resize=zoom: choose one of crop, stretch"),
        (
            lambda path: None,
            {"channels": 2},
            "data.channels=2: 1 (grey), 3 (RGB), 4 (RGBA) or null",
        ),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, prepare, arguments, said):
    prepare(tmp_path)
    with pytest.raises(UserError, match=re.escape(said)) as error:
        read(tmp_path, **arguments)
    assert "\n" not in str(error.value)


def test_a_missing_folder_is_named():
    with pytest.raises(UserError, match=r"data\.path=nowhere: there is no such folder"):
        folder("nowhere", seed=0)
