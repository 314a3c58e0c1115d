"""Callbacks are called at the points of a run, in their order, and logged with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sparring.errors import UserError
from sparring.training.callbacks import Callback, Callbacks
from sparring.training.fit import fit
from tests.helpers import runs
from tests.helpers.toy_trainer import Line


class Listening(Callback):
    """Notes what it is told of, and when; logs twice the loss."""

    descriptions = {"mine/twice": "Twice the loss."}  # noqa: RUF012

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def on_begin(self, trainer: Any, folder: Path) -> None:
        self.heard.append(("begin", trainer.step, folder.name))

    def on_call(self, trainer: Any) -> None:
        self.heard.append(("call", trainer.step))

    def on_log(self, trainer: Any, scalars: Mapping[str, float]) -> Mapping[str, float]:
        self.heard.append(("log", trainer.step))
        return {"mine/twice": 2.0 * scalars["loss/squared"]}

    def on_evaluation(self, trainer: Any, evaluation: Any) -> None:
        self.heard.append(("evaluation", trainer.step, sorted(evaluation.scalars)))

    def on_checkpoint(self, trainer: Any, folder: Path) -> None:
        self.heard.append(("checkpoint", trainer.step, folder.name))

    def on_end(self, trainer: Any, outcome: Any) -> None:
        self.heard.append(("end", trainer.step, outcome.status))


def test_every_point_is_heard_in_its_order_and_scalars_are_logged(tmp_path: Path) -> None:
    mine = Listening()
    intervals = {"log_every": 40, "evaluate_every": 80, "checkpoint_every": 60}
    fit(Line(), tmp_path / "a", 80, callbacks=[mine], **intervals)
    heard = [event for event in mine.heard if event[0] != "call"]
    assert heard == [
        ("begin", 0, "a"),
        ("log", 40),
        ("checkpoint", 60, "step_000000000060"),
        ("log", 80),
        ("evaluation", 80, ["eval/distance"]),
        ("checkpoint", 80, "step_000000000080"),
        ("end", 80, "finished"),
    ]
    # The first call compiles one batch of 4; calls then end at 40, 60 and 80, and between them
    # where a slow machine has taken a second
    calls = [step for kind, step, *_ in mine.heard if kind == "call"]
    assert calls[0] == 4
    assert {40, 60, 80} <= set(calls)
    assert calls == sorted(set(calls))
    logged = runs.scalars(tmp_path / "a")
    assert logged["mine/twice"] == {s: 2.0 * v for s, v in logged["loss/squared"].items()}


def test_what_is_no_callback_and_a_scalar_without_a_description_are_refused(tmp_path: Path) -> None:
    class Undescribed(Callback):
        """Logs what it does not describe."""

        def on_log(self, trainer: Any, scalars: Mapping[str, float]) -> Mapping[str, float]:
            return {"mine/secret": 1.0}

    with pytest.raises(UserError, match=r"Undescribed logs mine/secret, which its `descriptions`"):
        fit(Line(), tmp_path / "a", 80, callbacks=[Undescribed()])
    with pytest.raises(UserError, match=r"builtins.int does not derive from sparring.training.cal"):
        Callbacks([1])  # type: ignore[list-item]
