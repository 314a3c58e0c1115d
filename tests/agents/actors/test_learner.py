"""Actors: what is refused, rollouts joined and saved, the wire; places in test_places.py, whole
runs in _process.
"""

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparring.agents.actors import transport
from sparring.agents.actors.learner import ActorsDriver
from sparring.agents.actors.slots import ActorSlot, Reverb
from sparring.agents.drivers.on_host import HostRollout
from sparring.agents.training.rollout import RolloutSpec
from sparring.config.composer import Composer
from sparring.envs.compiled.classic_control import CartPole
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.errors import UserError
from sparring.processes import signals
from sparring.training.experiment import build

pytestmark = pytest.mark.long

here = pytest.mark.skipif(
    importlib.util.find_spec("reverb") is None, reason="Reverb is for TensorFlow 2.15 alone"
)


# ---- what is refused -----------------------------------------------------------------------------


def test_what_cannot_be_shared_is_refused() -> None:
    with pytest.raises(UserError, match="is for environments of the host"):
        Reverb("", count=2).check(CartPole(), 4)
    with pytest.raises(UserError, match=r"actors.count=3 does not divide trainer.num_envs=4"):
        Reverb("", count=3).check(Gymnasium("CartPole-v1"), 4)
    with pytest.raises(UserError, match=r"actors.here=3 is more than actors.count=2"):
        Reverb("", count=2, here=3).check(Gymnasium("CartPole-v1"), 4)
    remembers = [
        "env=gymnasium",
        "env.id=CartPole-v1",
        "agent=ppo",
        "memory=lstm",
        "actors=reverb",
        "run.name=x",
    ]
    with pytest.raises(
        UserError, match="actors cannot step environments for an agent with a memory"
    ):
        build(Composer("rl").compose([*remembers, "trainer.minibatches=1"]))


@pytest.mark.parametrize(
    ("version", "said"), [("2.15.1", r"sparring\[actors\]"), ("2.21.0", "vectorization=async")]
)
def test_without_reverb_it_is_said_what_to_do(
    version: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "reverb", None)
    monkeypatch.setattr(tf, "__version__", version)
    with pytest.raises(UserError, match=said):
        driver()  # before anything is trained


