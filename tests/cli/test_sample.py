"""`sparring sample`: examples of a run in files, and what is refused before TensorFlow loads."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.commands import ended

pytestmark = pytest.mark.long

RUN = ["run.dir=.", "run.name=gan", "run.steps=64", "game.batch_size=32", "game.conditional=true"]
SMALL = ["metrics.modes.samples=50", "trainer.evaluation.points=32", "compile=graph"]


def test_a_run_is_sampled_by_class_and_seed(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    trained, one, again, three, taken, unknown, few, beyond, other = ended(
        tmp_path,
        [
            ["gan", *RUN, *SMALL],
            ["sample", "gan", "--count", "300", "--out", "one", "--seed", "1"],
            ["sample", "gan", "--count", "10", "--seed", "1", "--checkpoint", "latest"],
            ["sample", "gan", "--count", "5", "--out", "three", "--class", "3"],
            ["sample", "gan", "--out", "taken"],
            ["sample", "gan", "--class", "8"],
            ["sample", "gan", "--count", "0"],
            ["sample", "gan", "--seed", "-1"],
            ["sample", "nowhere"],
        ],
    )
    assert (trained.code, one.code, again.code, three.code) == (0, 0, 0, 0), one.error
    first = np.load(tmp_path / "one" / "samples.npz")
    assert (first["points"].shape, first["points"].dtype) == ((300, 2), np.float32)
    assert len(np.unique(first["labels"])) == 8
    assert (tmp_path / "one" / "grid.png").is_file()
    about = json.loads((tmp_path / "one" / "samples.json").read_text())
    assert (about["count"], about["seed"], about["step"], about["class"]) == (300, 1, 64, None)
    # In the run's own folder, and the first of more
    same = np.load(tmp_path / "gan" / "samples-1" / "samples.npz")
    np.testing.assert_array_equal(same["points"], first["points"][:10])
    assert np.load(tmp_path / "three" / "samples.npz")["labels"].tolist() == [3] * 5
    assert "5 examples of the best model, of step 64" in three.out
    for wrong, said in (
        (taken, "--out taken: there is something there already; name a new folder."),
        (unknown, "--class 8: no such class."),
        (few, "--count 0: at least one."),
        (beyond, "--seed -1: from 0"),
        (other, "nowhere"),
    ):
        assert wrong.code != 0
        assert said in wrong.error
        assert len(wrong.error.splitlines()) == 1
        assert not wrong.left
