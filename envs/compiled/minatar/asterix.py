"""MinAtar's Asterix."""

from typing import NamedTuple

import tensorflow as tf

from sparring.envs.compiled.minatar.game import (
    DOWN,
    LEFT,
    NOTHING,
    RIGHT,
    UP,
    Outcome,
    RampingGame,
    choice,
    filled,
    lanes,
    moved,
    one_cell,
    reward_of,
)

GONE = -1  # the column in a row without a thing
RAMP_INTERVAL = 100
SPAWN_SPEED = 10
MOVE_SPEED = 5


class AsterixState(NamedTuple):
    """State of Asterix, int32 [B] unless noted.

    Each of the rows 1 to 8 has room for one thing: [B, 8].
    """

    player_x: tf.Tensor
    player_y: tf.Tensor
    x: tf.Tensor  # [B, 8]: its column, or GONE
    rightwards: tf.Tensor  # bool [B, 8]
    gold: tf.Tensor  # bool [B, 8]: treasure, else an enemy
    spawn_speed: tf.Tensor  # steps between two arrivals
    spawn_timer: tf.Tensor
    move_speed: tf.Tensor  # steps between two moves of all things
    move_timer: tf.Tensor
    ramp_timer: tf.Tensor
    ramp_index: tf.Tensor


class Asterix(RampingGame):
    """Collect treasures among things that cross from the sides, 1 for each.

    An enemy's touch ends the episode. Things come and move faster with time.
    """

    name = "MinAtar-Asterix"
    channels = ("player", "enemy", "trail", "gold")
    minimal = (NOTHING, LEFT, UP, RIGHT, DOWN)
    draws = 3

    def opening(self, draws: tf.Tensor) -> AsterixState:
        num_envs = draws.shape[0]
        no = tf.zeros([num_envs, 8], tf.bool)
        numbers = (SPAWN_SPEED, SPAWN_SPEED, MOVE_SPEED, MOVE_SPEED, RAMP_INTERVAL, 0)
        middle = filled(num_envs, 5)
        counts = [filled(num_envs, number) for number in numbers]
        return AsterixState(middle, middle, tf.fill([num_envs, 8], GONE), no, no, *counts)

    def play(self, state: AsterixState, action: tf.Tensor, draws: tf.Tensor) -> Outcome:
        spawns = state.spawn_timer == 0
        x, rightwards, gold = _spawned(state, spawns, draws)
        player_x = moved(state.player_x, action, LEFT, RIGHT, 0, 9)
        player_y = moved(state.player_y, action, UP, DOWN, 1, 8)
        beside = tf.range(1, 9) == player_y[:, tf.newaxis]  # [B, 8]: in the player's row

        met = beside & (x == player_x[:, tf.newaxis])
        taken = met & gold
        caught = met & ~gold
        x = tf.where(taken, GONE, x)
        moves = state.move_timer == 0
        x = tf.where(moves[:, tf.newaxis] & (x != GONE), x + tf.where(rightwards, 1, -1), x)
        x = tf.where(x > 9, GONE, x)  # to the left of column 0 is GONE already
        met = beside & (x == player_x[:, tf.newaxis])
        taken_then = met & gold
        caught = caught | (met & ~gold)
        x = tf.where(taken_then, GONE, x)

        new = state._replace(
            player_x=player_x,
            player_y=player_y,
            x=x,
            rightwards=rightwards,
            gold=gold,
            spawn_timer=tf.where(spawns, state.spawn_speed, state.spawn_timer) - 1,
            move_timer=tf.where(moves, state.move_speed, state.move_timer) - 1,
        )
        reward = tf.reduce_sum(tf.cast(taken, tf.int32) + tf.cast(taken_then, tf.int32), axis=1)
        return self._ramped(new), reward_of(reward), tf.reduce_any(caught, axis=1)

    def _ramped(self, state: AsterixState) -> AsterixState:
        """Advance the clock that makes the game harder every 102nd step."""
        if not self.difficulty_ramping:
            return state
        running = (state.spawn_speed > 1) | (state.move_speed > 1)
        due = running & (state.ramp_timer < 0)
        faster = due & (state.move_speed > 1) & (state.ramp_index % 2 == 1)
        return state._replace(
            move_speed=tf.where(faster, state.move_speed - 1, state.move_speed),
            spawn_speed=tf.where(
                due & (state.spawn_speed > 1), state.spawn_speed - 1, state.spawn_speed
            ),
            ramp_index=state.ramp_index + tf.cast(due, tf.int32),
            ramp_timer=tf.where(due, RAMP_INTERVAL, state.ramp_timer - tf.cast(running, tf.int32)),
        )

    def channel_boards(self, state: AsterixState) -> list[tf.Tensor]:
        there = state.x != GONE
        trail = tf.where(there, state.x + tf.where(state.rightwards, -1, 1), GONE)
        return [
            one_cell(state.player_y, state.player_x),
            lanes(tf.where(state.gold, GONE, state.x)),
            lanes(trail),
            lanes(tf.where(state.gold, state.x, GONE)),
        ]


def _spawned(
    state: AsterixState, spawns: tf.Tensor, draws: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return columns, directions and kinds [B, 8] after arrivals.

    Where `spawns` [B], something new comes in one of the free rows.
    """
    right = draws[:, 0] < 1 / 2
    gold = draws[:, 1] < 1 / 3
    place = draws[:, 2]
    free = state.x == GONE
    rank = tf.cumsum(tf.cast(free, tf.int32), axis=1)  # [B, 8]: 1 for the first free row
    chosen = free & (rank == 1 + choice(place, rank[:, -1])[:, tf.newaxis]) & spawns[:, tf.newaxis]
    return (
        tf.where(chosen, tf.where(right, 0, 9)[:, tf.newaxis], state.x),
        tf.where(chosen, right[:, tf.newaxis], state.rightwards),
        tf.where(chosen, gold[:, tf.newaxis], state.gold),
    )
