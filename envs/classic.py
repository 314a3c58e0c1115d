"""Gymnasium's classic control, in TensorFlow ops: equal to the originals to float32 accuracy.

Equations and constants are those of gymnasium.envs.classic_control; each class names its source. Left out: the options
of their constructors that change the task, and those of reset.
"""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from gymnasium import spaces

from envs.compiled import CompiledEnvironment
from envs.drawing import BLACK, GREY, ORANGE, Canvas
from research import random


def _box(high: list[float], low: list[float] | None = None) -> spaces.Box:
    top = np.array(high, np.float32)
    return spaces.Box(-top if low is None else np.array(low, np.float32), top, dtype=np.float32)


class CartPoleState(NamedTuple):
    """Each float32 [B]: the cart's place (m) and speed, the pole's angle from upright (rad) and its speed."""

    x: tf.Tensor
    x_dot: tf.Tensor
    theta: tf.Tensor
    theta_dot: tf.Tensor


class CartPole(CompiledEnvironment):
    """CartPole-v1: push a cart left (0) or right (1) so that its pole stays up. 1 per step; best return 500.

    Barto, Sutton and Anderson 1983, "Neuronlike adaptive elements", with Gymnasium's explicit Euler steps.
    """

    name = "CartPole-v1"
    action_space = spaces.Discrete(2)
    max_episode_steps = 500
    X_LIMIT, THETA_LIMIT = 2.4, 12 * 2 * math.pi / 360
    observation_space = _box([2 * X_LIMIT, math.inf, 2 * THETA_LIMIT, math.inf])

    def initial(self, keys: tf.Tensor) -> CartPoleState:
        return CartPoleState(*tf.unstack(random.uniform(keys, 4) * 0.1 - 0.05, axis=-1))

    def observe(self, state: CartPoleState) -> tf.Tensor:
        return tf.stack(state, axis=-1)  # [B, 4]

    def transition(
        self, state: CartPoleState, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[CartPoleState, tf.Tensor, tf.Tensor]:
        x, x_dot, theta, theta_dot = state
        force = tf.where(action == 1, 10.0, -10.0)
        cos, sin = tf.cos(theta), tf.sin(theta)
        push = (force + 0.05 * tf.square(theta_dot) * sin) / 1.1  # total mass 1.1, pole's mass times half length 0.05
        theta_acc = (9.8 * sin - cos * push) / (0.5 * (4.0 / 3.0 - 0.1 * tf.square(cos) / 1.1))
        x_acc = push - 0.05 * theta_acc * cos / 1.1
        new = CartPoleState(
            x + 0.02 * x_dot, x_dot + 0.02 * x_acc, theta + 0.02 * theta_dot, theta_dot + 0.02 * theta_acc
        )
        terminated = (tf.abs(new.x) > self.X_LIMIT) | (tf.abs(new.theta) > self.THETA_LIMIT)
        return new, tf.ones_like(x), terminated

    def render(self, state: CartPoleState) -> np.ndarray:
        canvas = Canvas(-2.4, -0.6, 2.4, 1.6)
        canvas.line([(-2.4, 0.0), (2.4, 0.0)], GREY)
        canvas.box(state.x - 0.25, -0.15, state.x + 0.25, 0.15, BLACK)
        tip = (state.x + math.sin(state.theta), math.cos(state.theta))
        canvas.line([(state.x, 0.0), tip], ORANGE, 0.1)
        return canvas.pixels()
