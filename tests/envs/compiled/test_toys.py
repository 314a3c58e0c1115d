"""Toys: their rules by hand, their best returns by scripted policies, FrozenLake by Gymnasium's own
table.
"""

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from sparring.envs.compiled.frozen_lake import FrozenLake, FrozenLakeState
from sparring.envs.compiled.toys import (
    Catch,
    CatchState,
    DeepSea,
    DeepSeaState,
    Memory,
    PointMass,
    PointMassState,
)
from sparring.errors import UserError
from sparring.xla import compilation, random

pytestmark = pytest.mark.long


def keys(count, seed=0):
    return random.members(random.stream(seed, "test"), count)


def returns(env, policy, episodes, seed=0):
    """The returns of `episodes` episodes side by side; policy: (observations [B, ...], step) ->
    actions [B, ...].
    """
    vector = env.vector(episodes, seed, compile="graph")
    observation = vector.reset()
    t = 0
    total = np.zeros(episodes)
    going = np.ones(episodes, bool)
    while going.any():
        step = vector.step(policy(observation, t))
        total += step.reward * going
        going &= ~(step.terminated | step.truncated)
        observation = step.observation
        t = t + 1
    return total


def shuffled(count, seed=0):
    rng = np.random.default_rng(seed)
    return lambda observation, t: rng.integers(count, size=len(observation))


def test_the_best_catcher_always_catches_and_a_random_one_seldom():
    env = Catch()

    def follow(observation, t):
        board = observation.reshape(-1, 10, 5)
        ball = board[:, t].argmax(axis=1)
        paddle = board[:, 9].argmax(axis=1)
        return 1 + np.sign(ball - paddle)

    assert (returns(env, follow, 64) == env.best_return).all()
    assert env.best_return == 1.0
    # 1 in 5 columns, a little more often in the middle
    assert -0.75 < returns(env, shuffled(3), 400).mean() < -0.3
    assert (returns(env, lambda o, t: np.full(len(o), 1), 400) == 1.0).mean() == pytest.approx(
        0.2, abs=0.07
    )


def test_catch_by_hand():
    """3 rows, 4 columns; the paddle starts in column 2. Left once: 1. The ball in column 1 is
    caught there.
    """
    env = Catch(rows=3, columns=4)
    two = CatchState(tf.constant([0, 0]), tf.constant([1, 3]), tf.constant([2, 2]))
    np.testing.assert_array_equal(env.observe(two)[0], [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0])
    two, reward, ended = env.transition(two, tf.constant([0, 2]), keys(2))
    assert (reward.numpy().tolist(), ended.numpy().tolist()) == ([0.0, 0.0], [False, False])
    np.testing.assert_array_equal(env.observe(two)[0], [0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0])
    two, reward, ended = env.transition(two, tf.constant([1, 0]), keys(2))
    assert (reward.numpy().tolist(), ended.numpy().tolist()) == ([1.0, -1.0], [True, True])
    walls = CatchState(tf.constant([0, 0]), tf.constant([1, 1]), tf.constant([0, 3]))
    assert env.transition(walls, tf.constant([0, 2]), keys(2))[0].paddle.numpy().tolist() == [0, 3]
    columns = Catch(columns=6).initial(keys(3000)).column.numpy()
    assert np.bincount(columns, minlength=6) == pytest.approx(500, abs=100)


def test_deep_sea_rewards_only_the_whole_way_right():
    """Size 4: four moves right cost 0.01; one wrong move in the middle ends elsewhere with what the
    others cost.
    """
    env = DeepSea(4)

    def always(o, t):
        return np.ones(len(o), int)

    def never(o, t):
        return np.zeros(len(o), int)

    assert returns(env, always, 2) == pytest.approx(env.best_return)
    assert env.best_return == pytest.approx(1 - 0.01)
    assert returns(env, never, 2).tolist() == [0, 0]
    assert returns(env, lambda o, t: np.full(len(o), int(t != 1)), 2) == pytest.approx(-0.0075)
    # Turned at the end
    assert returns(env, lambda o, t: np.full(len(o), int(t != 3)), 2) == pytest.approx(-0.0075)
    end = DeepSeaState(tf.constant([4]), tf.constant([3]))
    assert not env.observe(end).numpy().any()
    np.testing.assert_array_equal(
        env.observe(DeepSeaState(tf.constant([1]), tf.constant([2])))[0].numpy().argmax(), 6
    )


def test_deep_sea_hides_which_action_goes_right():
    env = DeepSea(8, mapping_seed=1)
    right = env.right
    assert 0.3 < right.mean() < 0.7
    assert (DeepSea(8, mapping_seed=1).right == right).all()
    assert (DeepSea(8, mapping_seed=2).right != right).any()
    assert returns(env, lambda o, t: right.ravel()[o.argmax(axis=1)], 2) == pytest.approx(0.99)
    assert returns(env, lambda o, t: 1 - right.ravel()[o.argmax(axis=1)], 2).tolist() == [0, 0]
    assert returns(env, lambda o, t: np.ones(len(o), int), 2).max() < 0.5


