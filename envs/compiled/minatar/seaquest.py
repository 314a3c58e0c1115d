"""MinAtar's Seaquest.

The original keeps its moving things in lists, whose order decides which of two in one cell is hit.
Here enemies have slots in a ring of RING, filled in turn, so that a slot gives an enemy's age; of
bullets and divers there are never more than two at once. No enemy lives through RING arrivals: it
is gone after 60 steps at the first speed, with 18 steps between arrivals, and after 30 steps at the
last, with one arrival a step. An enemy submarine's shot is gone before its next one, so the shots
have the slots of the submarines that fired them.
"""

from typing import NamedTuple

import tensorflow as tf

from sparring.envs.compiled.minatar.game import (
    DOWN,
    FIRE,
    LEFT,
    NOTHING,
    RIGHT,
    SIZE,
    UP,
    Outcome,
    RampingGame,
    choice,
    filled,
    moved,
    one_cell,
    reward_of,
)

RING = 32
MAX_OXYGEN = 200
MAX_DIVERS = 6
ENEMY_SPAWN_SPEED = 20
DIVER_SPAWN_SPEED = 30
MOVE_SPEED = 5
FASTEST = 2
DIVER_SPEED = 5
SHOT_COOL_DOWN = 5
ENEMY_SHOT_INTERVAL = 10
GONE, FISH, SUB = range(3)


class Pair(NamedTuple):
    """Two slots for things, the older first, each [B, 2]; `there` marks those in use.

    `timer` is of use to divers alone.
    """

    there: tf.Tensor  # bool
    x: tf.Tensor  # int32
    y: tf.Tensor  # int32
    rightwards: tf.Tensor  # bool
    timer: tf.Tensor  # int32


class Enemies(NamedTuple):
    """Fish and submarines, int32 [B, RING] unless noted."""

    kind: tf.Tensor  # GONE, FISH or SUB
    x: tf.Tensor
    y: tf.Tensor
    rightwards: tf.Tensor  # bool
    timer: tf.Tensor  # steps until it moves
    shot_timer: tf.Tensor  # steps until a submarine shoots


class Shots(NamedTuple):
    """Bullets of the enemies, [B, RING]."""

    there: tf.Tensor  # bool
    x: tf.Tensor  # int32
    y: tf.Tensor  # int32
    rightwards: tf.Tensor  # bool


class SeaquestState(NamedTuple):
    """State of Seaquest, int32 [B] unless noted."""

    sub_x: tf.Tensor
    sub_y: tf.Tensor
    rightwards: tf.Tensor  # bool [B]: whether the submarine faces right
    oxygen: tf.Tensor
    divers_aboard: tf.Tensor  # below 0 after all six went ashore, as in the original
    surfaced: tf.Tensor  # bool [B]
    bullets: Pair
    divers: Pair
    enemies: Enemies
    shots: Shots
    arrivals: tf.Tensor  # the next enemy's slot in the ring
    spawn_speed: tf.Tensor  # steps between two enemies
    spawn_timer: tf.Tensor
    diver_timer: tf.Tensor  # steps until a diver comes
    move_speed: tf.Tensor  # steps an enemy waits between two moves
    shot_timer: tf.Tensor  # steps until the player may fire
    ramp_index: tf.Tensor


