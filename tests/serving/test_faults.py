"""Clients and networks at their worst: the service refuses, stays within its limits, and goes on
serving.
"""

import contextlib
import gzip
import json
import re
import socket
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as trying
from hypothesis import strategies as st

from sparring.serving.request_limits import Limits
from sparring.serving.rest_api import TensorSpec
from tests.helpers.serving import (
    FLOAT,
    INT,
    Running,
    doubling,
    running,
    settings,
    shelve,
    signature,
)

pytestmark = pytest.mark.long

ONE = {"instances": [[1.0, 2.0]]}
GOOD = {"predictions": [{"sum": 3.0, "y": [2.0, 4.0]}]}
SMALL = Limits(body=20_000, rows=64, concurrency=8, seconds=1.0, idle=0.5)
HEAD = (
    b"POST /v1/models/double:predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
    b"application/json\r\n"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(settings(tmp_path_factory.mktemp("models"), limits=SMALL)) as server:
        shelve(server, "double", doubling())
        shelve(server, "slow", _sleeping(1.5))
        yield server


def _sleeping(seconds: float):
    def call(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        time.sleep(seconds)
        return {"y": inputs["x"]}

    return signature(call, [TensorSpec("x", FLOAT, (None, 2))], [TensorSpec("y", FLOAT, (None, 2))])


def well(server: Running) -> bool:
    return server.predict("double", ONE).json == GOOD


def answer(connection: socket.socket) -> bytes:
    """All that comes until the server closes, or an answer of known length is whole."""
    found = b""
    while True:
        head, _, body = found.partition(b"\r\n\r\n")
        length = [
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        ]
        if length and len(body) >= length[0]:
            return found
        part = connection.recv(65536)
        if not part:
            return found
        found += part


def test_a_body_is_measured_before_and_after_it_is_unpacked(server: Running) -> None:
    text = json.dumps(ONE).encode()
    assert server.predict("double", gzip.compress(text), Content_Encoding="gzip").json == GOOD
    assert server.predict("double", zlib.compress(text), Content_Encoding="deflate").json == GOOD
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) > SMALL.body  # refused for its own size
    small_bomb = gzip.compress(b" " * 10_000_000)
    assert len(small_bomb) < SMALL.body  # refused for what it unpacks to
    for body, encoding, code in (
        (b" " * 20_001, None, 413),
        (bomb, "gzip", 413),
        (small_bomb, "gzip", 413),
        (text, "gzip", 400),
        (gzip.compress(text)[:-3], "gzip", 400),
        (gzip.compress(text) + b"x", "gzip", 400),
        (text, "br", 415),
        (text, "gzip, gzip", 415),
    ):
        reply = server.predict(
            "double", body, **({"Content_Encoding": encoding} if encoding else {})
        )
        assert (reply.code, reply.json.keys()) == (code, {"error"})
    assert well(server)


def test_a_body_without_a_length_is_measured_as_it_comes(server: Running) -> None:
    chunks = b"".join(b"1000\r\n" + b" " * 4096 + b"\r\n" for _ in range(6))
    with server.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks) as connection:
        assert b" 413 " in answer(connection)
    for rest in (b"zz\r\n", b"5\r\nabc\r\n\r\n\r\n", b"-5\r\n"):
        with server.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + rest) as connection:
            assert b" 400 " in answer(connection)
    assert well(server)


def test_too_many_rows_and_too_deep_are_refused(server: Running) -> None:
    assert server.predict("double", {"instances": [[0, 0]] * 64}).code == 200
    assert server.predict("double", {"instances": [[0, 0]] * 65}).code == 400
    assert (
        server.predict("double", b'{"instances": ' + b"[" * 9000 + b"]" * 9000 + b"}").code == 400
    )
    assert well(server)


def test_what_takes_too_long_is_given_up(server: Running) -> None:
    reply = server.predict("slow", ONE)
    assert (reply.code, reply.json) == (504, {"error": "Not done within 1 seconds"})
    assert well(server)


def test_more_requests_than_it_can_hold_are_told_to_come_again(server: Running) -> None:
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda _: server.predict("slow", ONE), range(16)))
        assert well(server)
    codes = [reply.code for reply in replies]
    assert set(codes) == {429, 504}
    assert codes.count(429) >= 4
    assert all(reply.headers["Retry-After"] == "1" for reply in replies if reply.code == 429)
    time.sleep(1.6)  # the model's thread is still asleep for those given up


def test_slow_clients_are_cut_off_and_others_served(server: Running) -> None:
    length = b"Content-Length: 1000\r\n\r\n"
    silent = server.raw(b"")
    in_its_head = server.raw(HEAD)
    in_its_body = server.raw(HEAD + length + b"{")
    assert well(server)
    assert answer(silent) == answer(in_its_head) == b""
    assert b" 408 " in answer(in_its_body)
    for connection in (silent, in_its_head, in_its_body):
        connection.close()
    with server.raw(HEAD) as dripping:  # a byte now and then does not keep a connection open
        cut = False
        deadline = time.perf_counter() + 30.0
        while not cut and time.perf_counter() < deadline:
            try:
                dripping.sendall(b"X")
                dripping.settimeout(0.1)
                cut = dripping.recv(1) == b""
            except TimeoutError:
                pass
            except OSError:
                cut = True
        assert cut
    assert well(server)