def test_memory_rewards_remembering_and_nothing_else_beats_chance():
    env = Memory(choices=5, delay=3)
    cues = []

    def remember(observation, t):
        cues.append(observation.argmax(axis=1))
        return cues[0]

    assert (returns(env, remember, 64) == env.best_return).all()
    assert len(cues) == 5  # shown, three blanks, asked
    assert {
        tuple(map(bool, (c == 5, t == 4))) for t, row in enumerate(cues) for c in row if t in (0, 4)
    } == {(False, False), (True, True)}
    assert env.best_return == 1.0
    assert returns(env, lambda o, t: o.argmax(axis=1) % 5, 500).mean() == pytest.approx(
        0.2, abs=0.06
    )
    shown = env.initial(keys(5000)).cue.numpy()
    assert np.bincount(shown, minlength=5) == pytest.approx(1000, abs=130)


def test_memory_shows_nothing_between_cue_and_question():
    env = Memory(choices=2, delay=1)
    state = env.initial(keys(8))
    seen = [env.observe(state).numpy()]
    for _ in range(2):
        state, reward, ended = env.transition(state, state.cue, keys(8))
        assert not reward.numpy().any()
        assert not ended.numpy().any()
        seen.append(env.observe(state).numpy())
    assert (seen[0].sum(axis=1) == 1).all()
    assert not seen[0][:, 2].any()
    assert not seen[1].any()
    np.testing.assert_array_equal(seen[2], np.tile([0, 0, 1], (8, 1)))


def riccati(steps):
    """Gains [T, 2] and value matrix [2, 2] of the best controller of one axis: x' = A x + B u, cost
    p'^2 + u^2.
    """
    a = np.array([[1, 0.1], [0, 1]])
    b = np.array([[0.02], [0.2]])
    q = np.diag([1.0, 0.0])
    value = np.zeros((2, 2))
    gains = []
    for _ in range(steps):
        ahead = value + q
        gains.append(np.linalg.solve(1 + b.T @ ahead @ b, b.T @ ahead @ a))
        value = a.T @ ahead @ (a - b @ gains[-1])
    return np.array(gains[::-1])[:, 0], value


def test_the_best_controller_of_the_point_mass_gets_the_stated_return():
    env = PointMass()
    gains, value = riccati(50)
    # E p^2 = 1/3 on each of two axes
    assert 2 * value[0, 0] / 3 == pytest.approx(-env.best_return, abs=1e-4)
    used = []

    def best(observation, t):
        used.append(-(gains[t, 0] * observation[:, :2] + gains[t, 1] * observation[:, 2:]))
        return used[-1]

    start = env.vector(64, 0, compile="graph").reset()[:, :2]
    assert returns(env, best, 64) == pytest.approx(-value[0, 0] * (start**2).sum(axis=1), rel=1e-4)
    # Within the bounds, so that no bound stands between it and the best
    assert np.abs(used).max() < 0.95
    assert returns(env, lambda o, t: np.zeros((len(o), 2)), 2000).mean() == pytest.approx(
        -50 * 2 / 3, abs=1.0
    )


def test_the_point_mass_by_hand():
    """Force 1 and -0.5 for 0.1 s at 2 units/s^2: speeds 0.2 and -0.1, places 1.02 and -0.01; 2 is
    cut to 1.
    """
    env = PointMass()
    state = PointMassState(tf.constant([[1.0, 0.0]]), tf.zeros([1, 2]))
    new, reward, ended = env.transition(state, tf.constant([[1.0, -0.5]]), keys(1))
    np.testing.assert_allclose(env.observe(new), [[1.02, -0.01, 0.2, -0.1]], atol=1e-6)
    assert float(reward[0]) == pytest.approx(-(1.02**2 + 0.01**2 + 1 + 0.25), abs=1e-6)
    assert not ended[0]
    # A force of 1 at -3 units/s^2: a speed of -0.3, a place of 1 - 0.03
    new, _, _ = PointMass(acceleration=-3.0).transition(state, tf.constant([[1.0, 0.0]]), keys(1))
    np.testing.assert_allclose(env.observe(new), [[0.97, 0.0, -0.3, 0.0]], atol=1e-6)


MAPS = {"small": None, "wide": ["SFFHF", "FHFFG"], "starts": ["SFS", "FHF", "SFG"]}


