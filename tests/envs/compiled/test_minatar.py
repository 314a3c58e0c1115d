"""MinAtar's games against the `minatar` package, its random choices replaced by ours: every step,
the full state.
"""

import numpy as np
import pytest
import tensorflow as tf
from minatar import Environment

import sparring.envs.compiled.minatar
from sparring.envs.compiled.minatar.game import COLOURS, DOWN, EMPTY, FIRE, LEFT, NOTHING, RIGHT, UP
from sparring.envs.compiled.minatar.seaquest import RING
from sparring.envs.testing.check import check_environment
from sparring.errors import UserError
from sparring.xla import random
from tests.helpers.minatar_package import GAMES, STATES, Original, walk_both

pytestmark = pytest.mark.long

every = pytest.mark.parametrize("name", GAMES)


def at_random(game, rng):
    return rng.integers(6)


@every
def test_random_play_is_the_packages_step_by_step(name):
    """700 steps of 16 games: over 10 000 transitions beside the openings after an end."""
    walk = walk_both(name, at_random, 700, 16)
    assert walk.ends.size - walk.ends.sum() > 10_000
    assert walk.ends.sum() > 50 or name == "freeway"
    assert walk.rewards.sum() > 10 or name == "freeway"


# ---- far into a game: played on after the ends, by players that get somewhere --------------------


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
    """Fetches divers until six are aboard, surfaces, and then, as the original lets it, again and
    again.
    """
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
    """Nine ramps of 102 steps take things from one in ten steps to one a step, and moves from every
    fifth to each.
    """
    walk = walk_both("asterix", at_random, 1100, 10, mortal=False)
    first = walk.states[0][0]
    last = walk.states[-1][0]
    assert (first[3], first[5]) == (10, 5)
    assert (last[3], last[5], last[8]) == (1, 1, 9)
    assert set(walk.rewards.ravel()) >= {0.0, 1.0}
    assert (walk.observations[-300:, ..., 1:].any(axis=(2, 3)).mean(axis=(0, 1)) > 0.8).all()


def test_breakout_with_walls_cleared():
    """A player that hardly misses: walls of 30 bricks broken and built anew, side hits,
    and misses.
    """
    walk = walk_both("breakout", keeping_the_ball, 1500, 8)
    bricks = walk.observations[..., 3].sum(axis=(2, 3))  # [T, B]
    assert ((bricks[1:] == 30) & (bricks[:-1] == 0)).any()
    assert walk.ends.any()
    assert set(walk.rewards.ravel()) == {0.0, 1.0}


def test_freeway_to_its_end():
    """Terminated after 2 501 steps, neither before nor after; cars of every speed; crossings on the
    way.
    """
    walk = walk_both("freeway", crossing, 2510, 2)
    assert walk.ends[2500].all()
    assert walk.ends.sum() == 2
    assert walk.rewards[:2500].sum() > 4
    assert walk.observations.any(axis=(0, 1, 2, 3)).all()  # every channel was used


def test_seaquest_at_every_difficulty():
    """Divers, fish, submarines, shots at the greatest speed and number; six divers brought up for
    points.
    """
    walk = walk_both("seaquest", diving, 1000, 6, mortal=False)
    seen = [state for row in walk.states for state in row]
    assert {(state[11], state[14]) for state in seen} >= {
        (20, 5),
        (1, 2),
    }  # steps between two arrivals, and two moves
    assert walk.rewards.max() > 3  # six divers brought up
    assert min(state[4] for state in seen) < 0
    crowd = max(len(state[8]) + len(state[9]) for state in seen)
    assert 20 < crowd <= RING
    # Bullets, divers
    assert {len(state[6]) for state in seen} == {len(state[7]) for state in seen} == {0, 1, 2}
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
    original = Original("space_invaders")
    env = sparring.envs.compiled.minatar.SpaceInvaders()
    original.reset([])
    game = original.game
    game.alien_map[:] = 0
    game.enemy_move_interval = interval
    game.alien_map[5, 3] = game.f_bullet_map[6, 3] = 1
    opening = env.initial(random.members(random.stream(0, "test"), 1)).game
    boards = [tf.constant(board[np.newaxis] > 0) for board in (game.f_bullet_map, game.alien_map)]
    ours = opening._replace(
        bullets=boards[0], aliens=boards[1], move_interval=tf.constant([interval])
    )
    ours, reward, ended = env.play(ours, tf.constant([NOTHING]), tf.zeros([1, 0]))
    assert original.act(NOTHING, [np.float32(0.5)]) == (reward[0], ended[0]) == (1, False)
    new = tf.nest.map_structure(lambda part: part[0].numpy(), ours)
    theirs_of, ours_of = STATES["space_invaders"]
    assert ours_of(new) == theirs_of(game)
    assert (new.move_interval, new.aliens.sum()) == (then, 24)


