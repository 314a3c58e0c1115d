"""Environments in worker processes: AsyncVectorEnv, started cleanly, ended in bounded time."""

import contextlib
import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing import connection
from typing import Any

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from sparring.errors import UserError

CLOSING_SECONDS = 5.0


class EnvironmentFault(UserError):  # noqa: N818 (what failed is the environment, not this program)
    """Failure of an environment while it ran: it raised, or its process died.

    The text holds the environment's own traceback.
    """


class Workers(AsyncVectorEnv):
    """Vector with one process per environment, forked from a clean server process.

    The processes are not forked from this one: TensorFlow runs threads here, and a fork copies
    their locks without the threads that would release them. The server imports Gymnasium once and
    never TensorFlow, so a worker costs a fork of a small process, whereas a spawned one would
    import everything again.

    Raises:
        EnvironmentFault: a worker died while it built its environment.
    """

    def __init__(self, factories: Sequence[Callable[[], gym.Env]]):
        multiprocessing.get_context("forkserver").set_forkserver_preload(["gymnasium.vector"])
        try:
            super().__init__(
                factories, copy=False, context="forkserver", autoreset_mode=AutoresetMode.NEXT_STEP
            )
        except (EOFError, OSError) as broken:
            text = (
                f"{self.obituary()} while it built its environment; its traceback is on standard "
                "error."
            )
            self.close()
            raise EnvironmentFault(text) from broken

    def obituary(self) -> str:
        """Return which workers died, and how: "worker 3 died (signal 9)"."""
        # The pipe breaks a little before
        connection.wait([process.sentinel for process in self.processes], timeout=2.0)
        dead = [(i, p.exitcode) for i, p in enumerate(self.processes) if not p.is_alive()]
        return (
            ", ".join(f"worker {i} died ({_how(code)})" for i, code in dead)
            or "a worker stopped answering"
        )

    def close_extras(
        self, timeout: float | None = None, terminate: bool = False, **kwargs: Any
    ) -> None:
        """Ask every worker to close, wait CLOSING_SECONDS in all, and kill the rest.

        Gymnasium's own method waits for an answer from each, for ever, and fails on one that is
        gone.
        """
        deadline = time.monotonic() + (
            0.0 if terminate else CLOSING_SECONDS if timeout is None else timeout
        )
        pipes = [pipe for pipe in self.parent_pipes if pipe is not None and not pipe.closed]
        for pipe in pipes:
            with contextlib.suppress(OSError):
                pipe.send(("close", None))
        for process in self.processes:
            process.join(max(deadline - time.monotonic(), 0.0))
            if process.is_alive():
                process.kill()
                process.join(CLOSING_SECONDS)
        for pipe in pipes:
            pipe.close()


def _how(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        with contextlib.suppress(ValueError):
            return f"signal {-exitcode}, {signal.Signals(-exitcode).name}"
    return f"exit code {exitcode}"
