"""The learner of actors: processes here or on other hosts that step a slow environment for it,
through Reverb.

Each actor has an equal share of the environments. For every iteration it collects a rollout of
them, with weights that have learned from `ahead` iterations less at most, and sends it; the learner
joins the shares, in the order of the iterations, and learns as it does from environments of its
own. With ahead=0 nobody is ahead: that is what one process computes, up to the rounding of batches
of one. Every rollout is learned from once, none is dropped, and a queue holds no more than ahead +
1 of an actor: what is learned per step collected is as exact as in one process.

The learner's own replay is sampled, not Reverb's: its keys make a run repeatable, and it is saved
with the weights.
"""

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.agents.actors import slots, transport
from sparring.agents.actors.slots import ActorSlot, Reverb
from sparring.agents.drivers.on_host import HostRollout
from sparring.agents.training.rollout import RolloutSpec
from sparring.errors import UserError
from sparring.processes import signals
from sparring.storage import atomic, run_folder, variable_names

_log = logging.getLogger("sparring")
_LOOK_SECONDS = 0.5  # between two looks for lost actors
_SAVED = ("observation", "action", "outcome", "extras")  # of a rollout that actors were ahead
ACTORS = {
    "actors/staleness": "Iterations that were learned from since the weights that a rollout was "
    "collected with, mean.",
    "actors/lost": "Actors lost, per iteration.",
}


