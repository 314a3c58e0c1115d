"""How devices compute: settings that TensorFlow takes before it makes them, and what a figure was measured on."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf
from omegaconf import DictConfig

from research import record
from research.errors import UserError


def configure(memory_growth: bool = True, tf32: bool = True, xla_flags: str | None = None) -> None:
    """Apply settings to this process; before any device is used.

    Args:
      memory_growth: a GPU's memory is taken as it is needed; else all of it at once, as TensorFlow does by itself.
      tf32: GPUs that can multiply float32 with ten bits of mantissa (TensorFloat-32) do; about 1e-3 off, several
        times as fast.
      xla_flags: added to XLA_FLAGS, such as "--xla_gpu_autotune_level=0". XLA ends the process for one it doesn't know.
    """
    for gpu in tf.config.list_physical_devices("GPU"):
        if tf.config.experimental.get_memory_growth(gpu) != memory_growth:
            try:
                tf.config.experimental.set_memory_growth(gpu, memory_growth)
            except RuntimeError as error:
                raise UserError(f"device.memory_growth={memory_growth}: TensorFlow is using GPUs already.") from error
    tf.config.experimental.enable_tensor_float_32_execution(tf32)
    words = (xla_flags or "").split()
    if wrong := [word for word in words if not word.startswith("--xla_")]:
        raise UserError(f"device.xla_flags: {wrong[0]} is no flag of XLA, which begin with --xla_.")
    old = os.environ.get("XLA_FLAGS", "").split()
    if words:
        os.environ["XLA_FLAGS"] = " ".join([*old, *(word for word in words if word not in old)])


def described(cfg: DictConfig) -> dict[str, str]:
    """What a figure of this config was measured on: device, precision, strategy and way to compile, in words."""
    plain = record.plain(cfg)
    return {
        "device": ", ".join(_devices()),
        "precision": ", ".join(dict.fromkeys(_precisions(plain))) or "float32",
        "strategy": _strategy(plain.get("strategy") or {}),
        "compile": str(plain.get("compile", "-")),
    }


def _devices() -> Iterator[str]:
    """Physical GPUs by their names, or the CPU."""
    gpus = tf.config.list_physical_devices("GPU")
    names = [str(tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")) for gpu in gpus]
    for name in dict.fromkeys(names or ["CPU"]):
        yield f"{names.count(name)} x {name}" if names.count(name) > 1 else name


def _precisions(node: Mapping[str, Any]) -> Iterator[str]:
    for key, value in node.items():
        if str(key).endswith("precision") and isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            yield from _precisions(value)


def _strategy(node: Mapping[str, Any]) -> str:
    name = str(node.get("_target_", "one_device")).rpartition(".")[2]
    counts = [f"{node[key]} {key}" for key in ("devices", "workers") if node.get(key)]
    return f"{name}, {', '.join(counts)}" if counts else name
