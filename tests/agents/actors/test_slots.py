"""Orders of an actor, and slots with their holders: lost, late, silent, of another
config.
"""

import importlib.util
import types
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from sparring.agents.actors import actor as actors_actor
from sparring.agents.actors import transport
from sparring.agents.actors.actor import Actor
from sparring.agents.actors.slots import ActorSlot, Reverb
from sparring.agents.training.rollout import RolloutSpec
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.errors import UserError

here = pytest.mark.skipif(
    importlib.util.find_spec("reverb") is None, reason="Reverb is for TensorFlow 2.15 alone"
)


# ---- orders --------------------------------------------------------------------------------------


class Script:
    """A line that hands out orders in a queue's order, and keeps what is said."""

    def __init__(self, orders: list[tuple[str, int, int | None]]) -> None:
        self.orders = [{"kind": kind, "generation": g, "turn": turn} for kind, g, turn in orders]
        self.said: list[str] = []

    def receive(self, table: str) -> transport.Message:
        assert table == "orders_1"
        assert self.orders, "waits for ever"
        return transport.Message(self.orders.pop(0), [])

    def send(self, table: str, head: dict[str, Any], arrays: Any) -> None:
        if table == "orders_1":
            self.orders.append(head)
        else:
            self.said.append(head["kind"])


class Obeying(Actor):
    """Keeps what it obeys."""

    def _obey(self, order: transport.Message) -> bool:
        self.__dict__.setdefault("obeyed", []).append(order.head["turn"])
        return order.head["kind"] != "close"


def obeying(script: Script) -> Any:
    class Nothing:
        act = None

    return Obeying(script, 1, 3, Nothing(), [])  # type: ignore[arg-type]  # place 1, generation 3


def test_orders_are_obeyed_in_turn_and_those_to_a_predecessor_dropped() -> None:
    script = Script(
        [("void", 2, 7), ("collect", 2, 1), ("collect", 3, 1), ("open", 3, 0), ("close", 3, 2)]
    )
    actor = obeying(script)
    actor.run()
    assert actor.obeyed == [0, 1, 2]  # though one given up put the first two back in another order


def test_an_actor_that_was_given_up_puts_its_successors_order_back_and_leaves() -> None:
    script = Script([("open", 3, 0), ("void", 3, 9), ("open", 4, 0), ("collect", 4, 1)])
    actor = obeying(script)
    with pytest.raises(UserError, match="Place 1 is another actor's now"):
        actor.run()
    assert actor.obeyed == [0]
    assert sorted((o["generation"], o["turn"]) for o in script.orders) == [(4, 0), (4, 1)]


def test_an_actor_says_between_two_steps_that_it_lives_once_it_has_said_nothing_for_a_while() -> (
    None
):
    script = Script([])
    actor = obeying(script)
    actor._act = lambda *arguments: arguments
    actor._patience = 3600.0
    assert actor._beating(1, 2) == (1, 2)
    assert script.said == []
    actor._patience = -1.0
    actor._beating(1, 2)
    assert script.said == ["alive"]


class Guest:
    """An actor's line before it has a place: offers, and what it is told then."""

    address = "learner:1"

    def __init__(self, offers: list[dict[str, Any]]) -> None:
        self.offers = offers
        self.over = False

    def receive(self, table: str) -> transport.Message:
        assert table == "places"
        return transport.Message(self.offers.pop(0), [])

    def send(self, table: str, head: dict[str, Any]) -> None:
        self.offers.append(head)

    def hang_up(self) -> None:
        self.over = True


