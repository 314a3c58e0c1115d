"""Faults that are known by their kind are one line."""

import numpy as np
import pytest
import tensorflow as tf

from sparring.errors import UserError
from sparring.networks.mlp import fresh
from sparring.training.faults import explained


def device_is_full() -> None:
    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\n[8, 8]")


def machine_is_full() -> None:
    try:
        np.empty(2**62, np.uint8)  # more than any address space has
    except MemoryError as cause:
        raise RuntimeError("while building") from cause


@pytest.mark.parametrize(
    ("fault", "said"),
    [(device_is_full, "OOM when allocating [8, 8]"), (machine_is_full, "Unable to allocate")],
)
def test_running_out_of_memory_is_one_line_that_says_what_takes_less(fault, said) -> None:
    with pytest.raises(UserError, match=r"Out of memory.*trainer.num_envs") as error, explained():
        fault()
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(AttributeError, match="from_config"), explained():
        fresh(None)  # raised in Sparring's code, though called from here
    with pytest.raises(UserError, match=r"^a mistake$"), explained():
        raise UserError("a mistake")


def own_step() -> None:
    np.zeros(-1)  # raised by a library that own code calls


def test_what_own_code_raises_is_one_line_that_names_its_places() -> None:
    said = r"^while training: ValueError: negative dim"
    with pytest.raises(UserError, match=said) as error, explained():
        own_step()
    first = own_step.__code__.co_firstlineno
    assert f"line {first + 1}, in own_step)" in str(error.value)
    assert "site-packages" not in str(error.value)
