"""MinAtar's Breakout."""

from typing import NamedTuple

import tensorflow as tf

from sparring.envs.compiled.minatar.game import (
    LEFT,
    NOTHING,
    RIGHT,
    SIZE,
    MinAtarGame,
    Outcome,
    choice,
    filled,
    moved,
    one_cell,
    reward_of,
)


class BreakoutState(NamedTuple):
    """State of Breakout, int32 [B] unless noted.

    Directions: 0 up left, 1 up right, 2 down right, 3 down left.
    """

    ball_x: tf.Tensor
    ball_y: tf.Tensor
    direction: tf.Tensor
    last_x: tf.Tensor
    last_y: tf.Tensor
    paddle: tf.Tensor
    bricks: tf.Tensor  # bool [B, 3, 10], the rows 1 to 3 of the board
    strike: tf.Tensor  # bool [B]: the ball is among bricks, having broken one on its way in


class Breakout(MinAtarGame):
    """Keep a ball from the ground with a paddle; 1 for each brick the ball breaks.

    The episode ends when the ball is missed. The ball goes along diagonals. Three new rows of
    bricks come when all are broken and the ball is down again.
    """

    name = "MinAtar-Breakout"
    channels = ("paddle", "ball", "trail", "brick")
    minimal = (NOTHING, LEFT, RIGHT)
    opening_draws = 1

    def opening(self, draws: tf.Tensor) -> BreakoutState:
        num_envs = draws.shape[0]
        # From the left edge down right, or from the right edge down left
        right = choice(draws[:, 0], 2) == 1
        x = tf.where(right, 9, 0)
        y = filled(num_envs, 3)
        bricks = tf.ones([num_envs, 3, SIZE], tf.bool)
        no = tf.zeros([num_envs], tf.bool)
        return BreakoutState(x, y, tf.where(right, 3, 2), x, y, filled(num_envs, 4), bricks, no)

    def play(self, state: BreakoutState, action: tf.Tensor, draws: tf.Tensor) -> Outcome:
        paddle = moved(state.paddle, action, LEFT, RIGHT, 0, 9)
        direction = state.direction
        x = state.ball_x + tf.where((direction == 1) | (direction == 2), 1, -1)
        y = state.ball_y + tf.where(direction >= 2, 1, -1)
        off_wall = (x < 0) | (x > 9)
        x = tf.clip_by_value(x, 0, 9)
        direction = tf.where(off_wall, direction ^ 1, direction)

        off_ceiling = y < 0
        target = one_cell(y - 1, x)[:, :3]  # [B, 3, 10]
        in_brick = tf.reduce_any(state.bricks & target, axis=[1, 2])
        broken = in_brick & ~state.strike
        bricks = state.bricks & ~(target & broken[:, tf.newaxis, tf.newaxis])

        down = y == 9
        refill = down & ~tf.reduce_any(bricks, axis=[1, 2])
        bricks |= refill[:, tf.newaxis, tf.newaxis]
        from_above = down & (state.ball_x == paddle)
        from_the_side = down & ~from_above & (x == paddle)
        direction = tf.where(off_ceiling | broken | from_above, 3 - direction, direction)
        direction = tf.where(from_the_side, direction ^ 2, direction)
        y = tf.where(off_ceiling, 0, tf.where(broken | from_above | from_the_side, state.ball_y, y))
        new = BreakoutState(x, y, direction, state.ball_x, state.ball_y, paddle, bricks, in_brick)
        return new, reward_of(broken), down & ~from_above & ~from_the_side

    def channel_boards(self, state: BreakoutState) -> list[tf.Tensor]:
        return [
            one_cell(tf.fill(state.paddle.shape, 9), state.paddle),
            one_cell(state.ball_y, state.ball_x),
            one_cell(state.last_y, state.last_x),
            tf.pad(state.bricks, [[0, 0], [1, 6], [0, 0]]),
        ]
