"""Pruning: the schedule by hand, the smallest become zero and stay it, and a pruned run resumes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from omegaconf import OmegaConf

from sparring.cli import setup
from sparring.config.composer import Composer
from sparring.errors import UserError
from sparring.optim.fine_tuning import Stage
from sparring.optim.optimizer import Scheduled
from sparring.optim.pruning import Magnitude
from sparring.training.conformance import check_trainer
from sparring.training.experiment import build
from tests.agents.training.test_policy_export import PPO, SMALL
from tests.supervised.test_trainer import small

pytestmark = pytest.mark.long


def test_the_schedule_by_hand() -> None:
    prune = Magnitude(0.8, begin=0.2, end=0.6)
    # half way, at 0.4: 0.8 * (1 - 0.5^3) = 0.7
    for progress, share in ((0.0, 0.0), (0.2, 0.0), (0.4, 0.7), (0.6, 0.8), (1.0, 0.8)):
        assert float(prune.share(tf.constant(progress))) == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("jit", [False, True])
def test_the_smallest_become_zero_and_stay_it(jit: bool) -> None:
    kernel = tf.Variable([[0.1, -0.4], [0.2, 0.3]])
    bias = tf.Variable([0.01, 0.0])
    scheduled = Scheduled(tf.keras.optimizers.SGD(), 1.0, prune=Magnitude(0.5, end=0.5, every=2))
    scheduled.build([kernel, bias])
    step = tf.function(scheduled.step, jit_compile=jit, autograph=False)
    still = [tf.zeros([2, 2]), tf.zeros([2])]
    push = [tf.constant([[-9.0, 0.0], [0.0, 0.0]]), tf.zeros([2])]
    late = tf.constant(0.5)
    step(still, late)  # update 1: not looked
    np.testing.assert_array_equal(kernel, np.float32([[0.1, -0.4], [0.2, 0.3]]))
    step(still, late)  # update 2: half of four are the two smallest in magnitude
    np.testing.assert_array_equal(kernel, np.float32([[0.0, -0.4], [0.0, 0.3]]))
    norms = step(push, late)  # the largest gradient of all does not bring one back
    np.testing.assert_array_equal(kernel, np.float32([[0.0, -0.4], [0.0, 0.3]]))
    assert float(norms["gradient/update_norm"]) == 0.0
    step(still, late)
    # No more than half
    np.testing.assert_array_equal(kernel, np.float32([[0.0, -0.4], [0.0, 0.3]]))
    np.testing.assert_array_equal(bias, np.float32([0.01, 0.0]))  # a bias is none of it


def test_before_it_begins_nothing_is_held() -> None:
    kernel = tf.Variable([[0.0, 1.0]])
    scheduled = Scheduled(
        tf.keras.optimizers.SGD(), 1.0, prune=Magnitude(0.5, begin=0.5, end=1.0, every=1)
    )
    scheduled.build([kernel])
    scheduled.step([tf.constant([[-2.0, 0.0]])], tf.constant(0.4))
    np.testing.assert_array_equal(kernel, [[2.0, 1.0]])


def zeros(trainer: Any) -> list[float]:
    return [float(np.mean(w == 0)) for w in trainer.network.get_weights() if w.ndim > 1]


def pruned(**settings: Any) -> Any:
    tf.keras.utils.set_random_seed(0)
    optimizer = Scheduled(tf.keras.optimizers.Adam(), 1e-2, prune=Magnitude(0.75, every=3))
    return small(**({"optimizer": optimizer, "total_steps": 640} | settings))


@pytest.mark.parametrize(
    "stages", [None, {"head": Stage(["head/.*"]), "all": Stage([".*"], at=0.2)}], ids=["", "stages"]
)
def test_a_run_ends_as_sparse_as_was_asked_and_goes_on_from_where_it_was(stages: Any) -> None:
    trainer = pruned(stages=stages)
    trainer.train(640)
    # kernels of 2 x 8 = 16 and 8 x 3 = 24 weights: 12 and 18 of them
    assert zeros(trainer) == [0.75, 0.75]
    check_trainer(lambda: pruned(stages=stages), steps=150)


def test_what_cannot_be_is_refused() -> None:
    for settings, said in (
        ({"sparsity": 1.0}, r"prune\.sparsity=1\.0: .*below 1"),
        ({"begin": 0.5, "end": 0.5}, r"prune\.begin=0\.5, prune\.end=0\.5"),
        ({"every": 0}, r"prune\.every=0"),
    ):
        with pytest.raises(UserError, match=said):
            Magnitude(**settings)


@pytest.mark.parametrize("kind", ["rl", "supervised"])
def test_pruning_is_chosen_on_the_command_line(kind: str) -> None:
    setup.prepare()
    few = {
        "rl": ("env=cartpole", *SMALL, *PPO),
        "supervised": ("data=digits", "model=mlp", "compile=graph"),
    }
    cfg = Composer(kind).compose(
        [
            *few[kind],
            "prune=magnitude",
            "prune.sparsity=0.5",
            "prune.every=1",
            "run.steps=640",
            "run.name=x",
        ]
    )
    trainer = build(OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"]))
    trainer.train(640)
    functions = trainer.export().signatures["scores"].trace()  # the network that acts, or answers
    kernels = [v.numpy() for v in functions.variables if v.shape.rank > 1]
    assert len(kernels) >= 2
    for kernel in kernels:
        assert float(np.mean(kernel == 0)) == pytest.approx(0.5, abs=0.5 / kernel.size)


_CALLS = """
from tests.optim.test_pruning import pruned
trainer = pruned(compile="xla")
for _ in range(4):
    trainer.train(64)
"""


def test_xla_compiles_once_however_far_the_run_is(tmp_path: Path) -> None:
    """A dump has a module for each compilation; nothing but the program that learns is compiled
    here.
    """
    environment = os.environ | {"XLA_FLAGS": f"--xla_dump_to={tmp_path} --xla_dump_hlo_as_text"}
    subprocess.run(
        [sys.executable, "-c", _CALLS],
        env=environment,
        check=True,
        capture_output=True,
        timeout=120,
    )
    programs = [
        p.name
        for p in tmp_path.glob("*before_optimizations.txt")
        if "XlaMustCompile" in p.name and "iterate" in p.name
    ]
    assert len(programs) == 1, programs
