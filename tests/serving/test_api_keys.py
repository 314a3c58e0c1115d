"""Access: keys, TLS, and this machine's own clients."""

import ssl
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from sparring.cli import keys, serve
from sparring.errors import UserError
from sparring.serving import api_keys
from sparring.serving.errors import Refusal
from sparring.serving.request_limits import Limits
from tests.helpers.serving import doubling, running, settings, shelve

pytestmark = pytest.mark.long

ONE = {"instances": [[1.0, 10.0]]}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder / "cert.pem", folder / "key.pem"


def test_keys_are_hashed_compared_and_revoked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys.json"
    assert keys.main([str(path), "add", "alice"]) == 0
    alice = capsys.readouterr().out.strip()
    bob = api_keys.add(path, "bob")
    assert alice not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    (tmp_path / "models").mkdir()
    with running(settings(tmp_path / "models", keys=api_keys.Keys(path))) as server:
        shelve(server, "double", doubling())
        asked = [
            server.predict("double", ONE, Authorization=f"Bearer {alice}"),
            server.predict("double", ONE, X_API_Key=bob),
            server.predict("double", ONE),
            server.predict("double", ONE, Authorization=f"Bearer {alice[:-1]}x"),
            server.predict("double", ONE, Authorization=f"Basic {alice}"),
            server.ask("GET", "/metrics"),
            server.ask("GET", "/healthz"),
        ]
        assert [reply.code for reply in asked] == [200, 200, 401, 401, 401, 401, 200]
        assert asked[2].headers["WWW-Authenticate"] == "Bearer"
        keys.main([str(path), "revoke", "alice"])
        assert server.predict("double", ONE, Authorization=f"Bearer {alice}").code == 401
        assert server.predict("double", ONE, X_API_Key=bob).code == 200
        path.write_text("garbled")
        assert server.predict("double", ONE, X_API_Key=bob).code == 401
    with pytest.raises(UserError, match="no file of keys"):
        api_keys.read(path)


def test_keys_are_named_once(tmp_path: Path) -> None:
    api_keys.add(tmp_path / "k", "alice")
    for wrong, said in (
        (["add", "alice"], "has a key of alice"),
        (["revoke", "bob"], "no key of bob"),
        (["add"], "take a name"),
    ):
        with pytest.raises(UserError, match=said):
            keys.main([str(tmp_path / "k"), *wrong])


def test_it_speaks_tls(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    mine = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs = ssl.create_default_context(cafile=certificate[0])
    mine.load_cert_chain(*certificate)
    with running(settings(tmp_path), mine, theirs) as server:
        shelve(server, "double", doubling())
        assert server.predict("double", ONE).json == {
            "predictions": [{"sum": 11.0, "y": [2.0, 20.0]}]
        }


def test_beyond_this_machine_keys_and_tls_are_needed(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    cert, key = map(str, certificate)
    secure = ["--tls-cert", cert, "--tls-key", key]
    for flags in ([], ["--keys", "k"], secure):
        with pytest.raises(UserError, match="reached from other machines"):
            serve.main([str(tmp_path), "--host", "0.0.0.0", *flags])
    for flags, said in (
        (["--tls-cert", cert], "go together"),
        (["--tls-cert", key, "--tls-key", cert], "--tls-cert"),
        (["--max-body", "0"], "--max-body 0: at least 1"),
        (["--timeout", "nan"], "--timeout nan: more than 0"),
        (["--batch-delay", "-1"], "0 to 1000"),
        (["--port", "99999"], "--port 99999: 1 to 65535"),
        (["--keys", str(tmp_path / "none")], "sparring keys"),
    ):
        with pytest.raises(UserError, match=said):
            serve.main([str(tmp_path), *flags])
    with pytest.raises(UserError, match="there is no such folder"):
        serve.main([str(tmp_path / "none")])


def test_a_page_that_names_this_machine_otherwise_is_refused(tmp_path: Path) -> None:
    with running(settings(tmp_path)) as server:
        shelve(server, "double", doubling())
        assert server.predict("double", ONE, Host="evil.example").code == 403
        assert server.predict("double", ONE, Host="localhost:8501").code == 200
        # A page from elsewhere can have a browser ask localhost; the browser says whose page it is.
        assert server.predict("double", ONE, Origin="https://evil.example").code == 403
        assert server.predict("double", ONE, Origin="null").code == 403
        assert server.predict("double", ONE, Sec_Fetch_Site="cross-site").code == 403
        assert (
            server.predict(
                "double", ONE, Origin="http://localhost:6006", Sec_Fetch_Site="same-site"
            ).code
            == 200
        )
    with running(replace(settings(tmp_path), own_only=False)) as server:
        shelve(server, "double", doubling())
        assert server.predict("double", ONE, Host="models.example").code == 200


def test_limits_name_what_was_too_much() -> None:
    assert Limits().body == 6 * 2**20
    assert Refusal("RESOURCE_EXHAUSTED", "x").code == 429
