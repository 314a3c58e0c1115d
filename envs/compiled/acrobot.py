"""Gymnasium's Acrobot, in TensorFlow ops: equal to the original to float32 accuracy."""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from gymnasium import spaces

from sparring.envs.compiled.base import CompiledEnvironment
from sparring.envs.compiled.canvas import BLACK, BLUE, GREY, ORANGE, Canvas
from sparring.envs.compiled.classic_control import wrapped
from sparring.envs.compiled.sampling import uniforms

_SPEEDS = (4 * math.pi, 9 * math.pi)
_BOUNDS = np.array([1.0, 1.0, 1.0, 1.0, *_SPEEDS], np.float32)


class AcrobotState(NamedTuple):
    """Angles (rad) and angular speeds (rad/s) of both links, each float32 [B].

    `theta1` is measured from hanging down, `theta2` from the direction of the first link.
    """

    theta1: tf.Tensor
    theta2: tf.Tensor
    dtheta1: tf.Tensor
    dtheta2: tf.Tensor

    def plus(self, other: "AcrobotState", scale: float) -> "AcrobotState":
        """Return self + scale * other."""
        return AcrobotState(*(a + scale * b for a, b in zip(self, other, strict=True)))


class Acrobot(CompiledEnvironment):
    """Acrobot-v1: swing two links up by a torque of -1, 0 or 1 between them (0, 1, 2).

    The reward is -1 per step until they are up.

    500 steps at most; good policies take 60 to 100. Sutton 1996, "Generalization in reinforcement
    learning", with the book's equations and one Runge-Kutta step of 0.2 s, as in Gymnasium.
    """

    name = "Acrobot-v1"
    observation_space = spaces.Box(-_BOUNDS, _BOUNDS, dtype=np.float32)
    action_space = spaces.Discrete(3)
    max_episode_steps = 500

    def initial(self, keys: tf.Tensor) -> AcrobotState:
        return AcrobotState(*(0.2 * u - 0.1 for u in uniforms(keys, 4)))

    def observe(self, state: AcrobotState) -> tf.Tensor:
        theta1, theta2, *speeds = state
        # [B, 6]
        return tf.stack(
            [tf.cos(theta1), tf.sin(theta1), tf.cos(theta2), tf.sin(theta2), *speeds], axis=-1
        )

    def transition(
        self, state: AcrobotState, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[AcrobotState, tf.Tensor, tf.Tensor]:
        moved = _runge_kutta(state, tf.cast(action - 1, tf.float32), 0.2)
        new = AcrobotState(
            wrapped(moved.theta1),
            wrapped(moved.theta2),
            *(
                tf.clip_by_value(speed, -top, top)
                for speed, top in zip(moved[2:], _SPEEDS, strict=True)
            ),
        )
        terminated = -tf.cos(new.theta1) - tf.cos(new.theta2 + new.theta1) > 1.0
        return new, tf.where(terminated, 0.0, -1.0), terminated

    def render(self, state: AcrobotState) -> np.ndarray:
        canvas = Canvas(-2.2, -2.2, 2.2, 2.2, width=240)
        canvas.line([(-2.2, 1.0), (2.2, 1.0)], GREY)
        both = state.theta1 + state.theta2
        elbow = (math.sin(state.theta1), -math.cos(state.theta1))
        tip = (elbow[0] + math.sin(both), elbow[1] - math.cos(both))
        for start, end, colour in (((0.0, 0.0), elbow, BLUE), (elbow, tip, ORANGE)):
            canvas.line([start, end], colour, 0.15)
            canvas.disc(start, 0.1, BLACK)
        return canvas.pixels()


def _runge_kutta(state: AcrobotState, torque: tf.Tensor, dt: float) -> AcrobotState:
    """Return the state after `dt` seconds under a constant torque [B], by one fourth-order step."""
    k1 = _derivative(state, torque)
    k2 = _derivative(state.plus(k1, dt / 2), torque)
    k3 = _derivative(state.plus(k2, dt / 2), torque)
    k4 = _derivative(state.plus(k3, dt), torque)
    return state.plus(k1, dt / 6).plus(k2, dt / 3).plus(k3, dt / 3).plus(k4, dt / 6)


def _derivative(state: AcrobotState, torque: tf.Tensor) -> AcrobotState:
    """Return d/dt of the state, for links of mass, length and inertia 1 with centres half way."""
    theta1, theta2, dtheta1, dtheta2 = state
    cos2 = tf.cos(theta2)
    sin2 = tf.sin(theta2)
    d1 = 3.5 + cos2
    d2 = 1.25 + 0.5 * cos2
    phi2 = 4.9 * tf.sin(theta1 + theta2)  # g / 2; sin(a) is the original's cos(a - pi / 2)
    phi1 = -0.5 * dtheta2 * (dtheta2 + 2.0 * dtheta1) * sin2 + 14.7 * tf.sin(theta1) + phi2
    ratio = d2 / d1
    ddtheta2 = (torque + ratio * phi1 - 0.5 * tf.square(dtheta1) * sin2 - phi2) / (
        1.25 - d2 * ratio
    )
    ddtheta1 = -(d2 * ddtheta2 + phi1) / d1
    return AcrobotState(dtheta1, dtheta2, ddtheta1, ddtheta2)