class Seaquest(RampingGame):
    """Shoot fish and submarines, 1 for each, and bring divers to the surface before air runs out.

    Six divers at once are worth 10 times the share of oxygen that is left. The episode ends when
    the submarine is hit, is out of oxygen, or surfaces without a diver. Every surfacing makes
    enemies come and move faster.
    """

    name = "MinAtar-Seaquest"
    channels = (
        "sub_front",
        "sub_back",
        "friendly_bullet",
        "trail",
        "enemy_bullet",
        "enemy_fish",
        "enemy_sub",
        "oxygen_gauge",
        "diver_gauge",
        "diver",
    )
    minimal = (NOTHING, LEFT, UP, RIGHT, DOWN, FIRE)
    draws = 5

    def opening(self, draws: tf.Tensor) -> SeaquestState:
        num_envs = draws.shape[0]

        def zeros(count: int, *truths: bool) -> list[tf.Tensor]:
            return [tf.zeros([num_envs, count], tf.bool if truth else tf.int32) for truth in truths]

        def number(value: int) -> tf.Tensor:
            return filled(num_envs, value)

        pair = Pair(*zeros(2, True, False, False, True, False))
        return SeaquestState(
            sub_x=number(5),
            sub_y=number(0),
            rightwards=tf.zeros([num_envs], tf.bool),
            oxygen=number(MAX_OXYGEN),
            divers_aboard=number(0),
            surfaced=tf.ones([num_envs], tf.bool),
            bullets=pair,
            divers=pair,
            enemies=Enemies(*zeros(RING, False, False, False, True, False, False)),
            shots=Shots(*zeros(RING, True, False, False, True)),
            arrivals=number(0),
            spawn_speed=number(ENEMY_SPAWN_SPEED),
            spawn_timer=number(ENEMY_SPAWN_SPEED),
            diver_timer=number(DIVER_SPAWN_SPEED),
            move_speed=number(MOVE_SPEED),
            shot_timer=number(0),
            ramp_index=number(0),
        )

    def play(self, state: SeaquestState, action: tf.Tensor, draws: tf.Tensor) -> Outcome:
        state = _enemy_arrives(state, draws[:, :3])
        state = _diver_arrives(state, draws[:, 3:])
        state = _steered(state, action)
        state, shot_down = _bullets_fly(state)
        state = _divers_swim(state)
        state, by_subs, rammed = _enemies_move(state, SUB)
        state, struck = _shots_fly(state)
        state, by_fish, bitten = _enemies_move(state, FISH)
        state = state._replace(
            spawn_timer=tf.maximum(state.spawn_timer - 1, 0),
            diver_timer=tf.maximum(state.diver_timer - 1, 0),
            shot_timer=tf.maximum(state.shot_timer - 1, 0),
        )
        state, gain, drowned = self._breathe(state)
        reward = shot_down + by_subs + by_fish + gain
        return state, reward_of(reward), rammed | struck | bitten | drowned

    def _breathe(self, state: SeaquestState) -> tuple[SeaquestState, tf.Tensor, tf.Tensor]:
        """Use up oxygen, or surface: return the state, the reward for six divers, and the end."""
        below = state.sub_y > 0
        arrives = ~below & ~state.surfaced
        up = arrives & (state.divers_aboard != 0)
        full = up & (state.divers_aboard == MAX_DIVERS)
        gain = tf.where(full, state.oxygen * 10 // MAX_OXYGEN, 0)
        ended = (state.oxygen <= 0) | (arrives & ~up)
        running = (
            up & ((state.spawn_speed > 1) | (state.move_speed > FASTEST)) & self.difficulty_ramping
        )
        moves_faster = running & (state.move_speed > FASTEST) & (state.ramp_index % 2 == 1)
        new = state._replace(
            oxygen=tf.where(up, MAX_OXYGEN, state.oxygen - tf.cast(below, tf.int32)),
            surfaced=~below & (state.surfaced | up),
            divers_aboard=tf.where(full, 0, state.divers_aboard) - tf.cast(up, tf.int32),
            move_speed=state.move_speed - tf.cast(moves_faster, tf.int32),
            spawn_speed=state.spawn_speed - tf.cast(running & (state.spawn_speed > 1), tf.int32),
            ramp_index=state.ramp_index + tf.cast(running, tf.int32),
        )
        return new, gain, ended

    def channel_boards(self, state: SeaquestState) -> list[tf.Tensor]:
        enemies = state.enemies
        divers = state.divers
        fish = enemies.kind == FISH
        subs = enemies.kind == SUB
        swimming = divers.there
        behind = _drawn(fish | subs, enemies.x, enemies.y, enemies.rightwards)
        bottom = (tf.range(SIZE) == 9)[:, tf.newaxis]
        columns = tf.range(SIZE)
        # [B, 10]
        oxygen = columns < (tf.maximum(state.oxygen, 0) * 10 // MAX_OXYGEN)[:, tf.newaxis]
        aboard = (columns < 9) & (columns >= 9 - state.divers_aboard[:, tf.newaxis])
        return [
            one_cell(state.sub_y, state.sub_x),
            one_cell(state.sub_y, state.sub_x + tf.where(state.rightwards, -1, 1)),
            _drawn(state.bullets.there, state.bullets.x, state.bullets.y),
            behind | _drawn(swimming, divers.x, divers.y, divers.rightwards),
            _drawn(state.shots.there, state.shots.x, state.shots.y),
            _drawn(fish, enemies.x, enemies.y),
            _drawn(subs, enemies.x, enemies.y),
            oxygen[:, tf.newaxis] & bottom,
            aboard[:, tf.newaxis] & bottom,
            _drawn(swimming, divers.x, divers.y),
        ]


def _drawn(
    there: tf.Tensor, x: tf.Tensor, y: tf.Tensor, rightwards: tf.Tensor | None = None
) -> tf.Tensor:
    """Return a board [B, 10, 10] of things [B, N], N a power of two.

    With `rightwards`, the cells behind them are drawn instead. Each thing is a bit of its row's
    integer, so that 10 cells cost as much as one.
    """
    if rightwards is not None:
        x = x + tf.where(rightwards, -1, 1)
    seen = there & (x >= 0) & (x < SIZE)
    bit = tf.where(seen, tf.bitwise.left_shift(1, tf.clip_by_value(x, 0, 9)), 0)  # [B, N]
    rows = tf.where(y[:, :, tf.newaxis] == tf.range(SIZE), bit[:, :, tf.newaxis], 0)  # [B, N, 10]
    while rows.shape[1] > 1:  # unrolled: TensorFlow has no reduction by "or" of bits
        half = rows.shape[1] // 2
        rows = tf.bitwise.bitwise_or(rows[:, :half], rows[:, half:])
    columns = tf.bitwise.left_shift(1, tf.range(SIZE))
    return tf.bitwise.bitwise_and(rows[:, 0, :, tf.newaxis], columns) != 0


def _ahead(x: tf.Tensor, rightwards: tf.Tensor) -> tf.Tensor:
    return x + tf.where(rightwards, 1, -1)


def _outside(x: tf.Tensor) -> tf.Tensor:
    return (x < 0) | (x > 9)


def _meets_sub(state: SeaquestState, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Return which of the things [B, N] are in the cell of the player's submarine."""
    return (x == state.sub_x[:, tf.newaxis]) & (y == state.sub_y[:, tf.newaxis])


def _age_order(state: SeaquestState) -> tf.Tensor:
    """Return ages [B, RING]: 0 for the ring's oldest slot, RING - 1 for the newest."""
    return (tf.range(RING) - state.arrivals[:, tf.newaxis]) % RING


# ---- arrivals ------------------------------------------------------------------------------------


def _enemy_arrives(state: SeaquestState, draws: tf.Tensor) -> SeaquestState:
    """Add an enemy when one is due, unless one in its row goes the other way."""
    right = draws[:, 0] < 1 / 2
    sub = draws[:, 1] < 1 / 3
    y = 1 + choice(draws[:, 2], 8)
    enemies = state.enemies
    due = state.spawn_timer == 0
    against = (
        (enemies.kind != GONE)
        & (enemies.y == y[:, tf.newaxis])
        & (enemies.rightwards != right[:, tf.newaxis])
    )
    comes = due & ~tf.reduce_any(against, axis=1)
    place = comes[:, tf.newaxis] & (tf.range(RING) == state.arrivals[:, tf.newaxis])  # [B, RING]
    newcomer = Enemies(
        tf.where(sub, SUB, FISH),
        tf.where(right, 0, 9),
        y,
        right,
        state.move_speed,
        tf.fill(y.shape, ENEMY_SHOT_INTERVAL),
    )
    return state._replace(
        enemies=Enemies(
            *(
                tf.where(place, new[:, tf.newaxis], old)
                for new, old in zip(newcomer, enemies, strict=True)
            )
        ),
        arrivals=(state.arrivals + tf.cast(comes, tf.int32)) % RING,
        spawn_timer=tf.where(due, state.spawn_speed, state.spawn_timer),
    )


def _diver_arrives(state: SeaquestState, draws: tf.Tensor) -> SeaquestState:
    right = draws[:, 0] < 1 / 2
    y = 1 + choice(draws[:, 1], 8)
    due = state.diver_timer == 0
    divers = _joined(state.divers, due, tf.where(right, 0, 9), y, right)
    return state._replace(
        divers=divers, diver_timer=tf.where(due, DIVER_SPAWN_SPEED, state.diver_timer)
    )


def _joined(
    pair: Pair, comes: tf.Tensor, x: tf.Tensor, y: tf.Tensor, rightwards: tf.Tensor
) -> Pair:
    """Return the pair with another, newest thing where `comes` [B]; there is room for it."""
    second = pair.there[:, 0]
    place = comes[:, tf.newaxis] & tf.stack([~second, second], axis=1)  # [B, 2]
    newcomer = Pair(tf.ones_like(comes), x, y, rightwards, tf.fill(x.shape, DIVER_SPEED))
    return Pair(
        *(tf.where(place, new[:, tf.newaxis], old) for new, old in zip(newcomer, pair, strict=True))
    )


def _closed_up(pair: Pair) -> Pair:
    """Return the pair with the younger thing in the older one's slot, if that is empty."""
    hole = ~pair.there[:, :1]
    first = [tf.where(hole, part[:, 1:], part[:, :1]) for part in pair]
    closed = Pair(
        *(tf.concat([one, part[:, 1:]], axis=1) for one, part in zip(first, pair, strict=True))
    )
    return closed._replace(
        there=tf.concat([closed.there[:, :1], pair.there[:, 1:] & ~hole], axis=1)
    )


# ---- the player ----------------------------------------------------------------------------------


def _steered(state: SeaquestState, action: tf.Tensor) -> SeaquestState:
    fires = (action == FIRE) & (state.shot_timer == 0)
    return state._replace(
        bullets=_joined(state.bullets, fires, state.sub_x, state.sub_y, state.rightwards),
        shot_timer=tf.where(fires, SHOT_COOL_DOWN, state.shot_timer),
        sub_x=moved(state.sub_x, action, LEFT, RIGHT, 0, 9),
        sub_y=moved(state.sub_y, action, UP, DOWN, 0, 8),
        rightwards=tf.where(action == LEFT, False, (action == RIGHT) | state.rightwards),
    )


def _bullets_fly(state: SeaquestState) -> tuple[SeaquestState, tf.Tensor]:
    """Move the player's bullets a cell on, the newer first; also return the number of hits.

    Each bullet hits the oldest fish in its cell, else the oldest submarine.
    """
    bullets = state.bullets
    kind = state.enemies.kind
    order = _age_order(state)
    x = _ahead(bullets.x, bullets.rightwards)
    there = [bullets.there[:, 0] & ~_outside(x[:, 0]), bullets.there[:, 1] & ~_outside(x[:, 1])]
    hits = 0
    for which in (1, 0):
        here = (state.enemies.x == x[:, which, tf.newaxis]) & (
            state.enemies.y == bullets.y[:, which, tf.newaxis]
        )
        here &= there[which][:, tf.newaxis] & (kind != GONE)
        rank = tf.where(here, order + tf.where(kind == SUB, RING, 0), 2 * RING)
        hit = here & (rank == tf.reduce_min(rank, axis=1, keepdims=True))  # [B, RING], one at most
        strikes = tf.reduce_any(hit, axis=1)
        kind = tf.where(hit, GONE, kind)
        there[which] &= ~strikes
        hits += tf.cast(strikes, tf.int32)
    bullets = _closed_up(bullets._replace(x=x, there=tf.stack(there, axis=1)))
    return state._replace(bullets=bullets, enemies=state.enemies._replace(kind=kind)), hits


def _divers_swim(state: SeaquestState) -> SeaquestState:
    """Move divers every sixth step and take them aboard, the newer first, while there is room.

    A diver is taken aboard in the submarine's cell before or after its move.
    """
    divers = state.divers
    aboard = state.divers_aboard
    due = divers.timer == 0
    x = tf.where(due, _ahead(divers.x, divers.rightwards), divers.x)
    before = _meets_sub(state, divers.x, divers.y)
    after = _meets_sub(state, x, divers.y) & due
    there: list[tf.Tensor] = []
    for which in (1, 0):
        taken = divers.there[:, which] & (before | after)[:, which] & (aboard < MAX_DIVERS)
        aboard += tf.cast(taken, tf.int32)
        there.insert(0, divers.there[:, which] & ~taken & ~_outside(x[:, which]))
    timer = tf.where(due, DIVER_SPEED, divers.timer - 1)
    return state._replace(
        divers=_closed_up(divers._replace(x=x, timer=timer, there=tf.stack(there, axis=1))),
        divers_aboard=aboard,
    )


# ---- the enemies ---------------------------------------------------------------------------------


def _enemies_move(state: SeaquestState, kind: int) -> tuple[SeaquestState, tf.Tensor, tf.Tensor]:
    """Move fish or submarines when they are due.

    Returns the state, how many ran into bullets, and whether one of them met the player. Submarines
    also shoot, even those that leave or are hit.
    """
    enemies = state.enemies
    those = enemies.kind == kind
    due = those & (enemies.timer == 0)
    x = tf.where(due, _ahead(enemies.x, enemies.rightwards), enemies.x)
    met = those & (_meets_sub(state, enemies.x, enemies.y) | _meets_sub(state, x, enemies.y))
    leaves = due & _outside(x)
    exposed = due & ~leaves & ~_meets_sub(state, x, enemies.y)
    bullets, hit = _run_into(state, exposed, x)
    moved_on = enemies._replace(
        kind=tf.where(leaves | hit, GONE, enemies.kind),
        x=x,
        timer=tf.where(
            due, state.move_speed[:, tf.newaxis], enemies.timer - tf.cast(those, tf.int32)
        ),
    )
    state = state._replace(enemies=moved_on, bullets=bullets)
    if kind == SUB:
        state = _submarines_shoot(state, those, x)
    return state, tf.reduce_sum(tf.cast(hit, tf.int32), axis=1), tf.reduce_any(met, axis=1)


def _run_into(state: SeaquestState, exposed: tf.Tensor, x: tf.Tensor) -> tuple[Pair, tf.Tensor]:
    """Let enemies in `exposed` [B, RING], now at x, meet bullets.

    The newest enemy comes first, and each meets the oldest bullet in its cell. Returns the bullets
    that are left, and which enemies were hit.
    """
    there = state.bullets.there
    order = _age_order(state)
    hit = tf.zeros_like(exposed)
    # [B, RING, 2]
    same = (x[:, :, tf.newaxis] == state.bullets.x[:, tf.newaxis]) & (
        state.enemies.y[:, :, tf.newaxis] == state.bullets.y[:, tf.newaxis]
    )
    for _ in range(2):
        meeting = same & exposed[:, :, tf.newaxis] & there[:, tf.newaxis]
        rank = tf.where(tf.reduce_any(meeting, axis=2), order, -1)
        # [B, RING], one at most
        newest = (rank >= 0) & (rank == tf.reduce_max(rank, axis=1, keepdims=True))
        spent = tf.reduce_any(meeting & newest[:, :, tf.newaxis], axis=1)  # [B, 2]
        spent &= tf.stack([tf.ones_like(spent[:, 0]), ~spent[:, 0]], axis=1)
        there = there & ~spent
        hit = hit | newest
        exposed = exposed & ~newest
    return _closed_up(state.bullets._replace(there=there)), hit


def _submarines_shoot(state: SeaquestState, those: tf.Tensor, x: tf.Tensor) -> SeaquestState:
    enemies = state.enemies
    shots = state.shots
    shoot = those & (enemies.shot_timer == 0)
    fired = Shots(tf.ones_like(those), x, enemies.y, enemies.rightwards)
    return state._replace(
        enemies=enemies._replace(
            shot_timer=tf.where(
                shoot, ENEMY_SHOT_INTERVAL, enemies.shot_timer - tf.cast(those, tf.int32)
            )
        ),
        shots=Shots(*(tf.where(shoot, new, old) for new, old in zip(fired, shots, strict=True))),
    )


def _shots_fly(state: SeaquestState) -> tuple[SeaquestState, tf.Tensor]:
    """Move the enemies' bullets a cell on; also return whether one met the player.

    A bullet meets the player in its cell before or after its move.
    """
    shots = state.shots
    x = _ahead(shots.x, shots.rightwards)
    met = shots.there & (_meets_sub(state, shots.x, shots.y) | _meets_sub(state, x, shots.y))
    return state._replace(
        shots=shots._replace(x=x, there=shots.there & ~_outside(x))
    ), tf.reduce_any(met, axis=1)
