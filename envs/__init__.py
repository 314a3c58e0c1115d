"""Environments: the bridge to Gymnasium, and environments compiled as TensorFlow ops."""

import research as _research  # noqa: F401  (chooses legacy Keras before TensorFlow is imported)
