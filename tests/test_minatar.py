"""MinAtar's games against the `minatar` package, its random choices replaced by ours: every step, the full state."""

from collections import deque
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from minatar import Environment

import envs.minatar
from envs.check import check_environment
from envs.compiled import first_keys
from envs.host import Step
from envs.minatar.game import COLOURS, DOWN, EMPTY, FIRE, LEFT, NOTHING, RIGHT, UP
from envs.minatar.seaquest import FISH, RING, SUB
from research import compile as compilation
from research import random
from research.errors import UserError

GAMES = {
    "asterix": envs.minatar.Asterix,
    "breakout": envs.minatar.Breakout,
    "freeway": envs.minatar.Freeway,
    "seaquest": envs.minatar.Seaquest,
    "space_invaders": envs.minatar.SpaceInvaders,
}
every = pytest.mark.parametrize("name", GAMES)
STRIDE = 3  # full states are compared every so many steps, observations at each


class Choices:
    """Stands in for the original's numpy.random.RandomState: gives the uniform numbers it was told, in turn."""

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
    """Which of a step's draws the original is about to take, in its order, after the sticky one."""
    if name == "asterix" and game.spawn_timer == 0:
        return [0, 1, 2] if None in game.entities else [0, 1]
    if name == "seaquest":
        return [0, 1, 2] * (game.e_spawn_timer == 0) + [3, 4] * (game.d_spawn_timer == 0)
    return []


class Original:
    """One game of the package, driven by our draws."""

    def __init__(self, name, **kwargs):
        self.name, self.choices = name, Choices()
        self.env = Environment(name, sticky_action_prob=np.float32(0.1), **kwargs)
        self.env.random = self.env.env.random = self.choices
        self.game = self.env.env

    def reset(self, draws):
        """Reward and end of an opening, of which there are none."""
        self.choices.queue.extend(draws)
        self.env.last_action = NOTHING  # where the original remembers the episode before; docs/environments.md says so
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


# ---- the originals' full state, in the layout of ours ------------------------------------------------------------


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
    return [s.ball_x, s.ball_y, s.direction, s.last_x, s.last_y, s.paddle, s.bricks.tolist(), s.strike]


def freeway_state(g):
    cars = [[car[0], car[2], car[3]] for car in g.cars]
    return [g.pos, cars, g.move_timer, g.terminate_timer]


def our_freeway(s):
    cars = np.stack([s.car_x, s.car_timer, s.car_speed], axis=1).tolist()
    return [s.row, cars, s.move_timer, s.time_left]


def seaquest_state(g):
    lists = [[list(map(int, thing)) for thing in things] for things in (g.f_bullets, g.divers, g.e_fish, g.e_subs)]
    shots = sorted(list(map(int, shot)) for shot in g.e_bullets)  # whose order nothing depends on
    timers = (g.e_spawn_speed, g.e_spawn_timer, g.d_spawn_timer, g.move_speed, g.shot_timer, g.ramp_index)
    return [g.sub_x, g.sub_y, g.sub_or, g.oxygen, g.diver_count, g.surface, *lists, shots, *timers]


def our_seaquest(s):
    def listed(columns, there, order=None):
        rows = np.stack([np.asarray(column, int) for column in columns], axis=-1)
        order = np.arange(len(rows)) if order is None else order
        return [rows[i].tolist() for i in order if there[i]]

    e, by_age = s.enemies, (np.arange(RING) + s.arrivals) % RING
    bullets = listed(s.bullets[1:4], s.bullets.there)
    divers = listed(s.divers[1:], s.divers.there)
    fish = listed(e[1:5], e.kind == FISH, by_age)
    subs = listed(e[1:6], e.kind == SUB, by_age)
    shots = sorted(listed(s.shots[1:], s.shots.there))
    timers = (s.spawn_speed, s.spawn_timer, s.diver_timer, s.move_speed, s.shot_timer, s.ramp_index)
    head = [s.sub_x, s.sub_y, s.rightwards, s.oxygen, s.divers_aboard, s.surfaced]
    return [*head, bullets, divers, fish, subs, shots, *timers]


