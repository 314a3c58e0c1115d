"""Rendering tried in a process of its own, which a native library may abort without taking the run.

MuJoCo's default backend ends the process where there is no display, and no exception is raised.
"""

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym

from sparring.envs.gymnasium_bridge.workers import EnvironmentFault, Workers
from sparring.errors import UserError

_log = logging.getLogger("sparring")
# Drawn by pygame, which raises exceptions
_HARMLESS = ("gymnasium.envs.classic_control", "gymnasium.envs.box2d", "gymnasium.envs.toy_text")
_BACKENDS = ("egl", "osmesa")  # of MuJoCo, without a display
_VARIABLE = "MUJOCO_GL"

Make = Callable[[Mapping[str, str]], Callable[[], gym.Env]]


def require(make: Make, entry_point: Any, name: str) -> None:
    """Draw one picture elsewhere; choose MuJoCo's backend if there is no display.

    Args:
        make: gives a factory of the environment, under further environment variables.
        entry_point: of the environment, as it is registered.
        name: of the environment, for messages.

    Raises:
        UserError: drawing ends the process that does it.
    """
    where = str(entry_point)
    if where.startswith(_HARMLESS):
        return
    if "mujoco" not in where or os.environ.get("DISPLAY") or os.environ.get(_VARIABLE):
        end = _ended_by(make({}))
        if end:
            raise UserError(
                f"{name} cannot be drawn: {end}. Without a display, MuJoCo needs the environment "
                "variable MUJOCO_GL=egl or MUJOCO_GL=osmesa; others may need xvfb-run."
            )
        return
    for backend in _BACKENDS:
        if not _ended_by(make({_VARIABLE: backend}), strict=True):
            os.environ[_VARIABLE] = backend
            _log.info("There is no display: MuJoCo draws with %s=%s.", _VARIABLE, backend)
            return
    raise UserError(
        f"{name} cannot be drawn: there is no display, and MuJoCo's backends "
        f"{', '.join(_BACKENDS)} fail here. Install libegl1 or libosmesa6."
    )


def _ended_by(factory: Callable[[], gym.Env], strict: bool = False) -> str:
    """Return what ended, or kept from drawing, a process that draws one picture; "" if nothing.

    One that could not even start says nothing about drawing, unless `strict`.
    """
    try:
        workers = Workers([factory])
    except EnvironmentFault as fault:
        return str(fault) if strict or "signal" in str(fault) else ""
    try:
        workers.reset(seed=0)
        frame = workers.call("frame")[0]
        return frame if isinstance(frame, str) else ""
    except (EOFError, OSError):
        return workers.obituary()
    except Exception:
        return ""  # said where the environment is built for good
    finally:
        workers.close()
