"""Whole runs in their folders: where they begin, how they end, what they leave, and what happens
the second time.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tensorflow as tf
from omegaconf import DictConfig, OmegaConf

from sparring.config.composer import CONF
from sparring.errors import UserError
from sparring.training.experiment import train
from tests.helpers import runs
from tests.helpers.board import loaded, points
from tests.helpers.toy_trainer import Line, terminate

pytestmark = pytest.mark.long


class Noted(Line):
    """Says where it began: step, weights and momentum at its first call. `then` happens at a step,
    once.
    """

    began: ClassVar[list[tuple[int, np.ndarray, np.ndarray]]] = []
    then: ClassVar[dict[int, Callable[[], None]]] = {}
    made: ClassVar[list[Line]] = []

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            at={step: lambda step=step: Noted.then.pop(step)() for step in Noted.then}, **settings
        )
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
    """A run of the trainer that fits a line: 100 steps, logged every 10, evaluated every 30, saved
    every 40.
    """
    defaults = OmegaConf.to_container(OmegaConf.load(CONF / "run" / "default.yaml"))
    assert isinstance(defaults, dict)
    short = {
        "dir": str(folder.parent),
        "name": folder.name,
        "steps": 100,
        "log_every": 10,
        "evaluate_every": 30,
    }
    return OmegaConf.create(
        {
            "seed": 0,
            "run": {**defaults, **short, "checkpoint_every": 40, **run},
            "strategy": {"_target_": "sparring.distribute.strategies.one_device"},
            "trainer": {
                "_target_": "tests.training.test_experiment.Noted",
                "seed": "${seed}",
                "learning_rate": 0.05,
            },
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
    return tf.train.load_checkpoint(str(checkpoint / "tensors")).get_tensor(
        f"{name}/.ATTRIBUTES/VARIABLE_VALUE"
    )


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file of a run but its config, which is written anew: name -> when and how large."""
    found = {str(p.relative_to(folder)): p.stat() for p in folder.rglob("*") if p.is_file()}
    return {
        name: (stat.st_mtime_ns, stat.st_size)
        for name, stat in found.items()
        if name != "config.yaml"
    }


# ---- the end -------------------------------------------------------------------------------------


def test_a_run_leaves_its_result_and_says_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
    assert (
        f"finished at step 100: eval/distance {objective:.4g} (best {best['eval/distance']:.4g} at "
        "step " in said
    )
    assert f"sparring tensorboard {tmp_path}" in said
    assert points(tmp_path / "a", "final/distance") == [(100, pytest.approx(objective))]
    assert all(trainer.closed for trainer in Noted.made)


def test_a_finished_run_ends_at_once_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = line(tmp_path / "a")
    before = files(tmp_path / "a")
    capsys.readouterr()
    assert line(tmp_path / "a") == first
    assert line(tmp_path / "a", steps=60) == first  # more than was asked for has been done
    assert (
        f"{tmp_path / 'a'} has ended already: finished at step 100: eval/distance"
        in capsys.readouterr().out
    )
    assert files(tmp_path / "a") == before
    assert len(Noted.made) == 1


def test_more_steps_go_on_where_it_ended(tmp_path: Path) -> None:
    line(tmp_path / "a")
    line(tmp_path / "a", steps=140)
    assert [step for step, *_ in Noted.began] == [0, 100]
    assert runs.result(tmp_path / "a")["step"] == 140
    assert [step for step, _ in points(tmp_path / "a", "final/distance")] == [100, 140]


def test_a_run_that_reached_its_target_ends_at_once_until_the_target_moves(tmp_path: Path) -> None:
    line(tmp_path / "a", target=1.0)
    reached = runs.result(tmp_path / "a")
    assert reached["status"] == "target"
    assert reached["step"] < 100
    assert "has reached the target 1" in reached["message"]
    line(tmp_path / "a", target=1.0)
    assert len(Noted.made) == 1
    line(tmp_path / "a", target=1e-9)
    assert (runs.result(tmp_path / "a")["status"], runs.result(tmp_path / "a")["step"]) == (
        "finished",
        100,
    )
    assert [step for step, *_ in Noted.began] == [0, reached["step"]]


def test_a_finished_run_whose_last_checkpoint_is_gone_makes_it_again(tmp_path: Path) -> None:
    first = line(tmp_path / "a")
    (tmp_path / "a" / "checkpoints" / "step_000000000100").rename(tmp_path / "gone")
    assert line(tmp_path / "a") == first
    assert [step for step, *_ in Noted.began] == [0, 80]
    assert [step for step, _ in points(tmp_path / "a", "loss/squared")][-3:] == [80, 92, 100]


