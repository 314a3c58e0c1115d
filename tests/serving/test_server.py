"""The service: TensorFlow Serving's answers, versions that come, go and are damaged, batches, keys,
metrics.
"""

import base64
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparring.export.signatures import Export, Signature
from sparring.serving.model_repository import SETTINGS
from sparring.serving.rest_api import TensorSpec
from sparring.storage import manifest
from tests.helpers.serving import FLOAT, Running, running, settings, shelve, signature, write

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three versions, which say which they are."""
    folder = tmp_path_factory.mktemp("stock")
    for version in (1, 2, 3):
        write(folder, "line", version, float(version))
    return folder


@pytest.fixture
def models(stock: Path, tmp_path: Path) -> Path:
    """A folder with version 1 in it."""
    shutil.copytree(stock / "line/1", tmp_path / "models/line/1")
    return tmp_path / "models"


def put(stock: Path, models: Path, version: int) -> Path:
    """As an export does: beside, then renamed."""
    shutil.copytree(stock / f"line/{version}", models / "line/.scratch")
    return (models / "line/.scratch").rename(models / f"line/{version}")


ONE = {"instances": [[1.0, 10.0]]}


@pytest.fixture
def server(models: Path) -> Iterator[Running]:
    with running(settings(models)) as server:
        server.scan()
        yield server


def factor(server: Running, name: str = "line") -> float:
    """Version that answers."""
    return server.predict(name, ONE).json["predictions"][0][0]


def test_it_answers_as_tensorflow_serving_does(server: Running) -> None:
    found = server.ask("GET", "/v1/models/line")
    assert found.headers["Content-Type"].startswith("application/json")
    assert found.json == {
        "model_version_status": [
            {
                "version": "1",
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
        ]
    }
    assert server.predict("line", ONE).json == {"predictions": [[1.0, 10.0]]}
    assert server.predict("line/versions/1", {"inputs": {"x": [[1, 2], [3, 4]]}}).json == {
        "outputs": [[1, 2], [3, 4]]
    }
    assert server.predict("line", {"signature_name": "double", **ONE}).json == {
        "predictions": [[1.0, 10.0]]
    }
    metadata = server.ask("GET", "/v1/models/line/versions/1/metadata").json
    assert metadata["model_spec"] == {"name": "line", "signature_name": "", "version": "1"}
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert signatures.keys() == {"serving_default", "double", "png"}
    assert signatures["double"]["inputs"]["x"]["dtype"] == "DT_FLOAT"
    sizes = [dim["size"] for dim in signatures["double"]["inputs"]["x"]["tensor_shape"]["dim"]]
    assert sizes == ["-1", "2"]
    assert signatures["png"]["outputs"]["image_bytes"]["dtype"] == "DT_STRING"
    assert signatures["double"]["method_name"] == "tensorflow/serving/predict"


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "said"),
    [
        (
            "POST",
            "/v1/models/none:predict",
            ONE,
            404,
            "Servable not found for request: Latest(none)",
        ),
        (
            "POST",
            "/v1/models/line/versions/9:predict",
            ONE,
            404,
            "Servable not found for request: Specific(line, 9)",
        ),
        (
            "POST",
            "/v1/models/line/labels/best:predict",
            ONE,
            400,
            "Unrecognized servable version label: best",
        ),
        ("GET", "/v1/models/none", None, 404, "Could not find any versions of model none"),
        ("GET", "/v1/models/line/versions/9", None, 404, "Could not find version 9 of model line"),
        (
            "POST",
            "/v1/models/line:predict",
            {"signature_name": "no", **ONE},
            400,
            'name: "no" not found in signature def',
        ),
        ("POST", "/v1/models/line:predict", b"{", 400, "JSON Parse error"),
        (
            "POST",
            "/v1/models/line:predict",
            {"instances": [[1, 2, 3]]},
            400,
            "x: shape [1, 3], expected [-1, 2]",
        ),
        (
            "POST",
            "/v1/models/line:classify",
            ONE,
            400,
            "No signature of this model is for :classify",
        ),
        (
            "POST",
            "/v1/models/line:dance",
            ONE,
            400,
            "Malformed request: POST /v1/models/line:dance",
        ),
        ("GET", "/v1/models/line:predict", None, 400, "Malformed request: GET"),
        ("POST", "/v1/models/line", ONE, 400, "Malformed request: POST"),
        ("GET", "/v1/models/a/b/c", None, 400, "Malformed request"),
        ("GET", "/v1/elsewhere", None, 404, "Not Found"),
        ("POST", "/healthz", None, 405, "Method Not Allowed"),
    ],
)
def test_errors_have_its_codes_and_a_body_of_json(
    server: Running, method: str, path: str, body: Any, code: int, said: str
) -> None:
    found = server.ask(method, path, body)
    assert found.code == code
    assert found.json.keys() == {"error"}
    assert said in found.json["error"]


def test_a_new_version_takes_over_and_labels_and_defaults_choose(
    server: Running, stock: Path, models: Path
) -> None:
    put(stock, models, 2)
    server.scan()
    assert factor(server) == 2.0
    # The newest alone is kept unless it is said otherwise
    assert server.predict("line/versions/1", ONE).code == 404
    (models / "line" / SETTINGS).write_text(
        json.dumps({"keep": 2, "labels": {"stable": 1, "canary": 3}})
    )
    put(stock, models, 3)
    server.scan()
    assert [
        factor(server, f"line/{w}") for w in ("labels/stable", "labels/canary", "versions/2")
    ] == [1.0, 3.0, 2.0]
    (models / "line" / SETTINGS).write_text(json.dumps({"default": 2}))  # a rollback
    server.scan()
    assert factor(server) == 2.0
    (models / "line" / SETTINGS).write_text("{")
    server.scan()
    assert factor(server) == 2.0  # what cannot be read changes nothing
    (models / "line" / SETTINGS).unlink()
    server.scan()
    assert factor(server) == 3.0
    shutil.rmtree(models / "line/3")  # the other way to roll back, which TensorFlow Serving has too
    server.scan()
    assert factor(server) == 2.0


def damage(folder: Path, how: str) -> None:
    match how:
        case "truncated":
            path = next((folder / "variables").glob("*.data*"))
            path.write_bytes(path.read_bytes()[:-1])
        case "flipped":
            path = folder / "saved_model.pb"
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        case "missing":
            (folder / "saved_model.pb").unlink()
        case "no manifest":
            (folder / manifest.MANIFEST).unlink()
        case "of another":
            manifest.close(folder, {"name": "other", "version": 2})


@pytest.mark.parametrize("how", ["truncated", "flipped", "missing", "no manifest", "of another"])
def test_a_damaged_version_is_told_of_and_the_old_one_serves(
    server: Running, stock: Path, models: Path, how: str
) -> None:
    shutil.copytree(stock / "line/2", models / "line/2")
    damage(models / "line/2", how)
    server.scan()
    assert factor(server) == 1.0
    states = server.ask("GET", "/v1/models/line").json["model_version_status"]
    assert [(s["version"], s["state"], s["status"]["error_code"]) for s in states] == [
        ("2", "END", "DATA_LOSS"),
        ("1", "AVAILABLE", "OK"),
    ]
    assert states[0]["status"]["error_message"]
    assert server.ask("GET", "/readyz").code == 200
    shutil.rmtree(models / "line/2")
    put(stock, models, 2)  # mended
    server.scan()
    assert factor(server) == 2.0


def refusal(server: Running, models: Path, spoil: Callable[..., Any]) -> str:
    """Reason that version 2, a sound model of this function, is not served; version 1 goes on."""
    folder = models / "line/2"
    exported = Export(
        {"x": Signature(spoil, {"x": tf.TensorSpec([2], tf.float32)}, "")}, "x", dict, dict
    )  # type: ignore[arg-type]
    exported.module().save(str(folder))
    manifest.close(folder, {"name": "line", "version": 2})
    server.scan()
    assert factor(server) == 1.0
    (state,) = server.ask("GET", "/v1/models/line/versions/2").json["model_version_status"]
    return str(state["status"]["error_message"])


def test_a_graph_that_writes_files_is_not_served(
    server: Running, models: Path, tmp_path: Path
) -> None:
    def spoil(x: tf.Tensor) -> dict[str, tf.Tensor]:
        tf.io.write_file(str(tmp_path / "written"), "x")
        return {"y": x}

    assert "WriteFile" in refusal(server, models, spoil)
    assert not (tmp_path / "written").exists()


def test_a_signature_that_saves_is_not_served(
    server: Running, models: Path, tmp_path: Path
) -> None:
    """Every SavedModel can save its variables; a function that clients call may not."""

    def spoil(x: tf.Tensor) -> dict[str, tf.Tensor]:
        tf.raw_ops.SaveV2(
            prefix=str(tmp_path / "written"), tensor_names=["x"], shape_and_slices=[""], tensors=[x]
        )
        return {"y": x}

    assert "SaveV2" in refusal(server, models, spoil)
    assert not list(tmp_path.glob("written*"))


@pytest.mark.parametrize(
    "listed", [None, [], {"saved_model.pb": {}}, {"saved_model.pb": {"size": "x", "sha256": ""}}]
)
def test_a_manifest_that_lists_no_files_harms_its_version_alone(
    server: Running, stock: Path, models: Path, listed: Any
) -> None:
    shutil.copytree(stock / "line/2", models / "line/2")
    path = models / "line/2" / manifest.MANIFEST
    content = {k: v for k, v in json.loads(path.read_text()).items() if k != "sha256"} | {
        "files": listed
    }
    path.write_text(json.dumps({**content, "sha256": manifest._own_digest(content)}))
    server.scan()
    assert factor(server) == 1.0
    state = server.ask("GET", "/v1/models/line/versions/2").json["model_version_status"][0]
    assert state["status"]["error_code"] == "DATA_LOSS"


def test_requests_under_way_are_answered_while_versions_change(
    server: Running, stock: Path, models: Path
) -> None:
    stop = threading.Event()
    found = [server.predict("line", ONE)]

    def ask() -> None:
        while not stop.is_set():
            found.append(server.predict("line", ONE))

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask) for _ in range(3)]
        for version in (2, 3):
            put(stock, models, version)
            server.scan()
        found.append(server.predict("line", ONE))
        stop.set()
        for future in asking:
            future.result()
    assert {reply.code for reply in found} == {200}
    assert {reply.json["predictions"][0][0] for reply in found} >= {1.0, 3.0}


def test_pictures_and_bytes(server: Running) -> None:
    found = server.ask("GET", "/v1/models/line:png?seed=200")
    assert (found.code, found.headers["Content-Type"], found.headers["X-Seed"]) == (
        200,
        "image/png",
        "200",
    )
    np.testing.assert_array_equal(tf.io.decode_png(found.body).numpy(), np.full((2, 2, 1), 200))
    same = server.predict("line", {"signature_name": "png", "instances": [200]}).json[
        "predictions"
    ][0]
    assert base64.b64decode(same["b64"]) == found.body
    assert server.ask("GET", "/v1/models/line:png").code == 200
    assert server.ask("GET", "/v1/models/line:png?seed=x").code == 400
    assert server.ask("GET", "/v1/models/line:png?seed=1&labels=2").code == 400


def test_health_and_metrics(tmp_path: Path, stock: Path) -> None:
    (tmp_path / "models").mkdir()
    with running(settings(tmp_path / "models")) as server:
        server.scan()
        assert server.ask("GET", "/healthz").code == 200
        assert (
            server.ask("GET", "/readyz").code == server.ask("GET", "/v2/health/ready").code == 503
        )
        shutil.copytree(stock / "line/1", tmp_path / "models/line/1")
        server.scan()
        assert (
            server.ask("GET", "/readyz").code
            == server.ask("GET", "/v2/models/line/ready").code
            == 200
        )
        assert server.ask("GET", "/v2/models/none/ready").code == 404
        server.predict("line", ONE)
        server.predict("line", {"instances": []})
        text = server.ask("GET", "/monitoring/prometheus/metrics").body.decode()
    assert ':tensorflow:serving:request_count{model_name="line",status="OK"} 1\n' in text
    assert (
        ':tensorflow:serving:request_count{model_name="line",status="INVALID_ARGUMENT"} 1\n' in text
    )
    assert (
        ':tensorflow:serving:request_latency_count{model_name="line",API="Predict",'
        'entrypoint="REST"} 2\n' in text
    )
    assert (
        ':tensorflow:serving:runtime_latency_count{model_name="line",API="Predict",runtime="TF2"} '
        "1\n" in text
    )
    assert 'sparring_model_loaded{model_name="line",version="1"} 1\n' in text
    assert 'sparring_batch_rows_bucket{model_name="line",le="1"} 1\n' in text
    name = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
    for line in text.splitlines():
        assert re.fullmatch(
            rf'# (HELP|TYPE) {name} .+|{name}({{{name}="[^"]*"(,{name}="[^"]*")*}})? [0-9.e+-]+',
            line,
        ), line


def test_requests_that_come_together_go_through_the_model_together(tmp_path: Path) -> None:
    batches: list[int] = []

    def call(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        batches.append(len(inputs["x"]))
        time.sleep(0.05)
        return {"y": inputs["x"] * 2}

    made = signature(call, [TensorSpec("x", FLOAT, (None, 1))], [TensorSpec("y", FLOAT, (None, 1))])
    with running(settings(tmp_path, batch=(8, 0.05))) as server, ThreadPoolExecutor(30) as pool:
        shelve(server, "slow", made)
        values = [[float(i)] for i in range(30)]
        replies = list(
            pool.map(
                lambda v: server.predict("slow", {"instances": [v]}).json["predictions"], values
            )
        )
    assert replies == [[[2.0 * v]] for (v,) in values]  # to each its own
    assert sum(batches) == 30
    assert max(batches) <= 8
    assert len(batches) <= 10


def test_without_batching_every_request_is_alone(tmp_path: Path) -> None:
    batches: list[int] = []

    def call(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        batches.append(len(inputs["x"]))
        return {"y": inputs["x"]}

    made = signature(call, [TensorSpec("x", FLOAT, (None, 1))], [TensorSpec("y", FLOAT, (None, 1))])
    with running(settings(tmp_path, batch=None)) as server, ThreadPoolExecutor(8) as pool:
        shelve(server, "one", made)
        list(pool.map(lambda i: server.predict("one", {"instances": [[i], [i]]}), range(8)))
    assert batches == [2] * 8


def test_one_requests_fault_is_not_the_others(tmp_path: Path) -> None:
    def call(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        time.sleep(0.02)
        if (inputs["x"] < 0).any():
            raise tf.errors.InvalidArgumentError(None, None, "negative")
        return {"y": inputs["x"]}

    made = signature(call, [TensorSpec("x", FLOAT, (None, 1))], [TensorSpec("y", FLOAT, (None, 1))])
    with running(settings(tmp_path, batch=(8, 0.05))) as server, ThreadPoolExecutor(6) as pool:
        shelve(server, "picky", made)
        replies = list(
            pool.map(lambda v: server.predict("picky", {"instances": [[v]]}), [1, 2, -3, 4, 5, 6])
        )
    assert [reply.code for reply in replies] == [200, 200, 400, 200, 200, 200]
    assert replies[2].json == {"error": "negative"}
