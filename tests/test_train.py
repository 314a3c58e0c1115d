"""Whole runs in their folders: where they begin, how they end, what they leave, and what happens the second time."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tensorflow as tf
from omegaconf import DictConfig, OmegaConf

from envs.bridge import EnvironmentFault
from research.config import CONF, Composer
from research.errors import UserError
from research.train import train
from tests import runs
from tests.board import loaded, points
from tests.rollouts import Coin
from tests.toy_trainer import Line


class Noted(Line):
    """Says where it began: step, weights and momentum at its first call. `then` happens at a step, once."""

    began: ClassVar[list[tuple[int, np.ndarray, np.ndarray]]] = []
    then: ClassVar[dict[int, Callable[[], None]]] = {}
    made: ClassVar[list[Line]] = []

    def __init__(self, **settings: Any) -> None:
        super().__init__(at={step: lambda step=step: Noted.then.pop(step)() for step in Noted.then}, **settings)
        Noted.made.append(self)

    def train(self, steps: int) -> None:
        if not self.calls:
            Noted.began.append((self.step, self.weights.numpy(), self.momentum.numpy()))
        super().train(steps)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    Noted.began.clear()
    Noted.then.clear()
    Noted.made.clear()


def config(folder: Path, **run: Any) -> DictConfig:
    """A run of the trainer that fits a line: 100 steps, logged every 10, evaluated every 30, saved every 40."""
    defaults = OmegaConf.to_container(OmegaConf.load(CONF / "run" / "default.yaml"))
    assert isinstance(defaults, dict)
    short = {"dir": str(folder.parent), "name": folder.name, "steps": 100, "log_every": 10, "evaluate_every": 30}
    return OmegaConf.create(
        {
            "seed": 0,
            "run": {**defaults, **short, "checkpoint_every": 40, **run},
            "strategy": {"_target_": "research.strategy.one_device"},
            "trainer": {"_target_": "tests.test_train.Noted", "seed": "${seed}", "learning_rate": 0.05},
            "hparams": ["trainer"],
            "check_first": [],
            "packages": ["tests"],
        }
    )


def line(folder: Path, trainer: dict[str, Any] | None = None, **run: Any) -> float | None:
    cfg = config(folder, **run)
    cfg.trainer.update(trainer or {})
    return train(cfg, folder, time.time())


def tensors(checkpoint: Path, name: str) -> np.ndarray:
    return tf.train.load_checkpoint(str(checkpoint / "tensors")).get_tensor(f"{name}/.ATTRIBUTES/VARIABLE_VALUE")


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file of a run but its config, which is written anew: name -> when and how large."""
    found = {str(p.relative_to(folder)): p.stat() for p in folder.rglob("*") if p.is_file()}
    return {name: (stat.st_mtime_ns, stat.st_size) for name, stat in found.items() if name != "config.yaml"}


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


# ---- the end -----------------------------------------------------------------------------------------------------


def test_a_run_leaves_its_result_and_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objective = line(tmp_path / "a")
    result = runs.result(tmp_path / "a")
    assert (result["status"], result["step"], result["message"]) == ("finished", 100, "")
    assert result["objective"] == {"name": "eval/distance", "value": objective}
    assert result["final"].keys() == {"loss/squared", "eval/distance"}
    assert result["best"].keys() == {"eval/distance", "step"}
    assert result["notes"] == {"distance": {"norm": 2}}
    assert list(result["seconds"]) == ["imports", "compilation", "training", "evaluation", "saving"]
    assert all(0.0 <= s < 10.0 for s in result["seconds"].values())
    assert result["versions"]["tensorflow"] == tf.__version__
    said = capsys.readouterr().out
    best = result["best"]
    assert f"finished at step 100: eval/distance {objective:.4g} (best {best['eval/distance']:.4g} at step " in said
    assert f"sparring tensorboard {tmp_path}" in said
    assert points(tmp_path / "a", "hparam/objective") == [(100, pytest.approx(objective))]
    assert all(trainer.closed for trainer in Noted.made)


def test_a_finished_run_ends_at_once_and_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = line(tmp_path / "a")
    before = files(tmp_path / "a")
    capsys.readouterr()
    assert line(tmp_path / "a") == first
    assert line(tmp_path / "a", steps=60) == first  # more than was asked for has been done
    assert f"{tmp_path / 'a'} has ended already: finished at step 100: eval/distance" in capsys.readouterr().out
    assert files(tmp_path / "a") == before
    assert len(Noted.made) == 1