def space_invaders_state(g):
    boards = [board.astype(bool).tolist() for board in (g.f_bullet_map, g.e_bullet_map, g.alien_map)]
    timers = (g.enemy_move_interval, g.alien_move_timer, g.alien_shot_timer, g.ramp_index, g.shot_timer)
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


# ---- playing both ------------------------------------------------------------------------------------------------


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
    """The package's games under `player(game, rng) -> action`, with our numbers [T, B, n]; and its actions [T, B].

    What is not mortal plays on after its game has ended.
    """
    rng, over = np.random.default_rng(0), [False] * len(originals)
    steps, actions, states = [], [], []
    for t in range(len(draws)):
        actions.append([player(original.game, rng) for original in originals])
        row = [
            original.reset(openings[t, i]) if over[i] else original.act(actions[-1][i], draws[t, i])
            for i, original in enumerate(originals)
        ]
        over = [ended and mortal for _, ended in row]
        for original in originals:
            original.game.terminal &= mortal
        steps.append([np.stack([o.env.state() for o in originals]), *(np.array(x) for x in zip(*row, strict=True))])
        if t % STRIDE == 0:
            theirs, _ = STATES[originals[0].name]
            states.append([[*theirs(original.game), original.env.last_action] for original in originals])
    return Walk(*(np.stack(column) for column in zip(*steps, strict=True)), states), np.array(actions)


def walk_ours(name, env, actions, mortal, keys):
    """Our games under the same actions, in one graph."""
    steps, members = actions.shape
    actions, no = tf.constant(actions, tf.int32), tf.zeros([members], tf.bool)

    def body(t, state, arrays):
        state, seen = env.step(state._replace(done=state.done & mortal), actions[t], keys[t])
        parts = tf.nest.flatten((seen, state.state))
        return t + 1, state, [array.write(t, part) for array, part in zip(arrays, parts, strict=True)]

    def walk():
        state = env.open(7, members)
        row = Step(env.observe(state.state), tf.zeros([members]), no, no, no), state.state
        arrays = [tf.TensorArray(part.dtype, steps, element_shape=part.shape) for part in tf.nest.flatten(row)]
        *_, arrays = tf.while_loop(lambda t, *_: t < steps, body, (0, state, arrays), maximum_iterations=steps)
        return tf.nest.pack_sequence_as(row, [array.stack() for array in arrays])

    seen, states = tf.nest.map_structure(lambda part: part.numpy(), compilation.function(walk, "graph")())
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
    draws, openings = (random.uniform(keys, count).numpy() for count in (1 + env.draws, env.opening_draws))
    theirs, actions = walk_theirs(originals_of(name, env, members, **kwargs), player, mortal, draws, openings)
    ours = walk_ours(name, env, actions, mortal, keys)
    np.testing.assert_array_equal(ours.observations, theirs.observations)
    np.testing.assert_array_equal(ours.rewards, theirs.rewards)
    np.testing.assert_array_equal(ours.ends, theirs.ends)
    for row, (one, other) in enumerate(zip(ours.states, theirs.states, strict=True)):
        assert one == other, f"step {row * STRIDE}"
    return theirs


def at_random(game, rng):
    return rng.integers(6)


@every
def test_random_play_is_the_packages_step_by_step(name):
    """700 steps of 16 games: over 10 000 transitions beside the openings after an end."""
    walk = walk_both(name, at_random, 700, 16)
    assert walk.ends.size - walk.ends.sum() > 10_000
    assert walk.ends.sum() > 50 or name == "freeway"
    assert walk.rewards.sum() > 10 or name == "freeway"


# ---- far into a game: played on after the ends, by players that get somewhere --------------------------------------


def one_of(rng, *actions):
    return actions[rng.integers(len(actions))]


def keeping_the_ball(game, rng):
    if game.ball_x == game.pos:
        return NOTHING
    return LEFT if game.ball_x < game.pos else RIGHT


def crossing(game, rng):
    return one_of(rng, UP, UP, UP, UP, NOTHING, DOWN)


def shooting(game, rng):
    return one_of(rng, FIRE, FIRE, LEFT, RIGHT)


