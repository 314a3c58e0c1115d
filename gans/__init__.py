"""Generative adversarial networks: losses, penalties, networks, metrics and their trainer."""

import research as _research  # noqa: F401  (chooses legacy Keras before TensorFlow is imported)
