"""Each script in examples/ does what it says."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.runs import ROOT, result, sparring

pytestmark = pytest.mark.long

EXAMPLES = ROOT / "examples"


def run(folder: Path, script: str, *arguments: str) -> str:
    """Run an example in `folder`, warnings being errors of its own code only; return its output."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def last_number(output: str) -> float:
    return float(output.strip().splitlines()[-1].rpartition(" ")[2])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples")


def test_ppo_learns_and_its_curve_can_be_read(folder: Path) -> None:
    best = last_number(run(folder, "train_ppo.py", "--steps", "8192", "--folder", "runs/ppo"))
    assert best > 100.0  # random play has 22
    assert result(folder / "runs/ppo")["status"] == "finished"

    lines = run(folder, "read_curves.py", "runs/ppo").splitlines()
    assert lines[0] == "step,eval/episode_return"
    assert len(lines) > 6
    assert max(float(line.split(",")[1]) for line in lines[1:]) == pytest.approx(best, abs=0.1)


def test_a_gan_is_trained_on_an_array(folder: Path) -> None:
    output = run(folder, "train_gan.py", "--steps", "100000", "--folder", "runs/gan")
    assert last_number(output) < 0.5
    samples = np.load(folder / "runs/gan/samples.npy")
    assert samples.shape == (1000, 2)
    np.testing.assert_allclose(samples.mean(axis=0), [0.5, 0.25], atol=0.25)


def test_a_policy_plays_in_gymnasium(folder: Path) -> None:
    short = ["run.steps=4096", "run.evaluate_every=4096", "trainer.evaluation.video_every=0"]
    done = sparring(folder, "rl", "env=gymnasium", "env.id=CartPole-v1", "run.name=mine", *short)
    assert done.returncode == 0, done.stderr
    assert last_number(run(folder, "step_policy.py", "runs/mine", "--episodes", "2")) > 8.0


def test_scripts_are_short_and_all_tested() -> None:
    tested = Path(__file__).read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.name}"' in tested
        assert len(path.read_text().splitlines()) <= 50, path
