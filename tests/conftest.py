"""What every test stands on, settled before TensorFlow or pygame is imported by any of them."""

import os

import research  # noqa: F401  chooses legacy Keras, which works only before TensorFlow is imported

# Environments draw and play sound through SDL; without a screen or a sound card it would complain on every render.
os.environ["SDL_VIDEODRIVER"] = "dummy"
os.environ["SDL_AUDIODRIVER"] = "dummy"
