"""Settings of devices, which TensorFlow takes before it creates them."""

import os

import tensorflow as tf

from sparring.errors import UserError


def configure(memory_growth: bool = True, tf32: bool = True, xla_flags: str | None = None) -> None:
    """Apply settings to this process; before any device is used.

    Args:
      memory_growth: a GPU's memory is taken as it is needed; else all of it at once, as TensorFlow
        does by itself.
      tf32: GPUs that can multiply float32 with ten bits of mantissa (TensorFloat-32) do; about 1e-3
        off, several times as fast.
      xla_flags: added to XLA_FLAGS, such as "--xla_gpu_autotune_level=0". XLA ends the process for
        one it doesn't know.
    """
    for gpu in tf.config.list_physical_devices("GPU"):
        if tf.config.experimental.get_memory_growth(gpu) != memory_growth:
            try:
                tf.config.experimental.set_memory_growth(gpu, memory_growth)
            except RuntimeError as error:
                raise UserError(
                    f"device.memory_growth={memory_growth}: TensorFlow is using GPUs already."
                ) from error
    tf.config.experimental.enable_tensor_float_32_execution(tf32)
    words = (xla_flags or "").split()
    if wrong := [word for word in words if not word.startswith("--xla_")]:
        raise UserError(f"device.xla_flags: {wrong[0]} is no flag of XLA, which begin with --xla_.")
    old = os.environ.get("XLA_FLAGS", "").split()
    if words:
        os.environ["XLA_FLAGS"] = " ".join([*old, *(word for word in words if word not in old)])
