"""Games of the `minatar` package played beside ours: its random choices replaced by ours, its full
state as ours is.
"""

from collections import deque
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from minatar import Environment

import sparring.envs.compiled.minatar
from sparring.envs.compiled.minatar.game import NOTHING
from sparring.envs.compiled.minatar.seaquest import FISH, RING, SUB
from sparring.envs.compiled.state import first_keys
from sparring.envs.gymnasium_bridge.vector import Step
from sparring.xla import compilation, random

GAMES = {
    "asterix": sparring.envs.compiled.minatar.Asterix,
    "breakout": sparring.envs.compiled.minatar.Breakout,
    "freeway": sparring.envs.compiled.minatar.Freeway,
    "seaquest": sparring.envs.compiled.minatar.Seaquest,
    "space_invaders": sparring.envs.compiled.minatar.SpaceInvaders,
}
STRIDE = 3  # full states are compared every so many steps, observations at each


class Choices:
    """Stands in for the original's numpy.random.RandomState: gives the uniform numbers it was told,
    in turn.
    """

    def __init__(self):
        self.queue = deque()

    def rand(self, count=None):
        return self._next() if count is None else np.array([self._next() for _ in range(count)])

    def randint(self, low, high=None, size=None):
        low, high = (0, low) if high is None else (low, high)
        draws = [self._next() for _ in range(size or 1)]
        found = [low + int(draw * np.float32(high - low)) for draw in draws]
        return found[0] if size is None else np.array(found)

    def _next(self):
        return self.queue.popleft()


def wanted(game, name):
    """Draws of a step that the original is about to take, in its order, after the sticky one."""
    if name == "asterix" and game.spawn_timer == 0:
        return [0, 1, 2] if None in game.entities else [0, 1]
    if name == "seaquest":
        return [0, 1, 2] * (game.e_spawn_timer == 0) + [3, 4] * (game.d_spawn_timer == 0)
    return []


class Original:
    """One game of the package, driven by our draws."""

    def __init__(self, name, **kwargs):
        self.name = name
        self.choices = Choices()
        self.env = Environment(name, sticky_action_prob=np.float32(0.1), **kwargs)
        self.env.random = self.env.env.random = self.choices
        self.game = self.env.env

    def reset(self, draws):
        """Reward and end of an opening, of which there are none."""
        self.choices.queue.extend(draws)
        self.env.last_action = (
            NOTHING  # where the original remembers the episode before; docs/environments.md says so
        )
        self.env.reset()
        assert not self.choices.queue
        return 0.0, False

    def act(self, action, draws):
        """Reward and end, with `draws`: the sticky one, then the game's."""
        queue = self.choices.queue
        queue.extend([draws[0], *(draws[1 + i] for i in wanted(self.game, self.name))])
        if self.name == "freeway":
            queue.extend(draws[1:])  # which it takes if the chicken gets across
        reward, terminated = self.env.act(int(action))
        assert self.name == "freeway" or not queue  # it drew as often as we foresaw
        assert self.name != "freeway" or len(queue) == (0 if reward else 16)
        queue.clear()
        return reward, terminated


# ---- the originals' full state, in the layout of ours --------------------------------------------


def asterix_state(g):
    rows = [(e[0], e[2], e[3]) if e is not None else None for e in g.entities]
    timers = (g.spawn_speed, g.spawn_timer, g.move_speed, g.move_timer, g.ramp_timer, g.ramp_index)
    return [g.player_x, g.player_y, rows, *timers]


def our_asterix(s):
    there = zip(s.x.tolist(), s.rightwards.tolist(), s.gold.tolist(), strict=True)
    rows = [None if x == -1 else (x, right, gold) for x, right, gold in there]
    timers = (s.spawn_speed, s.spawn_timer, s.move_speed, s.move_timer, s.ramp_timer, s.ramp_index)
    return [s.player_x, s.player_y, rows, *timers]


