"""One run in several processes on this host: it is the run of one process, and it survives what
happens to one.
"""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import runs

pytestmark = pytest.mark.long

TWO = ("strategy=multi_worker", "strategy.workers=2", "strategy.seconds=20")
GAN = (
    "gan",
    "data=ring",
    "loss=relativistic_average",
    "network.generator.normalization=batch",
    "game.batch_size=16",
    "generator_optimizer.optimizer.epsilon=1e-3",
    "discriminator_optimizer.optimizer.epsilon=1e-3",
    "metrics.modes.samples=100",
    "trainer.evaluation.points=100",
    "run.steps=1600",
    "run.log_every=160",
    "run.evaluate_every=800",
    "run.checkpoint_every=160",
)


def children(parent: subprocess.Popen) -> list[int]:
    return [
        int(n) for n in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    ]


def killed(folder: Path, victim: int, *arguments: str) -> tuple[int, str]:
    """Start `sparring ...`, and kill one of its workers after the second checkpoint; how that
    ended.
    """
    process = runs.start(folder, *arguments)
    name = next(a.partition("=")[2] for a in arguments if a.startswith("run.name="))
    while (
        len(list((folder / "runs" / name / "checkpoints").glob("step_*"))) < 2
        and process.poll() is None
    ):
        time.sleep(0.05)
    workers = children(process)
    os.kill(workers[victim], signal.SIGKILL)
    code = process.wait(timeout=60)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    return code, (folder / "output.txt").read_text()


def test_two_workers_are_one_process_and_go_on_exactly_after_one_is_killed(tmp_path: Path) -> None:
    steps = ("run.steps=160",)
    one = runs.sparring(tmp_path, *GAN, *steps, "run.name=one")
    two = runs.sparring(tmp_path, *GAN, *steps, *TWO, "run.name=two")
    assert (one.returncode, two.returncode) == (0, 0), two.stderr
    assert two.stdout.count("finished at step 160") == 1  # the chief's alone
    ours, theirs = (runs.tensors(tmp_path / "runs" / name) for name in ("one", "two"))
    assert ours.keys() == theirs.keys()
    for name in (n for n in ours if not n.startswith("means")):
        np.testing.assert_allclose(theirs[name], ours[name], atol=1e-6, rtol=1e-6, err_msg=name)
    assert len(list((tmp_path / "runs" / "two").glob("events.*"))) == len(
        list((tmp_path / "runs/one").glob("events.*"))
    )
    code, said = killed(tmp_path, 1, *GAN, *TWO, "run.steps=1000000", "run.name=parts")
    assert code == 1
    # Whether the chief or its parent says so
    assert re.search("worker 1 (of this run is gone|was ended by SIGKILL)", said)
    assert "Traceback" not in said
    step = int(runs.newest(tmp_path / "runs" / "parts").name.removeprefix("step_"))
    more = (f"run.steps={step + 160}",)
    for name in ("parts", "whole"):
        done = runs.sparring(tmp_path, *GAN, *TWO, *more, f"run.name={name}")
        assert done.returncode == 0, done.stderr
    runs.assert_equal(tmp_path / "runs" / "parts", tmp_path / "runs" / "whole")


AGENTS = {
    "ppo": ("agent=ppo", "agent.normalize_observations=true", "run.checkpoint_every=2000"),
    "dqn": (
        "agent=dqn",
        "agent.epsilon=0.1",
        "trainer.learning_starts=200",
        "trainer.batch_size=32",
        "trainer.capacity=2000",
        "run.checkpoint_every=10000",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("agent", "victim"), [("ppo", 0), ("ppo", 1), ("dqn", 1)])
def test_an_agent_goes_on_exactly_after_a_worker_is_killed(
    agent: str, victim: int, tmp_path: Path
) -> None:
    command = (
        "rl",
        *TWO,
        *AGENTS[agent],
        "trainer.num_envs=4",
        "run.log_every=2000",
        "run.evaluate_every=10000",
        "trainer.evaluation.video_every=0",
        "trainer.evaluation.episodes=4",
    )
    code, said = killed(tmp_path, victim, *command, "run.steps=10000000", "run.name=parts")
    assert code == 1
    assert f"worker {victim} " in said
    step = int(runs.newest(tmp_path / "runs" / "parts").name.removeprefix("step_"))
    for name in ("parts", "whole"):
        done = runs.sparring(tmp_path, *command, f"run.steps={step + 2048}", f"run.name={name}")
        assert done.returncode == 0, done.stderr
    runs.assert_equal(tmp_path / "runs" / "parts", tmp_path / "runs" / "whole")


def test_an_environment_of_the_host_is_refused_in_a_line(tmp_path: Path) -> None:
    done = runs.sparring(
        tmp_path, "rl", *TWO, "env=gymnasium", "env.id=CartPole-v1", "trainer.num_envs=4"
    )
    assert done.returncode == 2
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith("sparring: strategy=multi_worker: environments of the host")
    )
    assert not (tmp_path / "runs").exists()
