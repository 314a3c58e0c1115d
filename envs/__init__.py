"""Environments: the bridge to Gymnasium, and environments compiled as TensorFlow ops."""

import os

import research as _research  # noqa: F401  (chooses legacy Keras before TensorFlow is imported)

# Environments that draw do it off screen and in silence: frames go to TensorBoard. Set these to see a window.
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
