"""MinAtar's five games in TensorFlow ops.

Young and Tian 2019, "MinAtar: an Atari-inspired testbed". Each game is compared with the `minatar`
package 1.0.15 step by step, by full state (tests/envs/compiled/test_minatar.py).
"""

from sparring.envs.compiled.minatar.asterix import Asterix
from sparring.envs.compiled.minatar.breakout import Breakout
from sparring.envs.compiled.minatar.freeway import Freeway
from sparring.envs.compiled.minatar.seaquest import Seaquest
from sparring.envs.compiled.minatar.space_invaders import SpaceInvaders

__all__ = ["Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders"]
