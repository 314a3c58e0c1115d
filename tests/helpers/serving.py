"""A server of models in a thread of this process, and clients that talk to it."""

import asyncio
import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.export.signatures import Export, seed_spec
from sparring.export.signatures import Signature as Exportable
from sparring.serving.model import Servable, Signature
from sparring.serving.model_repository import Model
from sparring.serving.rest_api import TensorSpec
from sparring.serving.server import Server, Settings
from sparring.storage import manifest

FLOAT = np.dtype("float32")
INT = np.dtype("int64")


@dataclass
class Reply:
    code: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Running:
    """A server that has started. `scan()` is what it does every second by itself."""

    def __init__(
        self, server: Server, loop: asyncio.AbstractEventLoop, tls: ssl.SSLContext | None
    ) -> None:
        self.server = server
        self._loop = loop
        self._tls = tls

    def scan(self) -> None:
        asyncio.run_coroutine_threadsafe(self.server.scan(), self._loop).result(120)

    def connect(self, timeout: float = 20.0) -> http.client.HTTPConnection:
        if self._tls is not None:
            return http.client.HTTPSConnection(
                "localhost", self.server.port, timeout=timeout, context=self._tls
            )
        return http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=timeout)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """One request on a connection of its own; a body that is no bytes is sent as JSON."""
        body = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        with contextlib.closing(self.connect()) as connection:
            connection.request(
                method, path, body, {k.replace("_", "-"): v for k, v in headers.items()}
            )
            response = connection.getresponse()
            return Reply(response.status, dict(response.headers), response.read())

    def predict(self, model: str, body: Any, **headers: str) -> Reply:
        return self.ask("POST", f"/v1/models/{model}:predict", body, **headers)

    def raw(self, data: bytes, timeout: float = 20.0) -> socket.socket:
        """A connection on which some bytes have been sent."""
        connection = socket.create_connection(("127.0.0.1", self.server.port), timeout=timeout)
        connection.sendall(data)
        return connection


@contextlib.contextmanager
def running(
    settings: Settings, tls: ssl.SSLContext | None = None, client: ssl.SSLContext | None = None
) -> Iterator[Running]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = Server(replace(settings, log_all=False), tls)
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(20)
    try:
        yield Running(server, loop, client)
    finally:
        asyncio.run_coroutine_threadsafe(_end(server), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


async def _end(server: Server) -> None:
    """As asyncio.run() does, once the server has stopped."""
    await server.stop()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


def signature(
    call: Callable[..., Any], takes: list[TensorSpec], gives: list[TensorSpec]
) -> Signature:
    return Signature(
        "serving_default", {s.name: s for s in takes}, {s.name: s for s in gives}, call, True
    )


def shelve(server: Running, name: str, made: Signature, version: int = 1) -> None:
    """Have the server serve a function of ours, without a file."""
    model = server.server.shelf.models.setdefault(name, Model())
    model.loaded = {**model.loaded, version: Servable(name, version, {made.name: made}, (0.0, 0.0))}
    server.server.shelf.scanned = True


def doubling(shape: tuple[int, ...] = (2,)) -> Signature:
    """Map x to y = 2 x, and to the row's sum."""

    def call(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        x = inputs["x"]
        return {"sum": x.reshape(len(x), -1).sum(axis=1), "y": 2 * x}

    x, y = (TensorSpec(name, FLOAT, (None, *shape)) for name in "xy")
    return signature(call, [x], [TensorSpec("sum", FLOAT, (None,)), y])


def settings(folder: Path, **more: Any) -> Settings:
    return Settings(folder, **more)


def write(models: Path, name: str, version: int, factor: float = 2.0) -> Path:
    """A model of ours by hand: y = factor * x; and a picture of its seed."""
    weight = tf.Variable(factor)

    def double(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": weight * x}

    def png(seed: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = tf.cast(
            tf.ones([1, 2, 2, 1], tf.int64) * tf.reshape(seed, [-1, 1, 1, 1]), tf.uint8
        )
        return {"image_bytes": tf.map_fn(tf.io.encode_png, pixels, fn_output_signature=tf.string)}

    signatures = {
        "double": Exportable(double, {"x": tf.TensorSpec([2], tf.float32)}, "Twice."),
        "png": Exportable(png, {"seed": seed_spec()}, "Grey."),
    }
    folder = models / name / str(version)
    Export(signatures, "double", lambda n: {}, lambda f, s: {}).module().save(str(folder))
    manifest.close(folder, {"name": name, "version": version})
    return folder


def write_counter(models: Path, version: int, first: float = 0.0) -> Path:
    """A model that remembers: y = 10 * (steps so far) + x, where the first episode is `first` steps
    old already.
    """

    def count(x: tf.Tensor, state: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": 10.0 * state + x, "state": state + 1.0}

    def initial_state(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"state": tf.zeros_like(x) + first}

    x = {"x": tf.TensorSpec([1], tf.float32)}
    signatures = {
        "count": Exportable(count, {**x, "state": tf.TensorSpec([1], tf.float32)}, "Counts."),
        "initial_state": Exportable(initial_state, x, "The first."),
    }
    folder = models / "counter" / str(version)
    Export(signatures, "count", lambda n: {}, lambda f, s: {}).module().save(str(folder))
    manifest.close(folder, {"name": "counter", "version": version})
    return folder
