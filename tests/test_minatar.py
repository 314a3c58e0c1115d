"""MinAtar's games against the `minatar` package, its random choices replaced by ours: every step, the full state."""

from collections import deque

import numpy as np
import pytest
import tensorflow as tf
from minatar import Environment

import envs.minatar
from envs.compiled import first_keys
from envs.draws import uniforms
from envs.minatar.game import NOTHING
from envs.minatar.seaquest import FISH, RING, SUB
from research import compile as compilation
from research import random

GAMES = {
    "asterix": envs.minatar.Asterix,
    "breakout": envs.minatar.Breakout,
    "freeway": envs.minatar.Freeway,
    "seaquest": envs.minatar.Seaquest,
    "space_invaders": envs.minatar.SpaceInvaders,
}
every = pytest.mark.parametrize("name", GAMES)
MEMBERS = 64


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
        self.choices.queue.extend(draws)
        self.env.last_action = NOTHING  # where the original remembers the episode before; docs/environments.md says so
        self.env.reset()
        assert not self.choices.queue

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


STATES = {name: (globals()[f"{name}_state"], globals()[f"our_{name}"]) for name in GAMES}


def member(state, index):
    return tf.nest.map_structure(lambda part: part[index], state)


def assert_same(name, originals, state, seen, at):
    """The observations, and the full states, of all members."""
    theirs, ours = STATES[name]
    observed = np.stack([o.env.state() for o in originals])
    np.testing.assert_array_equal(seen, observed, err_msg=f"{name}, step {at}")
    arrays = tf.nest.map_structure(lambda part: part.numpy(), state)
    for i, original in enumerate(originals):
        assert ours(member(arrays.game, i)) == theirs(original.game), f"{name}, step {at}, member {i}"
        assert arrays.last_action[i] == original.env.last_action


# ---- the walks ---------------------------------------------------------------------------------------------------


def keys_of(stream, t, count):
    return random.members(random.fold(random.stream(7, stream), t), count)


def draws_of(keys, count):
    return np.stack(uniforms(keys, count), axis=1) if count else np.zeros((keys.shape[0], 0), np.float32)


@every
def test_the_same_episodes_as_the_package(name):
    """12 800 random steps of 64 members, episodes' ends and openings included."""
    env, originals = GAMES[name](), [Original(name) for _ in range(MEMBERS)]
    state = env.open(7, MEMBERS)
    for original, draws in zip(originals, draws_of(first_keys(7, MEMBERS), env.opening_draws), strict=True):
        original.reset(draws)
    assert_same(name, originals, state.state, env.observe(state.state), -1)
    step = compilation.function(env.step, "xla")
    rng, ended, endings, rewards = np.random.default_rng(0), np.zeros(MEMBERS, bool), 0, 0.0
    for t in range(200):
        keys, actions = keys_of("walk", t, MEMBERS), rng.integers(6, size=MEMBERS)
        state, seen = step(state, tf.constant(actions, tf.int32), keys)
        draws, opening = draws_of(keys, 1 + env.draws), draws_of(keys, env.opening_draws)
        for i, original in enumerate(originals):
            if ended[i]:
                original.reset(opening[i])
                assert seen.first[i]
                assert (seen.reward[i], seen.terminated[i]) == (0.0, False)
            else:
                assert (seen.reward[i], seen.terminated[i]) == original.act(actions[i], draws[i]), (t, i)
        assert_same(name, originals, state.state, seen.observation, t)
        ended = seen.terminated.numpy()
        endings, rewards = endings + ended.sum(), rewards + seen.reward.numpy().sum()
    assert endings > MEMBERS or name in ("freeway", "seaquest")
    assert rewards > 0 or name == "freeway"