# ---- rollouts joined, snapshots cut --------------------------------------------------------------


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reverb is not asked for: what is tested does not speak to it."""
    monkeypatch.setattr("sparring.agents.actors.transport.reverb", lambda: None)


def driver(
    count: int = 2, num_envs: int = 4, learn: Any = None, folder: Path = Path()
) -> ActorsDriver:
    settings = Reverb(str(folder), count=count)
    environment = Gymnasium("tests.helpers.toy_envs:toy/Chain-v0")
    source = RolloutSpec(environment, num_envs, 1, 7)
    return ActorsDriver(source, learn, tf.train.Checkpoint(), lambda values: None, settings)


def share(number: int, value: float, iteration: int, version: int) -> transport.Message:
    """A rollout of one step of two environments, every number of it told from the others."""
    head = {
        "kind": "rollout",
        "number": number,
        "iteration": iteration,
        "version": version,
        "extras": ["value"],
    }
    # [T + 1, B, 1]
    observation = np.array([[[value], [value + 1]], [[value + 2], [value + 3]]], np.float32)
    outcome = np.arange(8, dtype=np.float32).reshape(1, 4, 2) + value  # [T, 4, B]
    return transport.Message(
        head, [observation, np.array([[0, 1]]) + number * 2, outcome, np.full((1, 2), value)]
    )


def test_shares_are_joined_in_the_order_of_actors_and_begin_where_the_last_rollout_ended(
    without: None,
) -> None:
    learner = driver()
    packed, staleness = learner._join([share(0, 10.0, 5, 5), share(1, 20.0, 5, 3)])
    np.testing.assert_array_equal(packed.observation[:, :, 0], [[10, 11, 20, 21], [12, 13, 22, 23]])
    np.testing.assert_array_equal(packed.action, [[0, 1, 2, 3]])
    np.testing.assert_array_equal(packed.outcome[0, 0], [10, 11, 20, 21])  # rewards
    np.testing.assert_array_equal(packed.outcome[0, 3], [16, 17, 26, 27])  # first
    np.testing.assert_array_equal(packed.extras["value"], [[10, 10, 20, 20]])
    assert staleness == 1.0  # of 0 and 2 iterations
    # Actor 1's successor knows nothing of where its predecessor's environments ended: 22 and 23.
    packed, _ = learner._join([share(0, 12.0, 6, 6), share(1, 0.0, 6, 6)])
    np.testing.assert_array_equal(packed.observation[:, :, 0], [[12, 13, 22, 23], [14, 15, 2, 3]])


def test_rollouts_are_learned_from_in_their_order_whoever_is_first(without: None) -> None:
    learner = driver()
    learner._places = [None, None]  # type: ignore[list-item]
    for number, iteration in ((1, 0), (1, 1), (0, 0)):
        learner._note_down(share(number, 10.0 * iteration, iteration, 0))
    assert list(learner._joined) == [0]
    learner._note_down(share(0, 10.0, 1, 0))
    assert list(learner._joined) == [0, 1]
    assert learner._joined[1][1] == 1.0  # an iteration stale
    # Where the first ended
    np.testing.assert_array_equal(learner._joined[1][0].observation[0, :, 0], [2, 3, 2, 3])


def test_a_snapshot_is_what_one_process_saves_and_is_cut_for_any_number_of_actors(
    without: None,
) -> None:
    vector = Gymnasium("tests.helpers.toy_envs:toy/Chain-v0").vector(4, seed=7)
    vector.reset()
    for actions in ([1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 1]):
        vector.step(np.array(actions))
    whole = vector.snapshot() | {"memory": []}  # of an agent that remembers nothing
    for count in (1, 2, 4):
        learner = driver(count)
        parts = [learner._part(whole, number) for number in range(count)]
        assert [part["seed"] for part in parts] == [7 + i * 4 // count for i in range(count)]
        again = learner._whole(parts)
        np.testing.assert_equal(again, whole)
    moved = [Gymnasium("tests.helpers.toy_envs:toy/Chain-v0").vector(2, seed=0) for _ in range(2)]
    learner = driver(2)
    assert [v.restore(learner._part(whole, i)) for i, v in enumerate(moved)] == [[], []]
    straight = vector.step(np.array([1, 1, 1, 1]))
    np.testing.assert_array_equal(
        np.concatenate([v.step(np.array([1, 1])).reward for v in moved]), straight.reward
    )


def test_a_lost_actors_environments_are_saved_as_ones_that_open_new_episodes_each_another(
    without: None,
) -> None:
    learner = driver()
    learner._observation = np.ones((4, 1), np.float32)
    learner._next = 5
    learner._failed = True
    place = ActorSlot(1, None, Reverb(""), {})  # type: ignore[arg-type]
    vector = Gymnasium("tests.helpers.toy_envs:toy/Dice-v0").vector(2, seed=0)
    vector.name = "Chain-v0"
    complaints = vector.restore(learner._saved(place))
    assert len(complaints) == 2
    assert "starts a new episode" in complaints[0]
    step = vector.step(np.zeros((2, 1), np.float32))
    assert step.first.all()
    assert step.observation[0, 1] != step.observation[1, 1]


def test_environments_in_the_place_of_lost_ones_begin_with_a_reset_and_with_other_seeds() -> None:
    vectors = [Gymnasium("tests.helpers.toy_envs:toy/Dice-v0").vector(2, seed=5) for _ in range(3)]
    opened = vectors[0].reset()
    np.testing.assert_array_equal(vectors[1].restart(40), np.zeros((2, *opened.shape[1:])))
    vectors[2].restart(44)
    steps = [v.step(np.zeros((2, 1), np.float32)) for v in vectors[1:]]
    for step in steps:
        assert step.first.all()
        np.testing.assert_array_equal(step.reward, [0, 0])
        assert not (step.terminated | step.truncated).any()
        assert not np.array_equal(step.observation, opened)
    assert not np.array_equal(steps[0].observation, steps[1].observation)
    assert not vectors[1].step(np.zeros((2, 1), np.float32)).first.any()


# ---- Reverb itself -------------------------------------------------------------------------------


@here
def test_messages_arrive_as_they_were_sent_and_in_order() -> None:
    exchange = transport.Exchange(count=1, port=None, ahead=0)
    line = transport.Line(f"127.0.0.1:{exchange.port}")
    arrays = [
        np.arange(6, dtype=np.uint8).reshape(2, 3),
        np.zeros((0, 2), np.float32),
        np.array([True, False]),
    ]
    line.send("rollouts", {"kind": "a", "text": "\N{GREEK SMALL LETTER ALPHA}"}, arrays)
    line.send("rollouts", {"kind": "b"}, transport.packed({"seed": 2**70, "x": np.ones(3)}))
    first = exchange.hear(10)
    second = exchange.hear(10)
    assert first is not None
    assert second is not None
    assert first.head == {"kind": "a", "text": "\N{GREEK SMALL LETTER ALPHA}"}
    for one, other in zip(first.arrays, arrays, strict=True):
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    np.testing.assert_equal(transport.unpacked(second.arrays), {"seed": 2**70, "x": np.ones(3)})
    assert exchange.hear(0.01) is None
    for version in (1, 2):
        exchange.put("weights", [np.int64(version), np.full(2, version, np.float32)])
    assert [line.take("weights")[0] for _ in range(2)] == [
        2,
        2,
    ]  # the newest, as often as it is asked for
    exchange.send("orders_0", {"kind": "collect"})
    assert exchange.unread("orders_0") == 1
    assert line.receive("orders_0").head == {"kind": "collect"}
    assert exchange.unread("orders_0") == 0
    line.hang_up()
    exchange.close()


@here
def test_a_port_that_is_taken_and_words_that_are_none_are_told_in_a_line() -> None:
    """Two Reverbs would share the port, and each get half of the calls."""
    exchange = transport.Exchange(count=1, port=None, ahead=0)
    with pytest.raises(UserError, match=rf"actors.port={exchange.port} is taken"):
        transport.Exchange(count=1, port=exchange.port, ahead=0)
    assert exchange.all_heard()
    exchange.put("rollouts", [np.frombuffer(b"{", np.uint8)])
    with pytest.raises(UserError, match=rf"what came at port {exchange.port} cannot be read"):
        exchange.hear(10)
    exchange.close()


# ---- learning ------------------------------------------------------------------------------------


def test_an_environment_that_raises_in_an_actor_ends_the_run_with_its_words(without: None) -> None:
    learner = driver()
    message = transport.Message(
        {"kind": "failed", "number": 1, "text": "environment 0 (Chain-v0) failed: no"}, []
    )
    with pytest.raises(UserError, match=r"Actor 1: environment 0 \(Chain-v0\) failed: no"):
        learner._note_down(message)


def test_what_has_come_meanwhile_is_heard_before_anybody_is_given_up(without: None) -> None:
    """The learner evaluates for an hour: then signs of life are waiting, of which it hears one at a
    time.
    """
    learner = driver()
    order = []
    waiting = [transport.Message({"kind": "alive", "number": 0, "generation": 1}, [])] * 3

    def hear(seconds: float) -> transport.Message | None:
        order.append("hear")
        return waiting.pop()

    learner._exchange = types.SimpleNamespace(hear=hear, all_heard=lambda: not waiting)
    learner._places = [types.SimpleNamespace(heard=lambda message: True)]  # type: ignore[list-item]
    learner._look = lambda: order.append("look")  # type: ignore[method-assign]
    learner._hear_until(lambda: "look" in order)
    assert order == ["hear", "hear", "hear", "look"]


def test_a_run_that_is_to_stop_waits_for_nobody_who_is_not_there(without: None) -> None:
    """Neither for the rollout of an actor of another host, nor, to save, for the state of
    environments.
    """

    def hear(seconds: float) -> None:
        raise AssertionError("waits")

    learner = driver()
    learner._exchange = types.SimpleNamespace(hear=hear, all_heard=lambda: False)
    learner._places = [ActorSlot(i, None, Reverb(""), {}) for i in range(2)]  # type: ignore[arg-type]
    learner._places[0].opened = []
    learner._observation = np.ones((4, 1), np.float32)
    learner._begun = True
    learner._asked = 6
    learner._next = 5
    stop = signals.Interrupt()
    with stop.listening():
        stop.asked = True
        with pytest.raises(signals.StoppedError):
            learner._rollout(5)
        saved = learner.snapshot()
    assert not signals.asked()
    assert saved is not None
    assert [one["generator"] for one in saved["environments"]] == [
        None
    ] * 4  # all open new episodes
    assert saved["steps"] == 5
    learner._places[1].opened = []
    learner._failed = False
    learner._exchange.hear = lambda seconds: learner._joined.update({5: "rollout"})
    with stop.listening():
        assert learner._rollout(5) == "rollout"  # all are there: what was ordered is waited for


def test_nothing_is_waited_for_once_what_came_cannot_be_read(without: None) -> None:
    learner = driver()

    def hear(seconds: float) -> None:
        raise UserError("what came at port 5 cannot be read")

    learner._exchange = types.SimpleNamespace(hear=hear, all_heard=lambda: True)
    learner._places = [ActorSlot(i, None, Reverb(""), {}) for i in range(2)]  # type: ignore[arg-type]
    learner._observation = np.ones((4, 1), np.float32)
    learner._begun = True
    learner._asked = 6
    learner._next = 5
    with pytest.raises(UserError, match="cannot be read"):
        learner._rollout(5)
    assert learner.snapshot() is not None  # without a word from anybody


def test_what_actors_were_ahead_is_learned_from_after_a_resume(without: None) -> None:
    learned: list[float] = []
    learner = driver(learn=lambda packed, step: learned.append(float(packed.observation[0, 0, 0])))
    rows = [share(0, value, 0, 0).arrays for value in (3.0, 4.0)]
    pending = [{**HostRollout(*r[:3], {"value": r[3]})._asdict(), "staleness": 2.0} for r in rows]
    learner._restored = {"pending": pending}
    learner._begin(8)
    assert (learner._asked, learner._next) == (10, 10)
    assert sorted(learner._joined) == [8, 9]
    asked: list[int] = []
    learner._ask = asked.append  # type: ignore[method-assign]
    learner._open = lambda done: None  # type: ignore[method-assign]
    learner._exchange = types.SimpleNamespace(put=lambda table, arrays: None)
    learner.iterate(8, 2)
    assert learned == [3.0, 4.0]
    assert asked == [8, 9]  # `ahead` is 0 now: nothing beyond what was there
