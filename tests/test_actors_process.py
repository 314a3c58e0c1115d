"""Whole runs with actors, in processes of their own, some of which are killed."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import runs

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("reverb") is None, reason="Reverb is for TensorFlow 2.15 alone"
)

SIZES = [
    "rl", "env=gymnasium", "env.id=CartPole-v1", "trainer.num_envs=4", "run.log_every=256", "run.evaluate_every=100000",
    "run.checkpoint_every=512", "trainer.evaluation.episodes=2", "trainer.evaluation.video_every=0",
    "trainer.evaluation.sampled=false",
]  # fmt: skip


def wait(condition: Callable[[], Any], process: subprocess.Popen, seconds: float = 120.0) -> Any:
    """What `condition` comes to, once that is true; the run may not end before."""
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


def test_actors_compute_what_one_process_does_to_the_last_bit_and_either_goes_on_with_the_others_run(
    tmp_path: Path,
) -> None:
    ppo = [*SIZES, "agent=ppo", "trainer.rollout_steps=16", "trainer.minibatches=4", "trainer.epochs=2"]
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
    rest = runs.sparring(tmp_path, *ppo, "run.name=shared")
    assert rest.returncode == 0, rest.stderr
    assert "episode" not in rest.stderr.replace("episode_return", "")  # all environments were put back
    ours, theirs = runs.tensors(run), runs.tensors(tmp_path / "runs" / "alone")
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not np.array_equal(ours[name], theirs[name])] == []
    states = [json.loads((runs.newest(tmp_path / "runs" / r) / "host.json").read_text()) for r in ("shared", "alone")]
    assert states[0]["trainer"]["environments"] == states[1]["trainer"]["environments"]


def test_a_run_survives_the_death_of_actors_here_and_elsewhere(tmp_path: Path) -> None:
    dqn = [*SIZES, "agent=dqn", "trainer.rollout_steps=4", "trainer.learning_starts=64", "run.steps=10000000"]
    slow = "env.wrappers=[{_target_:tests.toy_envs.Slow,_partial_:true,seconds:0.001}]"
    actors = ["actors=reverb", "actors.count=2", "actors.here=1", "actors.ahead=1", "actors.seconds=10"]
    process = runs.start(tmp_path, *dqn, slow, "packages=[tests]", "run.name=mortal", *actors)
    run, environment = tmp_path / "runs" / "mortal", {**os.environ, "PYTHONPATH": str(runs.ROOT)}
    wait((run / "actors.json").is_file, process)
    address = "127.0.0.1:" + json.loads((run / "actors.json").read_text())["address"].rpartition(":")[2]
    guest = subprocess.Popen(runs.command("actor", str(run), "--address", address), cwd=tmp_path, env=environment)
    try:
        wait(lambda: [*run.glob("checkpoints/step_*")], process)
        first = actors_of(run)[0]
        os.kill(first, signal.SIGKILL)
        wait(lambda: "Actor 0 was ended by SIGKILL: another is started here" in log(run), process)
        wait(lambda: actors_of(run).get(0, first) != first, process)
        guest.kill()
        wait(lambda: "Actor 1 has given no sign of life for 10 s: the place is free for another" in log(run), process)
        wait(lambda: 1 in actors_of(run), process)  # nobody has taken it: started here
        before = runs.newest(run)
        wait(lambda: runs.newest(run) != before, process)
        assert stopped(process) == 0
    finally:
        guest.kill()
        guest.wait()
        process.kill()
    assert runs.result(run)["status"] == "stopped"
    assert actors_of(run) == {}
    assert max(runs.scalars(run)["actors/lost"].values()) > 0.0
    assert set(np.round(list(runs.scalars(run)["actors/staleness"].values()), 3)) <= {*np.linspace(0, 1, 1001).round(3)}
    newest = runs.tensors(run)
    written = next(v for name, v in newest.items() if name.startswith("replay/written"))
    assert int(written) * 4 == runs.result(run)["step"]  # every step that counts is in the replay, once