def test_a_stopped_run_has_no_final_metric_until_its_end(tmp_path: Path) -> None:
    Noted.then[44] = terminate
    # As if importing had taken so long
    train(config(tmp_path / "a"), tmp_path / "a", time.time() - 100.0)
    stopped = runs.result(tmp_path / "a")
    assert stopped["status"] == "stopped"
    assert 100.0 < stopped["seconds"]["imports"] < 120.0
    assert 44 <= stopped["step"] < 100
    assert "final/distance" not in loaded(tmp_path / "a").Tags()["tensors"]
    objective = line(tmp_path / "a")
    result = runs.result(tmp_path / "a")
    assert (result["status"], result["step"]) == ("finished", 100)
    assert points(tmp_path / "a", "final/distance") == [(100, pytest.approx(objective))]
    assert all(result["seconds"][part] >= stopped["seconds"][part] for part in result["seconds"])
    line(tmp_path / "b")
    runs.assert_equal(tmp_path / "a", tmp_path / "b")
    for tag in ("loss/squared", "eval/distance", "time/update_seconds"):
        assert [s for s, _ in points(tmp_path / "a", tag)] == [
            s for s, _ in points(tmp_path / "b", tag)
        ]


def test_a_blow_up_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Not finite between steps") as error:
        line(tmp_path / "a", trainer={"learning_rate": 1.5}, steps=4000)
    result = runs.result(tmp_path / "a")
    assert result["status"] == "nan"
    assert result["message"] == str(error.value)
    assert error.value.exit_code == 1
    assert result["final"].keys() == {"loss/squared", "eval/distance"}
    assert "final/distance" not in loaded(tmp_path / "a").Tags()["tensors"]


def test_a_fault_is_a_failure_that_says_how_far_it_came(tmp_path: Path) -> None:
    def fault() -> None:
        raise UserError("the environment broke")

    Noted.then[52] = fault
    with pytest.raises(UserError, match="the environment broke") as error:
        line(tmp_path / "a")
    result = runs.result(tmp_path / "a")
    assert (result["status"], result["step"], result["message"]) == (
        "failed",
        52,
        "the environment broke",
    )
    assert result["best"]["step"] == 32
    assert result["seconds"]["training"] > 0.0
    assert error.value.exit_code == 1
    assert Noted.made[0].closed
    line(tmp_path / "a")
    assert [step for step, *_ in Noted.began] == [0, 52]


def test_a_profile_of_several_processes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = {"worker": ["127.0.0.1:2222", "127.0.0.1:2223"]}
    monkeypatch.setenv(
        "TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 1}})
    )
    cfg = config(tmp_path / "a", profile=8)
    cfg.strategy = {
        "_target_": "sparring.distribute.strategies.multi_worker",
        "workers": None,
        "seconds": 60,
    }
    with pytest.raises(UserError, match=r"run\.profile: .*multi_worker"):
        train(cfg, tmp_path / "a", time.time())
    assert not (tmp_path / "a").exists()


# ---- the beginning -------------------------------------------------------------------------------


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


def test_its_own_checkpoint_goes_before_resume_and_resume_before_warm_start(
    tmp_path: Path, source: Path
) -> None:
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
    with pytest.raises(
        UserError, match=r"run.resume=never, and .* holds a run already: choose another run.name"
    ):
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
    with pytest.raises(UserError, match=r"trainer.learning_rate: 0.05 -> 0.1") as error:
        line(tmp_path / "a", trainer={"learning_rate": 0.1})
    # What it advises goes on from step 100 with the new value
    advice = str(error.value).rpartition("run of another name: ")[2].split()
    assert [text.partition("=")[0] for text in advice] == ["run.name", "run.resume"]
    resumed = advice[1].partition("=")[2]
    line(tmp_path / "NAME", trainer={"learning_rate": 0.1}, resume=resumed, steps=140)
    assert [step for step, *_ in Noted.began] == [0, 100]
    assert Noted.made[-1].learning_rate == 0.1


# ---- a full disk ---------------------------------------------------------------------------------


def test_a_disk_that_is_full_to_the_end_is_told_in_a_line(
    tmp_path: Path, limit: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    Noted.then[52] = lambda: limit(0)
    with pytest.raises(UserError, match=r"cannot be written") as error:
        line(tmp_path / "a")
    limit(-1)
    said = capsys.readouterr()
    # It trained to its end, and says what it came to
    assert "finished at step 100: eval/distance" in said.out
    assert "Traceback" not in said.err
    assert str(tmp_path / "a") in str(error.value)
    assert error.value.exit_code == 1
    saved = sorted(p.name for p in (tmp_path / "a" / "checkpoints").iterdir())
    assert saved == ["step_000000000032", "step_000000000040"]
    assert not (tmp_path / "a" / "result.json").exists()
    assert not list((tmp_path / "a").glob(".result*"))
    line(tmp_path / "a")  # with room again it goes on from what was saved
    assert [step for step, *_ in Noted.began] == [0, 40]
    assert runs.result(tmp_path / "a")["status"] == "finished"
    assert [s for s, _ in points(tmp_path / "a", "loss/squared")] == [
        12,
        20,
        32,
        40,
        52,
        60,
        72,
        80,
        92,
        100,
    ]


def test_a_folder_that_cannot_be_written_is_told_before_training(
    tmp_path: Path, limit: Callable[[int], None]
) -> None:
    limit(0)
    with pytest.raises(UserError, match=r"cannot be written") as error:
        line(tmp_path / "a")
    limit(-1)
    assert error.value.exit_code == 2
    assert Noted.made == []
