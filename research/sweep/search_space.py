"""Search spaces: a tree of the config's keys, each with its bounds or its choices.

    optimizer:
      learning_rate: {low: 1.0e-5, high: 1.0e-2, log: true}
    trainer:
      epochs: {low: 1, high: 20}            # integers, as both ends are
      num_envs: {choices: [4, 8, 16]}
    network: {choices: [mlp, mlp_relu]}     # an option of a group

`points` is the number of a range's values in a grid.
"""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sparring.config.overrides import quoted
from sparring.errors import UserError

_WORDS = {"low", "high", "log", "step", "points", "choices"}


class Space:
    """Dimensions of a search: dotted key -> its bounds or choices.

    Raises:
        UserError: a dimension is invalid.
    """

    def __init__(self, tree: Mapping[str, Any]) -> None:
        self.dimensions = dict(_leaves(tree))
        if not self.dimensions:
            raise UserError("search: an empty space, there is nothing to search.")
        for key, dimension in self.dimensions.items():
            _check(key, dimension)

    def distributions(self) -> dict[str, Any]:
        """Return the dimensions as Optuna's distributions."""
        return {key: _distribution(dimension) for key, dimension in self.dimensions.items()}

    def ends(self) -> list[list[str]]:
        """Return two lists of overrides: every dimension's first value, and every last."""
        first = []
        last = []
        for key, dimension in self.dimensions.items():
            values = dimension.get("choices") or [dimension["low"], dimension["high"]]
            first.append(override(key, values[0]))
            last.append(override(key, values[-1]))
        return [first, last]

    def grid(self) -> list[dict[str, Any]]:
        """Return every combination.

        Raises:
            UserError: a range has no `points`.
        """
        values = {key: _points(key, dimension) for key, dimension in self.dimensions.items()}
        return [
            dict(zip(values, combination, strict=True))
            for combination in itertools.product(*values.values())
        ]


def override(key: str, value: Any) -> str:
    """Return a chosen value as an override of the config."""
    if isinstance(value, str) and value[:1] not in "[{":
        return f"{key}={quoted(value)}"
    if value is None:
        return f"{key}=null"
    if isinstance(value, bool):
        return f"{key}={str(value).lower()}"
    return f"{key}={_plain(value)}"


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for key, node in tree.items():
        name = f"{prefix}{key}"
        if not isinstance(node, Mapping):
            raise UserError(
                f"search.{name}={node}: write {{low: ..., high: ...}} or {{choices: [...]}}."
            )
        if node and set(node) <= _WORDS:
            yield name, dict(node)
        else:
            yield from _leaves(node, f"{name}.")


def _check(key: str, dimension: Mapping[str, Any]) -> None:
    if "choices" in dimension:
        if (
            len(dimension) > 1
            or not isinstance(dimension["choices"], Sequence)
            or not dimension["choices"]
        ):
            raise UserError(f"search.{key}: choices stand alone, a list of at least one value.")
        return
    low = dimension.get("low")
    high = dimension.get("high")
    numbers = all(
        isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)
        for x in (low, high)
    )
    if not numbers or low >= high:  # type: ignore[operator]
        raise UserError(
            f"search.{key}: low={low} and high={high} must be numbers, the first the smaller."
        )
    if dimension.get("log") and low <= 0:  # type: ignore[operator]
        raise UserError(f"search.{key}: with log, low={low} must be above 0.")
    if dimension.get("points", 2) < 2:
        raise UserError(f"search.{key}: points={dimension['points']} must be at least 2.")


def _whole(dimension: Mapping[str, Any]) -> bool:
    return isinstance(dimension["low"], int) and isinstance(dimension["high"], int)


def _distribution(dimension: Mapping[str, Any]) -> Any:
    from optuna import distributions

    if "choices" in dimension:
        return distributions.CategoricalDistribution(
            [_plain(value) for value in dimension["choices"]]
        )
    low = dimension["low"]
    high = dimension["high"]
    log = bool(dimension.get("log"))
    step = dimension.get("step")
    if _whole(dimension):
        return distributions.IntDistribution(low, high, log, 1 if step is None else step)
    return distributions.FloatDistribution(low, high, log, step)


def _points(key: str, dimension: Mapping[str, Any]) -> list[Any]:
    if "choices" in dimension:
        return [_plain(value) for value in dimension["choices"]]
    low = dimension["low"]
    high = dimension["high"]
    points = dimension.get("points")
    whole = _whole(dimension)
    if points is None and whole:
        return list(range(low, high + 1, dimension.get("step") or 1))
    if points is None:
        raise UserError(
            f"search.{key}: a grid needs to know how many points, search.{key}.points=5."
        )
    shares = [i / (points - 1) for i in range(points)]
    values = [
        low * (high / low) ** s if dimension.get("log") else low + (high - low) * s for s in shares
    ]
    values = [low, *values[1:-1], high]
    return list(dict.fromkeys(round(v) for v in values)) if whole else values


def _plain(value: Any) -> Any:
    """Return a value that Optuna can store: lists and mappings as an override's text."""
    return json.dumps(value, separators=(",", ":")) if isinstance(value, list | dict) else value
