"""Two replicas on two logical CPU devices beside one: made alike, trained alike, compared."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sparring.distribute import strategies
from sparring.storage import variable_names


def pair(make: Callable[[], Any]) -> tuple[Any, Any]:
    """A trainer on one device, and the same on two replicas."""
    made = []
    for place in (strategies.one_device(), strategies.mirrored(2)):
        with strategies.variable_scope(place):
            made.append(make())
    return made[0], made[1]


def state(trainer: Any) -> dict[str, np.ndarray]:
    """Every variable of the checkpoint."""
    return {
        name: v.numpy() for name, v in variable_names.named_variables(trainer.checkpoint).items()
    }


def assert_alike(one: Any, two: Any, atol: float = 1e-6, but: str = "means") -> None:
    """The same step, and the same values in all variables to within `atol`; `but` begins the names
    of others.
    """
    ours = state(one)
    theirs = state(two)
    assert one.step == two.step
    names = {
        n for n in (*ours, *theirs) if not n.startswith(("means", but))
    }  # means: see `assert_same_means`
    assert len(names) > 10
    for name in sorted(names):
        np.testing.assert_allclose(theirs[name], ours[name], atol=atol, rtol=atol, err_msg=name)


def assert_same_means(one: Any, two: Any, rel: float = 1e-4) -> None:
    """The same logged values."""
    ours = one.scalars()
    theirs = two.scalars()
    assert ours.keys() == theirs.keys()
    for tag, value in ours.items():
        assert theirs[tag] == pytest.approx(value, rel=rel, abs=1e-6), tag


def assert_in_agreement(two: Any) -> None:
    """All replicas hold the same numbers, to the bit."""
    for name, variable in variable_names.named_variables(two.checkpoint).items():
        first, *others = [np.asarray(v) for v in getattr(variable, "values", [variable])]
        for other in others:
            np.testing.assert_array_equal(first, other, err_msg=name)
