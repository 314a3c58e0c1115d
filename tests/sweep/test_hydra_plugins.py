"""A sweep from the command line through Hydra and our launcher, with jobs that take no time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import runs

pytestmark = pytest.mark.long

# In place of training: fails for seed=1, else ends well.
LIGHT = """
import json, os, sys
given = dict(a.split("=", 1) for a in sys.argv[3:] if "=" in a)
folder = given["hydra.run.dir"].strip("'")
open(folder + "/arguments", "a").write(json.dumps(sys.argv[2:]) + "\\n")
given["seed"] == "1" and not os.path.exists("mended") and sys.exit("the wheel came off")
said = dict(status="finished", step=5, objective=dict(name="score", value=float(given["seed"])))
open(folder + "/result.json", "w").write(json.dumps(said))
"""
GYM = ("env=gymnasium", "env.id=CartPole-v1", "run.name=s")  # found without TensorFlow
SWEEP = ("-m", "agent=ppo,dqn", "seed=0,1", *GYM)


PROGRAM = (
    "from sparring.cli import main; from sparring.processes import spawn; "
    f"spawn._PROGRAM = {LIGHT!r}; main.main()"
)


def sparring(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """The command, in a process of its own: Hydra sets up logging anew, which closes what pytest
    captures with.
    """
    environment = {**os.environ, "PYTHONPATH": str(runs.ROOT)}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_sweep_has_a_plan_a_folder_for_each_job_and_an_end(tmp_path):
    done = sparring(tmp_path, "rl", *SWEEP, "hydra.launcher.jobs=2")
    assert done.returncode == 1, done.stderr
    names = [f"agent={agent},seed={seed}" for agent in ("ppo", "dqn") for seed in (0, 1)]
    assert json.loads((tmp_path / "runs/s/sweep.json").read_text()) == {"jobs": names, "tasks": 1}
    notes = {
        name: json.loads((tmp_path / "runs/s" / name / "job.json").read_text()) for name in names
    }
    assert [notes[name]["status"] for name in names] == ["finished", "failed", "finished", "failed"]
    assert len({note["hash"] for note in notes.values()}) == 4
    out = done.stdout
    err = done.stderr
    assert "[1/4] agent=ppo,seed=0: finished in" in out
    assert "    the wheel came off" in out  # at once
    assert "4 jobs: 2 finished, 2 failed" in out
    assert f"results: sparring report {tmp_path}/runs/s" in out
    assert f"{tmp_path}/runs/s/agent=dqn,seed=1: failed, exit code 1\n    the wheel came off" in err


def test_the_same_command_again_runs_what_is_missing_and_more_values_join(tmp_path):
    done = sparring(tmp_path, "rl", *SWEEP)
    assert done.returncode == 1, done.stderr
    (tmp_path / "mended").touch()
    done = sparring(tmp_path, "rl", "-m", "agent=ppo,dqn", "seed=0,1,2", *GYM)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert "6 jobs: 6 finished" in said
    assert "agent=ppo,seed=0: finished before, score 0" in said
    begun = {
        path.parent.name: len(path.read_text().splitlines())
        for path in tmp_path.glob("runs/s/*/arguments")
    }
    assert begun == {
        f"agent={a},seed={s}": 2 if s == 1 else 1 for a in ("ppo", "dqn") for s in (0, 1, 2)
    }
    assert len(json.loads((tmp_path / "runs/s/sweep.json").read_text())["jobs"]) == 6


def test_other_settings_are_another_config_and_run_again(tmp_path):
    done = sparring(tmp_path, "rl", "-m", "seed=0,2", *GYM)
    assert done.returncode == 0, done.stderr
    done = sparring(tmp_path, "rl", "-m", "seed=0,2", *GYM, "run.steps=123")
    assert done.returncode == 0, done.stderr
    assert all(len(p.read_text().splitlines()) == 2 for p in tmp_path.glob("runs/s/*/arguments"))


def test_fail_fast_and_retries_come_from_the_command_line(tmp_path):
    flags = ("hydra.launcher.jobs=1", "hydra.launcher.retries=1", "hydra.launcher.fail_fast=true")
    done = sparring(tmp_path, "rl", "-m", "seed=0,1,2", *GYM, *flags)
    assert done.returncode == 1, done.stderr
    assert len((tmp_path / "runs/s/seed=1/arguments").read_text().splitlines()) == 2
    assert not (tmp_path / "runs/s/seed=2").exists()
    out = done.stdout
    err = done.stderr
    assert "2 of 3 jobs: 1 finished, 1 failed" in out
    assert "The same command with run.name=s goes on." in err


def test_a_suite_is_a_sweep(tmp_path):
    done = sparring(tmp_path, "gan", "experiment=gan_toy", "seed=0,2", "hydra.launcher.jobs=4")
    assert done.returncode == 0, done.stderr
    found = sorted(path.name for path in (tmp_path / "runs/gan_toy").glob("experiment=*"))
    ways = ("", "_non_saturating", "_pacgan", "_wgan_gp")
    assert found == sorted(
        f"experiment=gan_{e}{way},seed={s}"
        for e in ("grid", "ring")
        for way in ways
        for s in (0, 2)
    )


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("hydra.launcher.jobs=0", "hydra.launcher.jobs=0: it must be at least 1"),
        ("hydra.launcher.job=2", "no such key"),
    ],
)
def test_mistakes_in_the_launcher_s_settings(tmp_path, flag, said):
    done = sparring(tmp_path, "rl", "-m", "seed=0,1", *GYM, flag)
    assert done.returncode == 2
    assert said in done.stderr