def guest(offers: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Guest:
    """One that is superseded at any place but number 1."""

    def run(actor: Actor) -> None:
        if actor.number != 1:
            raise actors_actor.SupersededError("too late")

    line = Guest(offers)
    monkeypatch.setattr(transport, "Line", lambda address: line)
    monkeypatch.setattr(actors_actor, "watch", lambda address: None)
    monkeypatch.setattr(Actor, "run", run)

    def collector(number: int) -> Any:
        environment = types.SimpleNamespace(name="Chain-v0")
        source = RolloutSpec(environment, num_envs=2, rollout_steps=8, seed=7 + 2 * number)
        return types.SimpleNamespace(source=source, act=None, close=lambda: None)

    actors_actor.play(
        "learner:1", None, collector, tf.train.Checkpoint(w=tf.Variable(tf.zeros([3, 2])))
    )
    return line


def offer(number: int, **other: Any) -> dict[str, Any]:
    of = {
        "environment": "Chain-v0",
        "environments": 2,
        "rollout_steps": 8,
        "seed": 7 + 2 * number,
        "weights": "3x2",
    }
    return {"number": number, "generation": 3, "of": of | other}


def test_who_comes_too_late_for_a_place_waits_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    line = guest([offer(0), offer(1), offer(2)], monkeypatch)
    assert line.over
    assert line.offers == [offer(2)]


@pytest.mark.parametrize(("key", "value"), [("environments", 4), ("weights", "3x3"), ("seed", 8)])
def test_an_actor_of_another_config_leaves_the_place_to_others(
    key: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    offers = [offer(1, **{key: value})]
    with pytest.raises(UserError, match=rf"learner:1 is of another run: {key} {value}, here "):
        guest(offers, monkeypatch)
    assert offers == [offer(1, **{key: value})]


def test_environments_of_one_name_that_are_made_otherwise_are_told_apart() -> None:
    made = [
        Gymnasium("tests.helpers.toy_envs:Chain", {"start": start}) for start in (0.0, 0.0, 1.0)
    ]
    one, same, other = (
        transport.compatibility_key(RolloutSpec(environment, 2, 8, 7), []) for environment in made
    )
    assert one == same
    assert one != other


# ---- places --------------------------------------------------------------------------------------


class Orders:
    """An exchange that keeps what is sent."""

    port = 1

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def send(self, table: str, head: dict[str, Any], arrays: Any = ()) -> None:
        self.sent.append((table, head))


def said(exchange: Orders, generation: int) -> list[Any]:
    ours = [
        head
        for table, head in exchange.sent
        if table == "orders_0" and head["generation"] == generation
    ]
    return [(h["turn"], h["kind"], h.get("iteration", h.get("vector_step"))) for h in ours]


def opened(place: ActorSlot, kind: str = "opened", **more: Any) -> bool:
    return place.heard(
        transport.Message(
            {"kind": kind, "generation": place.generation, "complaints": [], **more}, []
        )
    )


def test_a_successor_is_told_all_that_a_lost_actor_owed_and_three_losses_in_a_row_end_the_run(
    tmp_path: Path,
) -> None:
    exchange = Orders()
    place = ActorSlot(0, exchange, Reverb(str(tmp_path)), {"seed": 7})  # type: ignore[arg-type]
    first = place.generation
    place.open(0)
    for iteration in (0, 1, 2):
        place.owe(iteration)
    assert opened(place)
    assert opened(place, "rollout", iteration=0)
    assert place.owed == [1, 2]
    place.replace("was ended by SIGKILL", vector_step=4)
    assert said(exchange, first)[-1][1] == "void"
    assert said(exchange, first + 1) == [(0, "open", 4), (1, "collect", 1), (2, "collect", 2)]
    offer = {"number": 0, "generation": first + 1, "of": {"seed": 7}}
    assert exchange.sent[-1] == ("places", offer)  # nobody of this host held it
    late = transport.Message({"kind": "rollout", "generation": first, "iteration": 1}, [])
    assert not place.heard(late)  # of the one that was given up
    assert place.owed == [1, 2]
    started: list[int] = []
    place.start = lambda: started.append(place.generation)  # type: ignore[method-assign]
    place.replace("was not there", vector_step=4)
    assert started == [first + 2]  # here: nobody has taken it
    with pytest.raises(UserError, match=r"Actor 0 is gone, 3 times in a row"):
        place.replace("is gone", vector_step=4)
    place.losses = 2
    opened(place, "rollout", iteration=1)
    assert place.losses == 0


def test_silence_is_trouble_only_where_something_is_expected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now = [100.0]
    monkeypatch.setattr("sparring.agents.actors.slots.time.monotonic", lambda: now[0])
    place = ActorSlot(0, Orders(), Reverb(str(tmp_path), seconds=60.0, start_seconds=300.0), {})  # type: ignore[arg-type]
    place.open(0)
    place.owe(0)
    now[0] += 299.0  # it is starting
    assert place.trouble() == ""
    now[0] += 2.0
    assert place.trouble() == "was not there and ready after 300 s (actors.start_seconds)"
    opened(place)
    opened(place, "rollout", iteration=0)
    now[0] += 1000.0  # the learner evaluates
    assert place.trouble() == ""
    place.owe(0)
    now[0] += 59.0
    assert place.trouble() == ""
    opened(place, "alive")
    now[0] += 59.0
    assert place.trouble() == ""
    now[0] += 2.0
    assert place.trouble() == "has given no sign of life for 60 s (actors.seconds)"
    opened(place, "rollout", iteration=0)
    place.save()
    now[0] += 61.0
    assert place.trouble() != ""
