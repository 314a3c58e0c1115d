"""Sessions: a policy that remembers, asked by clients that do not."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparring.serving import request_context
from sparring.serving.request_limits import Limits
from sparring.serving.rest_api import Query
from sparring.serving.sessions import Sessions
from tests.helpers.serving import Reply, Running, running, settings, write, write_counter

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_counter(folder, 1)
    write(folder, "line", 1)
    return folder


@pytest.fixture
def server(models: Path) -> Iterator[Running]:
    with running(settings(models)) as server:
        server.scan()
        yield server


def step(
    server: Running, session: str, x: float = 0.0, model: str = "counter", **more: Any
) -> Reply:
    return server.predict(model, {"session": session, "instances": [[x]], **more})


def said(reply: Reply) -> tuple[float, str]:
    """Answer of the model, and the step of its session."""
    assert reply.code == 200, reply.body
    return reply.json["predictions"][0][0], reply.headers["X-Session-Step"]


def test_a_session_goes_on_where_it_was_and_a_reset_begins_anew(server: Running) -> None:
    assert [said(step(server, "a", 1.0)) for _ in range(3)] == [
        (1.0, "1"),
        (11.0, "2"),
        (21.0, "3"),
    ]
    assert said(step(server, "b", 2.0)) == (2.0, "1")
    assert said(step(server, "a", 3.0)) == (33.0, "4")
    assert said(step(server, "a", 3.0, reset=True)) == (3.0, "1")
    assert said(step(server, "a", 3.0)) == (13.0, "2")
    assert said(step(server, "b", 2.0)) == (12.0, "2")
    columns = server.predict("counter", {"session": "b", "inputs": {"x": [[1.0]]}})
    assert columns.json == {"outputs": [[21.0]]}
    assert "\nsparring_sessions 2\n" in server.ask("GET", "/metrics").body.decode()


def test_a_client_may_keep_the_state_itself_as_of_tensorflow_serving(server: Running) -> None:
    first = server.predict(
        "counter", {"signature_name": "initial_state", "instances": [[1.0], [2.0]]}
    )
    assert first.json == {"predictions": [[0.0], [0.0]]}
    rows = [{"x": [1.0], "state": [4.0]}, {"x": [2.0], "state": [0.0]}]
    reply = server.predict("counter", {"instances": rows})
    assert reply.json == {
        "predictions": [{"state": [5.0], "y": [41.0]}, {"state": [1.0], "y": [2.0]}]
    }
    assert "X-Session-Step" not in reply.headers
    # Without a session it is needed
    assert server.predict("counter", {"instances": [{"x": [1.0]}]}).code == 400


def test_sessions_that_go_through_the_model_together_do_not_mix(models: Path) -> None:
    with running(settings(models, batch=(64, 0.02))) as server, ThreadPoolExecutor(8) as pool:
        server.scan()

        def play(number: int) -> list[tuple[float, str]]:
            return [
                said(step(server, f"of {number}", float(number), reset=t == 3)) for t in range(6)
            ]

        for number, found in enumerate(pool.map(play, range(8))):
            assert found == [(10.0 * k + number, str(k + 1)) for k in (0, 1, 2, 0, 1, 2)]
        metrics = server.ask("GET", "/metrics").body.decode()
    batches = next(
        float(x.split()[-1])
        for x in metrics.splitlines()
        if x.startswith("sparring_batch_rows_count")
    )
    assert batches < 64  # 48 steps and 16 beginnings, some of them together


def test_steps_of_one_session_that_come_together_are_taken_in_turn(models: Path) -> None:
    with running(settings(models, batch=(64, 0.01))) as server, ThreadPoolExecutor(6) as pool:
        server.scan()
        found = sorted(said(reply) for reply in pool.map(lambda _: step(server, "a"), range(6)))
    assert found == [(10.0 * k, str(k + 1)) for k in range(6)]


def test_a_step_that_fails_leaves_the_session_as_it_was(server: Running) -> None:
    assert said(step(server, "a"))[1] == "1"
    assert server.predict("counter", {"session": "a", "instances": [[1.0, 2.0]]}).code == 400
    assert said(step(server, "a")) == (10.0, "2")


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"session": 1, "instances": [[1.0]]}, "'session' must be a string of 1 to 128 characters"),
        ({"session": "", "instances": [[1.0]]}, "'session' must be a string"),
        ({"session": "x" * 129, "instances": [[1.0]]}, "'session' must be a string"),
        ({"reset": True, "instances": [[1.0]]}, "'session' must be a string"),
        ({"session": "a", "reset": 1, "instances": [[1.0]]}, "'reset' must be true or false"),
        ({"session": "a", "instances": [[1.0], [2.0]]}, "one instance at a time"),
        (
            {"session": "a", "instances": [{"x": [1.0], "state": [1.0]}]},
            "not an object with the inputs x",
        ),
        (
            {"session": "a", "signature_name": "initial_state", "instances": [[1.0]]},
            "has no state that a session",
        ),
    ],
)
def test_what_is_no_step_of_a_session_is_refused(
    server: Running, body: dict[str, Any], wanted: str
) -> None:
    reply = server.predict("counter", body)
    assert (reply.code, wanted in reply.json["error"]) == (400, True), reply.json
    assert step(server, "a", model="line").code == 400


def test_there_are_so_many_sessions_and_no_more_until_one_is_idle(models: Path) -> None:
    with running(settings(models, limits=Limits(sessions=2, session_idle=1.0))) as server:
        server.scan()
        assert [said(step(server, name))[1] for name in "aba"] == ["1", "1", "2"]
        refused = step(server, "c")
        assert (refused.code, refused.headers["Retry-After"]) == (429, "1")
        assert "2 sessions are in use" in refused.json["error"]
        assert said(step(server, "a"))[1] == "3"  # those that there are go on
        time.sleep(1.2)
        assert said(step(server, "c"))[1] == "1"
        assert said(step(server, "a"))[1] == "1"  # forgotten, and begun anew


def test_a_session_is_one_versions_and_goes_with_it(tmp_path: Path) -> None:
    write_counter(tmp_path, 1)
    with running(settings(tmp_path, keep=2)) as server:
        server.scan()
        assert said(step(server, "a")) == (0.0, "1")
        write_counter(tmp_path, 2, first=5.0)
        server.scan()
        assert said(step(server, "a")) == (50.0, "1")  # the new version's, from its own first state
        assert said(step(server, "a", model="counter/versions/1")) == (10.0, "2")
        assert len(server.server.service.sessions) == 2
        server.server.shelf.models["counter"].loaded.pop(1)
        server.server.service._batchers.clear()
        assert len(server.server.service.sessions) == 1


def test_two_owners_of_keys_share_no_session_and_a_state_is_its_own_memory() -> None:
    async def call(servable: Any, signature: Any, arrays: Any) -> dict[str, np.ndarray]:
        batch = np.zeros((1000, 3), np.float32) + arrays.get("state", -1.0) + 1.0
        return {"state": batch[:1]}

    class Opening:
        takes = ("x",)

    class Fake:
        signatures = {"initial_state": Opening()}  # noqa: RUF012

    sessions = Sessions(Limits(), call)
    fake = Fake()

    async def play(owner: str) -> list[int]:
        request_context.begin(key=owner)
        given = {"x": np.zeros((1, 1), np.float32), "state": np.zeros((1, 3), np.float32)}
        steps = [
            await sessions.step(fake, "count", given, Query("count", None, True, session="a"))
            for _ in range(2)
        ]
        return [number for _, number in steps]

    async def both() -> list[list[int]]:
        return [await play("alice"), await play("bob")]

    assert asyncio.run(both()) == [[1, 2], [1, 2]]
    assert len(sessions) == 2
    assert all(s.state.base is None for known in sessions._of.values() for s in known.values())
