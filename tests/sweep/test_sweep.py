"""Sweeps: a process and a telling folder for each job, failures named at the end, a stop that
stops, and going on.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from tensorboard.plugins.hparams import metadata

from sparring.config.overrides import job_name, quoted
from sparring.sweep import hydra_plugins
from sparring.sweep import sweep as sweep_module
from sparring.sweep.job import Job
from tests.helpers import runs
from tests.helpers.board import loaded

pytestmark = pytest.mark.long

# DQN can't act in Pendulum, and FallingApart breaks in its ninth step: one job fails before, one
# after it has begun.
SWEEP = (
    "rl",
    "-m",
    "env.id=Pendulum-v1,CartPole-v1,parts:FallingApart",
    "env=gymnasium",
    "agent=dqn",
    "~check_fit",  # which would refuse Pendulum before the sweep begins
    "run.name=s",
    "debug=smoke",
    "compile=graph",
)
PARTS = """
import gymnasium as gym, numpy as np

class FallingApart(gym.Env):
    observation_space = gym.spaces.Box(0, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    steps = 0

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps == 9:
            raise RuntimeError("the wheel came off")
        return np.zeros(2, np.float32), 1.0, False, False, {}
"""


@pytest.mark.parametrize(
    ("overrides", "swept", "name"),
    [
        (["agent=dqn", "seed=0"], ["agent", "seed"], "agent=dqn,seed=0"),
        (["run.steps=5", "agent=dqn", "compile=xla"], ["agent"], "agent=dqn"),
        (
            ["optimizer.learning_rate=1e-3", "agent.clip=0.2"],
            ["optimizer.learning_rate", "agent.clip"],
            "learning_rate=1e-3,clip=0.2",
        ),
        (
            ["a.rate=1", "b.rate=2", "b.size=3"],
            ["a.rate", "b.rate", "b.size"],
            "a.rate=1,b.rate=2,size=3",
        ),
        (["+env.kwargs.gravity=-9.8"], ["env.kwargs.gravity"], "gravity=-9.8"),
        (["+env.kwargs.note=a", "seed=0"], ["+env.kwargs.note", "seed"], "note=a,seed=0"),
        (["++env.kwargs.note=a"], ["++env.kwargs.note"], "note=a"),
        (["network.units=[64,64]"], ["network.units"], "units=64x64"),
        (["agent=ppo"], [], "job-7"),
    ],
)
def test_a_job_is_named_for_what_the_sweep_varies(overrides, swept, name):
    assert job_name(overrides, swept, 7) == name


def test_names_are_fit_for_folders_and_tell_jobs_apart():
    values = ["a/b", "a b", "a'b", 'a"b', "{a:b}", "ä", "..", "x" * 300, "x" * 301]
    names = [job_name([f"key={value}"], ["key"], 0) for value in values]
    assert len(set(names)) == len(values)
    assert all(
        re.fullmatch(r"[A-Za-z0-9_.+=,-]{1,200}", name) and len(name) < 140 for name in names
    )


@pytest.mark.parametrize(
    "text", ["plain", "a b", "it's", "a\\b", "tail\\", "\\'", "${x}", "[a,b]", "ä", "a=b", '"q"']
)
def test_what_is_quoted_is_read_back_as_it_was(text):
    (override,) = OverridesParser.create().parse_overrides([f"key={quoted(text)}"])
    assert override.value() == text


def swept(folder: Path) -> subprocess.CompletedProcess:
    """The sweep, from a folder that has a package named like ours, as the console script would run
    it.
    """
    (folder / "research").mkdir(exist_ok=True)
    (folder / "research/__init__.py").write_text("raise SystemExit('not ours')\n")
    program = "from sparring.cli.main import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(runs.ROOT)}
    return subprocess.run(
        [sys.executable, "-P", "-c", program, *SWEEP],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "parts.py").write_text(PARTS)
    return folder, swept(folder)


def test_failed_jobs_are_named_with_their_reasons_and_the_others_finish(sweep):
    folder, done = sweep
    jobs = {p.name: runs.result(p)["status"] for p in (folder / "runs/s").glob("id=*")}
    (apart,) = [name for name in jobs if name.startswith("id=parts-FallingApart-")]
    assert jobs == {"id=Pendulum-v1": "failed", "id=CartPole-v1": "finished", apart: "failed"}
    assert done.returncode == 1
    assert "[2/3] id=CartPole-v1" in done.stdout
    assert "3 jobs: 2 failed, 1 finished" in done.stdout
    end = done.stderr[done.stderr.rindex(str(folder / "runs/s/id=Pendulum-v1")) :].splitlines()
    assert re.match(
        r".*/id=Pendulum-v1: failed, exit code 2: This agent chooses one of a list", end[0]
    )
    assert re.match(rf".*/{apart}: failed, exit code 1: .*FallingApart", end[1])
    assert end[-1] == "    RuntimeError: the wheel came off"


def test_columns_of_every_job_are_declared_beside_the_runs(sweep):
    folder, _ = sweep
    assert not list((folder / "runs/s").glob("events.*"))  # which TensorBoard would show as a run
    board = loaded(folder / "runs/s/report")
    content = board.SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    experiment = metadata.parse_experiment_plugin_data(content)
    (metric,) = experiment.metric_infos
    assert metric.name.tag == "final/episode_return"
    names = {info.name for info in experiment.hparam_infos}
    assert {"agent.target_period", "trainer.batch_size", "optimizer.learning_rate.start"} <= names
    (environment,) = [info for info in experiment.hparam_infos if info.name == "env"]
    assert set(environment.domain_discrete) == {"Pendulum-v1", "CartPole-v1", "parts:FallingApart"}
    (agent,) = [info for info in experiment.hparam_infos if info.name == "agent"]
    assert list(agent.domain_discrete) == ["dqn"]  # as it was typed
    assert not any("_target_" in name for name in names if name.startswith("agent._"))
    assert not any("seed" in name for name in names)  # TensorBoard averages over seeds


def test_the_same_sweep_again_runs_only_what_failed(sweep):
    folder, _ = sweep
    finished = folder / "runs/s/id=CartPole-v1"
    before = {
        p: p.stat().st_mtime_ns
        for p in finished.rglob("*")
        if p.is_file() and p.name != "config.yaml"
    }
    mended = PARTS.replace("self.steps == 9", "False").replace(
        "False, False", "False, self.steps % 5 == 0"
    )
    (folder / "parts.py").write_text(mended)
    done = swept(folder)
    assert done.returncode == 1
    assert "3 jobs: 2 finished, 1 failed" in done.stdout
    assert re.search(
        r"id=Pendulum-v1: failed, exit code 2: This agent chooses one", done.stderr
    )  # still
    assert re.search(r"id=CartPole-v1: finished before, eval/episode_return", done.stdout)
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_signal_stops_the_running_job_which_saves_and_starts_no_other(tmp_path):
    arguments = (
        "rl",
        "-m",
        "seed=1,2",
        "hydra.launcher.jobs=1",
        "env=gymnasium",
        "env.id=CartPole-v1",
        "compile=graph",
        "run.name=s",
        "trainer.num_envs=1",
        "trainer.rollout_steps=32",
        "run.steps=10000000",
        "run.log_every=64",
    )
    environment = {**os.environ, "PYTHONPATH": str(runs.ROOT)}
    output = tmp_path / "output.txt"
    with output.open("w") as out:
        process = subprocess.Popen(
            runs.command(*arguments),
            cwd=tmp_path,
            env=environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    job = tmp_path / "runs/s/seed=1"
    deadline = time.monotonic() + 120
    while not list(job.glob("events.*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    # The terminal's Ctrl-C is not the child's too: twice ends at once
    assert os.getpgid(int(child)) != process.pid
    time.sleep(3)  # into training, most likely: any moment must do
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all that run in its foreground
    process.wait(60)
    said = output.read_text()
    assert process.returncode == 130, said
    assert json.loads((job / "result.json").read_text())["status"] == "stopped"
    assert list((job / "checkpoints").glob("step_*"))
    assert not (tmp_path / "runs/s/seed=2").exists()
    assert "1 of 2 jobs: 1 stopped" in said
    assert "The same command with run.name=s goes on." in said
    assert "Traceback" not in said


def concluded(folder: Path, statuses: dict[str, str], planned: int) -> int:
    ended = sweep_module.Sweep("rl", [], planned)
    ended.plan(folder, list(statuses))
    for name, status in statuses.items():
        note = {"status": status, "reason": "", "lines": []}
        (folder / name).mkdir()
        (folder / name / "job.json").write_text(json.dumps(note))
    return ended.conclude()


@pytest.mark.parametrize(
    ("statuses", "planned", "code"),
    [
        (["finished", "target"], 2, 0),
        (["finished", "stopped"], 2, 130),
        (["finished"], 2, 130),
        (["nan", "stopped"], 3, 1),
    ],
)
def test_the_exit_code_says_whether_all_is_done(tmp_path, capsys, statuses, planned, code):
    names = {f"seed={number}": status for number, status in enumerate(statuses)}
    assert concluded(tmp_path / "s", names, planned) == code
    goes_on = "The same command with run.name=s goes on." in capsys.readouterr().err
    assert goes_on == (len(statuses) < planned or "stopped" in statuses)


def test_the_progress_of_a_job_is_its_phase_then_its_newest_message(tmp_path):
    job = Job(tmp_path, "rl", [], started=time.time() - 5.0)
    assert job.progress() == "loading TensorFlow"
    (tmp_path / "config.yaml").touch()
    assert job.progress() == "building, then compiling"
    log = tmp_path / "run.log"
    log.write_text(
        "2026-01-01 00:00:00,000 INFO step 5 of 10 images (50%)\n"
        "2026-01-01 00:00:01,000 WARNING SIGINT: saving and stopping.\n  and a line below\n"
    )
    assert job.progress() == "SIGINT: saving and stopping."
    os.utime(log, (1.0, 1.0))  # an earlier attempt's
    assert job.progress() == "building, then compiling"


def test_tasks_of_a_sweep_are_counted_by_the_parts_that_say_what_is_learned():
    jobs = [
        [f"agent={agent}", f"{key}={value}", "seed=0"]
        for agent in ("ppo", "dqn")
        for key, value in (("env", "catch"), ("env", "cartpole"), ("+env.kwargs.size", "3"))
    ]
    assert hydra_plugins._count_tasks(jobs, ["env"]) == 3
    assert hydra_plugins._count_tasks([["seed=0"], ["seed=1"]], ["env"]) == 1
    assert hydra_plugins._count_tasks([["environment=0"], ["environment=1"]], ["env"]) == 1
