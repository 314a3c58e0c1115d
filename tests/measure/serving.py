"""Requests per second and latency of a served model, beside the bare call and a plain Flask
wrapper.

    python -m tests.measure.serving models/cart  # also: --seconds 4 --connections 1,8,64
    python -m tests.measure.serving models/digits --body BODY
    python -m tests.measure.serving models/cart --soak 600 --rate 50

Server and client are processes of their own on this machine. Every connection sends its next
request when its last one is answered. `--soak` sends at a fixed rate instead and prints answers,
errors and the server's memory along the way.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
FLASK = """
import json, sys
import tensorflow as tf
from flask import Flask, jsonify, request
from waitress import serve

model = tf.saved_model.load(sys.argv[1])
app = Flask("plain")

@app.post("/v1/models/<name>:predict")
def predict(name):
    content = request.get_json()
    function = model.signatures[content.get("signature_name", "serving_default")]
    (key, spec), = function.structured_input_signature[1].items()
    outputs = function(**{key: tf.constant(content["instances"], spec.dtype)})
    return jsonify({"predictions": next(iter(outputs.values())).numpy().tolist()})

print("http://127.0.0.1:" + sys.argv[2], flush=True)
serve(app, host="127.0.0.1", port=int(sys.argv[2]), threads=8, _quiet=True)
"""


class Client(asyncio.Protocol):
    """One connection that asks again and again; keeps the seconds of each answer."""

    def __init__(self, request: bytes, until: float) -> None:
        self.request = request
        self.until = until
        self.seconds: list[float] = []
        self.errors = 0
        self.over = asyncio.get_running_loop().create_future()
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._ask()

    def _ask(self) -> None:
        self._started = time.perf_counter()
        self.transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head.lower()) if found else None
        if length is None or len(body) < int(length[1]):
            return
        now = time.perf_counter()
        self.seconds.append(now - self._started)
        self.errors += not head.startswith(b"HTTP/1.1 200")
        self._buffer = b""
        if now < self.until:
            self._ask()
        else:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)


def request(url: str, model: str, body: str) -> bytes:
    host = url.removeprefix("http://")
    head = (
        f"POST /v1/models/{model}:predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: "
        "application/json\r\n"
    )
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def cpu(pid: int) -> float:
    """Seconds of processor that a process has taken: of another process's load on the machine it
    knows little.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(
    url: str, asked: bytes, connections: int, seconds: float
) -> tuple[np.ndarray, int, float]:
    """Seconds of every answer, the number that were no answers, and how long it took."""
    loop = asyncio.get_running_loop()
    host = url.removeprefix("http://").split(":")
    started = time.perf_counter()
    clients = [
        (
            await loop.create_connection(
                lambda: Client(asked, started + seconds), host[0], int(host[1])
            )
        )[1]
        for _ in range(connections)
    ]
    await asyncio.wait_for(asyncio.gather(*(c.over for c in clients)), seconds + 60)
    found = np.concatenate([np.array(c.seconds) for c in clients])
    return found, sum(c.errors for c in clients), time.perf_counter() - started


@contextlib.contextmanager
def server(command: list[str]) -> Iterator[tuple[str, float, int]]:
    """A server that has said where it is and is ready: its URL, the seconds that took,
    its process.
    """
    started = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        url = "/".join(process.stdout.readline().strip().split("/")[:3])
        while "research" in command and not _ready(url):
            time.sleep(0.02)
        yield url, time.perf_counter() - started, process.pid
    finally:
        process.terminate()
        process.wait(60)


def _ready(url: str) -> bool:
    try:
        return urllib.request.urlopen(f"{url}/readyz", timeout=5).status == 200
    except OSError:
        return False


def bare(folder: Path, body: str, seconds: float) -> None:
    """The function in this process, called on one member by way of arrays and of nothing else."""
    import tensorflow as tf

    from sparring.xla.compilation import direct

    content = json.loads(body)
    function = tf.saved_model.load(str(folder)).signatures[
        content.get("signature_name", "serving_default")
    ]
    ((key, spec),) = function.structured_input_signature[1].items()
    one = np.array(content["instances"], spec.dtype.as_numpy_dtype)
    slow = lambda x: {k: v.numpy() for k, v in function(**{key: tf.constant(x[key])}).items()}  # noqa: E731
    for name, call in (("bare call", slow), ("bare call, direct", direct(function))):
        for _ in range(20):
            call({key: one})
        times = []
        used = cpu(os.getpid())
        until = time.perf_counter() + seconds
        while (started := time.perf_counter()) < until:
            call({key: one})
            times.append(time.perf_counter() - started)
        show(name, 1, np.array(times), 0, sum(times), cpu(os.getpid()) - used)


