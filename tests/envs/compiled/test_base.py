"""The base class and the stepper: resets, time limits, keys, clipping, snapshots, modes."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

import sparring.envs.compiled.base
from sparring.envs.compiled.base import CompiledEnvironment
from sparring.envs.compiled.classic_control import CartPole, MountainCarContinuous, Pendulum
from sparring.envs.compiled.host_stepper import Stepper
from sparring.envs.compiled.state import first_keys, step_keys, step_stream
from sparring.envs.compiled.toys import Memory, PointMass
from sparring.errors import UserError
from sparring.xla import random

pytestmark = pytest.mark.long

CONF = Path(__file__).parents[3] / "conf" / "env"


class CountState(NamedTuple):
    count: tf.Tensor  # [B] int32
    draw: tf.Tensor  # [B, 2] float32, from the key the episode opened with
    step: tf.Tensor  # [B] float32, from the key of the last step


class Count(CompiledEnvironment):
    """Adds its actions up; ends at 5; the reward is the action."""

    name = "Count"
    observation_space = spaces.Box(-1.0, 20.0, (4,), np.float32)
    action_space = spaces.Discrete(6)

    def initial(self, keys):
        zero = tf.zeros(keys.shape[:1], tf.int32)
        return CountState(zero, random.uniform(keys, 2), tf.cast(zero, tf.float32) - 1.0)

    def observe(self, state):
        return tf.concat(
            [tf.cast(state.count, tf.float32)[:, None], state.draw, state.step[:, None]], axis=1
        )

    def transition(self, state, action, keys):
        count = state.count + action
        new = CountState(count, state.draw, random.uniform(keys, 1)[:, 0])
        return new, tf.cast(action, tf.float32), count >= 5


def played(env, actions, **kwargs):
    """The steps of a vector given actions [T][B], in a graph unless told otherwise."""
    vector = env.vector(len(actions[0]), kwargs.pop("seed", 0), **{"compile": "graph", **kwargs})
    vector.reset()
    return [vector.step(np.array(action)) for action in actions]


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_an_end_is_followed_by_an_opening_that_ignores_the_action(mode):
    """Member 0: 3, 5 (end), opening, 4, 5 (end), opening. Member 1: 1, 2, 3, 4, 5 (end),
    opening.
    """
    actions = [[3, 1], [2, 1], [5, 1], [4, 1], [1, 1], [5, 5]]
    steps = played(Count(), actions, compile=mode)
    assert [s.observation[:, 0].tolist() for s in steps] == [
        [3, 1],
        [5, 2],
        [0, 3],
        [4, 4],
        [5, 5],
        [0, 0],
    ]
    assert [s.reward.tolist() for s in steps] == [[3, 1], [2, 1], [0, 1], [4, 1], [1, 1], [0, 0]]
    assert [s.terminated.tolist() for s in steps] == [
        [0, 0],
        [1, 0],
        [0, 0],
        [0, 0],
        [1, 1],
        [0, 0],
    ]
    assert [s.first.tolist() for s in steps] == [[0, 0], [0, 0], [1, 0], [0, 0], [0, 0], [1, 1]]
    assert not any(s.truncated.any() for s in steps)
    dtypes = [array.dtype for array in steps[0]]
    assert dtypes == [np.float32, np.float32, np.bool_, np.bool_, np.bool_]


def test_the_clock_truncates_also_what_ends_at_once_and_starts_anew_with_each_episode():
    """A limit of 2: member 0 ends by itself in its second step, member 1 only by the clock."""
    env = Count(max_episode_steps=2)
    steps = played(env, [[3, 1], [3, 1], [0, 0], [1, 5], [1, 0], [0, 1]])
    assert [s.truncated.tolist() for s in steps] == [[0, 0], [1, 1], [0, 0], [0, 0], [1, 0], [0, 0]]
    assert [s.terminated.tolist() for s in steps] == [
        [0, 0],
        [1, 0],
        [0, 0],
        [0, 1],
        [0, 0],
        [0, 0],
    ]
    assert [s.first.tolist() for s in steps] == [[0, 0], [0, 0], [1, 1], [0, 0], [0, 1], [1, 0]]
    assert Count().max_episode_steps is None
    with pytest.raises(UserError, match="max_episode_steps=0: it is at least 1"):
        Count(max_episode_steps=0)


def test_every_step_and_member_has_its_own_key():
    """The keys are those the loop derives: stream "environment", folded with the step, one for each
    member.
    """
    steps = played(Count(), [[0, 0, 0]] * 4, seed=7)
    stream = random.stream(7, "environment")
    for t, step in enumerate(steps):
        keys = random.members(random.fold(stream, t), 3)
        np.testing.assert_array_equal(step.observation[:, 3], random.uniform(keys, 1)[:, 0])
        np.testing.assert_array_equal(step_keys(step_stream(7), t, 3), keys)
    opening = random.uniform(random.members(random.fold(random.stream(7, "reset"), 0), 3), 2)
    np.testing.assert_array_equal(steps[0].observation[:, 1:3], opening)
    late = np.concatenate(
        [step_keys(stream, tf.constant(t, tf.int64), 4) for t in (0, 1, 2**32, 2**32 + 1)]
    )
    everything = np.concatenate([late, first_keys(7, 4)])
    assert len(np.unique(everything, axis=0)) == 20


def test_a_second_reset_begins_the_run_again():
    vector = Count().vector(2, seed=0, compile="graph")
    runs = []
    for _ in range(2):
        runs.append(
            [vector.reset(), *(vector.step(np.array([3, 1])).observation for _ in range(4))]
        )
    np.testing.assert_array_equal(*runs)


def test_an_episode_opens_from_the_key_of_its_step():
    steps = played(Count(), [[5, 0], [0, 0]])
    keys = random.members(random.fold(random.stream(0, "environment"), 1), 2)
    np.testing.assert_array_equal(steps[1].observation[0, 1:3], random.uniform(keys, 2)[0])
    # Plays on
    np.testing.assert_array_equal(steps[1].observation[1, 1:3], steps[0].observation[1, 1:3])


@pytest.mark.parametrize(
    "env", [CartPole(max_episode_steps=30), Pendulum(), PointMass(), Memory()], ids=lambda e: e.name
)
def test_the_same_seed_gives_the_same_steps_in_every_mode(env):
    """Whole episodes: booleans exactly, floats up to rounding, which Pendulum's swings have
    magnified by then.
    """
    env.action_space.seed(0)
    actions = [[env.action_space.sample() for _ in range(5)] for _ in range(40)]
    graph = played(env, actions)
    for mode in ("eager", "xla"):
        for one, other in zip(graph, played(env, actions, compile=mode), strict=True):
            for mine, theirs in zip(one, other, strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)
    again = played(env, actions)
    another = played(env, actions, seed=1)
    assert all((a.observation == b.observation).all() for a, b in zip(graph, again, strict=True))
    assert any((a.observation != b.observation).any() for a, b in zip(graph, another, strict=True))


def test_openings_are_the_same_bits_on_an_accelerator(monkeypatch):
    """There the numbers are drawn in every step, here only in those that need them."""
    actions = [[4, 1, 2]] * 12
    here = played(Count(), actions)
    monkeypatch.setattr(sparring.envs.compiled.base, "_accelerated", lambda: True)
    there = played(Count(), actions)
    assert sum(step.first.sum() for step in here) > 3
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one.observation, other.observation)


def test_box_actions_act_within_their_bounds():
    inside, outside = (played(MountainCarContinuous(), [[[a], [-a]]] * 3) for a in (1.0, 50.0))
    for one, other in zip(inside, outside, strict=True):
        np.testing.assert_array_equal(one.observation, other.observation)
        assert other.reward == pytest.approx([-0.1, -0.1])


@pytest.mark.parametrize(
    ("env", "mode"), [(Count(), "graph"), (CartPole(), "xla")], ids=["graph", "xla"]
)
def test_a_restored_vector_goes_on_exactly(env, mode):
    actions = [[t % 2, 1] for t in range(60)]
    whole = played(env, actions, compile=mode)
    for stop in (1, 25):
        vector = env.vector(2, seed=0, compile=mode)
        vector.reset()
        for action in actions[:stop]:
            last = vector.step(np.array(action))
        snapshot = vector.snapshot()
        for action in actions[stop : stop + 5]:
            vector.step(np.array(action))
        other = env.vector(2, seed=99, compile=mode)  # the seed comes with the snapshot
        assert other.restore(snapshot) == []
        np.testing.assert_array_equal(other.observation, last.observation)
        for action, then in zip(actions[stop:], whole[stop:], strict=True):
            for mine, theirs in zip(other.step(np.array(action)), then, strict=True):
                np.testing.assert_array_equal(mine, theirs)


def test_a_snapshot_is_plain_arrays_and_the_vectors_own():
    vector = Count().vector(2, seed=3, compile="graph")
    vector.reset()
    snapshot = vector.snapshot()
    assert {k: type(v) for k, v in snapshot.items()} == {
        **dict.fromkeys(("observation", "elapsed", "done"), np.ndarray),
        **{"name": str, "seed": int, "steps": int, "state": list},
    }
    assert all(type(array) is np.ndarray for array in snapshot["state"])
    kept = [array.copy() for array in snapshot["state"]]
    vector.step(np.array([1, 2]))
    assert all((a == b).all() for a, b in zip(kept, snapshot["state"], strict=True))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "Other"}, "2 environments of Other, this run has 2 of Count"),
        ({"done": np.zeros(3, bool)}, "3 environments of Count, this run has 2"),
        ({"state": []}, "state of another form"),
        (
            {
                "state": [
                    np.zeros(2, np.int64),
                    np.zeros((2, 2), np.float32),
                    np.zeros(2, np.float32),
                ]
            },
            "of another form",
        ),
    ],
)
def test_a_snapshot_of_something_else_is_refused(change, says):
    vector = Count().vector(2, seed=0, compile="graph")
    vector.reset()
    with pytest.raises(UserError, match=says):
        Count().vector(2, seed=0).restore({**vector.snapshot(), **change})


def test_what_a_vector_hands_out_is_the_callers():
    vector = Count().vector(2, seed=0, compile="graph")
    opening = vector.reset()
    opening[:] = 9
    assert (vector.observation[:, 0] == 0).all()
    step = vector.step(np.array([1, 1]))
    step.observation[:] = 9
    assert (vector.observation[:, 0] == 1).all()
    assert (vector.snapshot()["observation"][:, 0] == 1).all()


def test_a_vector_wants_its_reset_and_at_least_one_environment():
    for method in ("snapshot", "render"):
        with pytest.raises(RuntimeError, match=rf"{method}\(\) before reset"):
            getattr(Count().vector(1, seed=0), method)()
    with pytest.raises(RuntimeError, match=r"step\(\) before reset"):
        Count().vector(1, seed=0).step(np.array([0]))
    with pytest.raises(UserError, match="Count: 0 environments"):
        Count().vector(0, seed=0)
    with pytest.raises(UserError, match="compile=fast"):
        Count().vector(1, seed=0, compile="fast")


def test_pictures_are_of_the_first_environment_and_of_none_where_nothing_is_drawn():
    env = CartPole()
    vector = env.vector(3, seed=0, render=True, compile="graph")
    vector.reset()
    state = [array[0] for array in vector.snapshot()["state"]]
    np.testing.assert_array_equal(vector.render(), env.render(type(env.specs(1).state)(*state)))
    assert env.renders
    assert not Count().renders
    blind = Count().vector(1, seed=0, compile="graph")
    blind.reset()
    assert blind.render() is None


def test_a_second_vector_is_not_traced_again():
    env = Count()
    calls = []
    env.observe = lambda state: calls.append(1) or Count.observe(env, state)
    for seed in range(3):
        vector = env.vector(2, seed)
        vector.reset()
        vector.step(np.array([1, 1]))
        if seed == 0:
            traced = len(calls)
    assert len(calls) == traced > 0


def test_what_xla_cannot_compile_is_told_where_it_is_stepped():
    class Printing(Count):
        def transition(self, state, action, keys):
            text = tf.strings.as_string(action)
            return super().transition(state, action + 0 * tf.strings.length(text), keys)

    vector = Printing().vector(2, seed=0, compile="xla")
    vector.reset()
    with pytest.raises(
        UserError, match=r"Count cannot be compiled: XLA has no .*AsString.*test_base.py line"
    ):
        vector.step(np.array([1, 1]))
    blamed = tf.errors.InvalidArgumentError(
        None, None, "on XLA_CPU_JIT: {} (No registered '{}' OpKernel)"
    )
    for operation, named in (("AsString", True), ("Unique", False)):
        error = type(blamed)(None, None, blamed.message.format(operation, operation))
        assert (
            Printing().uncompilable(error) is not None
        ) == named  # not the environment's, if it does not use it
    assert Printing().uncompilable(ValueError("out of range")) is None
    steps = played(Printing(), [[5, 1]])
    assert steps[0].observation[:, 0].tolist() == [5, 1]


def test_a_vector_of_thousands_is_its_members():
    env = CartPole()
    few = 3
    actions = np.random.default_rng(0).integers(2, size=(25, 4096))
    many = played(env, actions)
    for one, other in zip(many, played(env, actions[:, :few]), strict=True):
        np.testing.assert_allclose(one.observation[:few], other.observation, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(one.terminated[:few], other.terminated)
    assert sum(step.terminated.sum() for step in many) > 2000


PRESETS = {
    **{
        "cartpole": 500,
        "cartpole_fixed_horizon": 500,
        "acrobot": 500,
        "mountain_car": 200,
        "mountain_car_continuous": 999,
        "pendulum": 200,
    },
    **{
        "cartpole_masked": 500,
        "cartpole_masked_actions": 500,
        "catch": None,
        "deep_sea": None,
        "recall": None,
        "frozen_lake": 100,
        "point_mass": 50,
    },
}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_build_compiled_environments(preset):
    with initialize_config_dir(str(CONF), version_base=None):
        config = compose(preset)
        short = compose(preset, ["max_episode_steps=3"])
    env = instantiate(config)
    assert env.compiled
    assert isinstance(env.vector(1, 0), Stepper)
    assert env.max_episode_steps == PRESETS[preset]
    assert instantiate(short).max_episode_steps == 3
    assert config.keys() - {"_target_", "_convert_"} == set(type(env).__init__.__annotations__) - {
        "return"
    }


def blocks(page, language):
    return [part.partition("```")[0] for part in page.read_text().split(f"```{language}\n")[1:]]


def test_the_environment_of_the_docs_is_short_and_keeps_its_promises(tmp_path, monkeypatch):
    page = CONF.parents[1] / "docs" / "environments.md"
    environment, test = blocks(page, "python")
    assert environment.count("\n") < 60
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "hover.py").write_text(environment)
    monkeypatch.syspath_prepend(tmp_path)
    namespace: dict = {}
    exec(test, namespace)
    namespace["test_hover"]()
    (config,) = blocks(page, "yaml")
    (tmp_path / "hover.yaml").write_text(config)
    with initialize_config_dir(str(tmp_path), version_base=None):
        env = instantiate(compose("hover", ["gust=0.0", "max_episode_steps=2"]))
    vector = env.vector(1, seed=0, compile="graph")
    before = vector.reset()[0]
    after = vector.step(np.array([[5.0]]))  # no wind; 4 m/s^2 for 0.05 s, clipped from 20
    np.testing.assert_allclose(after.observation[0], before + np.array([0.01, 0.2]), rtol=1e-6)
    assert after.reward[0] == pytest.approx(1 - abs(after.observation[0, 0] - 1), abs=1e-6)
    assert vector.step(np.array([[0.0]])).truncated[0]
    assert vector.render().shape == (300, 300, 3)
