"""The loop, driven by a trainer that fits a line: what is done when, what ends it, and what it
leaves behind.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparring.processes.signals import StoppedError
from sparring.storage.checkpoints import Checkpoints, restore_into
from sparring.training.loop import model_only
from sparring.training.trainer import Evaluation
from tests.helpers import runs
from tests.helpers.board import loaded, points
from tests.helpers.toy_trainer import Line, fault, run, steps, terminate


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes only by sleeping: what is measured is then known, however slow the machine."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])


# ---- what is done when ---------------------------------------------------------------------------


def test_what_is_due_is_done_at_the_first_step_past_each_mark_and_at_the_end(
    tmp_path: Path,
) -> None:
    trainer = Line()
    outcome = run(tmp_path, trainer)
    # batches of 4: the marks 10, 30, 50, 70, 90 are passed at 12, 32, 52, 72, 92; 100 is the end
    assert steps(tmp_path) == [12, 20, 32, 40, 52, 60, 72, 80, 92, 100]
    assert steps(tmp_path, "eval/distance") == [32, 60, 92, 100]
    assert steps(tmp_path, "eval/weights") == [32, 60, 92, 100]  # pictures
    assert steps(tmp_path, "evaluation") == [32, 60, 92, 100]  # how it was computed
    assert points(tmp_path, "evaluation")[-1][1] == b"```yaml\ndistance:\n  norm: 2\n```"
    assert Checkpoints(tmp_path / "checkpoints").steps() == [
        80,
        100,
    ]  # of 40, 80 and 100 the newest two
    restored = Checkpoints(tmp_path / "checkpoints").restore(None, step=80)
    assert restored is not None
    assert restored.host["notes"] == outcome.notes == {"distance": {"norm": 2}}
    assert restored.host["handled"] == {
        "log": 80,
        "evaluate": 60,
        "save": 80,
    }  # nothing is due twice
    assert (outcome.status, outcome.step, outcome.message) == ("finished", 100, "")
    distance = np.linalg.norm(trainer.weights.numpy() - [1.0, -2.0])
    assert outcome.final["eval/distance"] == pytest.approx(distance)
    assert points(tmp_path, "eval/distance")[-1] == (100, pytest.approx(distance))
    assert points(tmp_path, "loss/squared")[-1] == (
        100,
        pytest.approx(outcome.final["loss/squared"]),
    )


def test_a_point_is_the_mean_since_the_last_one(tmp_path: Path) -> None:
    run(tmp_path)
    trainer = Line()
    trainer.train(20)
    means = [trainer.scalars()["loss/squared"]]
    trainer.train(20)
    means.append(trainer.scalars()["loss/squared"])
    run(tmp_path / "b", steps=40, log_every=20)
    assert [value for _, value in points(tmp_path / "b", "loss/squared")] == pytest.approx(
        means, rel=1e-6
    )


def test_calls_last_about_a_second_and_end_at_the_next_mark(tmp_path: Path) -> None:
    slow = Line(at=dict.fromkeys(range(4, 101, 4), lambda: time.sleep(0.1)))  # ten batches a second
    run(tmp_path, slow, log_every=80, evaluate_every=100, checkpoint_every=100)
    assert slow.calls[0] == 1  # compiles
    # A second's worth: 40 examples less the time they take
    assert all(20 <= n <= 40 for n in slow.calls[1:2])
    quick = Line()
    run(tmp_path / "b", quick, log_every=80, evaluate_every=100, checkpoint_every=100)
    assert quick.calls == [1, 76, 20]


# ---- best and target -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("maximize", "found", "best_step"),
    [
        (False, {32: 5.0, 60: 3.0, 92: 3.0, 100: 4.0}, 92),  # of equals the last
        (True, {32: -5.0, 60: -3.0, 92: -3.0, 100: -4.0}, 92),
        (False, {32: 5.0, 60: 6.0, 92: 7.0, 100: 4.0}, 100),
        (True, {32: 5.0, 60: 3.0, 92: 4.0, 100: -9.0}, 32),
    ],
)
def test_the_best_model_is_kept(
    tmp_path: Path, maximize: bool, found: dict[int, float], best_step: int
) -> None:
    seen: dict[int, np.ndarray] = {}
    trainer = Line(objectives=found.__getitem__, maximize=maximize)
    trainer.at = {s: lambda s=s: seen.update({s: trainer.weights.numpy()}) for s in found}
    outcome = run(tmp_path, trainer)
    assert outcome.best == {"eval/distance": found[best_step], "step": best_step}
    assert outcome.final["eval/distance"] == found[100]
    assert Checkpoints(tmp_path / "best").steps() == [best_step]
    kept = Line()
    restore_into(model_only(kept), tmp_path / "best" / f"step_{best_step:012d}")
    np.testing.assert_array_equal(kept.weights.numpy(), seen[best_step])
    saved = runs.read(tmp_path / "best" / f"step_{best_step:012d}")
    assert {name.split("/")[0] for name in saved if "ATTRIBUTES" in name} == {
        "model"
    }  # and nothing else


@pytest.mark.parametrize(("maximize", "target"), [(False, 3.0), (True, 5.0)])
def test_a_target_ends_the_run_where_it_is_reached(
    tmp_path: Path, maximize: bool, target: float
) -> None:
    found = {32: 4.0, 60: 4.0, 92: target, 100: 4.0}  # met exactly
    outcome = run(tmp_path, Line(objectives=found.__getitem__, maximize=maximize), target=target)
    assert (outcome.status, outcome.step) == ("target", 92)
    assert f"eval/distance {target:g} has reached the target {target:g}" in outcome.message
    assert Checkpoints(tmp_path / "checkpoints").steps() == [80, 92]
    assert steps(tmp_path)[-1] == 92


# ---- not finite ----------------------------------------------------------------------------------


def assert_finite(folder: Path) -> None:
    for kind in ("checkpoints", "best"):
        for step in Checkpoints(folder / kind).steps():
            saved = runs.read(folder / kind / f"step_{step:012d}")
            bad = [n for n, v in saved.items() if "lowest" not in n and not np.all(np.isfinite(v))]
            assert not bad, f"{kind}, step {step}: {bad}"


def test_a_diverging_run_ends_with_where_and_what_and_keeps_what_was_before(tmp_path: Path) -> None:
    # Each batch multiplies the distance: it overflows
    outcome = run(tmp_path, Line(learning_rate=1.5), steps=4000)
    assert outcome.status == "nan"
    saved = Checkpoints(tmp_path / "checkpoints").steps()
    assert len(saved) == 2
    assert 40 < saved[-1] < outcome.step <= saved[-1] + 40 + 4
    logged = steps(tmp_path)
    assert (
        f"Not finite between steps {logged[-1]} and {outcome.step}: loss/squared = "
        in outcome.message
    )
    assert f"The last checkpoint from before is of step {saved[-1]}." in outcome.message
    assert "optimizer.learning_rate" in outcome.message
    assert np.all(np.isfinite([value for _, value in points(tmp_path, "loss/squared")]))
    assert_finite(tmp_path)


@pytest.mark.parametrize(("at", "between", "end", "saved"), [(52, 52, 60, 40), (76, 72, 80, 40)])
def test_an_infinity_that_no_mean_shows_is_neither_evaluated_nor_saved(
    tmp_path: Path, at: int, between: int, end: int, saved: int
) -> None:
    trainer = Line(ballast=3)
    trainer.at = {at: lambda: trainer.ballast.assign([0.0, -np.inf, 0.0])}
    outcome = run(tmp_path, trainer)
    # The next evaluation, or the next checkpoint
    assert (outcome.status, outcome.step) == ("nan", end)
    said = (
        f"between steps {between} and {end}: a number in ballast. The last checkpoint from before "
        f"is of step {saved}."
    )
    assert said in outcome.message
    assert Checkpoints(tmp_path / "checkpoints").steps() == [32, saved]
    assert Checkpoints(tmp_path / "best").steps()[0] < at
    assert_finite(tmp_path)


def test_what_to_try_is_the_trainers_to_say(tmp_path: Path) -> None:
    trainer = Line(learning_rate=1.5)
    trainer.remedy = "another slope"
    assert run(tmp_path, trainer, steps=4000).message.endswith("Try another slope.")


def test_it_is_said_that_there_is_no_checkpoint_from_before(tmp_path: Path) -> None:
    trainer = Line()
    trainer.at = {4: lambda: trainer.weights.assign([np.nan, 0.0])}
    outcome = run(tmp_path, trainer)
    assert (outcome.status, outcome.step) == ("nan", 12)
    assert "There is no checkpoint yet." in outcome.message


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("maximize", [True, False])
def test_an_objective_that_is_not_finite_ends_the_run_and_is_never_the_best(
    tmp_path: Path, value: float, maximize: bool
) -> None:
    found = {32: 5.0, 60: value}
    outcome = run(
        tmp_path,
        Line(objectives=found.__getitem__, maximize=maximize),
        target=5.5 if maximize else 4.5,
    )
    assert (outcome.status, outcome.step) == ("nan", 60)
    assert f"eval/distance = {value}" in outcome.message
    assert outcome.best["step"] == 32
    assert Checkpoints(tmp_path / "best").steps() == [32]


def test_a_first_objective_that_is_not_finite_is_found_again_after_a_resume(tmp_path: Path) -> None:
    outcome = run(tmp_path, Line(objectives={32: math.nan}.__getitem__))
    assert (outcome.status, outcome.step) == ("nan", 32)
    assert run(tmp_path).status == "finished"
    # What was saved before it holds no evaluation of step 32, so it is made by the next process
    assert steps(tmp_path, "eval/distance") == [32, 32, 60, 92, 100]


def test_a_signal_does_not_save_what_is_not_finite(tmp_path: Path) -> None:
    trainer = Line()
    trainer.at = {44: lambda: (trainer.momentum.assign([np.inf, 0.0]), terminate())}
    outcome = run(tmp_path, trainer)
    assert outcome.status == "nan"
    assert Checkpoints(tmp_path / "checkpoints").steps() == [32, 40]


def test_a_fault_that_came_of_nan_is_told_as_nan(tmp_path: Path) -> None:
    trainer = Line()
    trainer.at = {44: lambda: (trainer.weights.assign([np.nan, 0.0]), fault())}
    outcome = run(tmp_path, trainer)
    assert outcome.status == "nan"
    assert "a number in model/weights" in outcome.message
    assert "the environment broke" in outcome.message
    assert Checkpoints(tmp_path / "checkpoints").steps() == [32, 40]


# ---- evaluation turned off, and phases -----------------------------------------------------------


def test_a_run_may_do_without_an_evaluation(tmp_path: Path) -> None:
    trainer = Line()
    trainer.evaluate = lambda *_: Evaluation()  # type: ignore[method-assign]
    outcome = run(tmp_path, trainer)
    assert (outcome.status, outcome.step, outcome.best) == ("finished", 100, {})
    assert "loss/squared" in outcome.final
    assert Checkpoints(tmp_path / "best").steps() == []


def test_an_evaluation_that_a_signal_breaks_off_is_made_after_the_resume(tmp_path: Path) -> None:
    def broken_off(*_: Any) -> Evaluation:
        terminate()
        raise StoppedError

    trainer = Line()
    trainer.evaluate = broken_off  # type: ignore[method-assign]
    outcome = run(tmp_path / "a", trainer)
    assert (outcome.status, outcome.step) == ("stopped", 32)
    assert run(tmp_path / "a").status == "finished"
    run(tmp_path / "b")
    runs.assert_equal(tmp_path / "a", tmp_path / "b")
    assert steps(tmp_path / "a", "eval/distance") == steps(tmp_path / "b", "eval/distance")


def test_calls_are_sized_anew_where_a_phase_begins(tmp_path: Path) -> None:
    trainer = Line()
    trainer.phases = (48,)
    asked: list[tuple[int, int]] = []
    train = trainer.train

    def train_noted(count: int) -> None:
        asked.append((trainer.step, count))
        train(count)

    trainer.train = train_noted  # type: ignore[method-assign]
    run(tmp_path, trainer)
    starts = dict(asked)
    assert 48 in starts  # no call passes it, and the one from there is the shortest there is
    assert starts[48] == 1


# ---- time ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("clock")
def test_seconds_are_those_spent_and_add_up_when_resumed(tmp_path: Path) -> None:
    def slow(step: int) -> float:
        time.sleep(0.2)
        return 1.0

    trainer = Line(
        objectives=slow, at={4: lambda: time.sleep(0.3), 52: lambda: time.sleep(0.4), 64: terminate}
    )
    first = run(tmp_path, trainer).seconds  # stops at 64: evaluated at 32 and 60
    assert list(first) == ["imports", "compilation", "training", "evaluation", "saving"]
    assert first["compilation"] == pytest.approx(0.3)
    assert first["training"] == pytest.approx(0.4)
    assert first["evaluation"] == pytest.approx(0.4)
    assert first["saving"] == 0.0
    second = run(tmp_path, Line(objectives=slow)).seconds  # evaluates at 92 and 100
    assert second["evaluation"] == pytest.approx(0.8)
    assert all(second[part] >= first[part] for part in first)


@pytest.mark.usefixtures("clock")
def test_the_speed_leaves_out_compiling_evaluating_and_saving(tmp_path: Path) -> None:
    # 200/s
    pauses: dict[int, Callable[[], None]] = dict.fromkeys(range(8, 53, 4), lambda: time.sleep(0.02))
    pauses |= dict.fromkeys(range(56, 101, 4), lambda: time.sleep(0.04))  # 100/s
    trainer = Line(
        at={**pauses, 4: lambda: time.sleep(1.0)}, objectives=lambda step: time.sleep(0.5) or 1.0
    )
    run(tmp_path, trainer, log_every=50, evaluate_every=50)
    speed = dict(points(tmp_path, "time/examples_per_second"))
    assert speed.keys() == {52, 100}
    assert speed == {52: pytest.approx(200.0), 100: pytest.approx(100.0)}
    waited = dict(points(tmp_path, "time/evaluate_seconds"))
    assert waited[52] == 0.0  # the evaluation at 52 comes after the point at 52
    assert waited[100] == pytest.approx(0.5)
    assert dict(points(tmp_path, "time/update_seconds"))[100] == pytest.approx(0.04 * 12)
    described = loaded(tmp_path).SummaryMetadata("time/examples_per_second").summary_description
    assert described == "Speed of training, compilation left out, in examples per second."
    for part in ("evaluate", "save", "update"):
        assert loaded(tmp_path).SummaryMetadata(f"time/{part}_seconds").summary_description
