"""The loop, driven by a trainer that fits a line, ended early by signals, faults and full disks,
and resumed.
"""

import dataclasses
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from sparring.errors import UserError
from sparring.processes import signals
from sparring.storage.checkpoints import Checkpoints
from sparring.training.loop import TrainingLoop
from sparring.training.progress import Progress
from tests.helpers import runs
from tests.helpers.board import loaded
from tests.helpers.toy_trainer import SCHEDULE, Line, fault, killed, run, steps, terminate

# ---- signals and faults --------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [4, 32, 44, 100])
def test_a_signal_saves_and_stops_and_the_run_goes_on_as_if_nothing_had_been(
    tmp_path: Path, number: signal.Signals, at: int, caplog: pytest.LogCaptureFixture
) -> None:
    before = signal.getsignal(number)
    trainer = Line(at={at: lambda: os.kill(os.getpid(), number)})
    with caplog.at_level(logging.WARNING, "sparring"):
        outcome = run(tmp_path / "a", trainer)
    assert outcome.status == "stopped"
    assert at <= outcome.step <= 100
    assert Checkpoints(tmp_path / "a" / "checkpoints").steps()[-1] == outcome.step
    said = [record.getMessage() for record in caplog.records if record.name == "sparring"]
    assert said == [f"{number.name}: saving and stopping. Once more to stop at once."]
    assert signal.getsignal(number) is before
    assert run(tmp_path / "a").status == "finished"
    run(tmp_path / "b")
    runs.assert_equal(tmp_path / "a", tmp_path / "b")
    assert steps(tmp_path / "a") == steps(tmp_path / "b")  # in the order TensorBoard shows them
    assert steps(tmp_path / "a", "eval/distance") == steps(tmp_path / "b", "eval/distance")


def test_the_second_signal_ends_at_once(tmp_path: Path) -> None:
    trainer = Line()
    trainer.at = {44: terminate, 48: lambda: os.kill(os.getpid(), signal.SIGINT)}
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="stopped at once by a second signal, SIGINT"):
        run(tmp_path, trainer)
    assert trainer.step == 48
    assert Checkpoints(tmp_path / "checkpoints").steps() == [32, 40]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_trainer_that_gives_up_waiting_once_the_end_is_asked_for_is_saved_and_goes_on(
    tmp_path: Path,
) -> None:
    def waits() -> None:
        assert not signals.asked()
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.asked()
        raise signals.StoppedError

    outcome = run(tmp_path / "a", Line(at={52: waits}))
    assert (outcome.status, outcome.step) == ("stopped", 52)
    assert Checkpoints(tmp_path / "a" / "checkpoints").steps() == [40, 52]
    assert not signals.asked()
    assert run(tmp_path / "a").status == "finished"
    run(tmp_path / "b")
    runs.assert_equal(tmp_path / "a", tmp_path / "b")


def test_a_fault_ends_the_run_after_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the environment broke"):
        run(tmp_path / "a", Line(at={52: fault}))
    assert Checkpoints(tmp_path / "a" / "checkpoints").steps() == [40, 52]
    run(tmp_path / "a")
    run(tmp_path / "b")
    runs.assert_equal(tmp_path / "a", tmp_path / "b")


def test_an_evaluation_that_failed_is_made_up_for(tmp_path: Path) -> None:
    def objectives(step: int) -> float:
        fault() if step == 100 else None
        return 1.0

    with pytest.raises(UserError, match="the environment broke"):
        run(tmp_path, Line(objectives=objectives))
    assert steps(tmp_path, "eval/distance") == [32, 60, 92]
    assert run(tmp_path, Line(objectives=lambda step: 2.0)).final["eval/distance"] == 2.0
    assert steps(tmp_path, "eval/distance") == [32, 60, 92, 100]
    assert steps(tmp_path) == [12, 20, 32, 40, 52, 60, 72, 80, 92, 100]


# ---- resuming ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "at", [16, 56, 96]
)  # before the first checkpoint, after it, and after the last mark
def test_a_killed_run_continues_its_curves(tmp_path: Path, at: int) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path / "a", Line(at={at: killed}))
    outcome = run(tmp_path / "a")
    assert outcome.status == "finished"
    run(tmp_path / "b")
    runs.assert_equal(tmp_path / "a", tmp_path / "b")
    for tag in ("loss/squared", "eval/distance"):
        assert steps(tmp_path / "a", tag) == steps(tmp_path / "b", tag)