def test_connections_that_end_in_the_middle(server: Running) -> None:
    body = json.dumps(ONE).encode()
    head = HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode()
    with server.raw(head + body[:5]) as connection:  # gone, by a reset
        connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
        )
    with server.raw(head + body[:5]) as connection:
        connection.shutdown(socket.SHUT_WR)  # half closed within the body
        found = answer(connection)
        assert found == b"" or b" 400 " in found
    with server.raw(head + body) as connection:
        # Half closed after a whole request: whoever hangs up is taken to be gone
        connection.shutdown(socket.SHUT_WR)
        found = answer(connection)
        assert found == b"" or b" 200 " in found
    slow = HEAD.replace(b"double", b"slow") + f"Content-Length: {len(body)}\r\n\r\n".encode()
    server.raw(slow + body).close()  # gone before the answer
    assert well(server)


def test_no_http_at_all(server: Running) -> None:
    for data in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"\x00" * 100,
        b"POST / HTTP/9.9\r\n\r\n",
    ):
        with server.raw(data + b"\r\n\r\n") as connection:
            found = answer(connection)
            assert found == b"" or re.match(rb"HTTP/1\.[01] 400 ", found)
    with server.raw(
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
    ) as connection:
        assert b" 400 " in answer(connection)
    with server.raw(
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n"
    ) as connection:
        assert b" 400 " in answer(connection)
    assert well(server)


def test_a_body_that_was_refused_unread_is_not_taken_for_the_next_request(server: Running) -> None:
    smuggled = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = HEAD + f"Content-Length: {30_000 + len(smuggled)}\r\n\r\n".encode()
    with server.raw(head) as connection:
        threading.Thread(
            target=lambda: _send(connection, b" " * 30_000 + smuggled), daemon=True
        ).start()
        found = answer(connection)
        assert found.count(b"HTTP/1.1 ") == 1
        assert b" 413 " in found
    assert well(server)


def _send(connection: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(data)


# ---- from its own description --------------------------------------------------------------------


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, dict]]:
    def call(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert inputs["x"].shape[1:] == (2, 2)
        assert inputs["x"].dtype == np.float32
        assert inputs["n"].dtype == np.int64
        assert np.isfinite(inputs["x"]).all()
        return {"y": inputs["x"].sum(axis=(1, 2)) + inputs["n"]}

    takes = [TensorSpec("x", FLOAT, (None, 2, 2)), TensorSpec("n", INT, (None,))]
    with running(settings(tmp_path_factory.mktemp("models"), limits=Limits(rows=8))) as server:
        shelve(server, "both", signature(call, takes, [TensorSpec("y", FLOAT, (None,))]))
        metadata = server.ask("GET", "/v1/models/both/metadata").json["metadata"]["signature_def"][
            "signature_def"
        ]
        yield server, metadata["serving_default"]["inputs"]


NUMBERS = (
    st.integers(-(2**70), 2**70) | st.floats() | st.booleans() | st.none() | st.text(max_size=3)
)


def tensors(info: Mapping) -> st.SearchStrategy:
    """Nested lists of about the shape that the metadata describe."""
    made: st.SearchStrategy = (
        NUMBERS if info["dtype"] == "DT_FLOAT" else st.integers(-9, 9) | NUMBERS
    )
    made = st.floats(-10, 10) | made if info["dtype"] == "DT_FLOAT" else made
    for dim in reversed(info["tensor_shape"]["dim"][1:]):
        size = int(dim["size"])
        made = st.lists(made, min_size=size, max_size=size) | st.lists(made, max_size=3)
    return made


@trying(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_no_request_made_after_its_description_is_a_fault_of_the_servers(
    described: tuple[Running, dict], data
) -> None:
    server, inputs = described
    one = st.fixed_dictionaries({name: tensors(info) for name, info in inputs.items()})
    rows = st.lists(one | st.dictionaries(st.sampled_from(["x", "n", "z"]), NUMBERS), max_size=10)
    columns = st.fixed_dictionaries(
        {name: st.lists(tensors(info), max_size=4) for name, info in inputs.items()}
    )
    body = st.one_of(
        st.fixed_dictionaries({"instances": rows}),
        st.fixed_dictionaries({"inputs": columns}),
        st.fixed_dictionaries({"instances": rows | NUMBERS, "signature_name": st.text(max_size=4)}),
        NUMBERS,
    )
    reply = server.predict("both", json.dumps(data.draw(body)).encode())
    assert reply.code in (200, 400), reply.body
    assert isinstance(reply.json, dict)


@trying(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"]),
    st.lists(
        st.sampled_from(
            [
                "v1",
                "models",
                "both",
                "versions",
                "labels",
                "1",
                "99",
                "metadata",
                ":predict",
                ":png",
                "",
                "%00",
                "..",
                "%2e",
                "x" * 300,
            ]
        )
        | st.text("abc:/%?#&=+", max_size=5),
        max_size=7,
    ),
    st.binary(max_size=20),
)
def test_no_path_is_a_fault_of_the_servers(
    described: tuple[Running, dict], method: str, parts: list[str], body: bytes
) -> None:
    server, _ = described
    reply = server.ask(method, "/" + "/".join(parts), body)
    assert reply.code < 500
    assert server.ask("GET", "/healthz").code == 200


def test_memory_does_not_grow_with_requests_that_are_refused(
    server: Running, tmp_path: Path
) -> None:
    from sparring.serving.metrics import resident

    bodies = [
        b"[" * 15_000,
        b'{"instances": [' + b"[0,0]," * 2000 + b"[0]]}",
        gzip.compress(b" " * 10_000_000),
    ]

    def refuse_all() -> None:
        for body in bodies:
            for encoding in ("identity", "gzip"):
                assert server.predict("double", body, Content_Encoding=encoding).code in (400, 413)

    for _ in range(20):
        refuse_all()
    before = resident()
    for _ in range(60):
        refuse_all()
    assert resident() - before < 8 * 2**20
