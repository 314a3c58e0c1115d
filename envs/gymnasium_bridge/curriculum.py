"""Parameters of an environment on the host that follow the progress of a run.

A parameter is an attribute of the environment, or of one of its wrappers. It is set before each
reset, so that an episode has one value throughout.
"""

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

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
    return {str(name): course(str(name), given, Ramp) for name, given in (curriculum or {}).items()}


def course(name: str, given: Any, ramp: Callable[..., Any]) -> Any:
    """Return what is said of the parameter `name` as a function of the run's progress.

    `ramp(start, end, fraction)` makes one of a mapping, or of a number that stays.

    Raises:
        UserError: it is neither, nor a function.
    """
    if callable(given):
        return given
    settings = given if isinstance(given, Mapping) else {"start": given, "end": given}
    try:
        return ramp(**settings)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"env.curriculum.{name}={given}: give a number, or numbers start and end, and fraction "
            "of the run unless it is the whole."
        ) from error


def require_parameters(env: gym.Env, curriculum: Mapping[str, Course]) -> None:
    """Raise UserError for a parameter that an environment has not, or that is no number there."""
    for name in curriculum:
        value = env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else None
        if not is_number(value):
            raise absent(name, env.unwrapped)


def is_number(value: Any) -> bool:
    """Return whether a value can be a parameter."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def absent(name: str, environment: Any) -> UserError:
    """Return the error of a parameter that is no number of an environment."""
    owners = [*reversed(type(environment).__mro__), environment]
    named = {n: value for owner in owners for n, value in vars(owner).items()}
    known = sorted(n for n, value in named.items() if is_number(value) and not n.startswith("_"))
    hint = near(name, known).strip() or f"It has {', '.join(known) or 'none'}."
    return UserError(
        f"env.curriculum.{name}: {type(environment).__name__} has no number of that name. {hint}"
    )


def parameters_at(curriculum: Mapping[str, Course], progress: float) -> dict[str, float]:
    """Return the value of each parameter at a share `progress` of the run."""
    return {name: float(course(progress)) for name, course in curriculum.items()}


def assign(env: gym.Env, parameters: Mapping[str, float]) -> None:
    """Set parameters of an environment, or of the wrapper that has an attribute of that name."""
    for name, value in parameters.items():
        env.set_wrapper_attr(name, value)
