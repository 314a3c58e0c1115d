"""Alarms go off when they should, once, and not otherwise."""

import logging
from typing import Any

import pytest

from sparring.gans.diagnostics import Alarms, Limits
from sparring.gans.losses import Hinge, Wasserstein
from tests.helpers.toy_gans import make

WELL = {
    "discriminator/accuracy": 0.7,
    "generator/diversity": 0.9,
    "gradient/generator_norm": 1.0,
    "gradient/discriminator_norm": 2.0,
}


def said(log: list[dict[str, float]], **limits: Any) -> list[list[str]]:
    alarms = Alarms(Limits(**limits))
    return [alarms({**WELL, **point}, step) for step, point in enumerate(log)]


def test_all_is_well() -> None:
    assert said([{}] * 20) == [[]] * 20
    assert Alarms(Limits())({}, 0) == []


@pytest.mark.parametrize(
    ("accuracy", "word"), [(0.995, "99.5% of pairs"), (0.004, "0.4% of pairs")]
)
def test_a_pinned_accuracy_is_said_once_after_some_points_and_again_after_it_was_well(
    accuracy: float, word: str
) -> None:
    point = {"discriminator/accuracy": accuracy}
    found = said([point] * 4 + [{}] + [point] * 4, points=3)
    assert [len(texts) for texts in found] == [0, 0, 1, 0, 0, 0, 0, 1, 0]
    assert word in found[2][0]
    assert found[2][0].startswith("Step 2: ")
    assert "Try" in found[2][0]


def test_an_unbounded_critic_may_order_all_pairs_right_but_not_all_wrong() -> None:
    alarms = Alarms(Limits(points=1), unbounded=True)
    assert alarms({**WELL, "discriminator/accuracy": 1.0}, 0) == []
    assert "prefers generated" in alarms({**WELL, "discriminator/accuracy": 0.0}, 1)[0]


@pytest.mark.parametrize(("loss", "unbounded"), [(Wasserstein(), True), (Hinge(), False)])
def test_the_loss_says_whether_accuracy_is_an_alarm(loss: Any, unbounded: bool) -> None:
    assert make(loss=loss).alarms.unbounded == unbounded


def test_a_collapse_is_said_at_once() -> None:
    found = said(
        [
            {},
            {"generator/diversity": 0.05},
            {"generator/diversity": 0.05},
            {"generator/diversity": 0.5},
        ]
    )
    assert [len(texts) for texts in found] == [0, 1, 0, 0]
    assert "collapsed" in found[1][0]


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_a_gradient_a_hundred_times_the_usual_is_said_once_there_is_a_usual(player: str) -> None:
    tag = f"gradient/{player}_norm"
    high = {tag: 101.0 * WELL[tag]}
    assert [
        len(t) for t in said([high, {}, {}, {}, {}, {}, high, {}, {tag: 99.0 * WELL[tag]}])
    ] == [0] * 6 + [1, 0, 0]
    assert f"{player}_optimizer.learning_rate" in said([{}] * 5 + [high])[5][0]


def test_they_are_logged_as_warnings(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("sparring")
    before = logger.propagate
    logger.propagate = True
    with caplog.at_level(logging.WARNING, "sparring"):
        Alarms(Limits())({**WELL, "generator/diversity": 0.01}, 5)
    logger.propagate = before
    assert [(r.levelname, "collapsed" in r.getMessage()) for r in caplog.records] == [
        ("WARNING", True)
    ]
