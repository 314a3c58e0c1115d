"""The places of a learner's actors: how many, who holds each, what they owe, and what happens when
one is lost.
"""

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparring.agents.actors import transport
from sparring.errors import UserError
from sparring.processes import spawn

_log = logging.getLogger("sparring")
_IN_A_ROW = 3  # losses of a place without a rollout in between that end the run
_CLOSING_SECONDS = 5.0
# Beside the learner's arithmetic an actor's is little: one core, and no GPU, of which each would
# take all memory.
_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "-1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Reverb:
    """Settings of actors: their number, and their address; see conf/actors/reverb.yaml.

    `folder` is the run's.
    """

    folder: str
    count: int = 2
    here: int | None = None
    port: int | None = None
    ahead: int = 0
    seconds: float = 60.0
    start_seconds: float = 300.0

    def check(self, environment: Any, num_envs: int) -> None:
        """UserError for what cannot be shared."""
        if environment.compiled:
            raise UserError(
                "actors=reverb is for environments of the host, such as env=gymnasium: a compiled "
                "one is stepped on "
                "the device, far faster than any actor could."
            )
        if num_envs % self.count:
            raise UserError(
                f"actors.count={self.count} does not divide trainer.num_envs={num_envs}."
            )
        if self.here is not None and self.here > self.count:
            raise UserError(f"actors.here={self.here} is more than actors.count={self.count}.")


class ActorSlot:
    """Slot of one actor, whoever holds it.

    `generation` tells its holders apart, `owed` are the rollouts it was asked for.

    `of` says what an actor that may hold it is like (`wire.likeness`).
    """

    def __init__(
        self, number: int, exchange: transport.Exchange, settings: Reverb, of: Mapping[str, Any]
    ) -> None:
        self.number = number
        self.exchange = exchange
        self.settings = settings
        self.of = of
        self.folder = Path(settings.folder)
        # More than any holder's of an earlier learner at this address
        self.generation = time.time_ns() // 1000
        self.process: subprocess.Popen[bytes] | None = None
        self.owed: list[int] = []
        self.opened: list[str] | None = (
            None  # what could not be restored, once its environments are open
        )
        self.snapshot: dict[str, Any] | None = None
        self.losses = 0  # since its last rollout
        self._turn = 0  # orders given to its holder
        self.saving = False  # whether a snapshot is awaited
        self._since = time.monotonic()

    def start(self) -> None:
        """Give the place to a new process of this host; what it says goes to a file in the run's
        folder.
        """
        arguments = ["actor", str(self.folder), f"--address=127.0.0.1:{self.exchange.port}"]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open(
            "ab"
        ) as output:  # in a process group of its own: Ctrl-C is the learner's to answer
            self.process = subprocess.Popen(
                spawn.program([*arguments, f"--place={self.number}:{self.generation}"]),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **_ENVIRONMENT},
                process_group=0,
            )

    def offer(self) -> None:
        """Let an actor of another host take the place."""
        self.exchange.send(
            "places", {"number": self.number, "generation": self.generation, "of": self.of}
        )

    @property
    def log(self) -> Path:
        """Return the output of its processes on this host."""
        return self.folder / "actors" / f"{self.number}.log"

    def open(self, vector_step: int, state: Sequence[np.ndarray] = ()) -> None:
        """Have its environments opened: as they were saved, or, at a step past the first, in the
        place of lost ones.
        """
        self.tell("open", state, vector_step=vector_step, seconds=self.settings.seconds)

    def owe(self, iteration: int) -> None:
        """Have it collect the rollout of an iteration."""
        self.tell("collect", iteration=iteration)
        self.owed.append(iteration)

    def tell(self, kind: str, arrays: Sequence[np.ndarray] = (), **more: Any) -> None:
        """Give its holder an order."""
        if not self.expected:
            self._since = time.monotonic()
        head = {"kind": kind, "generation": self.generation, "turn": self._turn, **more}
        self.exchange.send(f"orders_{self.number}", head, arrays)
        self._turn += 1

    @property
    def expected(self) -> bool:
        """Whether its holder has anything to do."""
        return self.opened is None or bool(self.owed) or self.saving

    def save(self) -> None:
        """Have its holder send a snapshot."""
        self.tell("snapshot")
        self.snapshot = None
        self.saving = True

    def heard(self, message: transport.Message) -> bool:
        """Take note of a message; whether it is its holder's, and not one's that was given up."""
        head = message.head
        if head["generation"] != self.generation:
            return False
        self._since = time.monotonic()
        match head["kind"]:
            case "opened":
                self.opened = list(head["complaints"])
            case "snapshot":
                self.snapshot = transport.unpacked(message.arrays)
                self.saving = False
            case "rollout":
                self.owed.remove(head["iteration"])
                self.losses = 0
        return True

    def trouble(self) -> str:
        """Return the reason why its holder was lost, or ""."""
        code = None if self.process is None else self.process.poll()
        if code is not None:
            return (
                f"was ended by {signal.Signals(-code).name}"
                if code < 0
                else f"ended with exit code {code}"
            )
        silence = time.monotonic() - self._since
        settings = self.settings
        if self.opened is None:
            slow = silence > settings.start_seconds
            return (
                f"was not there and ready after {settings.start_seconds:g} s (actors.start_seconds)"
                if slow
                else ""
            )
        silent = self.expected and silence > settings.seconds
        return (
            f"has given no sign of life for {settings.seconds:g} s (actors.seconds)"
            if silent
            else ""
        )

    def replace(self, how: str, vector_step: int) -> None:
        """Give the place of a lost actor to another, its environments to open episodes anew."""
        self.losses += 1
        if self.losses >= _IN_A_ROW:
            raise UserError(
                f"Actor {self.number} {how}, {_IN_A_ROW} times in a row. "
                f"{self._last_words()}".strip()
            )
        self.kill()
        self.tell("void")  # Reverb hands one more order to whoever waited for it when it was ended
        elsewhere = self.process is None and self.opened is not None
        self.generation = self.generation + 1
        self._turn = 0
        self.saving = False
        self.opened = None
        self._since = time.monotonic()
        then = "the place is free for another" if elsewhere else "another is started here"
        _log.warning("Actor %d %s: %s. Its environments open new episodes.", self.number, how, then)
        self.open(vector_step)
        owed = self.owed
        self.owed = []
        for iteration in owed:
            self.owe(iteration)
        self.offer() if elsewhere else self.start()

    def kill(self) -> None:
        """End its process here, if there is one."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                # Its environments' processes end after their step
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def wait(self, deadline: float) -> None:
        """Until its holder has gone; a process of this host is ended at the deadline."""
        if self.process is None and self.opened is not None:
            while self.exchange.unread(f"orders_{self.number}") and time.monotonic() < deadline:
                time.sleep(0.01)
        elif self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(max(0.0, deadline - time.monotonic()))
            self.kill()
            self.process = None

    def _last_words(self) -> str:
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return f"It said last: {lines[-1].removeprefix('sparring: ')}" if lines else ""


def close(places: Sequence[ActorSlot]) -> None:
    """Let all actors go."""
    for place in places:
        place.tell("close")
    deadline = time.monotonic() + _CLOSING_SECONDS
    for place in places:
        place.wait(deadline)