def test_more_steps_go_on_where_it_ended(tmp_path: Path) -> None:
    line(tmp_path / "a")
    line(tmp_path / "a", steps=140)
    assert [step for step, *_ in Noted.began] == [0, 100]
    assert runs.result(tmp_path / "a")["step"] == 140
    assert [step for step, _ in points(tmp_path / "a", "hparam/objective")] == [100, 140]


def test_a_run_that_reached_its_target_ends_at_once_until_the_target_moves(tmp_path: Path) -> None:
    line(tmp_path / "a", target=1.0)
    reached = runs.result(tmp_path / "a")
    assert reached["status"] == "target"
    assert reached["step"] < 100
    assert "has reached the target 1" in reached["message"]
    line(tmp_path / "a", target=1.0)
    assert len(Noted.made) == 1
    line(tmp_path / "a", target=1e-9)
    assert (runs.result(tmp_path / "a")["status"], runs.result(tmp_path / "a")["step"]) == ("finished", 100)
    assert [step for step, *_ in Noted.began] == [0, reached["step"]]


def test_a_finished_run_whose_last_checkpoint_is_gone_makes_it_again(tmp_path: Path) -> None:
    first = line(tmp_path / "a")
    (tmp_path / "a" / "checkpoints" / "step_000000000100").rename(tmp_path / "gone")
    assert line(tmp_path / "a") == first
    assert [step for step, *_ in Noted.began] == [0, 80]
    assert [step for step, _ in points(tmp_path / "a", "loss/squared")][-3:] == [80, 92, 100]


def test_a_stopped_run_has_no_final_metric_until_its_end(tmp_path: Path) -> None:
    Noted.then[44] = terminate
    train(config(tmp_path / "a"), tmp_path / "a", time.time() - 100.0)  # as if importing had taken so long
    stopped = runs.result(tmp_path / "a")
    assert stopped["status"] == "stopped"
    assert 100.0 < stopped["seconds"]["imports"] < 120.0
    assert 44 <= stopped["step"] < 100
    assert "hparam/objective" not in loaded(tmp_path / "a").Tags()["tensors"]
    objective = line(tmp_path / "a")
    result = runs.result(tmp_path / "a")
    assert (result["status"], result["step"]) == ("finished", 100)
    assert points(tmp_path / "a", "hparam/objective") == [(100, pytest.approx(objective))]
    assert all(result["seconds"][part] >= stopped["seconds"][part] for part in result["seconds"])
    line(tmp_path / "b")
    runs.assert_equal(tmp_path / "a", tmp_path / "b")
    for tag in ("loss/squared", "eval/distance", "time/update_seconds"):
        assert [s for s, _ in points(tmp_path / "a", tag)] == [s for s, _ in points(tmp_path / "b", tag)]


def test_a_blow_up_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Not finite between steps") as error:
        line(tmp_path / "a", trainer={"learning_rate": 1.5}, steps=4000)
    result = runs.result(tmp_path / "a")
    assert result["status"] == "nan"
    assert result["message"] == str(error.value)
    assert error.value.exit_code == 1
    assert result["final"].keys() == {"loss/squared", "eval/distance"}
    assert "hparam/objective" not in loaded(tmp_path / "a").Tags()["tensors"]


def test_a_fault_is_a_failure_that_says_how_far_it_came(tmp_path: Path) -> None:
    def fault() -> None:
        raise UserError("the environment broke")

    Noted.then[52] = fault
    with pytest.raises(UserError, match="the environment broke") as error:
        line(tmp_path / "a")
    result = runs.result(tmp_path / "a")
    assert (result["status"], result["step"], result["message"]) == ("failed", 52, "the environment broke")
    assert result["best"]["step"] == 32
    assert result["seconds"]["training"] > 0.0
    assert error.value.exit_code == 1
    assert Noted.made[0].closed
    line(tmp_path / "a")
    assert [step for step, *_ in Noted.began] == [0, 52]


# ---- the beginning -----------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A run whose best model is not its last one."""
    Noted.then[156] = lambda: Noted.made[-1].weights.assign_add([1.0, 1.0])
    line(tmp_path / "source", steps=160)
    assert runs.result(tmp_path / "source")["best"]["step"] == 152
    Noted.began.clear()
    return tmp_path / "source"


def test_a_warm_start_has_the_best_weights_and_nothing_else(tmp_path: Path, source: Path) -> None:
    line(tmp_path / "a", warm_start=str(source))
    step, weights, momentum = Noted.began[0]
    best = next((source / "best").glob("step_*"))
    assert step == 0
    np.testing.assert_array_equal(weights, tensors(best, "model/weights"))
    assert not np.array_equal(weights, tensors(runs.newest(source), "model/weights"))
    np.testing.assert_array_equal(momentum, [0.0, 0.0])
    assert next(s for s, _ in points(tmp_path / "a", "loss/squared")) == 12


