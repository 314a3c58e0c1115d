"""MinAtar's Freeway."""

from typing import NamedTuple

import tensorflow as tf

from sparring.envs.compiled.minatar.game import (
    DOWN,
    NOTHING,
    UP,
    MinAtarGame,
    Outcome,
    choice,
    filled,
    lanes,
    one_cell,
    reward_of,
)

PLAYER_SPEED = 3
TIME_LIMIT = 2500
COLUMN = 4  # of the chicken
NOWHERE = -1


class FreewayState(NamedTuple):
    """State of Freeway: int32 [B], and [B, 8] for the cars of the rows 1 to 8."""

    row: tf.Tensor  # of the chicken, 9 at the start
    car_x: tf.Tensor  # [B, 8]
    car_timer: tf.Tensor  # [B, 8]
    car_speed: tf.Tensor  # [B, 8]: steps between two moves, 1 to 5, negative to the left
    move_timer: tf.Tensor  # steps until the chicken may move
    time_left: tf.Tensor


class Freeway(MinAtarGame):
    """Cross eight lanes with a chicken: 1 for each crossing, which redraws the cars' speeds.

    A car throws the chicken back to the start; it moves every third step at most. The game ends
    after 2 501 steps, by the task's own rule and so by termination, although the clock cannot be
    seen.
    """

    name = "MinAtar-Freeway"
    channels = ("chicken", "car", "speed1", "speed2", "speed3", "speed4", "speed5")
    minimal = (NOTHING, UP, DOWN)
    opening_draws = draws = 16

    def opening(self, draws: tf.Tensor) -> FreewayState:
        num_envs = draws.shape[0]
        speed = _speeds(draws)
        start = (filled(num_envs, 9), tf.zeros_like(speed), tf.abs(speed), speed)
        return FreewayState(*start, filled(num_envs, PLAYER_SPEED), filled(num_envs, TIME_LIMIT))

    def play(self, state: FreewayState, action: tf.Tensor, draws: tf.Tensor) -> Outcome:
        ready = state.move_timer == 0
        up = ready & (action == UP)
        down = ready & (action == DOWN)
        row = tf.clip_by_value(state.row + tf.cast(down, tf.int32) - tf.cast(up, tf.int32), 0, 9)
        move_timer = tf.where(up | down, PLAYER_SPEED, state.move_timer)
        across = row == 0
        drawn = _speeds(draws)
        speed = tf.where(across[:, tf.newaxis], drawn, state.car_speed)
        timer = tf.where(across[:, tf.newaxis], tf.abs(drawn), state.car_timer)
        row = tf.where(across, 9, row)

        moves = timer == 0
        x = tf.where(moves, state.car_x + tf.sign(speed), state.car_x)
        x = tf.where(x < 0, 9, tf.where(x > 9, 0, x))
        # [B, 8]: the car of the chicken's row, before and after it moves
        beside = tf.range(1, 9) == row[:, tf.newaxis]
        hit = tf.reduce_any(beside & ((state.car_x == COLUMN) | (x == COLUMN)), axis=1)
        new = FreewayState(
            tf.where(hit, 9, row),
            x,
            tf.where(moves, tf.abs(speed), timer - 1),
            speed,
            tf.maximum(move_timer - 1, 0),
            state.time_left - 1,
        )
        return new, reward_of(across), new.time_left < 0

    def channel_boards(self, state: FreewayState) -> list[tf.Tensor]:
        behind = (state.car_x - tf.sign(state.car_speed) + 10) % 10
        trails = [
            lanes(tf.where(tf.abs(state.car_speed) == pace, behind, NOWHERE))
            for pace in range(1, 6)
        ]
        return [one_cell(state.row, tf.fill(state.row.shape, COLUMN)), lanes(state.car_x), *trails]


def _speeds(draws: tf.Tensor) -> tf.Tensor:
    """Return speeds [B, 8]: 1 to 5 from the first eight draws, with signs from the others."""
    pace = 1 + choice(draws[:, :8], 5)
    return tf.where(draws[:, 8:] < 0.5, -pace, pace)
