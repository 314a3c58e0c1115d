"""MinAtar's five games (Young and Tian 2019, "MinAtar: an Atari-inspired testbed"), in TensorFlow ops.

Each is held against the `minatar` package 1.0.15 step by step, by full state (tests/test_minatar.py).
"""

from envs.minatar.asterix import Asterix
from envs.minatar.breakout import Breakout
from envs.minatar.freeway import Freeway
from envs.minatar.seaquest import Seaquest
from envs.minatar.space_invaders import SpaceInvaders

__all__ = ["Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders"]
