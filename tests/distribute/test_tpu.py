"""Ready for a TPU, as far as that can be seen without one: what a core would run is one XLA program
of static shapes, without host operations and without numbers that a TPU has not.
"""

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparring.gans.penalties import R1
from tests.agents.training.test_replicas import dqn, ppo
from tests.helpers import runs
from tests.helpers.toy_gans import make, mlp

pytestmark = pytest.mark.long

HOST = ("infeed", "outfeed", "send(", "recv(", "custom-call", "host_compute", "callback")
MISSING = ("f64[", "c128[", "s16[", "u16[")


def assert_ready(program: Callable[..., Any], *arguments: tf.Tensor) -> None:
    """Look into the HLO that `program(*arguments)` becomes; what XLA cannot compile
    raises there.
    """
    jitted = tf.function(program, jit_compile=True, autograph=False)
    text = jitted.experimental_get_compiler_ir(*arguments)(stage="hlo")
    assert "HloModule" in text
    found = [word for word in (*HOST, *MISSING) if word in text]
    assert not found, f"not for a TPU: {found}"
    dynamic = re.findall(r"\w+\[[^\]]*<=[^\]]*\]|\w+\[[^\]]*\?[^\]]*\]", text)
    assert not dynamic, f"shapes are not static: {dynamic[:3]}"


ONE = np.int64(1)


def _opened(trainer: Any) -> tuple[Any, ...]:
    trainer.program()  # opens the environments, outside of what is traced
    return trainer.iterate, tf.constant(ONE)


def of_ppo() -> tuple[Any, ...]:
    return _opened(ppo())


def of_dqn() -> tuple[Any, ...]:
    return _opened(dqn())


def of_gan() -> tuple[Any, ...]:
    network = mlp(normalization="spectral")
    penalties = {"r1": R1(1.0)}
    trainer = make(network=network, penalties=penalties, penalty_interval=2, n_critic=2)
    return trainer.iterate, *trainer.plan(1), tf.constant(ONE)


@pytest.mark.parametrize("case", [of_ppo, of_dqn, of_gan])
def test_many_iterations_are_one_program_for_a_core(case: Callable[[], tuple[Any, ...]]) -> None:
    assert_ready(*case())


def test_a_host_call_in_a_trainer_s_loss_is_found() -> None:
    program, *arguments = of_ppo()
    agent = program.__self__.agent
    loss = agent.policy_gradient_loss

    def with_host_call(*given: Any, **more: Any) -> tf.Tensor:
        return loss(*given, **more) + tf.numpy_function(
            lambda: np.float32(0.0), [], tf.float32, stateful=False
        )

    agent.policy_gradient_loss = with_host_call
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError)):
        assert_ready(program, *arguments)


def test_numbers_and_shapes_that_a_tpu_has_not_are_found() -> None:
    with pytest.raises(AssertionError, match=r"not for a TPU: \['f64\["):
        assert_ready(lambda x: tf.cast(tf.cast(x, tf.float64) * 2.0, tf.float32), tf.ones([3]))
    with pytest.raises((AssertionError, tf.errors.InvalidArgumentError)):
        assert_ready(lambda x: tf.where(x > 0.0), tf.ones([3]))


def test_no_tpu_is_said_in_a_line_and_within_its_time(tmp_path: Path) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        address = f"grpc://127.0.0.1:{deaf.getsockname()[1]}"
        done = runs.sparring(
            tmp_path, "rl", "strategy=tpu", f"strategy.address={address}", "strategy.seconds=2"
        )
    assert done.returncode == 2
    assert (
        f"there is no TPU at strategy.address={address} (no answer within 2 seconds)" in done.stderr
    )
    assert "Traceback" not in done.stderr
    done = runs.sparring(tmp_path, "rl", "strategy=tpu")
    assert done.returncode == 2
    assert "strategy=tpu: there is no TPU at strategy.address=local (" in done.stderr
