"""Notes of native libraries are held back, and everything else is passed on."""

import os
import subprocess
import sys

import pytest

from sparring.xla.native_log import held_back

NOISE = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795879264.732342    2610 device_compiler.h:186] Compiled cluster using XLA!",
    "2026-11-28 15:22:38.150118: I external/local_tsl/tsl/cuda/cudart_stub.cc:31] No drivers",
    "E0000 00:00:1.5 1 cuda_dnn.cc:1] Unable to register cuDNN factory: it has been already",
]
SAID = ["F0000 00:00:1.5 1 x.cc:1] Check failed", "Illegal instruction", "2026-01-01 of a user's"]


def test_all_but_notes_arrives_when_it_is_over(capfd, monkeypatch) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    with held_back():
        os.write(2, "\n".join([*NOISE, *SAID, ""]).encode())
        assert capfd.readouterr().err == ""
    os.write(2, b"after\n")
    assert capfd.readouterr().err.splitlines() == [*SAID, "after"]


def test_an_error_on_the_way_passes_and_what_was_said_too(capfd) -> None:
    def fails() -> None:
        os.write(2, b"why\n")
        raise ImportError("no library")

    with pytest.raises(ImportError, match="no library"), held_back():
        fails()
    assert capfd.readouterr().err == "why\n"


def test_a_user_who_asks_for_more_sees_it(capfd, monkeypatch) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    with held_back():
        os.write(2, NOISE[1].encode())
        assert "Compiled cluster" in capfd.readouterr().err


@pytest.mark.long
def test_importing_and_compiling_say_nothing() -> None:
    program = (
        "import sparring, tensorflow as tf; from sparring.xla import compilation; "
        "print(compilation.function(tf.sin, 'xla')(tf.constant(0.0)).numpy())"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("0.0\n", "")
