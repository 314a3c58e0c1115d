"""Previews: PNG files that follow the clock."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparring.training.previews import Previews
from tests.helpers import board, toy_trainer


class Drawing(toy_trainer.Line):
    """Trainer whose preview is grey by its step; it takes `seconds` on the clock to draw."""

    def __init__(self, seconds: float = 0.0, **settings) -> None:
        super().__init__(**settings)
        self.seconds = seconds
        self.now = 0.0
        self.drawn: list[float] = []

    def preview(self) -> dict[str, np.ndarray]:
        self.drawn.append(self.now)
        self.now += self.seconds
        return {"generated": np.full((2, 3, 1), self.step, np.uint8)}


def times(trainer: Drawing, folder: Path, until: float) -> list[float]:
    previews = Previews(folder, trainer, clock=lambda: trainer.now)
    while trainer.now < until:
        previews.write_if_due()
        trainer.now += 1.0
    return trainer.drawn


def test_the_first_is_at_once_and_the_gaps_double_up_to_ten_minutes(tmp_path: Path) -> None:
    # gaps of 20, 40, 80, 160, 320, 600, 600
    found = times(Drawing(), tmp_path, 2000.0)
    assert found == [0.0, 20.0, 60.0, 140.0, 300.0, 620.0, 1220.0, 1820.0]


def test_images_that_take_long_take_a_twentieth_of_the_time_at_most(tmp_path: Path) -> None:
    found = times(Drawing(seconds=3.0), tmp_path, 230.0)
    assert np.diff(found).tolist() == pytest.approx([63.0, 63.0, 83.0], abs=1.0)


def test_a_run_leaves_the_newest_and_one_of_each_evaluation(tmp_path: Path) -> None:
    trainer = Drawing()
    assert toy_trainer.run(tmp_path, trainer).status == "finished"
    files = sorted(p.name for p in (tmp_path / "samples").iterdir())
    evaluated = board.points(tmp_path, "eval/distance")
    kept = [f"generated-{step:012d}.png" for step, _ in evaluated]
    assert len(kept) == 4  # every 30 of 100 steps, and at the end
    assert files == [*kept, "generated.png"]
    newest = np.asarray(Image.open(tmp_path / "samples" / "generated.png"))
    np.testing.assert_array_equal(newest, np.full((2, 3), trainer.step, np.uint8))


def test_a_run_that_is_stopped_leaves_one(tmp_path: Path) -> None:
    trainer = Drawing(at={12: toy_trainer.terminate})
    assert toy_trainer.run(tmp_path, trainer).status == "stopped"
    assert (tmp_path / "samples" / f"generated-{trainer.step:012d}.png").is_file()


def test_a_folder_that_cannot_be_written_ends_nothing(tmp_path: Path, caplog) -> None:
    (tmp_path / "samples").write_text("in the way")
    previews = Previews(tmp_path, Drawing())
    previews.write()
    previews.write()
    assert len(caplog.messages) == 1


def test_the_first_is_there_before_the_first_step(tmp_path: Path) -> None:
    file = tmp_path / "samples" / "generated.png"
    seen: list[int] = []
    trainer = Drawing(at={4: lambda: seen.append(int(np.asarray(Image.open(file)).max()))})
    toy_trainer.run(tmp_path, trainer)
    assert seen[0] == 0  # drawn at step 0