def breakout_state(g):
    assert not g.brick_map[0].any()
    assert not g.brick_map[4:].any()
    bricks = g.brick_map[1:4].astype(bool).tolist()
    return [g.ball_x, g.ball_y, g.ball_dir, g.last_x, g.last_y, g.pos, bricks, g.strike]


def our_breakout(s):
    return [
        s.ball_x,
        s.ball_y,
        s.direction,
        s.last_x,
        s.last_y,
        s.paddle,
        s.bricks.tolist(),
        s.strike,
    ]


def freeway_state(g):
    cars = [[car[0], car[2], car[3]] for car in g.cars]
    return [g.pos, cars, g.move_timer, g.terminate_timer]


def our_freeway(s):
    cars = np.stack([s.car_x, s.car_timer, s.car_speed], axis=1).tolist()
    return [s.row, cars, s.move_timer, s.time_left]


def seaquest_state(g):
    lists = [
        [list(map(int, thing)) for thing in things]
        for things in (g.f_bullets, g.divers, g.e_fish, g.e_subs)
    ]
    shots = sorted(list(map(int, shot)) for shot in g.e_bullets)  # whose order nothing depends on
    timers = (
        g.e_spawn_speed,
        g.e_spawn_timer,
        g.d_spawn_timer,
        g.move_speed,
        g.shot_timer,
        g.ramp_index,
    )
    return [g.sub_x, g.sub_y, g.sub_or, g.oxygen, g.diver_count, g.surface, *lists, shots, *timers]


def our_seaquest(s):
    def listed(columns, there, order=None):
        rows = np.stack([np.asarray(column, int) for column in columns], axis=-1)
        order = np.arange(len(rows)) if order is None else order
        return [rows[i].tolist() for i in order if there[i]]

    e = s.enemies
    by_age = (np.arange(RING) + s.arrivals) % RING
    bullets = listed(s.bullets[1:4], s.bullets.there)
    divers = listed(s.divers[1:], s.divers.there)
    fish = listed(e[1:5], e.kind == FISH, by_age)
    subs = listed(e[1:6], e.kind == SUB, by_age)
    shots = sorted(listed(s.shots[1:], s.shots.there))
    timers = (s.spawn_speed, s.spawn_timer, s.diver_timer, s.move_speed, s.shot_timer, s.ramp_index)
    head = [s.sub_x, s.sub_y, s.rightwards, s.oxygen, s.divers_aboard, s.surfaced]
    return [*head, bullets, divers, fish, subs, shots, *timers]


def space_invaders_state(g):
    boards = [
        board.astype(bool).tolist() for board in (g.f_bullet_map, g.e_bullet_map, g.alien_map)
    ]
    timers = (
        g.enemy_move_interval,
        g.alien_move_timer,
        g.alien_shot_timer,
        g.ramp_index,
        g.shot_timer,
    )
    return [g.pos, *boards, g.alien_dir, *timers]


def our_space_invaders(s):
    boards = [board.tolist() for board in (s.bullets, s.enemy_bullets, s.aliens)]
    return [
        s.cannon,
        *boards,
        s.direction,
        s.move_interval,
        s.move_timer,
        s.enemy_shot_timer,
        s.ramp_index,
        s.shot_timer,
    ]


STATES = {
    "asterix": (asterix_state, our_asterix),
    "breakout": (breakout_state, our_breakout),
    "freeway": (freeway_state, our_freeway),
    "seaquest": (seaquest_state, our_seaquest),
    "space_invaders": (space_invaders_state, our_space_invaders),
}


# ---- playing both --------------------------------------------------------------------------------


class Walk(NamedTuple):
    """T steps of B games: what each step left, and every STRIDE-th full state of each."""

    observations: np.ndarray  # [T, B, 10, 10, C]
    rewards: np.ndarray  # [T, B]
    ends: np.ndarray  # [T, B] bool
    states: list


