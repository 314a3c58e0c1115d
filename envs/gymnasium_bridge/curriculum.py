"""Parameters of an environment on the host that follow the progress of a run.

A parameter is an attribute of the environment, or of one of its wrappers. It is set before each
reset, so that an episode has one value throughout.
"""

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym

from sparring.errors import UserError, near

Course = Callable[[float], Any]  # from progress, 0 to 1, to a number


class Ramp:
    """Line from `start` to `end` over the first `fraction` of the run, then `end`."""

    def __init__(self, start: float, end: float, fraction: float = 1.0) -> None:
        if not fraction > 0.0:
            raise UserError(f"env.curriculum: fraction={fraction} must be above 0.")
        self.start = float(start)
        self.end = float(end)
        self.fraction = float(fraction)

    def __call__(self, progress: float) -> float:
        return self.start + (self.end - self.start) * min(progress / self.fraction, 1.0)


def courses(curriculum: Mapping[str, Any] | None) -> dict[str, Course]:
    """Return what is said of each parameter as a function of the run's progress.

    Args:
        curriculum: for each parameter a number, a function, or what `Ramp` takes.

    Raises:
        UserError: it is none of these.
    """
    return {str(name): _course(str(name), given) for name, given in (curriculum or {}).items()}


def _course(name: str, given: Any) -> Course:
    if isinstance(given, Mapping):
        try:
            return Ramp(**given)
        except TypeError as error:
            raise UserError(
                f"env.curriculum.{name}={dict(given)}: give start and end, and fraction of the run "
                "unless it is the whole."
            ) from error
    if callable(given):
        return given
    return Ramp(given, given)


def require(env: gym.Env, curriculum: Mapping[str, Course]) -> None:
    """Raise UserError for a parameter that an environment has not, or that is no number there."""
    for name in curriculum:
        if not env.has_wrapper_attr(name):
            known = [n for n, value in vars(env.unwrapped).items() if _is_number(n, value)]
            raise UserError(
                f"env.curriculum.{name}: {type(env.unwrapped).__name__} has no such attribute. "
                f"{near(name, known) or 'It has ' + ', '.join(sorted(known)) + '.'}"
            )


def _is_number(name: str, value: Any) -> bool:
    return not name.startswith("_") and isinstance(value, int | float)


def values(curriculum: Mapping[str, Course], progress: float) -> dict[str, float]:
    """Return the value of each parameter at a share `progress` of the run."""
    return {name: float(course(progress)) for name, course in curriculum.items()}


def assign(env: gym.Env, parameters: Mapping[str, float]) -> None:
    """Set parameters of an environment, or of the wrapper that has an attribute of that name."""
    for name, value in parameters.items():
        env.set_wrapper_attr(name, value)
