"""Description of the machine, device and precision that a figure was measured on."""

import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from omegaconf import DictConfig

from sparring.storage import settings


def machine() -> dict[str, Any]:
    """Return processor, cores, and versions of Python and TensorFlow."""
    from importlib import metadata

    model = [
        line.split(":")[1].strip()
        for line in _lines("/proc/cpuinfo")
        if line.startswith("model name")
    ]
    return {
        "cpu": model[0] if model else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "tensorflow": metadata.version("tensorflow"),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def described(cfg: DictConfig) -> dict[str, str]:
    """Return device, precision, strategy and compile mode of a config, in words."""
    plain = settings.plain(cfg)
    return {
        "device": ", ".join(_devices()),
        "precision": ", ".join(dict.fromkeys(_precisions(plain))) or "float32",
        "strategy": _strategy(plain.get("strategy") or {}),
        "compile": str(plain.get("compile", "-")),
    }


def _devices() -> Iterator[str]:
    """Yield the names of the physical GPUs, or the CPU."""
    gpus = tf.config.list_physical_devices("GPU")
    names = [
        str(tf.config.experimental.get_device_details(gpu).get("device_name", "GPU"))
        for gpu in gpus
    ]
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
