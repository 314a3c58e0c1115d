"""An actor: a process that steps its share of the environments with the learner's newest weights,
as it is told.
"""

import contextlib
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.agents.actors import transport
from sparring.agents.drivers.on_host import Collector
from sparring.errors import UserError
from sparring.storage import variable_names

_POLL_SECONDS = 5.0
_log = logging.getLogger("sparring")


class SupersededError(UserError):
    """The place is another's: this actor was given up, or came too late."""


def play(
    address: str,
    place: tuple[int, int] | None,
    collector: Callable[[int], Collector],
    model: tf.train.Checkpoint,
) -> None:
    """Do what the learner at HOST:PORT orders, until it says that it is over.

    `collector(number)` collects an actor's share; `model` is what it acts with. Without a `place`,
    its number and generation, the actor waits until one is free, and again if that is given to
    another.
    """
    threading.Thread(target=watch, args=(address,), daemon=True).start()
    line = transport.Line(address)
    variables = [v for _, v in sorted(variable_names.named_variables(model).items())]
    while not _held(line, place, collector, variables):
        pass


def _held(
    line: transport.Line,
    place: tuple[int, int] | None,
    collector: Callable[[int], Collector],
    variables: list[tf.Variable],
) -> bool:
    """Hold the place, or any that is free, as long as it lasts; whether that was to the end of the
    run.
    """
    offer = line.receive("places").head if place is None else {}
    number, generation = place or (int(offer["number"]), int(offer["generation"]))
    mine = collector(number)
    of = transport.compatibility_key(mine.source, variables)
    if offer and offer["of"] != of:
        line.send("places", offer)
        raise UserError(
            f"The learner at {line.address} is of another run: {_differences(offer['of'], of)}."
        )
    try:
        Actor(line, number, generation, mine, variables).run()
    except SupersededError as error:
        if not offer:
            raise
        _log.warning("%s Waiting for another.", error)
        return False
    finally:
        mine.close()
    line.hang_up()
    return True


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {theirs.get(key)}, here {ours[key]}" for key in ours if theirs.get(key) != ours[key]
    )


class Actor:
    """Holder of a slot; `generation` counts those who have held it."""

    def __init__(
        self,
        line: transport.Line,
        number: int,
        generation: int,
        collector: Collector,
        variables: list[tf.Variable],
    ) -> None:
        self.line = line
        self.number = number
        self.generation = generation
        self.collector = collector
        self.variables = variables
        self._act = collector.act
        collector.act = self._beating
        self._patience = float("inf")
        self._said = time.monotonic()
        self._turn = 0

    def run(self) -> None:
        """Follow orders to the last."""
        table = f"orders_{self.number}"
        while True:
            order = self.line.receive(table)
            generation, kind, turn = (order.head[key] for key in ("generation", "kind", "turn"))
            if generation < self.generation or kind == "void":
                continue
            # One given up has had it, and put it back
            if (generation, turn) != (self.generation, self._turn):
                self.line.send(table, order.head, order.arrays)
            if generation > self.generation:
                raise SupersededError(
                    f"Place {self.number} is another actor's now: this one was late or silent."
                )
            if turn == self._turn:
                self._turn += 1
                if not self._obey(order):
                    return

    def _obey(self, order: transport.Message) -> bool:
        try:
            match order.head["kind"]:
                case "open":
                    self._open(order)
                case "collect":
                    self._collect(order.head["iteration"])
                case "snapshot":
                    self._say("snapshot", transport.packed(self.collector.snapshot()))
                case "close":
                    return False
        except UserError as fault:  # an environment's: the run's to tell
            self._say("failed", text=str(fault))
            return False
        return True

    def _open(self, order: transport.Message) -> None:
        """Environments as they are at the beginning, as they were when the run was saved, or others
        for lost ones.
        """
        self._patience = order.head["seconds"] / 4
        complaints = []
        if order.arrays:
            complaints = self.collector.restore(transport.unpacked(order.arrays))
        elif order.head["vector_step"] == 0:
            self.collector.open()
        else:
            self.collector.restart(order.head["vector_step"])
        # Compiles it, for which nobody waits later
        self._act(self.collector.observation, (), np.int64(0))
        self._say("opened", complaints=complaints)

    def _collect(self, iteration: int) -> None:
        version, *values = self.line.take("weights")
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)
        packed = self.collector.collect(iteration * self.collector.source.rollout_steps)
        names = sorted(packed.extras)
        arrays = [
            packed.observation,
            packed.action,
            packed.outcome,
            *(packed.extras[name] for name in names),
        ]
        self._say("rollout", arrays, iteration=iteration, version=int(version), extras=names)

    def _beating(self, *arguments: Any) -> Any:
        """Acts, and says now and then that it still does."""
        if time.monotonic() - self._said > self._patience:
            self._say("alive")
        return self._act(*arguments)

    def _say(self, kind: str, arrays: list[np.ndarray] | None = None, **more: Any) -> None:
        self._said = time.monotonic()
        head = {"kind": kind, "number": self.number, "generation": self.generation, **more}
        self.line.send("rollouts", head, arrays or [])


def watch(address: str) -> None:
    """End this process once the learner's port has been closed for a while: Reverb itself would
    wait for ever.
    """
    host, _, port = address.rpartition(":")
    missed = 0
    while True:
        time.sleep(_POLL_SECONDS)
        reached = False
        with (
            contextlib.suppress(OSError),
            socket.create_connection((host.strip("[]"), int(port)), _POLL_SECONDS),
        ):
            reached = True
        missed = 0 if reached else missed + 1
        if missed > 2:
            print(
                f"sparring: The learner at {address} {transport.GONE}.", file=sys.stderr, flush=True
            )
            os._exit(1)
