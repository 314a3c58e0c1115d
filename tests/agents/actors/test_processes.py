"""A whole run with a Ray of its own: killed, gone on with, and stopped."""

import contextlib
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparring.cli import setup
from sparring.config.composer import Composer
from sparring.training.experiment import build
from tests.helpers import runs

pytestmark = pytest.mark.long

PPO = [
    "env=gymnasium",
    "env.id=CartPole-v1",
    "trainer.num_envs=4",
    "run.log_every=100000",
    "run.evaluate_every=1000000",
    "run.checkpoint_every=512",
    "trainer.evaluation.episodes=2",
    "trainer.evaluation.video_every=0",
    "trainer.evaluation.sampled=false",
    "agent=ppo",
    "trainer.rollout_steps=16",
    "trainer.minibatches=4",
    "trainer.epochs=2",
    "agent.normalize_observations=true",
    "trainer.normalize_rewards=true",
    "run.steps=1000000",
    "run.name=killed",
]


def wait(condition: Callable[[], Any], process: subprocess.Popen, seconds: float = 120.0) -> Any:
    """Value of `condition`, once that is true; the run may not end before."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    return found


def descendants(pid: int) -> dict[int, str]:
    """The processes below one, and what they are called."""
    found = [pid]
    for one in found:  # grows while it is read
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(n) for n in children.read_text().split()]
    names = {}
    for one in found[1:]:
        with contextlib.suppress(OSError):
            names[one] = Path(f"/proc/{one}/cmdline").read_bytes().decode().replace("\0", " ")
    return names


def listening(pids: list[int]) -> set[str]:
    """The addresses, in hexadecimal, at which processes listen for calls."""
    sockets = set()
    for pid in pids:
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                sockets.add(re.sub(r"\D", "", str(path.readlink())))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in sockets:
                found.add(words[1].partition(":")[0])
    return found


def test_actors_end_with_a_learner_that_is_killed_and_the_same_command_goes_on_to_the_last_bit(
    tmp_path: Path,
) -> None:
    command = ["rl", *PPO, "actors=ray", "actors.count=2"]
    run = tmp_path / "runs" / "killed"
    first = runs.start(tmp_path, *command)
    wait(lambda: [*run.glob("checkpoints/step_*")], first)
    theirs = descendants(first.pid)
    assert sum("ray::Actor" in name for name in theirs.values()) == 2
    assert any("gcs_server" in name for name in theirs.values())
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}
    assert listening([first.pid, *theirs]) <= loopback
    first.kill()
    first.wait()
    # Two of Ray's own keep trying to tell of it for a minute
    ours = [pid for pid, name in theirs.items() if "Agent" not in name]
    deadline = time.monotonic() + 10.0
    while left := [pid for pid in ours if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, [theirs[pid] for pid in left]
        time.sleep(0.05)
    before = runs.newest(run)
    second = runs.start(tmp_path, *command)
    wait(lambda: runs.newest(run) != before, second)
    second.send_signal(signal.SIGTERM)
    assert second.wait(20) == 0
    output = (tmp_path / "output.txt").read_text()
    assert "starts a new episode" not in output
    said = [line for line in output.splitlines() if "ray" in line.lower()]
    assert len(said) == 2  # where to read what actors print
    assert all(line.startswith("What actors print is in /tmp/ray/session_") for line in said)
    result = runs.result(run)
    assert result["status"] == "stopped"

    setup.prepare()
    alone = build(Composer("rl").compose(PPO))
    alone.train(result["step"])
    tensors = runs.tensors(run)
    theirs = alone.checkpoint  # written as the run's is
    path = theirs.write(str(tmp_path / "alone" / "tensors"))
    other = runs.read(Path(path).parent)
    alone.close()
    kept = [name for name in other if name.startswith(("model/", "agent/", "optimizer/", "rew"))]
    assert len(kept) > 10
    assert [name for name in kept if not np.array_equal(tensors[name], other[name])] == []