# ---- what it offers ------------------------------------------------------------------------------


@every
def test_every_promise_of_a_compiled_environment_holds(name):
    check_environment(GAMES[name](), steps=100)


@every
def test_the_minimal_actions_are_the_packages(name):
    env = GAMES[name](minimal_actions=True)
    full = GAMES[name]()
    theirs = Environment(name)
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
    """Of 4 000 paddles told to go right after going left, a tenth go left again; and the repeated
    one is remembered.
    """
    keys = random.members(random.stream(0, "test"), 4000)
    right = tf.fill([4000], RIGHT)
    for share, env in (
        (0.1, sparring.envs.compiled.minatar.Breakout()),
        (0.0, sparring.envs.compiled.minatar.Breakout(sticky_action_prob=0.0)),
    ):
        state = env.initial(keys)._replace(last_action=tf.fill([4000], LEFT))
        new, _, _ = env.transition(state, right, keys)
        left = new.game.paddle.numpy() == 3
        assert (left | (new.game.paddle.numpy() == 5)).all()
        np.testing.assert_array_equal(new.last_action, np.where(left, LEFT, RIGHT))
        assert left.mean() == pytest.approx(share, abs=0.02)
    with pytest.raises(UserError, match=r"sticky_action_prob=1.5: a probability"):
        sparring.envs.compiled.minatar.Breakout(sticky_action_prob=1.5)


def test_difficulty_stays_where_it_is_without_ramping():
    for name in ("asterix", "space_invaders", "seaquest"):
        env = GAMES[name](difficulty_ramping=False)
        count = 4
        game = env.initial(random.members(random.stream(0, "test"), count)).game
        one = tf.ones([count], tf.int32)
        if name == "asterix":
            hard = game._replace(ramp_timer=-one)
        elif name == "seaquest":
            hard = game._replace(
                surfaced=tf.zeros([count], tf.bool), divers_aboard=one, ramp_index=one
            )
        else:
            hard = game._replace(aliens=tf.zeros_like(game.aliens))
        still = tf.fill([count], NOTHING)
        draws = tf.ones([count, env.draws]) * 0.5
        assert (
            env.play(hard, still, draws)[0].ramp_index.numpy().tolist()
            == hard.ramp_index.numpy().tolist()
        )
        ramped = GAMES[name]().play(hard, still, draws)[0]
        assert ramped.ramp_index.numpy().tolist() == (hard.ramp_index + 1).numpy().tolist()


@every
def test_the_picture_shows_each_channel_in_its_colour(name):
    env = GAMES[name]()
    opening = env.initial(random.members(random.stream(0, "test"), 1))
    picture = env.render(tf.nest.map_structure(lambda part: part[0].numpy(), opening))
    board = env.observe(opening)[0].numpy()
    side = picture.shape[0] // 10
    assert picture.shape == (10 * side, 10 * side, 3)
    colours = np.array([EMPTY, *COLOURS])
    for y, x in np.ndindex(10, 10):
        channel = max(np.flatnonzero(board[y, x]) + 1, default=0)
        np.testing.assert_array_equal(
            picture[y * side + side // 2, x * side + side // 2], colours[channel]
        )
    assert len(np.unique(colours, axis=0)) == 11
