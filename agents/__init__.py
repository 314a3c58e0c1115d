"""TF-Agents' agents, mended, and the trainers that drive them."""

import research as _research  # noqa: F401  (chooses legacy Keras before TensorFlow is imported)
