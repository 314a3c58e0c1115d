"""`import sparring` is light, and each of its names resolves when it is used."""

import importlib
import subprocess
import sys

import pytest

import sparring

pytestmark = pytest.mark.long


def test_importing_sparring_loads_nothing_heavy() -> None:
    program = (
        "import sys, sparring; "
        "print([m for m in ('tensorflow', 'hydra', 'tf_agents', 'gymnasium', 'numpy') "
        "if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sorted(sparring._PUBLIC))
def test_a_name_resolves_to_the_object_of_its_module(name: str) -> None:
    assert getattr(sparring, name) is getattr(importlib.import_module(sparring._PUBLIC[name]), name)
    assert name in dir(sparring)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'PPPO'"):
        sparring.PPPO  # noqa: B018


def test_training_from_python_loads_no_hydra() -> None:
    program = (
        "import sys, sparring; [getattr(sparring, name) for name in sparring._PUBLIC]; "
        "print('hydra' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "False"
