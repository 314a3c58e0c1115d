"""Runs of agents that something breaks: an environment, a signal, a disk; what is told, what is
kept, what goes on.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from sparring.config.composer import Composer
from sparring.envs.gymnasium_bridge.bridge import EnvironmentFault
from sparring.training.experiment import train
from tests.helpers import runs
from tests.helpers.board import points
from tests.helpers.rollouts import Coin

pytestmark = pytest.mark.long

# ---- agents and environments ---------------------------------------------------------------------


class Blows(Coin):
    """Pays infinity from its 200th step on."""

    steps = 0

    def step(self, action: int):
        Blows.steps += 1
        observation, reward, *rest = super().step(action)
        return observation, float("inf") if Blows.steps > 200 else reward, *rest


class Breaks(Coin):
    """Raises at its 50th step, once for the marker."""

    def __init__(self, marker: str, kill: bool = False) -> None:
        self.marker = Path(marker)
        self.kill = kill
        self.left = 50

    def step(self, action: int):
        self.left -= 1
        if self.left == 0 and not self.marker.exists():
            self.marker.touch()
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("the simulator is jammed")
        return super().step(action)


SMALL = (
    "agent=ppo",
    "env=gymnasium",
    "compile=eager",
    "network.units=[4]",
    "trainer.num_envs=2",
    "trainer.epochs=1",
    "trainer.rollout_steps=8",
    "trainer.minibatches=1",
    "trainer.evaluation.episodes=1",
    "run.steps=160",
    "trainer.evaluation.sampled=false",
    "run.log_every=32",
    "run.evaluate_every=64",
    "run.checkpoint_every=32",
    "env.max_episode_steps=9",
)


def agent(folder: Path, *overrides: str) -> float | None:
    cfg = Composer("rl").compose(
        [*SMALL, *overrides, f"run.dir={folder.parent}", f"run.name={folder.name}"]
    )
    return train(
        OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"]), folder, time.time()
    )


@pytest.mark.parametrize("kill", [False, True], ids=["raises", "killed"])
def test_an_environment_that_breaks_ends_the_run_after_a_checkpoint_and_the_run_resumes(
    tmp_path: Path, kill: bool
) -> None:
    breaks = (
        "env.id=tests.training.test_run_faults:Breaks",
        f"+env.kwargs.marker={tmp_path / 'marker'}",
        f"+env.kwargs.kill={kill}",
    )
    how = "env.vectorization=async" if kill else "env.vectorization=sync"
    with pytest.raises(EnvironmentFault) as error:
        agent(tmp_path / "a", *breaks, how)
    said = str(error.value)
    if kill:
        assert "died (signal 9, SIGKILL) while the run went on" in said
    else:
        assert "the simulator is jammed" in said
        assert 'test_run_faults.py", line' in said  # the environment's own traceback
    result = runs.result(tmp_path / "a")
    assert (result["status"], result["message"]) == ("failed", said)
    assert 0 < result["step"] < 160
    saved = int(runs.newest(tmp_path / "a").name.removeprefix("step_"))
    # 50 steps and the resets between them reach into the eighth iteration of 16
    assert saved == result["step"] == 112
    agent(tmp_path / "a", *breaks, how)
    assert (runs.result(tmp_path / "a")["status"], runs.result(tmp_path / "a")["step"]) == (
        "finished",
        160,
    )
    shown = [step for step, _ in points(tmp_path / "a", "loss/total")]
    assert shown == [32, 64, 96, 128, 160]


def test_infinite_rewards_end_the_command_with_one_line_and_a_checkpoint_from_before(
    tmp_path: Path,
) -> None:
    done = runs.sparring(
        tmp_path,
        "rl",
        *SMALL,
        "env.id=tests.training.test_run_faults:Blows",
        "run.name=a",
        "run.steps=800",
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    lines = [text for text in done.stderr.splitlines() if text.startswith("sparring: ")]
    assert len(lines) == 1
    assert "the reward is inf, where a finite number is expected." in lines[0]
    result = runs.result(tmp_path / "runs" / "a")
    assert result["status"] == "failed"
    assert f"sparring: {result['message']}" == lines[0].rstrip()
    for checkpoint in [
        *(tmp_path / "runs/a/checkpoints").iterdir(),
        *(tmp_path / "runs/a/best").iterdir(),
    ]:
        bad = [
            n
            for n, v in runs.read(checkpoint).items()
            if v.dtype.kind == "f" and not np.all(np.isfinite(v))
        ]
        assert not bad, f"{checkpoint.name}: {bad}"
    assert (tmp_path / "runs/a/checkpoints").exists()


# ---- signals and disks, from outside -------------------------------------------------------------


class Drowsy(Coin):
    """Takes its time once there is a file of that name."""

    def step(self, action: int):
        if Path("drowsy").exists():
            Path("asleep").touch()
            time.sleep(5.0)
        return super().step(action)


ENDLESS = (
    "rl",
    *SMALL,
    "env.id=tests.training.test_run_faults:Drowsy",
    "run.name=a",
    "run.steps=10000000",
    "run.evaluate_every=10000000",
)


def until(process: subprocess.Popen, so: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 120
    while not so():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


def test_one_ctrl_c_saves_and_stops_and_a_second_ends_at_once(tmp_path: Path) -> None:
    process = runs.start(tmp_path, *ENDLESS)
    until(process, lambda: list((tmp_path / "runs" / "a" / "checkpoints").glob("step_*")))
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, (tmp_path / "output.txt").read_text()
    stopped = runs.result(tmp_path / "runs" / "a")
    assert stopped["status"] == "stopped"
    assert int(runs.newest(tmp_path / "runs" / "a").name.removeprefix("step_")) == stopped["step"]
    log = tmp_path / "runs" / "a" / "run.log"
    process = runs.start(tmp_path, *ENDLESS)
    until(process, lambda: "Resumed at step" in log.read_text())
    (tmp_path / "drowsy").touch()  # from here on, an iteration takes minutes
    until(process, (tmp_path / "asleep").exists)
    process.send_signal(signal.SIGINT)
    until(process, lambda: log.read_text().count("saving and stopping") == 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    output = (tmp_path / "output.txt").read_text()
    assert "Traceback" not in output
    assert "stopped at once" in output
    assert runs.result(tmp_path / "runs" / "a")["status"] == "stopped"


def test_a_disk_that_fills_up_ends_no_training_and_no_checkpoint(tmp_path: Path) -> None:
    code = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (%d, %d));"
        " sys.argv = ['sparring', *sys.argv[1:]]; runpy.run_module('research', run_name='__main__')"
    )
    arguments = [a for a in ENDLESS if not a.startswith(("run.steps", "run.evaluate_every"))]
    # Enough for the config, the log and the result, and too little for a checkpoint
    small = 16 * 1024
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            code % (small, small),
            *arguments,
            "run.steps=160",
            "network.units=[64,64]",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(runs.ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("Training goes on, and later checkpoints will be tried.") == 1
    assert "finished at step 160" in done.stdout
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("sparring: Not everything is saved. No checkpoint of step ")
    result = runs.result(tmp_path / "runs" / "a")
    assert (result["status"], result["step"]) == ("finished", 160)
    assert last == f"sparring: {result['message']}"
