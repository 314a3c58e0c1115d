"""Gymnasium's classic control, in TensorFlow ops: equal to the originals to float32 accuracy.

Equations and constants are those of gymnasium.envs.classic_control; each class names its source.
Left out: the options of their constructors that change the task, and those of reset.
"""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from gymnasium import spaces

from sparring.envs.compiled.base import CompiledEnvironment
from sparring.envs.compiled.canvas import BLACK, BLUE, GREEN, GREY, ORANGE, RED, Canvas
from sparring.envs.compiled.sampling import uniforms


def _box(high: list[float], low: list[float] | None = None) -> spaces.Box:
    top = np.array(high, np.float32)
    return spaces.Box(-top if low is None else np.array(low, np.float32), top, dtype=np.float32)


def wrapped(angle: tf.Tensor) -> tf.Tensor:
    """Return `angle` (rad) modulo 2 pi, in [-pi, pi)."""
    return angle - 2 * math.pi * tf.floor((angle + math.pi) / (2 * math.pi))


class CartPoleState(NamedTuple):
    """Position (m) and speed of the cart, angle from upright (rad) and speed of the pole.

    Each is float32 [B].
    """

    x: tf.Tensor
    x_dot: tf.Tensor
    theta: tf.Tensor
    theta_dot: tf.Tensor


