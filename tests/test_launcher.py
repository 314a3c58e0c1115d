"""A sweep from the command line through Hydra and our launcher, with jobs that take no time."""

import json
from pathlib import Path

import pytest

from research import job as jobs
from research import launch
from research.errors import UserError

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


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, "_PROGRAM", LIGHT)
    return tmp_path


def test_a_sweep_has_a_plan_a_folder_for_each_job_and_an_end(folder, capfd):
    assert launch.rl([*SWEEP, "hydra.launcher.jobs=2"]) == 1
    names = [f"agent={agent},seed={seed}" for agent in ("ppo", "dqn") for seed in (0, 1)]
    assert json.loads((folder / "runs/s/sweep.json").read_text()) == {"jobs": names}
    notes = {name: json.loads((folder / "runs/s" / name / "job.json").read_text()) for name in names}
    assert [notes[name]["status"] for name in names] == ["finished", "failed", "finished", "failed"]
    assert len({note["hash"] for note in notes.values()}) == 4
    out, err = capfd.readouterr()
    assert "[1/4] agent=ppo,seed=0: finished in" in out
    assert "    the wheel came off" in out  # at once
    assert "4 jobs: 2 finished, 2 failed" in out
    assert f"results: sparring report {folder}/runs/s" in out
    assert f"{folder}/runs/s/agent=dqn,seed=1: failed, exit code 1\n    the wheel came off" in err


def test_the_same_command_again_runs_what_is_missing_and_more_values_join(folder, capfd):
    assert launch.rl([*SWEEP]) == 1
    (folder / "mended").touch()
    assert launch.rl(["-m", "agent=ppo,dqn", "seed=0,1,2", *GYM]) == 0
    said = capfd.readouterr().out
    assert "6 jobs: 6 finished" in said
    assert "agent=ppo,seed=0: finished before, score 0" in said
    begun = {path.parent.name: len(path.read_text().splitlines()) for path in folder.glob("runs/s/*/arguments")}
    assert begun == {f"agent={a},seed={s}": 2 if s == 1 else 1 for a in ("ppo", "dqn") for s in (0, 1, 2)}
    assert len(json.loads((folder / "runs/s/sweep.json").read_text())["jobs"]) == 6


def test_other_settings_are_another_config_and_run_again(folder):
    assert launch.rl(["-m", "seed=0,2", *GYM]) == 0
    assert launch.rl(["-m", "seed=0,2", *GYM, "run.steps=123"]) == 0
    assert all(len(p.read_text().splitlines()) == 2 for p in folder.glob("runs/s/*/arguments"))


def test_fail_fast_and_retries_come_from_the_command_line(folder, capfd):
    flags = ("hydra.launcher.jobs=1", "hydra.launcher.retries=1", "hydra.launcher.fail_fast=true")
    assert launch.rl(["-m", "seed=0,1,2", *GYM, *flags]) == 1
    assert len((folder / "runs/s/seed=1/arguments").read_text().splitlines()) == 2
    assert not (folder / "runs/s/seed=2").exists()
    out, err = capfd.readouterr()
    assert "2 of 3 jobs: 1 finished, 1 failed" in out
    assert "The same command with run.name=s goes on." in err


def test_a_suite_is_a_sweep(folder, capfd):
    assert launch.gan(["experiment=gan_toy", "seed=0,2", "hydra.launcher.jobs=4"]) == 0
    found = sorted(path.name for path in (folder / "runs/gan_toy").iterdir() if path.is_dir())
    assert found == [f"experiment=gan_{e},seed={s}" for e in ("grid", "ring") for s in (0, 2)]


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("hydra.launcher.jobs=0", "hydra.launcher.jobs=0: it must be at least 1"),
        ("hydra.launcher.job=2", "no such key"),
    ],
)
def test_mistakes_in_the_launcher_s_settings(folder, flag, said):
    with pytest.raises(UserError, match=said):
        launch.rl(["-m", "seed=0,1", *GYM, flag])
