"""`sparring serve` as a process: without what trains, from its first word to SIGTERM."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.helpers.serving import write

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
TRAINS = (
    "tf_agents",
    "tensorflow_probability",
    "gymnasium",
    "hydra",
    "omegaconf",
    "agents",
    "envs",
    "gans",
    "yaml",
)
WITHOUT = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {TRAINS}:
            raise ImportError(name)

sys.meta_path.insert(0, Blocked())
from sparring.cli import main
sys.argv[0] = "sparring"
main.main()
"""


def fetch(url: str, body: object = None) -> object:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(
        urllib.request.Request(url, data, {"X-Request-ID": "mine"}), timeout=20
    ) as reply:
        return json.loads(reply.read())


def until(condition, seconds: float = 60.0) -> None:
    started = time.perf_counter()
    while not condition():
        assert time.perf_counter() - started < seconds
        time.sleep(0.05)


def ready(url: str) -> bool:
    try:
        return bool(fetch(f"{url}/readyz"))
    except urllib.error.HTTPError:
        return False


def test_it_serves_without_what_trains_takes_up_versions_and_ends_when_told(tmp_path: Path) -> None:
    write(tmp_path / "models", "line", 1, 2.0)
    command = [sys.executable, "-c", WITHOUT, "serve", "models", "--port", "0", "--poll", "0.1"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    said: list[str] = []
    assert process.stdout is not None
    assert process.stderr is not None
    listening = threading.Thread(target=lambda: said.extend(process.stderr), daemon=True)
    listening.start()
    try:
        url = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/v1/models\n", process.stdout.readline())[1]
        until(lambda: ready(url))
        ask = f"{url}/v1/models/line:predict"
        assert fetch(ask, {"instances": [[1, 2]]}) == {"predictions": [[2.0, 4.0]]}
        write(tmp_path / "beside", "line", 2, 3.0).rename(tmp_path / "models/line/2")
        until(lambda: fetch(ask, {"instances": [[1, 2]]}) == {"predictions": [[3.0, 6.0]]})
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
        listening.join(20)
        process.stdout.close()
        process.stderr.close()
    events = [json.loads(line) for line in said if line.startswith("{")]
    assert code == 0
    assert [line for line in said if not line.startswith("{") and "Warning" in line] == []
    asked = next(e for e in events if e["event"] == "request" and e["path"].endswith(":predict"))
    known = {k: asked[k] for k in ("id", "model", "version", "signature", "rows", "code", "method")}
    assert known == {
        "id": "mine",
        "model": "line",
        "version": 1,
        "signature": "serving_default",
        "rows": 1,
        "code": 200,
        "method": "POST",
    }
    assert asked["ms"] > 0
    assert [e["version"] for e in events if e["event"] == "version loaded"] == [1, 2]
    assert events[-1]["event"] == "stopping"


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "sparring", "serve", str(tmp_path), "--port", str(port)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"sparring: 127.0.0.1:{port}: ")
    assert "Traceback" not in done.stderr


def start(folder: Path, port: int) -> tuple[subprocess.Popen, str]:
    """A server of `folder`/models that is ready, and where it is."""
    process = subprocess.Popen(
        [sys.executable, "-c", WITHOUT, "serve", "models", "--port", str(port)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    url = process.stdout.readline().strip().removesuffix("/v1/models")
    until(lambda: ready(url))
    return process, url


def test_after_sigkill_it_starts_again_in_its_place_and_serves_the_version_that_is_whole(
    tmp_path: Path,
) -> None:
    write(tmp_path / "models", "line", 1, 2.0)
    write(tmp_path / "models", "line", 2, 3.0)
    process, url = start(tmp_path, 0)
    answers: list[object] = []
    lost: list[BaseException] = []

    def ask() -> None:
        try:
            while True:
                answers.append(fetch(f"{url}/v1/models/line:predict", {"instances": [[1, 2]]}))
        except (OSError, http.client.HTTPException) as error:
            lost.append(error)

    client = threading.Thread(target=ask)
    client.start()
    try:
        until(lambda: len(answers) > 20)
        # Too late for the one that has it in memory
        (tmp_path / "models/line/2/saved_model.pb").write_bytes(b"damaged")
        before = len(answers)
        until(lambda: len(answers) > before + 20)
        process.kill()  # SIGKILL, in the middle of a request or between two
        client.join(20)
        assert process.wait(20) == -signal.SIGKILL
        assert not client.is_alive()
        assert len(lost) == 1
        assert all(answer == {"predictions": [[3.0, 6.0]]} for answer in answers)
        again, same = start(tmp_path, int(url.rpartition(":")[2]))
        try:
            assert same == url
            assert fetch(f"{url}/v1/models/line:predict", {"instances": [[1, 2]]}) == {
                "predictions": [[2.0, 4.0]]
            }
        finally:
            again.terminate()
            assert again.wait(60) == 0
            again.stdout.close()
    finally:
        process.kill()
        process.wait(20)
        process.stdout.close()