@pytest.mark.parametrize("slippery", [False, True])
@pytest.mark.parametrize("name", MAPS)
def test_frozen_lake_moves_as_gymnasiums_table(name, slippery):
    """Every cell an episode can go on from, every action, 3 000 keys: each outcome as often as the
    table says.
    """
    lake = MAPS[name]
    count = 3000
    theirs = gym.make("FrozenLake-v1", desc=lake, is_slippery=slippery, success_rate=0.5).unwrapped
    env = FrozenLake(
        lake or ["".join(row) for row in theirs.desc.astype(str)], slippery, success_rate=0.5
    )
    cells = [s for s in range(theirs.observation_space.n) if theirs.desc.ravel()[s] not in b"GH"]
    pairs = [(s, a) for s in cells for a in range(4)]
    state, action = (
        tf.constant(np.repeat(column, count), tf.int32) for column in zip(*pairs, strict=True)
    )
    step = compilation.function(env.transition, "graph")
    new, reward, ended = step(FrozenLakeState(state), action, keys(len(pairs) * count))
    seen = np.stack([new.cell.numpy(), reward.numpy(), ended.numpy()], axis=1).reshape(
        len(pairs), count, 3
    )
    for (s, a), rows in zip(pairs, seen, strict=True):
        wanted: dict[tuple, float] = {}
        for chance, cell, gain, end in theirs.P[s][a]:
            wanted[cell, float(gain), float(end)] = (
                wanted.get((cell, float(gain), float(end)), 0.0) + chance
            )
        found = {key: (rows == key).all(axis=1).mean() for key in wanted}
        assert sum(found.values()) == pytest.approx(1.0)
        # 0.05: over five standard deviations
        assert found == pytest.approx(wanted, abs=0.05 if slippery else 0.0)


def test_frozen_lake_opens_at_any_start():
    env = FrozenLake(MAPS["starts"])
    opened = env.initial(keys(3000)).cell.numpy()
    assert np.bincount(opened, minlength=9) == pytest.approx(
        [1000, 0, 1000, 0, 0, 0, 1000, 0, 0], abs=120
    )
    np.testing.assert_array_equal(
        env.observe(FrozenLakeState(tf.constant([2]))), [[0, 0, 1, 0, 0, 0, 0, 0, 0]]
    )
    assert (FrozenLake().initial(keys(50)).cell.numpy() == 0).all()


def test_the_best_return_of_a_lake_is_what_the_best_policy_gets():
    assert FrozenLake(slippery=False).best_return == 1.0
    # The goal is six moves away
    assert FrozenLake(slippery=False, max_episode_steps=5).best_return == 0.0
    assert FrozenLake(["SG"], success_rate=0.5, max_episode_steps=1).best_return == 0.5
    # Two moves, the first right: 0.5 there at once; else a wall stopped the slip, and 0.5 again.
    assert FrozenLake(["SG"], success_rate=0.5, max_episode_steps=2).best_return == 0.75
    env = FrozenLake()
    # The known best policy of the small slippery lake: away from holes, whatever the way.
    policy = np.array([0, 3, 3, 3, 0, 0, 0, 0, 3, 1, 0, 0, 0, 2, 1, 0])
    played = returns(env, lambda o, t: policy[o.argmax(axis=1)], 4000).mean()
    assert played == pytest.approx(env.best_return, abs=0.03)
    assert env.best_return == pytest.approx(0.74, abs=0.02)
    assert returns(env, shuffled(4), 500).mean() < 0.1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Catch(rows=2, columns=5), "rows > columns / 2"),
        (lambda: Catch(columns=1), "2 columns at least"),
        (lambda: DeepSea(1), "at least 2 deep"),
        (lambda: Memory(choices=1), "at least 2 choices"),
        (lambda: Memory(delay=-1), "no negative delay"),
        (lambda: FrozenLake(["SF", "G"]), "equal length"),
        (lambda: FrozenLake([]), "equal length"),
        (lambda: FrozenLake([["S", "G"]]), "strings of equal length"),  # type: ignore[list-item]
        (lambda: FrozenLake(["SX", "FG"]), "written in S, F, H and G"),
        (lambda: FrozenLake(["FF", "FG"]), "at least one S and one G"),
        (lambda: FrozenLake(success_rate=1.5), "from 0 to 1"),
    ],
)
def test_what_cannot_be_is_refused(make, says):
    with pytest.raises(UserError, match=says):
        make()


@pytest.mark.parametrize(
    "env", [Catch(), DeepSea(), Memory(), PointMass(), FrozenLake()], ids=lambda env: env.name
)
def test_the_picture_shows_the_state(env):
    vector = env.vector(1, 0, compile="graph")
    vector.reset()
    before = vector.render()
    vector.step(np.full((1, *env.action_space.shape), 1))
    after = vector.render()
    if isinstance(env, FrozenLake):  # which may not have moved: the wall, or a slip
        after = env.render(FrozenLakeState(np.int32(5)))
    assert before.dtype == np.uint8
    assert before.shape == after.shape
    assert 180 <= before.shape[1] <= 400
    assert (before != after).any()
