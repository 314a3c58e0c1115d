"""Running experiments of any kind, independent of agents, GANs and environments.

Importing this package chooses legacy Keras where TensorFlow would bring Keras 3, and how XLA
computes on a CPU; it must happen before TensorFlow is imported, so every first-party package
imports this one first. TensorFlow itself is not imported here.
"""

import os
from importlib import metadata


def _prepare_tensorflow() -> None:
    """Set TF_USE_LEGACY_KERAS and XLA's flag for TensorFlow versions with Keras 3 (from 2.16 on).

    TensorFlow 2.15 carries Keras 2 already, and the variable breaks it unless tf-keras is installed
    too. Newer XLA hands every matrix product of a CPU to a pool of threads, which halves the speed
    of small networks; 2.15 is no faster without. A value already in XLA_FLAGS takes precedence.
    """
    try:
        major, minor = metadata.version("tensorflow").split(".")[:2]
    except metadata.PackageNotFoundError:
        return
    if (int(major), int(minor)) >= (2, 16):
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
        flags = os.environ.get("XLA_FLAGS", "")
        if "xla_cpu_multi_thread_eigen" not in flags:
            os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


_prepare_tensorflow()
