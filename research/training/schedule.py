"""Schedule of a run: its length, and when it logs, evaluates and saves."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Length of a run and its intervals, in steps; `target` is the objective that ends it early.

    What is due at the same step is done in this order: log, evaluate, save. All of it is due at the
    end.
    """

    steps: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    keep: int = 2
    target: float | None = None


class Every:
    """Trigger at the first step at or past each multiple of `interval`, and at the `last` step."""

    def __init__(self, interval: int, last: int) -> None:
        self.interval = interval
        self.last = last
        self.handled = 0  # the step up to which it has been done whenever it was due

    def due(self, step: int) -> bool:
        """Whether it has become due since it was last handled."""
        passed = step // self.interval > self.handled // self.interval
        return step > self.handled and (passed or step >= self.last)

    def following(self, step: int) -> int:
        """Return the next step after `step` at which it becomes due."""
        return (step // self.interval + 1) * self.interval


def duration(seconds: float) -> str:
    """Return a time for people: seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
