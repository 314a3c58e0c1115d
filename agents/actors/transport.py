"""Messages between a learner and its actors, in tables of a Reverb server.

    orders_0, ...  learner -> actor  a queue each: open, collect rollout k, take a snapshot, close
    weights        learner -> actors one item, the newest weights and their version
    rollouts       actors -> learner one queue: rollouts, snapshots, signs of life
    places         learner -> actors a queue of places that nobody has, for actors of other hosts

A message is a JSON object and arrays; nothing is pickled.
"""

import contextlib
import importlib
import json
import queue
import socket
import tempfile
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from sparring.agents.training.rollout import RolloutSpec
from sparring.errors import UserError
from sparring.storage import manifest

_GOODBYE = {"kind": "goodbye"}
_CLOSING_SECONDS = 5.0
GONE = "does not answer any more"


class Message(NamedTuple):
    """Message: a header and arrays."""

    head: dict[str, Any]
    arrays: list[np.ndarray]


def reverb() -> Any:
    """The package; UserError where it is missing, with what to do."""
    try:
        return importlib.import_module("reverb")
    except (ImportError, tf.errors.NotFoundError) as error:
        found = tf.__version__
        if not found.startswith("2.15."):
            raise UserError(
                f"actors=reverb: Reverb exists for TensorFlow 2.15 alone, and this is {found}. Use "
                "that stack, or "
                "env.vectorization=async, which steps environments in processes of this host."
            ) from error
        raise UserError("actors=reverb needs Reverb: pip install 'sparring[actors]'") from error


def packed(state: Any) -> list[np.ndarray]:
    """A nest of plain values and arrays as two arrays of bytes."""
    return [np.frombuffer(part, np.uint8) for part in manifest.encode_host(state)]


def unpacked(arrays: Sequence[np.ndarray]) -> dict[str, Any]:
    """Return the values that `packed` was given."""
    text, npz = (array.tobytes() for array in arrays)
    return manifest.decode_host(text, npz)


def compatibility_key(share: RolloutSpec, variables: Sequence[tf.Variable]) -> dict[str, Any]:
    """Return the properties of environments and agent that an actor and its learner must share."""
    return {
        "environment": getattr(share.environment, "described", share.environment.name),
        "environments": share.num_envs,
        "rollout_steps": share.rollout_steps,
        "seed": share.seed,
        "weights": " ".join("x".join(map(str, v.shape)) for v in variables),
    }


class Line:
    """End of the line: sends to tables and takes from them.

    Reverb waits for a server that has gone for ever: see `sparring.agents.actors.actor.watch`.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.client = reverb().Client(address)
        self._writers: dict[str, Any] = {}

    def send(self, table: str, head: dict[str, Any], arrays: Sequence[np.ndarray] = ()) -> None:
        """Put a message into a table; returns when it is there."""
        self.put(table, [np.frombuffer(json.dumps(head).encode(), np.uint8), *arrays])

    def put(self, table: str, arrays: Sequence[np.ndarray]) -> None:
        """Put arrays into a table as one item. UserError if the server has just gone."""
        try:
            if table not in self._writers:  # a new stream costs ten times what an item costs
                self._writers[table] = self.client.writer(max_sequence_length=1)
            self._writers[table].append(list(arrays))
            self._writers[table].create_item(table, 1, 1.0)
            self._writers[table].flush()
        except RuntimeError as error:
            raise UserError(f"The learner at {self.address} {GONE} ({error})") from error

    def take(self, table: str) -> list[np.ndarray]:
        """The arrays of a table's next item; waits for it."""
        sample = next(iter(self.client.sample(table, 1, emit_timesteps=False)))
        return [column[0] for column in sample.data]

    def receive(self, table: str) -> Message:
        """The next message of a table; waits for it."""
        head, *arrays = self.take(table)
        return Message(json.loads(head.tobytes()), arrays)

    def hang_up(self) -> None:
        """Close the streams."""
        for writer in self._writers.values():
            with contextlib.suppress(Exception):  # the other end has gone
                writer.close(retry_on_unavailable=False)
        self._writers = {}


class Exchange(Line):
    """The learner's end, with the server. A thread of its own receives: a wait in Reverb cannot be
    broken off.
    """

    def __init__(self, count: int, port: int | None, ahead: int) -> None:
        package = reverb()
        saver = importlib.import_module("reverb.platform.default.checkpointers")
        fifo = package.selectors.Fifo
        one = package.rate_limiters.MinSize(1)
        room = 4 * (ahead + 4)
        tables = [package.Table.queue(f"orders_{i}", room) for i in range(count)]
        tables += [
            package.Table.queue("rollouts", room * count),
            package.Table.queue("places", 4 * count),
        ]
        tables.append(package.Table("weights", fifo(), fifo(), max_size=1, rate_limiter=one))
        _check_free(port)
        with tempfile.TemporaryDirectory() as nothing:  # which is what Reverb would save there
            try:
                self._server = package.Server(tables, port, saver.DefaultCheckpointer(nothing))
            except Exception as error:
                raise UserError(
                    f"actors.port={port}: Reverb cannot listen there ({error})."
                ) from error
        self.port = self._server.port
        super().__init__(f"127.0.0.1:{self.port}")
        self._heard: queue.SimpleQueue[Message | Exception] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            client = reverb().Client(self.address)
            for sample in client.sample("rollouts", 2**62, emit_timesteps=False):
                head, *arrays = [column[0] for column in sample.data]
                message = Message(json.loads(head.tobytes()), arrays)
                if message.head == _GOODBYE:
                    return
                self._heard.put(message)
        except Exception as error:
            self._heard.put(error)

    def hear(self, seconds: float) -> Message | None:
        """The next message of any actor, if there is one within so many seconds."""
        with contextlib.suppress(queue.Empty):
            found = self._heard.get(timeout=seconds)
            if isinstance(found, Message):
                return found
            raise UserError(
                f"actors=reverb: what came at port {self.port} cannot be read ({found})."
            ) from found
        return None

    def all_heard(self) -> bool:
        """Whether nothing waits to be heard."""
        return self._heard.empty()

    def unread(self, table: str) -> int:
        """Return the number of items of a table that nobody has taken."""
        return int(self.client.server_info()[table].current_size)

    def close(self) -> None:
        """End the server."""
        self.send("rollouts", _GOODBYE)
        self._thread.join(_CLOSING_SECONDS)
        self.hang_up()
        self._server.stop()


def _check_free(port: int | None) -> None:
    """UserError for a port that another listens at: a second Reverb would share it, and each get
    half of the calls.
    """
    if port is not None:
        try:
            socket.create_server(("", port)).close()
        except OSError as error:
            raise UserError(f"actors.port={port} is taken: choose another.") from error
