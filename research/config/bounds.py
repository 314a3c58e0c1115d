"""Check of a config's numbers against `limits`, a tree beside them in the config itself.

A leaf of that tree says what its number may be: `min` and `max` include their bound, `above` and
`below` do not; `whole` requires an integer; `optional` allows null; `schedule` allows a schedule in
the number's place, whose `start`, `end` and `then` keep the same limits (and may touch a bound that
`above` excludes: a rate may end at zero).
"""

import math
from collections.abc import Mapping
from typing import Any

from sparring.errors import UserError

_BOUNDS = {"min": "at least", "max": "at most", "above": "above", "below": "below"}
_WORDS = {*_BOUNDS, "whole", "optional", "schedule"}


def check_limits(config: Mapping[str, Any], limits: Mapping[str, Any], prefix: str = "") -> None:
    """Raise UserError for the first number outside its limits.

    The message names the key, the value and what is allowed.
    """
    for key, limit in limits.items():
        if not isinstance(config, Mapping) or key not in config:
            continue
        value = config[key]
        name = f"{prefix}{key}"
        if not is_limit(limit):
            check_limits(value, limit, f"{name}.")
        elif isinstance(value, Mapping) and limit.get("schedule"):
            _check_schedule(value, limit, name)
        elif not _within(value, limit):
            raise UserError(
                f"{name}={value if value is not None else 'null'}: {name} must be {said(limit)}."
            )


def is_limit(node: Any) -> bool:
    """Return whether a node of the tree is a leaf."""
    return isinstance(node, Mapping) and set(node) <= _WORDS


def said(limit: Mapping[str, Any]) -> str:
    """Return what a leaf allows, in words."""
    bounds = [f"{word} {limit[k]}" for k, word in _BOUNDS.items() if k in limit]
    text = (
        "a "
        f"{'whole ' if limit.get('whole') else ''}number"
        f"{' ' if bounds else ''}{' and '.join(bounds)}"
    )
    return (
        text
        + (", or a schedule" if limit.get("schedule") else "")
        + (", or null" if limit.get("optional") else "")
    )


def _check_schedule(schedule: Mapping[str, Any], limit: Mapping[str, Any], name: str) -> None:
    loose = {"min" if k == "above" else k: v for k, v in limit.items() if k != "optional"}
    number = {k: v for k, v in loose.items() if k != "schedule"}
    inner = {"start": number, "end": number, "then": loose, "fraction": {"above": 0}}
    check_limits(schedule, inner, f"{name}.")


def _within(value: Any, limit: Mapping[str, Any]) -> bool:
    if value is None:
        return bool(limit.get("optional"))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if limit.get("whole") and not isinstance(value, int):
        return False
    return (  # false for NaN and for infinities
        limit.get("min", -math.inf) <= value <= limit.get("max", math.inf)
        and limit.get("above", -math.inf) < value < limit.get("below", math.inf)
    )
