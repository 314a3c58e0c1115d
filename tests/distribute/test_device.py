"""Settings of devices, applied before there are any; and what figures say they were measured on."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import tensorflow as tf

from sparring.benchmark import machine
from sparring.cli import setup
from sparring.config.composer import Composer
from sparring.distribute import device
from sparring.errors import UserError


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1")
    setup.prepare()
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    yield
    tf.config.experimental.enable_tensor_float_32_execution(before)


def test_flags_of_xla_are_added_once_and_what_is_none_is_refused() -> None:
    device.configure()
    assert os.environ["XLA_FLAGS"] == "--xla_a=1"
    for _ in range(2):
        device.configure(xla_flags="--xla_b=2 --xla_c")
    assert os.environ["XLA_FLAGS"] == "--xla_a=1 --xla_b=2 --xla_c"
    with pytest.raises(UserError, match=r"device.xla_flags: fast=1 is no flag of XLA"):
        device.configure(xla_flags="--xla_b=2 fast=1")


@pytest.mark.parametrize("tf32", [False, True])
def test_tensor_float_32_is_as_asked(tf32: bool) -> None:
    device.configure(tf32=tf32)
    assert tf.config.experimental.tensor_float_32_execution_enabled() is tf32


class Gpus:
    """Two GPUs, as `tf.config` tells of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.growth = {"one": False, "two": True}
        self.used = False
        monkeypatch.setattr(
            tf.config,
            "list_physical_devices",
            lambda kind: list(self.growth) if kind == "GPU" else [],
        )
        monkeypatch.setattr(tf.config.experimental, "get_memory_growth", self.growth.get)
        monkeypatch.setattr(tf.config.experimental, "set_memory_growth", self.set)
        monkeypatch.setattr(
            tf.config.experimental, "get_device_details", lambda gpu: {"device_name": "NVIDIA X"}
        )

    def set(self, gpu: str, growth: bool) -> None:
        if self.used:
            raise RuntimeError("Physical devices cannot be modified after being initialized")
        self.growth[gpu] = growth


def test_memory_grows_on_every_gpu_or_on_none(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = Gpus(monkeypatch)
    device.configure(memory_growth=True)
    assert gpus.growth == {"one": True, "two": True}
    gpus.used = True
    device.configure(memory_growth=True)  # as it is: nothing to change
    with pytest.raises(
        UserError, match=r"device.memory_growth=False: TensorFlow is using GPUs already"
    ):
        device.configure(memory_growth=False)


def test_a_figure_says_what_it_was_measured_on(monkeypatch: pytest.MonkeyPatch) -> None:
    named = ["run.name=b", "run.steps=1"]
    plain = Composer("rl").compose(["env=cartpole", *named])
    assert machine.described(plain) == {
        "device": "CPU",
        "precision": "float32",
        "strategy": "one_device",
        "compile": "auto",
    }
    Gpus(monkeypatch)
    words = [
        "strategy=multi_worker",
        "strategy.workers=4",
        "compile=graph",
        "game.generator_precision=bfloat16",
    ]
    assert machine.described(Composer("gan").compose([*words, *named])) == {
        "device": "2 x NVIDIA X",
        "precision": "bfloat16, float32",
        "strategy": "multi_worker, 4 workers",
        "compile": "graph",
    }


def test_a_strategy_may_set_how_devices_compute(tmp_path: Path) -> None:
    (tmp_path / "strategy").mkdir()
    (tmp_path / "strategy" / "exact.yaml").write_text(
        "# @package _global_\nstrategy: {_target_: sparring.distribute.strategies.one_device}\n"
        "device: {tf32: false}\ncompile: graph\n"
    )
    cfg = Composer("rl", str(tmp_path)).compose(["strategy=exact", "run.name=b"])
    assert (cfg.device.tf32, cfg.device.memory_growth, cfg.compile) == (False, True, "graph")
    assert cfg.strategy._target_ == "sparring.distribute.strategies.one_device"