class ActorsDriver:
    """Learns from the rollouts of actors, which are started at the first use.

    `learn(packed, vector_step)` is a compiled function. `model` is what actors act with.
    `note({tag: (sum, weight)})` adds to what is logged.
    """

    def __init__(
        self,
        source: RolloutSpec,
        learn: Callable[..., Any],
        model: tf.train.Checkpoint,
        note: Callable[[Mapping[str, tuple[float, float]]], None],
        settings: Reverb,
    ) -> None:
        self.source = source
        self.learn = learn
        self.settings = settings
        self.note = note
        self.share = source.num_envs // settings.count
        self.seconds = {"collect": 0.0, "update": 0.0}
        transport.reverb()  # or it is missing, which is better known before anything is trained
        self._variables = [v for _, v in sorted(variable_names.named_variables(model).items())]
        self._exchange: Any = None
        self._places: list[ActorSlot] = []
        self._shares: dict[
            int, dict[int, transport.Message]
        ] = {}  # iteration -> actor -> its share of the rollout
        self._joined: dict[
            int, tuple[HostRollout, float]
        ] = {}  # iteration -> rollout and its staleness
        self._asked = self._next = 0  # iterations whose rollouts were ordered, and joined
        self._observation: np.ndarray | None = (
            None  # [B, ...] where the newest joined rollout ended
        )
        self._restored: dict[str, Any] | None = None  # what is true until the first iteration
        self._looked = 0.0
        self._lost = 0
        self._begun = False
        self._failed = False

    # ---- learning --------------------------------------------------------------------------------

    def iterate(self, done: int, count: int) -> None:
        """Iterations `done`, done + 1, ... `count` of them."""
        self._open(done)
        self._begin(done)
        stale = 0.0
        for iteration in range(done, done + count):
            started = time.perf_counter()
            self._exchange.put(
                "weights", [np.int64(iteration), *(v.numpy() for v in self._variables)]
            )
            self._ask(iteration + self.settings.ahead)
            packed, staleness = self._rollout(iteration)
            collected = time.perf_counter()
            self.learn(packed, np.int64((iteration + 1) * self.source.rollout_steps))
            stale += staleness
            self.seconds["collect"] += collected - started
            self.seconds["update"] += time.perf_counter() - collected
        lost = self._lost
        self._lost = 0
        self.note(
            {"actors/staleness": (stale, float(count)), "actors/lost": (float(lost), float(count))}
        )

    def _rollout(self, iteration: int) -> tuple[HostRollout, float]:
        self._collect_until(lambda: iteration in self._joined)
        return self._joined.pop(iteration)

    def _collect_until(self, done: Callable[[], bool]) -> None:
        """Hear rollouts until `done()`; StoppedError if the run is to end and an actor that owes
        one is not there.

        The environments of the others are then somewhere within a rollout.
        """

        def over() -> bool:
            if (
                not done()
                and signals.asked()
                and any(place.opened is None for place in self._places)
            ):
                self._failed = True
            return done() or self._failed

        self._hear_until(over)
        if not done():
            raise signals.StoppedError

    def _begin(self, done: int) -> None:
        """Take up, at the first iteration here, the rollouts that actors were ahead when the run
        was saved.
        """
        if self._begun:
            return
        pending = [] if self._restored is None else self._restored.get("pending", [])
        for number, saved in enumerate(pending, start=done):
            self._joined[number] = (
                HostRollout(*(saved[key] for key in _SAVED)),
                float(saved["staleness"]),
            )
        self._asked = self._next = done + len(pending)
        self._begun = True
        self._restored = None

    def _ask(self, last: int) -> None:
        """Order the rollouts of the iterations up to `last` that were not ordered."""
        while self._asked <= last:
            for place in self._places:
                place.owe(self._asked)
            self._asked += 1

    def _hear_until(self, done: Callable[[], bool]) -> None:
        """Hear what actors say, and replace those that are lost, until `done()`."""
        try:
            while not done():
                message = self._exchange.hear(_LOOK_SECONDS)
                if message is not None and self._places[message.head["number"]].heard(message):
                    self._note_down(message)
                if self._exchange.all_heard() and time.monotonic() - self._looked > _LOOK_SECONDS:
                    self._looked = time.monotonic()
                    self._look()
        except UserError:
            self._failed = True  # nothing more is waited for, not even to save
            raise

    def _note_down(self, message: transport.Message) -> None:
        head = message.head
        if head["kind"] == "failed":
            raise UserError(f"Actor {head['number']}: {head['text']}")
        if head["kind"] == "rollout":
            self._shares.setdefault(head["iteration"], {})[head["number"]] = message
            while len(self._shares.get(self._next, ())) == len(self._places):
                shares = self._shares.pop(self._next)
                self._joined[self._next] = self._join([shares[i] for i in range(len(shares))])
                self._next += 1

    def _join(self, shares: list[transport.Message]) -> tuple[HostRollout, float]:
        """The rollout of all environments, and its staleness."""
        names = shares[0].head["extras"]
        observation, action, outcome, *extras = (
            np.concatenate(columns, axis=axis)
            for columns, axis in zip(
                zip(*(s.arrays for s in shares), strict=True),
                (1, 1, 2, *[1] * len(names)),
                strict=True,
            )
        )
        # What a lost actor's rollout began with is not where the last one ended
        if self._observation is not None:
            observation[0] = self._observation
        self._observation = observation[-1]
        staleness = [s.head["iteration"] - s.head["version"] for s in shares]
        return HostRollout(
            observation, action, outcome, dict(zip(names, extras, strict=True))
        ), float(np.mean(staleness))

    def _look(self) -> None:
        for place in self._places:
            if how := place.trouble():
                self._lost += 1
                place.replace(how, min([*place.owed, self._asked]) * self.source.rollout_steps)

    # ---- opening and closing ---------------------------------------------------------------------

    def _open(self, done: int, snapshot: Mapping[str, Any] | None = None) -> None:
        if self._exchange is not None:
            return
        settings = self.settings
        folder = Path(self.settings.folder)
        self._exchange = transport.Exchange(settings.count, settings.port, settings.ahead)
        folder.mkdir(parents=True, exist_ok=True)
        address = f"{socket.gethostname()}:{self._exchange.port}"
        atomic.write_text(folder / run_folder.LEARNER, f'{{"address": "{address}"}}\n')
        here = settings.count if settings.here is None else settings.here
        for number in range(settings.count):
            share = self.source.share(number, settings.count)
            place = ActorSlot(
                number,
                self._exchange,
                settings,
                transport.compatibility_key(share, self._variables),
            )
            self._places.append(place)
            before = [] if snapshot is None else transport.packed(self._part(snapshot, number))
            place.open(done * self.source.rollout_steps, before)
            place.start() if number < here else place.offer()
        said = (
            "Port %d of every interface of this host is open to actors, without a password, as "
            "Reverb has it."
        )
        _log.warning(said, self._exchange.port)
        if here < settings.count:
            said = (
                "sparring actor %s --address %s steps environments for this run; %d more are "
                "awaited."
            )
            _log.info(said, folder, address, settings.count - here)

    def close(self) -> None:
        """Let the actors go."""
        if self._exchange is not None:
            exchange = self._exchange
            self._exchange = None
            try:
                slots.close(self._places)
            finally:
                exchange.close()
                self._places = []
                (Path(self.settings.folder) / run_folder.LEARNER).unlink(missing_ok=True)

    # ---- saving ----------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any] | None:
        """The environments' state, as one process would save it, and the rollouts that actors are
        ahead.
        """
        if self._exchange is None or not self._begun:
            return self._restored
        with contextlib.suppress(signals.StoppedError):
            self._settle()
        parts = [self._saved(place) for place in self._places]
        ahead = [
            {key: getattr(packed, key) for key in _SAVED} | {"staleness": staleness}
            for _, (packed, staleness) in sorted(self._joined.items())
        ]
        return self._whole(parts) | ({"pending": ahead} if ahead else {})

    def _settle(self) -> None:
        """Have actors collect all that was ordered, and say where their environments are then."""
        if not self._failed:
            self._collect_until(lambda: self._next == self._asked)
            for place in self._places:
                place.save()
            self._hear_until(lambda: not any(place.saving for place in self._places))

    def _saved(self, place: ActorSlot) -> dict[str, Any]:
        """The state of an actor's environments; of a lost one, that they are to open new
        episodes.
        """
        if place.snapshot is not None and place.losses == 0 and not self._failed:
            return place.snapshot
        assert self._observation is not None
        first = place.number * self.share
        steps = self._next * self.source.rollout_steps
        unknown = {"generator": None, "episodes": steps, "actions": None, "rewards": None}
        return {
            "name": self.source.environment.name,
            "seed": self.source.seed + first,
            "steps": steps,
            "observation": self._observation[first : first + self.share],
            "done": np.zeros(self.share, bool),
            "environments": [
                {"seed": self.source.seed + first + i, **unknown} for i in range(self.share)
            ],
        }

    def _whole(self, parts: list[dict[str, Any]]) -> dict[str, Any]:
        records = [part["environments"] for part in parts]
        return {
            "name": parts[0]["name"],
            "seed": self.source.seed,
            "steps": max(part["steps"] for part in parts),
            "observation": np.concatenate([part["observation"] for part in parts]),
            "done": np.concatenate([part["done"] for part in parts]),
            "environments": None
            if None in records
            else [one for record in records for one in record],
            "memory": [],
        }

    def _part(self, snapshot: Mapping[str, Any], number: int) -> dict[str, Any]:
        rows = slice(number * self.share, (number + 1) * self.share)
        cut = {key: snapshot[key][rows] for key in ("observation", "done")}
        environments = snapshot["environments"]
        return {
            "name": snapshot["name"],
            "seed": snapshot["seed"] + rows.start,
            "steps": snapshot["steps"],
            **cut,
            "environments": None if environments is None else environments[rows],
        }

    def restore(self, snapshot: Mapping[str, Any]) -> list[str]:
        """Have actors put the environments back; one sentence for each that could not be."""
        then = len(snapshot["done"])
        if then != self.source.num_envs:
            raise UserError(
                f"The checkpoint holds {then} environments, this run has {self.source.num_envs}."
            )
        # at least one: environments that are lost from now on are not opened as at the run's
        # beginning
        self._asked = max(1, snapshot["steps"] // self.source.rollout_steps)
        self._open(self._asked, snapshot)
        self._restored = dict(snapshot)
        self._observation = np.array(snapshot["observation"])
        self._hear_until(lambda: all(place.opened is not None for place in self._places))
        return [complaint for place in self._places for complaint in place.opened or ()]
