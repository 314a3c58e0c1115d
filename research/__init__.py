"""Sparring: reinforcement learning and GANs on TensorFlow.

Importing this package chooses legacy Keras where TensorFlow would bring Keras 3, and how XLA
computes on a CPU; it must happen before TensorFlow is imported, so every first-party package
imports this one first. TensorFlow itself is not imported here.
"""

import importlib
import os
import sys
from importlib import metadata
from typing import Any

from sparring.xla import native_log


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
    if "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, native_log.QuietImport())


_prepare_tensorflow()

# The names that scripts use most; each is imported at its first use, and TensorFlow with it.
_PUBLIC = {
    "Acrobot": "sparring.envs.compiled.acrobot",
    "Callback": "sparring.training.callbacks",
    "CartPole": "sparring.envs.compiled.classic_control",
    "DQN": "sparring.agents.dqn",
    "GANTrainer": "sparring.gans.trainer",
    "Gymnasium": "sparring.envs.gymnasium_bridge.bridge",
    "MountainCar": "sparring.envs.compiled.classic_control",
    "OffPolicyTrainer": "sparring.agents.training.off_policy",
    "OnPolicyTrainer": "sparring.agents.training.on_policy",
    "PPO": "sparring.agents.ppo",
    "Pendulum": "sparring.envs.compiled.classic_control",
    "Policy": "sparring.agents.training.policy",
    "RunFolder": "sparring.storage.run_folder",
    "Trainer": "sparring.training.trainer",
    "TrainingLoop": "sparring.training.loop",
    "UserError": "sparring.errors",
    "check_agent": "sparring.agents.conformance",
    "check_environment": "sparring.envs.testing.check",
    "check_trainer": "sparring.training.conformance",
    "fit": "sparring.training.fit",
    "from_array": "sparring.data.arrays",
    "load_policy": "sparring.agents.training.policy",
    "read_curves": "sparring.tensorboard.event_reader",
    "set_random_seed": "sparring.training.fit",
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