def originals_of(name, env, members, **kwargs):
    originals = [Original(name, **kwargs) for _ in range(members)]
    opening = random.uniform(first_keys(7, members), env.opening_draws).numpy()
    for original, draws in zip(originals, opening, strict=True):
        original.reset(draws)
    return originals


def walk_theirs(originals, player, mortal, draws, openings):
    """The package's games under `player(game, rng) -> action`, with our numbers [T, B, n]; and its
    actions [T, B].

    What is not mortal plays on after its game has ended.
    """
    rng = np.random.default_rng(0)
    over = [False] * len(originals)
    steps = []
    actions = []
    states = []
    for t in range(len(draws)):
        actions.append([player(original.game, rng) for original in originals])
        row = [
            original.reset(openings[t, i]) if over[i] else original.act(actions[-1][i], draws[t, i])
            for i, original in enumerate(originals)
        ]
        over = [ended and mortal for _, ended in row]
        for original in originals:
            original.game.terminal &= mortal
        steps.append(
            [
                np.stack([o.env.state() for o in originals]),
                *(np.array(x) for x in zip(*row, strict=True)),
            ]
        )
        if t % STRIDE == 0:
            theirs, _ = STATES[originals[0].name]
            states.append(
                [[*theirs(original.game), original.env.last_action] for original in originals]
            )
    return Walk(*(np.stack(column) for column in zip(*steps, strict=True)), states), np.array(
        actions
    )


def walk_ours(name, env, actions, mortal, keys):
    """Our games under the same actions, in one graph."""
    steps, members = actions.shape
    actions = tf.constant(actions, tf.int32)
    no = tf.zeros([members], tf.bool)

    def body(t, state, arrays):
        state, seen = env.step(state._replace(done=state.done & mortal), actions[t], keys[t])
        parts = tf.nest.flatten((seen, state.state))
        return (
            t + 1,
            state,
            [array.write(t, part) for array, part in zip(arrays, parts, strict=True)],
        )

    def walk():
        state = env.open(7, members)
        row = Step(env.observe(state.state), tf.zeros([members]), no, no, no), state.state
        arrays = [
            tf.TensorArray(part.dtype, steps, element_shape=part.shape)
            for part in tf.nest.flatten(row)
        ]
        *_, arrays = tf.while_loop(
            lambda t, *_: t < steps, body, (0, state, arrays), maximum_iterations=steps
        )
        return tf.nest.pack_sequence_as(row, [array.stack() for array in arrays])

    seen, states = tf.nest.map_structure(
        lambda part: part.numpy(), compilation.function(walk, "graph")()
    )
    _, ours = STATES[name]

    def full(t, i):
        state = tf.nest.map_structure(lambda part: part[t, i], states)
        return [*ours(state.game), state.last_action]

    rows = [[full(t, i) for i in range(members)] for t in range(0, steps, STRIDE)]
    return Walk(seen.observation, seen.reward, seen.terminated, rows)


def walk_both(name, player, steps, members, mortal=True, **kwargs):
    """The package's walk, once ours is the same in every observation, reward, end and state."""
    env = GAMES[name](**kwargs)
    keys = tf.reshape(random.members(random.stream(7, name), steps * members), [steps, members, 2])
    draws, openings = (
        random.uniform(keys, count).numpy() for count in (1 + env.draws, env.opening_draws)
    )
    theirs, actions = walk_theirs(
        originals_of(name, env, members, **kwargs), player, mortal, draws, openings
    )
    ours = walk_ours(name, env, actions, mortal, keys)
    np.testing.assert_array_equal(ours.observations, theirs.observations)
    np.testing.assert_array_equal(ours.rewards, theirs.rewards)
    np.testing.assert_array_equal(ours.ends, theirs.ends)
    for row, (one, other) in enumerate(zip(ours.states, theirs.states, strict=True)):
        assert one == other, f"step {row * STRIDE}"
    return theirs
