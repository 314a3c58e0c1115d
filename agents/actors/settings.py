"""Settings of actors, and the Ray that they run on. TensorFlow is not imported here, and Ray only
when a run begins.
"""

import importlib
import importlib.util
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sparring.errors import UserError

# Beside the learner's arithmetic an actor's is little: one core, and no GPU, of which each would
# take all memory.
_OPTIONS = {"num_cpus": 1, "max_restarts": -1, "max_task_retries": 2}
_VARIABLES = {"CUDA_VISIBLE_DEVICES": "-1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Ray:
    """Settings of actors; see conf/actors/ray.yaml.

    An actor builds a trainer for itself: from the config in `folder`, which is the run's, or by
    calling `build`. UserError if Ray is not installed.
    """

    folder: str = ""
    count: int = 2
    address: str | None = None
    ahead: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    build: Callable[[], Any] | None = None

    def __post_init__(self) -> None:
        if importlib.util.find_spec("ray") is None:
            raise UserError("actors=ray needs Ray: pip install 'sparring[actors]'")

    def check(self, environment: Any, num_envs: int) -> None:
        """Raise UserError for what cannot be shared."""
        if environment.compiled:
            raise UserError(
                "actors=ray is for environments of the host, such as env=gymnasium: a compiled one "
                "is stepped on the device, far faster than any actor could."
            )
        if num_envs % self.count:
            raise UserError(
                f"actors.count={self.count} does not divide trainer.num_envs={num_envs}."
            )

    def actor_options(self) -> dict[str, Any]:
        """Return the options of an actor: Ray starts a lost one again, whatever was its fault, and
        has it do again what it was doing, until that has been its death three times.
        """
        given = dict(self.options.get("runtime_env") or {})
        flags = {name: os.environ[name] for name in ("XLA_FLAGS",) if name in os.environ}
        given["env_vars"] = {**_VARIABLES, **flags, **given.get("env_vars", {})}
        return {**_OPTIONS, **self.options, "runtime_env": given}


def connect(settings: Ray) -> bool:
    """Connect this process to Ray; return whether that is one of the run's own, to be shut down.

    A process that is connected already stays so. A Ray of the run's own listens at the loopback
    alone, and sends no statistics of its use. UserError if none answers or starts.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = importlib.import_module("ray")
    if ray.is_initialized():
        return False
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # losses are told by the learner
    chosen: dict[str, Any] = {"address": settings.address}
    if settings.address is None:
        # "No other host can join", for which Ray has a name that speaks of other systems
        constants: Any = importlib.import_module("ray._private.ray_constants")
        constants.ENABLE_RAY_CLUSTER = False
        cpus = settings.count * settings.actor_options()["num_cpus"]
        chosen = {"address": "local", "num_cpus": max(1, cpus), "include_dashboard": False}
    before = signal.getsignal(signal.SIGTERM)
    try:
        if settings.address not in (None, "auto"):
            host, _, port = str(settings.address).rpartition(":")
            socket.create_connection((host, int(port)), 10.0).close()  # Ray would try for minutes
        ray.init(log_to_driver=False, configure_logging=False, **chosen)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        said = " ".join(str(error).split())[:300]
        raise UserError(f"actors.address={settings.address}: Ray is not there. {said}") from error
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray's own would end the process at once
    return settings.address is None
