"""Running an experiment, whatever it trains: knows no agent, no GAN and no environment by name.

Importing this package chooses legacy Keras where TensorFlow would bring Keras 3; it must happen before TensorFlow is
imported, so every first-party package imports this one first. TensorFlow itself is not imported here.
"""

import os
from importlib import metadata


def _choose_legacy_keras() -> None:
    """Set TF_USE_LEGACY_KERAS where TensorFlow's own Keras is version 3 (TensorFlow 2.16 on).

    TensorFlow 2.15 carries Keras 2 already, and the flag breaks it unless tf-keras is installed too.
    """
    try:
        major, minor = metadata.version("tensorflow").split(".")[:2]
    except metadata.PackageNotFoundError:
        return
    if (int(major), int(minor)) >= (2, 16):
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


_choose_legacy_keras()