def test_another_run_is_resumed_where_it_was(tmp_path: Path, source: Path) -> None:
    line(tmp_path / "a", resume=str(source), steps=200)
    step, weights, momentum = Noted.began[0]
    assert step == 160
    np.testing.assert_array_equal(weights, tensors(runs.newest(source), "model/weights"))
    np.testing.assert_array_equal(momentum, tensors(runs.newest(source), "momentum"))
    assert [s for s, _ in points(tmp_path / "a", "loss/squared")] == [172, 180, 192, 200]


def test_its_own_checkpoint_goes_before_resume_and_resume_before_warm_start(tmp_path: Path, source: Path) -> None:
    line(tmp_path / "a", resume=str(source), warm_start=str(source), steps=200)
    assert Noted.began[-1][0] == 160
    np.testing.assert_array_equal(Noted.began[-1][1], tensors(runs.newest(source), "model/weights"))
    line(tmp_path / "a", resume=str(source), warm_start=str(source), steps=240)
    assert Noted.began[-1][0] == 200
    line(tmp_path / "b")
    line(tmp_path / "b", warm_start=str(source), steps=140)
    assert Noted.began[-1][0] == 100
    line(tmp_path / "c")
    assert Noted.began[-1][0] == 0
    np.testing.assert_array_equal(Noted.began[-1][1], [0.0, 0.0])


def test_never_refuses_a_folder_that_holds_a_run_and_begins_a_new_one(tmp_path: Path) -> None:
    line(tmp_path / "a", resume="never")
    assert Noted.began[-1][0] == 0
    with pytest.raises(UserError, match=r"run.resume=never, and .* holds a run already: choose another run.name"):
        line(tmp_path / "a", resume="never", steps=140)


@pytest.mark.parametrize("key", ["resume", "warm_start"])
def test_a_source_that_is_none_is_named(tmp_path: Path, key: str) -> None:
    with pytest.raises(UserError, match=rf"run.{key}=.*nowhere: no run's folder"):
        line(tmp_path / "a", **{key: str(tmp_path / "nowhere")})
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(UserError, match="no checkpoint"):
        line(tmp_path / "b", **{key: str(tmp_path / "empty")})


def test_a_changed_config_is_refused_even_when_the_run_is_over(tmp_path: Path) -> None:
    line(tmp_path / "a")
    with pytest.raises(UserError, match=r"trainer.learning_rate: 0.05 -> 0.1"):
        line(tmp_path / "a", trainer={"learning_rate": 0.1})


# ---- a full disk -------------------------------------------------------------------------------------------------


