"""From the command line to a run: whose code runs, where it lands, what it leaves, and what the
second time does.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sparring.cli import setup, train
from sparring.config import overrides
from sparring.sweep import sweep
from tests.helpers import runs
from tests.helpers.commands import ended

pytestmark = pytest.mark.long

TINY = (
    "rl",
    "env=gymnasium",
    "env.id=CartPole-v1",
    "debug=smoke",
    "compile=graph",
    "trainer.num_envs=1",
    "trainer.rollout_steps=32",
    "run.name=a",
)


@pytest.fixture(scope="module")
def crowded(tmp_path_factory) -> Path:
    """A folder with packages and configs named like ours, first on Python's path."""
    folder = tmp_path_factory.mktemp("crowded")
    for name in ("agents", "envs", "conf", "gans"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise SystemExit('not ours')\n")
    (folder / "conf/rl.yaml").write_text("not: ours\n")
    return folder


@pytest.fixture(scope="module")
def trained(crowded) -> tuple[Path, subprocess.CompletedProcess]:
    """A tiny run in that folder."""
    environment = {**os.environ, "PYTHONPATH": f"{crowded}{os.pathsep}{runs.ROOT}"}
    # As a console script
    program = (
        "import sys; sys.path.append(sys.path.pop(0)); from sparring.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *TINY],
        cwd=crowded,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return crowded, done


def test_ours_run_in_a_folder_with_packages_of_the_same_names(trained):
    folder, done = trained
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (
        f"results: {folder}/runs/a/result.json\ncurves:  sparring tensorboard {folder}/runs\n"
        in done.stdout
    )


def test_the_result_says_how_it_ended_when_and_on_what(trained):
    folder, _ = trained
    result = runs.result(folder / "runs/a")
    assert (result["status"], result["step"], result["message"]) == ("finished", 64, "")
    assert result["objective"] == {
        "name": "eval/episode_return",
        "value": result["final"]["eval/episode_return"],
    }
    assert result["best"]["eval/episode_return"] >= result["objective"]["value"]
    assert result["best"]["step"] in (32, 64)
    seconds = result["seconds"]
    assert set(seconds) == {"imports", "compilation", "training", "evaluation", "saving"}
    assert all(seconds[part] > 0 for part in seconds)
    assert result["versions"]["tensorflow"].startswith("2.")
    assert result["versions"]["hydra-core"].startswith("1.3.")
    assert "commit" in result


def test_the_run_s_folder_holds_its_config_as_it_ran(trained):
    folder, _ = trained
    cfg = OmegaConf.load(folder / "runs/a/config.yaml")
    assert (cfg.run.dir, cfg.run.name, cfg.trainer.rollout_steps) == (str(folder / "runs"), "a", 32)
    files = {
        p.name for p in (folder / "runs/a").iterdir() if not p.name.startswith(("events", "code-"))
    }
    assert files == {
        "best",
        "checkpoints",
        "config.yaml",
        "provenance.json",
        "result.json",
        "run.log",
        "trainer.json",
    }


def test_the_run_s_folder_says_where_it_came_from(trained):
    folder, _ = trained
    origin = json.loads((folder / "runs/a/provenance.json").read_text())
    (start,) = origin["starts"]
    assert ["sparring", start["command"], *start["arguments"]][:2] == ["sparring", "rl"]
    assert set(start["arguments"]) == set(TINY[1:])
    assert (origin["choices"]["env"], origin["choices"]["debug"], start["seed"]) == (
        "gymnasium",
        "smoke",
        0,
    )
    assert start["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert start["versions"]["tensorflow"].startswith("2.")
    assert (start["commit"], start["working_folder"]) == (None, str(folder))
    assert start["sparring_commit"]
    for name in start["diffs"]:  # of Sparring's own changes, if there are any
        assert (folder / "runs/a" / name).read_text().startswith("# /")


def test_what_has_ended_ends_at_once_and_other_settings_are_refused(trained):
    folder, _ = trained
    before = (folder / "runs/a/result.json").read_bytes()
    again, changed, never = ended(
        folder, [TINY, [*TINY, "agent.discount=0.5"], [*TINY, "run.resume=never"]]
    )
    assert (again.code, again.error, again.tensorflow) == (0, "", False)
    assert again.out.startswith(f"{folder}/runs/a has ended already: finished at step 64")
    assert changed.code == 2
    assert "agent.discount: 0.99 -> 0.5" in changed.error
    assert (never.code, never.left) == (2, [])
    assert "run.resume=never" in never.error
    assert (folder / "runs/a/result.json").read_bytes() == before


def test_evaluating_adds_to_the_result_and_changes_nothing_else(trained):
    folder, _ = trained
    before = runs.result(folder / "runs/a")
    first, second, none = ended(
        folder,
        [
            ["evaluate", "runs/a", "--episodes", "3"],
            ["evaluate", "runs/a", "--episodes", "2", "--checkpoint", "best", "--seed", "7"],
            ["evaluate", "runs/a", "--seed", "-1"],
        ],
    )
    assert (first.code, second.code, first.error) == (0, 0, "")
    assert first.out.startswith(
        "runs/a: latest checkpoint, step 64, 3 episodes\n  eval/episode_return "
    )
    after = runs.result(folder / "runs/a")
    evaluations = after.pop("evaluations")
    assert after == before
    assert [(e["checkpoint"], e["episodes"], e["seed"]) for e in evaluations] == [
        ("latest", 3, 0),
        ("best", 2, 7),
    ]
    assert (none.code, none.error.count("\n")) == (2, 1)
    assert none.error.startswith("sparring: seed=-1: seed must be a whole number at least 0")


def test_a_folder_in_use_is_not_shared(tmp_path):
    arguments = [*TINY, "run.steps=10000000", "run.evaluate_every=10000000"]
    process = runs.start(tmp_path, *arguments)
    log = tmp_path / "runs/a/run.log"
    try:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "runs/a").glob("events.*")) and time.monotonic() < deadline:
            time.sleep(0.1)
        (other,) = ended(tmp_path, [arguments])
        assert other.code == 2
        assert (
            "another process is training there; give this run a run.name of its own." in other.error
        )
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert process.returncode == 0, (tmp_path / "output.txt").read_text()
    assert runs.result(tmp_path / "runs/a")["status"] == "stopped"
    assert "SIGTERM: saving and stopping" in log.read_text()


def test_names_come_from_what_was_chosen_and_when():
    setup.set_resolvers()
    config = {
        "name": "${run_name:ppo,my env/1,${seed}}",
        "seed": 3,
        "job": "${job_name:${list},4}",
        "list": ["seed=3"],
    }
    cfg = OmegaConf.create(config)
    first = cfg.name
    assert time.strptime(first.removeprefix("ppo-my-env-1-3-"), "%m%d-%H%M%S")
    assert cfg.name == first  # however late it is asked again
    setup.set_resolvers(["agent", "optimizer.learning_rate"])
    assert cfg.name.startswith("sweep-agent-learning_rate-")
    setup.set_resolvers(["seed"])
    assert cfg.job == "seed=3"
    setup.set_resolvers()


def test_flags_and_overrides_may_be_mixed(tmp_path):
    shown = ended(
        tmp_path,
        [
            ["rl", "agent=dqn", "--cfg", "job", "seed=4"],
            ["rl", "--cfg", "job", "seed=4", "agent=dqn"],
        ],
    )
    assert shown[0].out == shown[1].out
    assert "seed: 4" in shown[0].out


def test_special_signs_reach_a_sweep_s_jobs_as_they_were_typed(tmp_path, monkeypatch):
    """The arguments of a child are parsed as the parent's were: only the start of the process is
    left out.
    """
    seen: list[list[str]] = []
    monkeypatch.setattr(
        sweep.Sweep, "launch", lambda self, made, settings: seen.extend(j.arguments for j in made)
    )
    monkeypatch.chdir(tmp_path)
    values = ["a b", "c,d", "it's", 'q"q', "e=f", "back\\slash", "ä{}", "$HOME"]
    texts = [overrides.quoted(value) for value in values]
    arguments = [
        "-m",
        f"run.warm_start={','.join(texts)}",
        "env=gymnasium",
        "env.id=CartPole-v1",
        "run.name=s",
    ]
    for value in values:
        (tmp_path / value).mkdir()
        (tmp_path / value / "config.yaml").touch()
    assert train.rl(arguments) == 130  # as no job was begun
    from sparring.config.composer import Composer

    composer = Composer("rl")
    assert [composer.compose(child).run.warm_start for child in seen] == values
    folders = [composer.compose(child).hydra.run.dir for child in seen]
    assert len(set(folders)) == len(values)
    assert all(Path(folder).parent == tmp_path / "runs/s" for folder in folders)
    assert json.dumps(folders).isascii()