def show(
    what: str, connections: int, seconds: np.ndarray, errors: int, took: float, used: float
) -> None:
    p50, p99 = 1e3 * np.percentile(seconds, [50, 99])
    said = (
        f"{what:28} {connections:4} {len(seconds) / took:9.0f}/s  p50 {p50:8.2f} ms  p99 "
        f"{p99:8.2f} ms"
    )
    print(
        said,
        f" {1e6 * used / len(seconds):6.0f} us of CPU each",
        f" {errors} errors" if errors else "",
        flush=True,
    )


def measure(folder: Path, model: str, body: str, connections: list[int], seconds: float) -> None:
    version = max((p for p in folder.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    bare(version, body, min(seconds, 2.0))
    serve = [
        sys.executable,
        "-m",
        "sparring",
        "serve",
        str(folder.parent),
        "--port",
        "0",
        "--log",
        "errors",
    ]
    rows = {
        "sparring serve": serve,
        "sparring serve, 2 ms delay": [*serve, "--batch-delay", "2"],
        "sparring serve, no batching": [*serve, "--no-batching"],
        "Flask and waitress": [sys.executable, "-c", FLASK, str(version), "8765"],
    }
    for name, command in rows.items():
        with server(command) as (url, started, pid):
            asked = request(url, model, body)
            time.sleep(0.5)
            asyncio.run(load(url, asked, 2, 0.5))
            print(f"{name}: ready after {started:.1f} s")
            for count in connections:
                used = cpu(pid)
                found = asyncio.run(load(url, asked, count, seconds))
                show(name, count, *found, cpu(pid) - used)


async def soak(url: str, asked: bytes, pid: int, seconds: float, rate: float) -> None:
    """Requests at a fixed rate on four connections; a line every tenth of the time, a minute at
    most.
    """
    answers = 0
    errors = 0
    until = time.perf_counter() + seconds
    reported = time.perf_counter()
    gap = 4 / rate
    latencies = []

    async def one(offset: float) -> None:
        nonlocal answers, errors
        await asyncio.sleep(offset)
        while time.perf_counter() < until:
            begun = time.perf_counter()
            found, failed, _ = await load(url, asked, 1, 0.0)
            answers = answers + len(found)
            errors = errors + failed + (len(found) != 1)
            latencies.extend(found)
            await asyncio.sleep(max(0.0, gap - (time.perf_counter() - begun)))

    workers = [asyncio.create_task(one(i * gap / 4)) for i in range(4)]
    while time.perf_counter() < until:
        await asyncio.sleep(min(seconds / 10, 60.0, max(0.0, until - time.perf_counter()) + 0.01))
        memory = (
            int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            * os.sysconf("SC_PAGE_SIZE")
            / 2**20
        )
        print(
            f"{time.perf_counter() - reported:6.0f} s  {answers} answers, {errors} errors, "
            f"{memory:.1f} MiB",
            flush=True,
        )
    await asyncio.gather(*workers)
    p50, p99 = 1e3 * np.percentile(latencies, [50, 99])
    print(
        f"{answers} answers, {errors} errors, p50 {p50:.2f} ms, p99 {p99:.2f} ms (each on a new "
        "connection)"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--body", default='{"instances": [[0.01, 0.02, 0.03, 0.04]]}')
    parser.add_argument("--connections", default="1,8,64")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--soak", type=float, default=0.0)
    parser.add_argument("--rate", type=float, default=50.0)
    chosen = parser.parse_args()
    folder = chosen.folder.resolve()
    model = chosen.folder.resolve().name
    if not chosen.soak:
        return measure(
            folder,
            model,
            chosen.body,
            [int(n) for n in chosen.connections.split(",")],
            chosen.seconds,
        )
    with server(
        [
            sys.executable,
            "-m",
            "sparring",
            "serve",
            str(folder.parent),
            "--port",
            "0",
            "--log",
            "errors",
        ]
    ) as (url, _, pid):
        asyncio.run(soak(url, request(url, model, chosen.body), pid, chosen.soak, chosen.rate))
    return None


if __name__ == "__main__":
    main()
