"""Outcome of a run."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Outcome:
    """Outcome of a run.

    `status`: finished, stopped (by a signal), target, nan or failed. `final` holds the newest value
    of every scalar, `best` those of the evaluation with the best objective, and its step; of equals
    the last. `seconds` adds up over all processes that worked on the run, as far as their work was
    saved. `unsaved` says why the last state is not. `notes` say how the newest evaluation's scalars
    were computed. `maximize`: whether a larger objective is better.
    """

    status: str = "failed"
    step: int = 0
    final: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(
            ("imports", "compilation", "training", "evaluation", "saving"), 0.0
        )
    )
    message: str = ""
    unsaved: str = ""
    notes: dict[str, Any] = field(default_factory=dict)
    maximize: bool = True