def test_what_was_due_at_a_stop_is_done_once_even_if_the_next_process_is_killed(
    tmp_path: Path,
) -> None:
    run(tmp_path / "a", Line(at={32: terminate}))  # a point and an evaluation are due at 32
    assert steps(tmp_path / "a") == [12, 20]
    with pytest.raises(SystemExit):
        run(tmp_path / "a", Line(at={36: killed}))
    assert steps(tmp_path / "a") == [12, 20, 32]
    run(tmp_path / "a")
    assert steps(tmp_path / "a") == [12, 20, 32, 40, 52, 60, 72, 80, 92, 100]
    assert steps(tmp_path / "a", "eval/distance") == [32, 60, 92, 100]


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    run(tmp_path)
    before = (tmp_path / "checkpoints" / "step_000000000100" / "host.json").stat()
    trainer = Line()
    outcome = run(tmp_path, trainer)
    assert (outcome.status, outcome.step, trainer.calls) == ("finished", 100, [])
    for tag in ("loss/squared", "time/update_seconds"):
        assert steps(tmp_path, tag) == [12, 20, 32, 40, 52, 60, 72, 80, 92, 100]
    assert steps(tmp_path, "eval/distance") == [32, 60, 92, 100]
    after = (tmp_path / "checkpoints" / "step_000000000100" / "host.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_finished_run_that_is_asked_for_more_goes_on(tmp_path: Path) -> None:
    run(tmp_path)
    outcome = run(tmp_path, steps=140)
    assert (outcome.status, outcome.step) == ("finished", 140)
    assert steps(tmp_path) == [12, 20, 32, 40, 52, 60, 72, 80, 92, 100, 112, 120, 132, 140]
    assert steps(tmp_path, "eval/distance") == [32, 60, 92, 100, 120, 140]
    assert "custom_scalars__config__" in loaded(tmp_path).Tags()["tensors"]


def test_another_runs_checkpoint_begins_a_run_of_its_own(tmp_path: Path) -> None:
    run(tmp_path / "a", Line(objectives=lambda step: 1.0))
    trainer = Line(objectives=lambda step: 9.0)
    second = TrainingLoop(
        trainer, dataclasses.replace(SCHEDULE, steps=140), tmp_path / "b", Progress()
    )
    assert second.resume(Checkpoints(tmp_path / "a" / "checkpoints"))
    outcome = second.run()
    assert steps(tmp_path / "b") == [112, 120, 132, 140]
    assert outcome.best == {
        "eval/distance": 9.0,
        "step": 140,
    }  # not the other's, whose model is not here
    assert Checkpoints(tmp_path / "b" / "best").steps() == [140]
    assert Checkpoints(tmp_path / "a" / "checkpoints").steps() == [80, 100]
    assert "custom_scalars__config__" in loaded(tmp_path / "b").Tags()["tensors"]


def test_no_checkpoint_no_resume(tmp_path: Path) -> None:
    assert not TrainingLoop(Line(), SCHEDULE, tmp_path, Progress()).resume(
        Checkpoints(tmp_path / "none")
    )


# ---- a full disk ---------------------------------------------------------------------------------


def test_a_full_disk_ends_no_training_and_is_told_once(
    tmp_path: Path, limit: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Line(ballast=100_000, at={44: lambda: limit(200_000)})  # a checkpoint has 400 kB
    outcome = run(tmp_path, trainer, checkpoint_every=20)
    limit(-1)
    assert (outcome.status, outcome.step) == ("finished", 100)
    assert Checkpoints(tmp_path / "checkpoints").steps() == [20, 40]
    restored = Checkpoints(tmp_path / "checkpoints").restore(Line(ballast=100_000).checkpoint)
    assert restored is not None
    assert restored.step == 40
    assert steps(tmp_path)[-1] == 100
    told = [m for m in caplog.messages if m.startswith("No checkpoint of step")]
    assert len(told) == 1, caplog.messages
    assert told[0].startswith("No checkpoint of step 60 in ")
    assert "Checkpoints are saved again." not in caplog.messages
    assert "Training goes on" in told[0]
    assert "Not everything is saved. No checkpoint of step 100 in " in outcome.message
    assert outcome.unsaved


def test_a_disk_with_room_again_is_used_again(
    tmp_path: Path, limit: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Line(ballast=100_000, at={44: lambda: limit(200_000), 72: lambda: limit(-1)})
    outcome = run(tmp_path, trainer, checkpoint_every=20)
    assert (outcome.status, outcome.unsaved, outcome.message) == ("finished", "", "")
    assert Checkpoints(tmp_path / "checkpoints").steps() == [80, 100]
    assert caplog.messages[-1] == "Checkpoints are saved again."
    assert len([m for m in caplog.messages if "checkpoint" in m.lower()]) == 2