def test_a_disk_that_is_full_to_the_end_is_told_in_a_line(
    tmp_path: Path, limit: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    Noted.then[52] = lambda: limit(0)
    with pytest.raises(UserError, match=r"cannot be written") as error:
        line(tmp_path / "a")
    limit(-1)
    said = capsys.readouterr()
    assert "finished at step 100: eval/distance" in said.out  # it trained to its end, and says what it came to
    assert "Traceback" not in said.err
    assert str(tmp_path / "a") in str(error.value)
    assert error.value.exit_code == 1
    assert [p.name for p in (tmp_path / "a" / "checkpoints").iterdir()] == ["step_000000000040"]
    assert not (tmp_path / "a" / "result.json").exists()
    assert not list((tmp_path / "a").glob(".result*"))
    line(tmp_path / "a")  # with room again it goes on from what was saved
    assert [step for step, *_ in Noted.began] == [0, 40]
    assert runs.result(tmp_path / "a")["status"] == "finished"
    assert [s for s, _ in points(tmp_path / "a", "loss/squared")] == [12, 20, 32, 40, 52, 60, 72, 80, 92, 100]


def test_a_folder_that_cannot_be_written_is_told_before_training(tmp_path: Path, limit: Callable[[int], None]) -> None:
    limit(0)
    with pytest.raises(UserError, match=r"cannot be written") as error:
        line(tmp_path / "a")
    limit(-1)
    assert error.value.exit_code == 2
    assert Noted.made == []


# ---- agents and environments -------------------------------------------------------------------------------------


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
        self.marker, self.kill, self.left = Path(marker), kill, 50

    def step(self, action: int):
        self.left -= 1
        if self.left == 0 and not self.marker.exists():
            self.marker.touch()
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("the simulator is jammed")
        return super().step(action)


SMALL = (
    "agent=ppo", "env=gymnasium", "compile=eager", "network.units=[4]", "trainer.num_envs=2", "trainer.epochs=1",
    "trainer.rollout_steps=8", "trainer.minibatches=1", "trainer.evaluation.episodes=1", "run.steps=160",
    "trainer.evaluation.sampled=false", "run.log_every=32", "run.evaluate_every=64", "run.checkpoint_every=32",
    "env.max_episode_steps=9",
)  # fmt: skip


def agent(folder: Path, *overrides: str) -> float | None:
    cfg = Composer("rl").compose([*SMALL, *overrides, f"run.dir={folder.parent}", f"run.name={folder.name}"])
    return train(OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"]), folder, time.time())


@pytest.mark.parametrize("kill", [False, True], ids=["raises", "killed"])
def test_an_environment_that_breaks_ends_the_run_after_a_checkpoint_and_the_run_resumes(
    tmp_path: Path, kill: bool
) -> None:
    breaks = ("env.id=tests.test_train:Breaks", f"+env.kwargs.marker={tmp_path / 'marker'}", f"+env.kwargs.kill={kill}")
    how = "env.vectorization=async" if kill else "env.vectorization=sync"
    begun = time.monotonic()
    with pytest.raises(EnvironmentFault) as error:
        agent(tmp_path / "a", *breaks, how)
    assert time.monotonic() - begun < 60
    said = str(error.value)
    if kill:
        assert "died (signal 9, SIGKILL) while the run went on" in said
    else:
        assert "the simulator is jammed" in said
        assert 'test_train.py", line' in said  # the environment's own traceback
    result = runs.result(tmp_path / "a")
    assert (result["status"], result["message"]) == ("failed", said)
    assert 0 < result["step"] < 160
    saved = int(runs.newest(tmp_path / "a").name.removeprefix("step_"))
    assert saved == result["step"] == 112  # 50 steps and the resets between them reach into the eighth iteration of 16
    agent(tmp_path / "a", *breaks, how)
    assert (runs.result(tmp_path / "a")["status"], runs.result(tmp_path / "a")["step"]) == ("finished", 160)
    shown = [step for step, _ in points(tmp_path / "a", "loss/total")]
    assert shown == [32, 64, 96, 128, 160]


def test_infinite_rewards_end_the_command_with_one_line_and_a_checkpoint_from_before(tmp_path: Path) -> None:
    done = runs.sparring(tmp_path, "rl", *SMALL, "env.id=tests.test_train:Blows", "run.name=a", "run.steps=800")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    lines = [text for text in done.stderr.splitlines() if text.startswith("sparring: ")]
    assert len(lines) == 1
    assert "Not finite between steps" in lines[0]
    assert "loss/" in lines[0]
    result = runs.result(tmp_path / "runs" / "a")
    assert result["status"] == "nan"
    assert f"sparring: {result['message']}" == lines[0].rstrip()
    for checkpoint in [*(tmp_path / "runs/a/checkpoints").iterdir(), *(tmp_path / "runs/a/best").iterdir()]:
        bad = [n for n, v in runs.read(checkpoint).items() if v.dtype.kind == "f" and not np.all(np.isfinite(v))]
        assert not bad, f"{checkpoint.name}: {bad}"
    assert (tmp_path / "runs/a/checkpoints").exists()


# ---- signals and disks, from outside -----------------------------------------------------------------------------


class Drowsy(Coin):
    """Takes its time once there is a file of that name."""

    def step(self, action: int):
        if Path("drowsy").exists():
            Path("asleep").touch()
            time.sleep(5.0)
        return super().step(action)


ENDLESS = ("rl", *SMALL, "env.id=tests.test_train:Drowsy", "run.name=a", "run.steps=10000000",
           "run.evaluate_every=10000000")  # fmt: skip


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
    since = time.monotonic()
    assert process.wait(60) == 130
    assert time.monotonic() - since < 15
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
    small = 16 * 1024  # enough for the config, the log and the result, and too little for a checkpoint
    done = subprocess.run(
        [sys.executable, "-c", code % (small, small), *arguments, "run.steps=160", "network.units=[64,64]"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(runs.ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("Training goes on, and later checkpoints will be tried.") == 1
    assert "finished at step 160" in done.stdout
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("sparring: Not everything is saved. No checkpoint of step ")
    result = runs.result(tmp_path / "runs" / "a")
    assert (result["status"], result["step"]) == ("finished", 160)
    assert last == f"sparring: {result['message']}"