def diving(game, rng):
    """Fetches divers until six are aboard, surfaces, and then, as the original lets it, again and again."""
    if rng.random() < 0.3:
        return one_of(rng, FIRE, FIRE, LEFT, RIGHT)
    if game.diver_count == 6 or (game.diver_count > 0 and game.oxygen < 40):
        return UP
    if game.diver_count < 0 and game.ramp_index < 40:
        return DOWN if game.surface else UP
    if not game.divers:
        return DOWN if game.sub_y < 4 else NOTHING
    x, y = game.divers[0][:2]
    if y != game.sub_y:
        return UP if y < game.sub_y else DOWN
    return LEFT if x < game.sub_x else RIGHT


def test_asterix_at_every_difficulty():
    """Nine ramps of 102 steps take things from one in ten steps to one a step, and moves from every fifth to each."""
    walk = walk_both("asterix", at_random, 1100, 10, mortal=False)
    first, last = walk.states[0][0], walk.states[-1][0]
    assert (first[3], first[5]) == (10, 5)
    assert (last[3], last[5], last[8]) == (1, 1, 9)
    assert set(walk.rewards.ravel()) >= {0.0, 1.0}
    assert (walk.observations[-300:, ..., 1:].any(axis=(2, 3)).mean(axis=(0, 1)) > 0.8).all()


def test_breakout_with_walls_cleared():
    """A player that hardly misses: walls of 30 bricks broken and built anew, side hits, and misses."""
    walk = walk_both("breakout", keeping_the_ball, 1500, 8)
    bricks = walk.observations[..., 3].sum(axis=(2, 3))  # [T, B]
    assert ((bricks[1:] == 30) & (bricks[:-1] == 0)).any()
    assert walk.ends.any()
    assert set(walk.rewards.ravel()) == {0.0, 1.0}


def test_freeway_to_its_end():
    """Terminated after 2 501 steps, neither before nor after; cars of every speed; crossings on the way."""
    walk = walk_both("freeway", crossing, 2510, 2)
    assert walk.ends[2500].all()
    assert walk.ends.sum() == 2
    assert walk.rewards[:2500].sum() > 4
    assert walk.observations.any(axis=(0, 1, 2, 3)).all()  # every channel was used


def test_seaquest_at_every_difficulty():
    """Divers, fish, submarines, shots at the greatest speed and number; six divers brought up for points."""
    walk = walk_both("seaquest", diving, 1000, 6, mortal=False)
    seen = [state for row in walk.states for state in row]
    assert {(state[11], state[14]) for state in seen} >= {(20, 5), (1, 2)}  # steps between two arrivals, and two moves
    assert walk.rewards.max() > 3  # six divers brought up
    assert min(state[4] for state in seen) < 0
    crowd = max(len(state[8]) + len(state[9]) for state in seen)
    assert 20 < crowd <= RING
    assert {len(state[6]) for state in seen} == {len(state[7]) for state in seen} == {0, 1, 2}  # bullets, divers
    assert walk.observations.any(axis=(0, 1, 2, 3)).all()


def test_space_invaders_wave_after_wave():
    """Waves cleared, each faster than the last; aliens also reach the ground."""
    walk = walk_both("space_invaders", shooting, 1600, 6, mortal=False)
    seen = [state for row in walk.states for state in row]
    assert {state[5] for state in seen} >= {8, 9, 10, 11, 12}
    assert walk.observations[:, :, 9, :, 1].any()
    assert set(walk.rewards.ravel()) >= {0.0, 1.0}
    assert walk.observations.any(axis=(0, 1, 2, 3)).all()


@pytest.mark.parametrize(("interval", "then"), [(12, 11), (7, 6), (6, 6)])
def test_space_invaders_waves_come_faster_until_every_sixth_step(interval, then):
    """The last alien is shot, for 1; the bullet moves up a row and meets it."""
    original, env = Original("space_invaders"), envs.minatar.SpaceInvaders()
    original.reset([])
    game = original.game
    game.alien_map[:], game.enemy_move_interval = 0, interval
    game.alien_map[5, 3] = game.f_bullet_map[6, 3] = 1
    opening = env.initial(random.members(random.stream(0, "test"), 1)).game
    boards = [tf.constant(board[np.newaxis] > 0) for board in (game.f_bullet_map, game.alien_map)]
    ours = opening._replace(bullets=boards[0], aliens=boards[1], move_interval=tf.constant([interval]))
    ours, reward, ended = env.play(ours, tf.constant([NOTHING]), tf.zeros([1, 0]))
    assert original.act(NOTHING, [np.float32(0.5)]) == (reward[0], ended[0]) == (1, False)
    new = tf.nest.map_structure(lambda part: part[0].numpy(), ours)
    assert our_space_invaders(new) == space_invaders_state(game)
    assert (new.move_interval, new.aliens.sum()) == (then, 24)


