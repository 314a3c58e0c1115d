"""Whole runs with actors, in processes of their own, some of which are killed."""

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparring.agents.actors import transport
from tests.helpers import runs

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        importlib.util.find_spec("reverb") is None, reason="Reverb is for TensorFlow 2.15 alone"
    ),
]

SIZES = [
    "rl",
    "env=gymnasium",
    "env.id=CartPole-v1",
    "trainer.num_envs=4",
    "run.log_every=256",
    "run.evaluate_every=100000",
    "run.checkpoint_every=512",
    "trainer.evaluation.episodes=2",
    "trainer.evaluation.video_every=0",
    "trainer.evaluation.sampled=false",
]


def wait(condition: Callable[[], Any], process: subprocess.Popen, seconds: float = 120.0) -> Any:
    """Value of `condition`, once that is true; the run may not end before."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    return found


def log(run: Path) -> str:
    with contextlib.suppress(OSError):
        return (run / "run.log").read_text()
    return ""


def stopped(process: subprocess.Popen) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(60)


def actors_of(run: Path) -> dict[int, int]:
    """The processes of this host that act for a run: place -> process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode().split("\0")
            if "actor" in words and str(run) in words:
                place = [w for w in words if w.startswith("--place=")]
                found[int(place[0][8:].split(":")[0]) if place else -1] = int(path.parent.name)
    return found


def test_actors_compute_what_one_process_does_to_the_last_bit_and_others_go_on_from_what_they_saved(
    tmp_path: Path,
) -> None:
    """Stopped, and brought to its end by actors that put its environments back."""
    ppo = [
        *SIZES,
        "agent=ppo",
        "trainer.rollout_steps=16",
        "trainer.minibatches=4",
        "trainer.epochs=2",
    ]
    ppo += ["run.steps=8192", "agent.normalize_observations=true", "trainer.normalize_rewards=true"]
    alone = runs.sparring(tmp_path, *ppo, "run.name=alone")
    assert alone.returncode == 0, alone.stderr
    process = runs.start(tmp_path, *ppo, "run.name=shared", "actors=reverb", "actors.count=2")
    run = tmp_path / "runs" / "shared"
    wait(lambda: [*run.glob("checkpoints/step_*")], process)
    assert stopped(process) == 0
    assert runs.result(run)["status"] == "stopped"
    assert 0 < runs.result(run)["step"] < 8192
    assert actors_of(run) == {}
    rest = runs.sparring(tmp_path, *ppo, "run.name=shared", *TWO)
    assert rest.returncode == 0, rest.stderr
    # All environments were put back
    assert "episode" not in rest.stderr.replace("episode_return", "")
    ours = runs.tensors(run)
    theirs = runs.tensors(tmp_path / "runs" / "alone")
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not np.array_equal(ours[name], theirs[name])] == []
    states = [
        json.loads((runs.newest(tmp_path / "runs" / r) / "host.json").read_text())
        for r in ("shared", "alone")
    ]
    assert states[0]["trainer"]["environments"] == states[1]["trainer"]["environments"]


@contextlib.contextmanager
def guests(run: Path, learner: subprocess.Popen) -> Iterator[Callable[[], subprocess.Popen]]:
    """Starts actors as on other hosts; in the end all processes are."""
    wait((run / "actors.json").is_file, learner)
    address = (
        "127.0.0.1:" + json.loads((run / "actors.json").read_text())["address"].rpartition(":")[2]
    )
    command = runs.command("actor", str(run), "--address", address)
    environment = {**os.environ, "PYTHONPATH": str(runs.ROOT)}
    come = [learner]

    def start() -> subprocess.Popen:
        with (run.parents[1] / "guest.txt").open("w") as out:
            come.append(subprocess.Popen(command, cwd=run.parents[1], env=environment, stderr=out))
        return come[-1]

    try:
        yield start
    finally:
        for process in come:
            process.kill()
            process.wait()


def gone(pids: Iterable[int], seconds: float = 20.0) -> bool:
    """Whether so many seconds see the end of all of them."""
    deadline = time.monotonic() + seconds
    while (
        left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    ) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not left


def descendants(pid: int) -> list[int]:
    found = [pid]
    for one in found:  # grows while it is read
        with contextlib.suppress(OSError):
            found += [int(n) for n in Path(f"/proc/{one}/task/{one}/children").read_text().split()]
    return found[1:]


DQN = [
    *SIZES,
    "agent=dqn",
    "trainer.rollout_steps=4",
    "trainer.learning_starts=64",
    "packages=[tests]",
]
SLOW = "env.wrappers=[{_target_:tests.helpers.toy_envs.Slow,_partial_:true,seconds:0.001}]"
TWO = ["actors=reverb", "actors.count=2"]


