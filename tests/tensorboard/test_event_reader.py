"""Curves read back from event files: the points TensorBoard shows, from files in any state."""

from pathlib import Path

import numpy as np
import pytest

from sparring.tensorboard.event_reader import read_curves
from sparring.tensorboard.writer import Writer
from tests.helpers.board import points


def written(
    folder: Path,
    resume_step: int | None = None,
    steps: range = range(10, 60, 10),
    shift: float = 0.0,
) -> Path:
    writer = Writer(folder, descriptions={"a": "an a"}, resume_step=resume_step)
    for step in steps:
        writer.scalars({"a": step + shift, "b": -step}, step)
        writer.images(
            {
                "picture": np.random.default_rng(step).integers(
                    256, size=(400, 400, 3), dtype=np.uint8
                )
            },
            step,
        )
    writer.text("words", "hello")
    writer.close()
    return max(folder.glob("events.*"))


def test_points_are_those_that_tensorboard_shows(tmp_path):
    written(tmp_path)
    written(tmp_path, resume_step=30, steps=range(40, 80, 10), shift=0.5)
    found = read_curves(tmp_path)
    assert found.damage == []
    assert found.points.keys() == {"a", "b"}
    shown = [(step, float(value)) for step, value in points(tmp_path, "a")]
    assert list(zip(*found.of("a"), strict=True)) == shown
    assert dict(shown) == {10: 10, 20: 20, 30: 30, 40: 40.5, 50: 50.5, 60: 60.5, 70: 70.5}
    assert found.of("none")[0].size == 0


def test_a_file_cut_off_anywhere_gives_what_came_before(tmp_path):
    path = written(tmp_path)
    whole = path.read_bytes()
    all_points = read_curves(tmp_path).points["a"]
    previous = -1
    for size in range(0, len(whole), 9973):
        path.write_bytes(whole[:size])
        found = read_curves(tmp_path)
        kept = found.points.get("a", {})
        assert kept.items() <= all_points.items()
        assert len(kept) >= previous
        previous = len(kept)
        assert len(found.damage) <= 1
        assert all(f"{path.name} is cut off at byte" in said for said in found.damage)
    assert previous == 5
    path.write_bytes(whole)
    assert read_curves(tmp_path).points["a"] == all_points


@pytest.mark.parametrize(
    "content", [b"\x00" * 50, b"what is this, it is not an event file at all", b"\xff" * 12]
)
def test_what_is_no_event_file_is_damage_and_no_error(tmp_path, content):
    (tmp_path / "events.out.tfevents.1.x").write_bytes(content)
    written(tmp_path)
    found = read_curves(tmp_path)
    assert len(found.damage) == 1
    assert "events.out.tfevents.1.x is " in found.damage[0]
    assert len(found.points["a"]) == 5