# ---- what it offers ------------------------------------------------------------------------------------------------


@every
def test_every_promise_of_a_compiled_environment_holds(name):
    check_environment(GAMES[name](), steps=100)


@every
def test_the_minimal_actions_are_the_packages(name):
    env, full, theirs = GAMES[name](minimal_actions=True), GAMES[name](), Environment(name)
    assert list(env.actions) == theirs.minimal_action_set()
    assert (env.action_space.n, full.action_space.n) == (len(env.actions), 6)
    assert list(env.observation_space.shape) == theirs.state_shape()
    keys = random.members(random.stream(0, "test"), len(env.actions))
    state = env.initial(keys)
    ours = env.transition(state, tf.range(len(env.actions)), keys)
    same = full.transition(state, tf.constant(env.actions), keys)
    for one, other in zip(tf.nest.flatten(ours), tf.nest.flatten(same), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_sticky_step_repeats_the_last_action():
    """Of 4 000 paddles told to go right after going left, a tenth go left again; and the repeated one is remembered."""
    keys = random.members(random.stream(0, "test"), 4000)
    right = tf.fill([4000], RIGHT)
    for share, env in ((0.1, envs.minatar.Breakout()), (0.0, envs.minatar.Breakout(sticky_action_prob=0.0))):
        state = env.initial(keys)._replace(last_action=tf.fill([4000], LEFT))
        new, _, _ = env.transition(state, right, keys)
        left = new.game.paddle.numpy() == 3
        assert (left | (new.game.paddle.numpy() == 5)).all()
        np.testing.assert_array_equal(new.last_action, np.where(left, LEFT, RIGHT))
        assert left.mean() == pytest.approx(share, abs=0.02)
    with pytest.raises(UserError, match=r"sticky_action_prob=1.5: a probability"):
        envs.minatar.Breakout(sticky_action_prob=1.5)


def test_difficulty_stays_where_it_is_without_ramping():
    for name in ("asterix", "space_invaders", "seaquest"):
        env, count = GAMES[name](difficulty_ramping=False), 4
        game = env.initial(random.members(random.stream(0, "test"), count)).game
        one = tf.ones([count], tf.int32)
        if name == "asterix":
            hard = game._replace(ramp_timer=-one)
        elif name == "seaquest":
            hard = game._replace(surfaced=tf.zeros([count], tf.bool), divers_aboard=one, ramp_index=one)
        else:
            hard = game._replace(aliens=tf.zeros_like(game.aliens))
        still, draws = tf.fill([count], NOTHING), tf.ones([count, env.draws]) * 0.5
        assert env.play(hard, still, draws)[0].ramp_index.numpy().tolist() == hard.ramp_index.numpy().tolist()
        ramped = GAMES[name]().play(hard, still, draws)[0]
        assert ramped.ramp_index.numpy().tolist() == (hard.ramp_index + 1).numpy().tolist()


@every
def test_the_picture_shows_each_channel_in_its_colour(name):
    env = GAMES[name]()
    opening = env.initial(random.members(random.stream(0, "test"), 1))
    picture = env.render(tf.nest.map_structure(lambda part: part[0].numpy(), opening))
    board, side = env.observe(opening)[0].numpy(), picture.shape[0] // 10
    assert picture.shape == (10 * side, 10 * side, 3)
    colours = np.array([EMPTY, *COLOURS])
    for y, x in np.ndindex(10, 10):
        channel = max(np.flatnonzero(board[y, x]) + 1, default=0)
        np.testing.assert_array_equal(picture[y * side + side // 2, x * side + side // 2], colours[channel])
    assert len(np.unique(colours, axis=0)) == 11
