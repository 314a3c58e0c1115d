"""MinAtar's Space Invaders."""

from typing import NamedTuple

import tensorflow as tf

from sparring.envs.compiled.minatar.game import (
    FIRE,
    LEFT,
    NOTHING,
    RIGHT,
    SIZE,
    Outcome,
    RampingGame,
    filled,
    moved,
    one_cell,
    reward_of,
)

SHOT_COOL_DOWN = 5
MOVE_INTERVAL = 12
SHOT_INTERVAL = 10
FASTEST = 6  # move interval at which a new wave is no faster than the last
NONE = 1000  # greater than any distance


class SpaceInvadersState(NamedTuple):
    """State of Space Invaders: int32 [B], and boards bool [B, 10, 10]."""

    cannon: tf.Tensor
    bullets: tf.Tensor  # board: the player's
    enemy_bullets: tf.Tensor  # board
    aliens: tf.Tensor  # board
    direction: tf.Tensor  # of the aliens, -1 or 1
    # Steps between two moves of many aliens; fewer aliens wait only as many steps as they are
    move_interval: tf.Tensor
    move_timer: tf.Tensor
    enemy_shot_timer: tf.Tensor
    ramp_index: tf.Tensor
    shot_timer: tf.Tensor  # steps until the player may fire


class SpaceInvaders(RampingGame):
    """Shoot aliens that come down and shoot back: 1 for each.

    The episode ends when the cannon is hit or the aliens land. Few aliens move faster, and every
    wave is faster than the last.
    """

    name = "MinAtar-SpaceInvaders"
    channels = ("cannon", "alien", "alien_left", "alien_right", "friendly_bullet", "enemy_bullet")
    minimal = (NOTHING, LEFT, RIGHT, FIRE)

    def opening(self, draws: tf.Tensor) -> SpaceInvadersState:
        num_envs = draws.shape[0]
        empty = tf.zeros([num_envs, SIZE, SIZE], tf.bool)
        numbers = (-1, MOVE_INTERVAL, MOVE_INTERVAL, SHOT_INTERVAL, 0, 0)
        counts = [filled(num_envs, number) for number in numbers]
        return SpaceInvadersState(filled(num_envs, 5), empty, empty, empty | _wave(), *counts)

    def play(self, state: SpaceInvadersState, action: tf.Tensor, draws: tf.Tensor) -> Outcome:
        cannon = moved(state.cannon, action, LEFT, RIGHT, 0, 9)
        fires = (action == FIRE) & (state.shot_timer == 0)
        at_cannon = tf.range(SIZE) == cannon[:, tf.newaxis]  # [B, 10]
        # A bullet leaves row 9 in the step it is fired
        bullets = tf.concat(
            [state.bullets[:, 1:9], (at_cannon & fires[:, tf.newaxis])[:, tf.newaxis]], axis=1
        )
        bullets = tf.pad(bullets, [[0, 0], [0, 1], [0, 0]])
        enemy_bullets = tf.pad(state.enemy_bullets[:, :9], [[0, 0], [1, 0], [0, 0]])
        hit = tf.reduce_any((enemy_bullets[:, 9] | state.aliens[:, 9]) & at_cannon, axis=1)

        moves = state.move_timer == 0
        aliens, direction, landed = _marched(state.aliens, state.direction, moves)
        ended = hit | landed | tf.reduce_any(aliens[:, 9] & at_cannon, axis=1)
        shoots = state.enemy_shot_timer == 0
        enemy_bullets |= _nearest(aliens, cannon) & shoots[:, tf.newaxis, tf.newaxis]
        killed = aliens & bullets
        survivors = aliens & ~killed
        cleared = ~tf.reduce_any(survivors, axis=[1, 2])
        faster = tf.cast(
            cleared & (state.move_interval > FASTEST) & self.difficulty_ramping, tf.int32
        )
        new = SpaceInvadersState(
            cannon,
            bullets & ~killed,
            enemy_bullets,
            survivors | (cleared[:, tf.newaxis, tf.newaxis] & _wave()),
            direction,
            state.move_interval - faster,
            tf.where(moves, tf.minimum(_count(state.aliens), state.move_interval), state.move_timer)
            - 1,
            tf.where(shoots, SHOT_INTERVAL, state.enemy_shot_timer) - 1,
            state.ramp_index + faster,
            tf.maximum(tf.where(fires, SHOT_COOL_DOWN, state.shot_timer) - 1, 0),
        )
        return new, reward_of(_count(killed)), ended

    def channel_boards(self, state: SpaceInvadersState) -> list[tf.Tensor]:
        left = (state.direction < 0)[:, tf.newaxis, tf.newaxis]
        cannon = one_cell(tf.fill(state.cannon.shape, 9), state.cannon)
        return [
            cannon,
            state.aliens,
            state.aliens & left,
            state.aliens & ~left,
            state.bullets,
            state.enemy_bullets,
        ]


def _wave() -> tf.Tensor:
    """Return the board of 24 aliens that opens a wave, bool [10, 10]."""
    cells = tf.range(SIZE)
    return (cells < 4)[:, tf.newaxis] & ((cells >= 2) & (cells < 8))


def _count(board: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(board, tf.int32), axis=[1, 2])


def _marched(
    aliens: tf.Tensor, direction: tf.Tensor, moves: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Move the aliens sideways, or down and turned round at an edge, where `moves` [B].

    Returns boards, directions, and whether the aliens landed.
    """
    left = tf.reduce_any(aliens[:, :, 0], axis=1)
    right = tf.reduce_any(aliens[:, :, 9], axis=1)
    at_edge = tf.where(direction < 0, left, right)
    down = moves & at_edge
    landed = down & tf.reduce_any(aliens[:, 9], axis=1)
    back = (direction < 0)[:, tf.newaxis, tf.newaxis]
    sideways = tf.where(back, tf.roll(aliens, -1, axis=2), tf.roll(aliens, 1, axis=2))
    aliens = tf.where((moves & ~at_edge)[:, tf.newaxis, tf.newaxis], sideways, aliens)
    aliens = tf.where(down[:, tf.newaxis, tf.newaxis], tf.roll(aliens, 1, axis=1), aliens)
    return aliens, tf.where(down, -direction, direction), landed


def _nearest(aliens: tf.Tensor, cannon: tf.Tensor) -> tf.Tensor:
    """Return boards with one cell set: the lowest alien in the column nearest to the cannon.

    Of two columns as near, the left one counts.
    """
    columns = tf.range(SIZE)
    distance = 2 * tf.abs(columns - cannon[:, tf.newaxis]) + tf.cast(
        columns > cannon[:, tf.newaxis], tf.int32
    )
    distance = tf.where(tf.reduce_any(aliens, axis=1), distance, NONE)  # [B, 10]
    nearest = distance == tf.reduce_min(distance, axis=1, keepdims=True)
    # [B, 10, 10]: its row
    height = tf.where(aliens & nearest[:, tf.newaxis, :], columns[:, tf.newaxis], -1)
    return (height >= 0) & (height == tf.reduce_max(height, axis=[1, 2], keepdims=True))