def test_a_run_survives_the_death_of_actors_here_and_elsewhere(tmp_path: Path) -> None:
    lonely = [*TWO, "actors.here=1", "actors.ahead=1", "actors.seconds=10"]
    process = runs.start(tmp_path, *DQN, SLOW, "run.steps=10000000", "run.name=mortal", *lonely)
    run = tmp_path / "runs" / "mortal"
    with guests(run, process) as come:
        guest = come()
        wait(lambda: [*run.glob("checkpoints/step_*")], process)
        first = actors_of(run)[0]
        os.kill(first, signal.SIGKILL)
        wait(lambda: "Actor 0 was ended by SIGKILL: another is started here" in log(run), process)
        wait(lambda: actors_of(run).get(0, first) != first, process)
        guest.kill()
        wait(lambda: "10 s (actors.seconds): the place is free for another" in log(run), process)
        come()
        before = runs.newest(run)
        wait(lambda: runs.newest(run) != before, process)
        assert stopped(process) == 0
        assert gone(actors_of(run).values())
    assert runs.result(run)["status"] == "stopped"
    assert not (run / "actors.json").exists()
    assert max(runs.scalars(run)["actors/lost"].values()) > 0.0
    stale = runs.scalars(run)["actors/staleness"].values()
    assert 0.0 <= min(stale) <= max(stale) <= 1.0  # iterations: actors.ahead
    newest = runs.tensors(run)
    written = next(v for name, v in newest.items() if name.startswith("replay/written"))
    # Every step that counts is in the replay, once
    assert int(written) * 4 == runs.result(run)["step"]


def test_actors_end_with_a_learner_that_is_killed_and_the_same_command_goes_on(
    tmp_path: Path,
) -> None:
    """The actor here steps its environments in processes of their own, and the other is a guest."""
    command = [*DQN, "env.vectorization=async", "run.name=killed", *TWO]
    process = runs.start(tmp_path, *command, "run.steps=10000000", "actors.here=1")
    run = tmp_path / "runs" / "killed"
    with guests(run, process) as come:
        guest = come()
        wait(lambda: [*run.glob("checkpoints/step_*")], process)
        theirs = descendants(process.pid)
        # An actor, the server that its environments' processes are forked from, two of those
        assert len(theirs) >= 4
        process.kill()
        process.wait()
        assert gone(theirs)
        assert guest.wait(60) != 0
        assert transport.GONE in (tmp_path / "guest.txt").read_text()
    step = int(runs.newest(run).name.removeprefix("step_"))
    rest = runs.sparring(tmp_path, *command, f"run.steps={step + 512}")
    assert rest.returncode == 0, rest.stderr
    assert runs.result(run)["step"] == step + 512


def test_an_environment_that_fails_in_an_actor_ends_the_run_in_a_line_and_what_was_learned_is_saved(
    tmp_path: Path,
) -> None:
    sizes = [a for a in DQN if not a.startswith("env")]
    jams = [
        "env=gymnasium",
        "env.id=tests.helpers.toy_envs:Jams",
        "+env.kwargs.at=200",
        *TWO,
        "run.steps=10000000",
    ]
    done = runs.sparring(tmp_path, *sizes, *jams, "run.name=jams")
    assert done.returncode == 1
    last = [line for line in done.stderr.splitlines() if line.startswith("sparring: ")][-1]
    assert re.match(r"sparring: Actor [01]: environment [01] \(Jams\) at step \d+ failed:", last)
    run = tmp_path / "runs" / "jams"
    assert runs.newest(run).name != "step_000000000000"
    assert "the simulator is jammed" in runs.result(run)["message"]
    assert gone(actors_of(run).values())


EXPERIMENTS = {
    "gym_ppo_cartpole": [],
    "gym_dqn_cartpole": ["trainer.num_envs=2", "trainer.rollout_steps=128"],
}


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_agents_learn_from_actors_that_are_a_rollout_ahead(experiment: str, tmp_path: Path) -> None:
    command = ["rl", f"experiment={experiment}", *EXPERIMENTS[experiment], *TWO, "actors.ahead=1"]
    done = runs.sparring(
        tmp_path, *command, "run.name=learned", "trainer.evaluation.video_every=0", timeout=1200
    )
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "learned"
    assert runs.result(run)["best"]["eval/episode_return"] >= 475.0
    assert 0.9 < max(runs.scalars(run)["actors/staleness"].values()) <= 1.0
