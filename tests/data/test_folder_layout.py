"""Layouts of image folders: splits by their names, classes through links, and all that is passed
over named.
"""

import logging
import re
from pathlib import Path

import pytest

from sparring.data.folder_layout import find
from sparring.errors import UserError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def layout(root: Path) -> dict[str, list[str]]:
    """Return the files of each split as "class: path"."""
    found = find(str(root), "data.path=x")
    return {
        split: [f"{name}: {file.relative_to(root)}" for file, name in files]
        for split, files in found.items()
    }


@pytest.mark.parametrize("test", ["test", "val", "valid", "validation", "Val", "testing"])
def test_a_second_folder_by_any_usual_name_is_the_test_split(tmp_path, test):
    touch(tmp_path, "train/ant/1.png", f"{test}/ant/2.png", f"{test}/bee/3.png")
    assert layout(tmp_path) == {
        "train": ["ant: train/ant/1.png"],
        "test": [f"ant: {test}/ant/2.png", f"bee: {test}/bee/3.png"],
    }


def test_of_val_and_test_the_second_is_the_split_and_what_is_beside_is_named(tmp_path, caplog):
    touch(tmp_path, "train/ant/1.png", "test/ant/2.png", "val/ant/3.png", "other/4.png", "5.png")
    with caplog.at_level(logging.WARNING, "sparring"):
        found = layout(tmp_path)
    assert found == {"train": ["ant: train/ant/1.png"], "test": ["ant: test/ant/2.png"]}
    (said,) = caplog.messages
    assert "beside the folders of its splits, train and test: 5.png, other, val." in said


def test_a_lone_train_folder_is_no_class(tmp_path, caplog):
    touch(tmp_path, "train/ant/1.png", "train/bee/2.png")
    with caplog.at_level(logging.WARNING, "sparring"):
        assert layout(tmp_path) == {"": ["ant: train/ant/1.png", "bee: train/bee/2.png"]}
    assert "no test or val: data.test_fraction of train is kept for testing" in caplog.text


def test_a_class_that_is_called_train_is_one_and_said_to_be(tmp_path, caplog):
    touch(tmp_path, "bus/1.png", "train/2.png")
    with caplog.at_level(logging.WARNING, "sparring"):
        assert layout(tmp_path) == {"": ["bus: bus/1.png", "train: train/2.png"]}
    assert "its folder train is taken for a class" in caplog.text


def test_splits_without_one_for_training_are_refused(tmp_path):
    touch(tmp_path, "test/ant/1.png", "val/ant/2.png")
    with pytest.raises(UserError, match="a folder test and none for training: call one"):
        find(str(tmp_path), "data.path=x")


def test_links_to_classes_splits_and_images_are_followed(tmp_path):
    touch(tmp_path, "store/a/1.png", "store/b/deep/2.png", "store/3.png")
    mine = tmp_path / "mine"
    (mine / "cat").mkdir(parents=True)
    (mine / "ant").symlink_to(tmp_path / "store" / "a")
    (mine / "bee").symlink_to(tmp_path / "store" / "b")
    (mine / "cat" / "4.png").symlink_to(tmp_path / "store" / "3.png")
    assert layout(mine) == {"": ["ant: ant/1.png", "bee: bee/deep/2.png", "cat: cat/4.png"]}
    split = tmp_path / "split"
    split.mkdir()
    (split / "train").symlink_to(mine)
    (split / "val").symlink_to(mine)
    assert [len(files) for files in layout(split).values()] == [3, 3]


def test_a_link_back_to_where_it_lies_ends(tmp_path, caplog):
    touch(tmp_path, "ant/1.png")
    (tmp_path / "ant" / "again").symlink_to(tmp_path)
    with caplog.at_level(logging.WARNING, "sparring"):
        assert layout(tmp_path) == {"": ["ant: ant/1.png"]}
    assert "a link to a folder it lies in" in caplog.text


def test_files_and_folders_that_are_passed_over_are_counted_by_kind(tmp_path, caplog):
    touch(tmp_path, *(f"ant/{i}.png" for i in range(6)), *(f"ant/{i}.webp" for i in range(4)))
    touch(tmp_path, "ant/notes", "ant/.7.png", ".DS_Store", "bee/1.gif")
    (tmp_path / "ant" / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "cow").mkdir()
    with caplog.at_level(logging.WARNING, "sparring"):
        assert len(layout(tmp_path)[""]) == 6
    files, classes = caplog.messages
    # 4 webp, 1 gif, 1 without a suffix, 1 hidden, 1 broken link beside 6 images
    assert "8 of 14 files in" in files
    for part in ("4 .webp", "1 .gif", "1 without a suffix", "1 hidden", "1 broken links"):
        assert part in files
    assert classes.endswith("no class, as there is no image in it: bee, cow.")


def test_a_relative_path_that_leads_nowhere_says_from_where(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = "data.path=pets: there is no such folder. The path is relative to the working folder, "
    with pytest.raises(UserError, match=re.escape(f"{said}{tmp_path}.")):
        find("pets", "data.path=pets")