class CartPole(CompiledEnvironment):
    """CartPole-v1: push a cart left (0) or right (1) so that its pole stays up.

    The reward is 1 per step, the best return 500.

    Barto, Sutton and Anderson 1983, "Neuronlike adaptive elements", with Gymnasium's explicit Euler
    steps.
    """

    name = "CartPole-v1"
    action_space = spaces.Discrete(2)
    max_episode_steps = 500
    gravity = 9.8
    force_mag = 10.0
    X_LIMIT = 2.4
    THETA_LIMIT = 12 * 2 * math.pi / 360
    observation_space = _box([2 * X_LIMIT, math.inf, 2 * THETA_LIMIT, math.inf])

    def initial(self, keys: tf.Tensor) -> CartPoleState:
        return CartPoleState(*(0.1 * u - 0.05 for u in uniforms(keys, 4)))

    def observe(self, state: CartPoleState) -> tf.Tensor:
        return tf.stack(state, axis=-1)  # [B, 4]

    def transition(
        self, state: CartPoleState, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[CartPoleState, tf.Tensor, tf.Tensor]:
        x, x_dot, theta, theta_dot = state
        force = tf.where(action == 1, self.force_mag, -self.force_mag)
        cos = tf.cos(theta)
        sin = tf.sin(theta)
        # The total mass is 1.1, the pole's mass times half its length 0.05.
        push = (force + 0.05 * tf.square(theta_dot) * sin) / 1.1
        torque = self.gravity * sin - cos * push
        theta_acc = torque / (0.5 * (4.0 / 3.0 - 0.1 * tf.square(cos) / 1.1))
        x_acc = push - 0.05 * theta_acc * cos / 1.1
        new = CartPoleState(
            x + 0.02 * x_dot,
            x_dot + 0.02 * x_acc,
            theta + 0.02 * theta_dot,
            theta_dot + 0.02 * theta_acc,
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


class FixedHorizonState(NamedTuple):
    """State of the cart and pole, and whether the pole has ever fallen, bool [B]."""

    cart_pole: CartPoleState
    fallen: tf.Tensor


class FixedHorizonCartPole(CartPole):
    """CartPole whose episodes all have the same length, whatever becomes of the pole.

    A pole that has fallen, or a cart that has left the track, stays where it is for the rest of
    the episode, with a reward of 0 per step; before, it is 1. So the length of an episode says
    nothing of the reward, by which an imitator of CartPole may learn to balance from a constant.
    """

    name = "CartPole-FixedHorizon-v0"

    def initial(self, keys: tf.Tensor) -> FixedHorizonState:  # type: ignore[override]
        opened = super().initial(keys)
        return FixedHorizonState(opened, tf.zeros_like(opened.x, tf.bool))

    def observe(self, state: FixedHorizonState) -> tf.Tensor:  # type: ignore[override]
        return super().observe(state.cart_pole)

    def transition(  # type: ignore[override]
        self, state: FixedHorizonState, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[FixedHorizonState, tf.Tensor, tf.Tensor]:
        before = state.cart_pole
        moved, _, falls = super().transition(before, action, keys)
        after = [tf.where(state.fallen, old, new) for old, new in zip(before, moved, strict=True)]
        fallen = state.fallen | falls
        reward = tf.cast(~state.fallen, tf.float32)
        new = FixedHorizonState(CartPoleState(*after), fallen)
        return new, reward, tf.zeros_like(fallen)

    def render(self, state: FixedHorizonState) -> np.ndarray:  # type: ignore[override]
        return super().render(state.cart_pole)


class MountainCarState(NamedTuple):
    """Position in the valley and velocity of the car, each float32 [B]."""

    position: tf.Tensor
    velocity: tf.Tensor


class _Valley(CompiledEnvironment):
    """Base of both mountain cars: the valley from -1.2 to 0.6, its slope and left wall.

    Speed is limited to 0.07.
    """

    observation_space = _box([0.6, 0.07], [-1.2, -0.07])
    goal: float

    def initial(self, keys: tf.Tensor) -> MountainCarState:
        (u,) = uniforms(keys, 1)
        position = 0.2 * u - 0.6
        return MountainCarState(position, tf.zeros_like(position))

    def observe(self, state: MountainCarState) -> tf.Tensor:
        return tf.stack(state, axis=-1)  # [B, 2]

    def _rolled(
        self, state: MountainCarState, push: tf.Tensor
    ) -> tuple[MountainCarState, tf.Tensor]:
        """Return the state after `push` [B] and a step downhill, and whether the goal is reached.

        The goal counts only for a car that is not rolling back.
        """
        velocity = tf.clip_by_value(
            state.velocity + push - 0.0025 * tf.cos(3.0 * state.position), -0.07, 0.07
        )
        position = tf.clip_by_value(state.position + velocity, -1.2, 0.6)
        velocity = tf.where((position <= -1.2) & (velocity < 0.0), 0.0, velocity)
        return MountainCarState(position, velocity), (position >= self.goal) & (velocity >= 0.0)

    def render(self, state: MountainCarState) -> np.ndarray:
        canvas = Canvas(-1.2, -0.05, 0.6, 1.25)
        ground = np.linspace(-1.2, 0.6, 60)
        canvas.line([(x, _height(x)) for x in ground], BLACK, 0.01)
        canvas.line(
            [(self.goal, _height(self.goal)), (self.goal, _height(self.goal) + 0.18)], GREEN, 0.02
        )
        canvas.disc((state.position, _height(state.position) + 0.05), 0.05, BLUE)
        return canvas.pixels()


def _height(x: float) -> float:
    return 0.45 * math.sin(3.0 * x) + 0.55


class MountainCar(_Valley):
    """MountainCar-v0: push a weak car left (0), not (1) or right (2) until it is up the hill.

    The reward is -1 per step.

    200 steps at most; good policies take about 100. Moore 1990, "Efficient memory-based learning
    for robot control", as in Gymnasium.
    """

    name = "MountainCar-v0"
    action_space = spaces.Discrete(3)
    max_episode_steps = 200
    goal = 0.5

    def transition(
        self, state: MountainCarState, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[MountainCarState, tf.Tensor, tf.Tensor]:
        new, terminated = self._rolled(state, 0.001 * tf.cast(action - 1, tf.float32))
        return new, -tf.ones_like(new.position), terminated


class MountainCarContinuous(_Valley):
    """MountainCarContinuous-v0: push the weak car uphill with a force from -1 to 1.

    The reward is 100 at the goal, minus 0.1 force^2 per step.

    999 steps at most. As in Gymnasium, except that the reward counts the force as it acts, clipped.
    """

    name = "MountainCarContinuous-v0"
    action_space = _box([1.0])
    max_episode_steps = 999
    goal = 0.45

    def transition(
        self, state: MountainCarState, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[MountainCarState, tf.Tensor, tf.Tensor]:
        force = action[:, 0]
        new, terminated = self._rolled(state, 0.0015 * force)
        return new, tf.where(terminated, 100.0, 0.0) - 0.1 * tf.square(force), terminated


class PendulumState(NamedTuple):
    """Angle from upright (rad, not wrapped) and angular speed (rad/s), each float32 [B]."""

    theta: tf.Tensor
    theta_dot: tf.Tensor


class Pendulum(CompiledEnvironment):
    """Pendulum-v1: swing a pendulum up and hold it with a torque from -2 to 2.

    It never terminates; episodes have 200 steps.

    Its reward, -(angle^2 + 0.1 speed^2 + 0.001 torque^2), is that of the state the torque was
    applied in. As in Gymnasium.
    """

    name = "Pendulum-v1"
    observation_space = _box([1.0, 1.0, 8.0])
    action_space = _box([2.0])
    max_episode_steps = 200
    g = 10.0  # gravity

    def initial(self, keys: tf.Tensor) -> PendulumState:
        angle, speed = (2.0 * u - 1.0 for u in uniforms(keys, 2))
        return PendulumState(angle * math.pi, speed)

    def observe(self, state: PendulumState) -> tf.Tensor:
        # [B, 3]
        return tf.stack([tf.cos(state.theta), tf.sin(state.theta), state.theta_dot], axis=-1)

    def transition(
        self, state: PendulumState, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[PendulumState, tf.Tensor, tf.Tensor]:
        theta, theta_dot = state
        torque = action[:, 0]
        cost = tf.square(wrapped(theta)) + 0.1 * tf.square(theta_dot) + 0.001 * tf.square(torque)
        acceleration = 1.5 * self.g * tf.sin(theta) + 3.0 * torque
        theta_dot = tf.clip_by_value(theta_dot + 0.05 * acceleration, -8.0, 8.0)
        return (
            PendulumState(theta + 0.05 * theta_dot, theta_dot),
            -cost,
            tf.zeros_like(theta, tf.bool),
        )

    def render(self, state: PendulumState) -> np.ndarray:
        canvas = Canvas(-1.3, -1.3, 1.3, 1.3, width=240)
        canvas.line([(0.0, 0.0), (-math.sin(state.theta), math.cos(state.theta))], RED, 0.15)
        canvas.disc((0.0, 0.0), 0.05, BLACK)
        return canvas.pixels()
