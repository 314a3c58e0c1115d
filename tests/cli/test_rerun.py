"""`sparring rerun`: the same numbers to the last bit, and a word about whatever is not as
it was.
"""

import json
from pathlib import Path

import pytest

from sparring.cli import rerun
from sparring.errors import UserError
from sparring.storage import provenance
from sparring.tensorboard.writer import Writer
from tests.helpers import runs

pytestmark = pytest.mark.long


def test_a_run_over_again_is_the_same_to_the_last_bit(tmp_path):
    arguments = (
        "rl",
        "-m",
        "agent=ppo",
        "env=cartpole",
        "seed=3",
        "debug=smoke",
        "run.name=s",
        "hydra.launcher.cores=1",
        "trainer.num_envs=2",
        "trainer.rollout_steps=16",
    )
    done = runs.sparring(tmp_path, *arguments, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    old = tmp_path / "runs/s/job-0"
    start = json.loads((old / "provenance.json").read_text())["starts"][0]
    again = runs.sparring(tmp_path, "rerun", str(old), timeout=900)
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"the same numbers to the last bit as {old}" in again.stdout
    assert "not as it was" not in again.stderr
    new = tmp_path / "runs/s/job-0-again"
    runs.assert_equal(old, new)
    cores = json.loads((new / "provenance.json").read_text())["starts"][0]["machine"]["cores"]
    assert cores == start["machine"]["cores"] == 1


def curves(folder: Path, **points: dict[int, float]) -> Path:
    writer = Writer(folder)
    for tag, curve in points.items():
        for step, value in curve.items():
            writer.scalars({tag.replace("_", "/"): value}, step)
    writer.close()
    return folder


def test_what_differs_is_told_with_where_first(tmp_path):
    nan = float("nan")
    old = curves(
        tmp_path / "a",
        loss_a={1: 1.0, 2: nan},
        loss_b={1: 1.0, 2: 2.0},
        loss_c={1: 1.0},
        time_x={1: 1.0},
    )
    new = curves(
        tmp_path / "b", loss_a={1: 1.0, 2: nan}, loss_b={1: 1.0, 2: 2.0000002}, time_x={1: 2.0}
    )
    assert rerun.differences(old, old) == []
    said = rerun.differences(old, new)
    assert said[0].startswith("loss/b at step 2: 2.0 -> 2.00000023")
    assert said[1] == "loss/c at step 1: 1.0 -> None"
    assert len(said) == 2


def test_what_is_not_as_it_was_is_told(tmp_path):
    start = provenance.entry("rl", [], 0)
    start["versions"]["tensorflow"] = "1.0"
    start["commit"] = "abc"
    start["machine"]["cores"] = 99
    (tmp_path / "provenance.json").write_text(json.dumps({"choices": {}, "starts": [start]}))
    found = rerun.changes(tmp_path)
    assert any(line.startswith("tensorflow: 1.0 -> 2.") for line in found)
    assert any(line.startswith("commit: abc -> ") for line in found)
    assert len(found) == 2
    (tmp_path / "provenance.json").unlink()
    with pytest.raises(UserError, match="does not say what it ran on"):
        rerun.changes(tmp_path)
