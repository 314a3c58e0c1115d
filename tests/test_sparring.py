"""Settings that importing the package makes before TensorFlow is imported, by its version."""

import os

import pytest

import sparring

FLAG = "--xla_cpu_multi_thread_eigen"


@pytest.mark.parametrize(
    ("version", "before", "legacy", "flags"),
    [
        ("2.15.1", None, None, None),
        ("2.15.1", "--xla_a=1", None, "--xla_a=1"),
        ("2.21.0", None, "1", f"{FLAG}=false"),
        ("2.21.0", "--xla_a=1", "1", f"--xla_a=1 {FLAG}=false"),
        ("2.21.0", f"{FLAG}=true", "1", f"{FLAG}=true"),  # a user's choice stands
        ("3.0", None, "1", f"{FLAG}=false"),
    ],
)
def test_keras_and_xla_are_chosen_by_the_version(
    monkeypatch, version, before, legacy, flags
) -> None:
    monkeypatch.setattr(sparring.metadata, "version", lambda name: {"tensorflow": version}[name])
    for name, value in (("TF_USE_LEGACY_KERAS", None), ("XLA_FLAGS", before)):
        monkeypatch.setenv(name, "") if value is None else monkeypatch.setenv(name, value)
        monkeypatch.delenv(name) if value is None else None
    sparring._prepare_tensorflow()
    found = [os.environ.pop(name, None) for name in ("TF_USE_LEGACY_KERAS", "XLA_FLAGS")]
    assert found == [legacy, flags]


def test_without_tensorflow_nothing_is_set(monkeypatch) -> None:
    def missing(name: str) -> str:
        raise sparring.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(sparring.metadata, "version", missing)
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1")
    sparring._prepare_tensorflow()
    assert os.environ["XLA_FLAGS"] == "--xla_a=1"
