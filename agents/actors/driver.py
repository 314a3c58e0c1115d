"""The learner's side of actors: processes of Ray's that step a slow environment for it.

Each actor has an equal share of the environments. For every iteration it collects a rollout of
them; the learner joins the shares, in the order of the iterations, and learns as it does from
environments of its own. Rollout k is collected with the weights that have learned from k - `ahead`
rollouts, whoever is fast or slow: with ahead=0 that is what one process computes, up to the
rounding of batches of one. Every rollout is learned from once, none is dropped.

Where actors are, and that they end with the learner, is Ray's.
"""

import dataclasses
import functools
import importlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from omegaconf import OmegaConf

from sparring.agents.actors import settings as actors_settings
from sparring.agents.actors.actor import Actor, Share, configured
from sparring.agents.drivers.on_host import HostRollout, add_sums
from sparring.agents.networks import recurrent
from sparring.agents.training.rollout import RolloutSpec
from sparring.errors import UserError, warn_once
from sparring.processes import signals
from sparring.storage import variable_names
from sparring.storage.run_folder import RunFolder

_log = logging.getLogger("sparring")
_LOOK_SECONDS = 0.5  # between two looks for a signal
_PATIENCE_SECONDS = 20.0  # without a word from any actor, once a signal has asked for the end
_TELL_SECONDS = 60.0  # without a word, until the user is told who is waited for
_CLOSING_SECONDS = 5.0
_STATE = -1  # asked for in an iteration's place: the state of the environments
_IN_A_ROW = 3  # losses of an actor without a rollout in between that end the run
ACTORS = {
    "actors/staleness": "Iterations that were learned from since the weights that a rollout was "
    "collected with, mean.",
    "actors/lost": "Actors lost, per iteration.",
}


class Joined(NamedTuple):
    """A rollout of all environments, its staleness, and the numbers in its infos."""

    rollout: HostRollout
    staleness: float
    info: dict[str, tuple[float, float]]


@dataclasses.dataclass(eq=False)
class _Held:
    """An actor, as the learner knows it."""

    number: int
    state: dict[str, Any] | None  # to open its environments with, until it has
    handle: Any = None  # Ray's
    complaints: list[str] | None = None  # once its environments are open
    owed: list[Any] = dataclasses.field(default_factory=list)  # iterations, and _STATE
    snapshot: dict[str, Any] | None = None
    losses: int = 0  # since it last gave what it owed


class ActorsDriver:
    """Learns from the rollouts of actors, which are started at the first use.

    `learn(rollout, vector_step)` is a compiled function. `model` is what actors act with. `known`
    is the agent's state at the start, of all environments. `note({tag: (sum, weight)})` adds to
    what is logged.
    """

    def __init__(
        self,
        source: RolloutSpec,
        learn: Callable[..., Any],
        model: tf.train.Checkpoint,
        known: recurrent.State,
        note: Callable[[Mapping[str, tuple[float, float]]], None],
        settings: actors_settings.Ray,
    ) -> None:
        self.source = source
        self.learn = learn
        self.settings = settings
        self.note = note
        self.share = source.num_envs // settings.count
        self.seconds = {"collect": 0.0, "update": 0.0}
        self._known = known
        self._variables = [v for _, v in sorted(variable_names.named_variables(model).items())]
        self._ray: Any = None
        self._own = False  # whether Ray is ours to shut down
        self._actors: list[_Held] = []
        self._calls: dict[Any, tuple[_Held, int | None]] = {}  # None: to open its environments
        self._weights: dict[int, tuple[int, Any]] = {}  # iteration -> version, reference
        self._shares: dict[int, dict[int, Share]] = {}  # iteration -> actor -> its share
        self._joined: dict[int, Joined] = {}  # iteration -> rollout
        self._asked = self._next = 0  # iterations whose rollouts were ordered, and joined
        self._observation: np.ndarray | None = None  # [B, ...] where the newest joined one ended
        self._restored: dict[str, Any] | None = None  # what is true until the first iteration
        self._lost = 0
        self._begun = False
        self._failed = False

    # ---- learning --------------------------------------------------------------------------------

    def iterate(self, done: int, count: int) -> None:
        """Iterations `done`, done + 1, ... `count` of them."""
        self._open(done)
        self._begin(done)
        for iteration in range(done, done + count):
            started = time.perf_counter()
            self._order(iteration, iteration + self.settings.ahead)
            self._wait(lambda: iteration in self._joined)  # noqa: B023  called at once
            joined = self._joined.pop(iteration)
            collected = time.perf_counter()
            self.learn(joined.rollout, np.int64((iteration + 1) * self.source.rollout_steps))
            self.note({**joined.info, "actors/staleness": (joined.staleness, 1.0)})
            self.note({"actors/lost": (float(self._lost), 1.0)})
            self._lost = 0
            self.seconds["collect"] += collected - started
            self.seconds["update"] += time.perf_counter() - collected

    def _begin(self, done: int) -> None:
        """Take up, at the first iteration here, the rollouts that were ahead when the run was
        saved.
        """
        if self._begun:
            return
        pending = [] if self._restored is None else self._restored.get("pending", [])
        for number, saved in enumerate(pending, start=done):
            self._joined[number] = self._unsaved(saved)
        self._asked = self._next = done + len(pending)
        self._begun = True
        self._restored = None

    def _order(self, version: int, last: int) -> None:
        """Order the rollouts of the iterations up to `last` that were not ordered, with the present
        weights.
        """
        if self._asked > last:
            return
        weights = self._ray.put([v.numpy() for v in self._variables])
        for iteration in range(self._asked, last + 1):
            self._weights[iteration] = version, weights
            for actor in self._actors:
                actor.owed.append(iteration)
                self._call(actor, iteration)
        self._asked = last + 1

    def _call(self, actor: _Held, what: int) -> None:
        """Have an actor collect an iteration's rollout, or give the state of its environments."""
        if what == _STATE:
            call = actor.handle.snapshot.remote()
        else:
            call = actor.handle.collect.remote(what, self._weights[what][1])
        self._calls[call] = actor, what

    def _wait(self, done: Callable[[], bool]) -> None:
        """Hear what actors answer, and replace those that are lost, until `done()`.

        Raises:
            StoppedError: the run is to end, and an actor is not there yet, or none says a word.
              Environments are then somewhere within a rollout.
            UserError: an environment's, or an actor is lost again and again.
        """
        heard = time.monotonic()
        try:
            while not done():
                if self._failed:
                    raise signals.StoppedError
                ready, _ = self._ray.wait(list(self._calls), timeout=_LOOK_SECONDS)
                now = time.monotonic()
                if ready:
                    heard = now
                    self._hear(ready[0])
                elif now - heard > _TELL_SECONDS:
                    self._tell_of_waiting()
                if signals.asked() and (not self._all_there() or now - heard > _PATIENCE_SECONDS):
                    self._failed = not done()
        except UserError:
            self._failed = True  # nothing more is waited for, not even to save
            raise

    def _all_there(self) -> bool:
        return all(actor.complaints is not None for actor in self._actors)

    def _tell_of_waiting(self) -> None:
        late = ", ".join(sorted({str(actor.number) for actor, _ in self._calls.values()}))
        there = "" if self._all_there() else " Has Ray a free CPU for each? See `ray status`."
        warn_once(f"Waiting for more than {_TELL_SECONDS:.0f} s for actors {late}.{there}")

    def _hear(self, call: Any) -> None:
        """Take note of the answer to a call, or of the loss of the actor that was to give it."""
        errors = self._ray.exceptions
        actor, what = self._calls.pop(call)
        try:
            answer = self._ray.get(call)
        except errors.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise UserError(f"Actor {actor.number}: {error.cause}") from error
            raise
        except (errors.RayActorError, errors.ObjectLostError) as error:
            self._replace(actor, " ".join(str(error).split()))
            return
        if what is None:
            actor.complaints = answer
            actor.state = None
            return
        actor.owed.remove(what)
        actor.losses = 0
        if what == _STATE:
            actor.snapshot = answer
        else:
            self._shares.setdefault(what, {})[actor.number] = answer
            self._join_next()

    def _join_next(self) -> None:
        while len(self._shares.get(self._next, ())) == len(self._actors):
            shares = [share for _, share in sorted(self._shares.pop(self._next).items())]
            version, _ = self._weights.pop(self._next)
            self._joined[self._next] = self._join(shares, float(self._next - version))
            self._next += 1

    def _join(self, shares: list[Share], staleness: float) -> Joined:
        """Return the rollout of all environments."""
        rollouts = [share.rollout for share in shares]

        def joined(axis: int, parts: Any) -> Any:
            return tf.nest.map_structure(lambda *rows: np.concatenate(rows, axis=axis), *parts)

        observation = joined(1, [r.observation for r in rollouts])
        # What a lost actor's rollout began with is not where the last one ended
        if self._observation is not None:
            observation[0] = self._observation
        self._observation = observation[-1]
        action, extras, memory = (
            joined(1, [getattr(r, name) for r in rollouts])
            for name in ("action", "extras", "memory")
        )
        outcome = joined(2, [r.outcome for r in rollouts])
        info: dict[str, tuple[float, float]] = {}
        for share in shares:
            add_sums(info, share.info)
        return Joined(HostRollout(observation, action, outcome, extras, memory), staleness, info)

    # ---- opening, replacing, closing -------------------------------------------------------------

    def _open(self, done: int, snapshot: Mapping[str, Any] | None = None) -> None:
        if self._actors:
            return
        self._own = actors_settings.connect(self.settings)
        self._ray = importlib.import_module("ray")
        session = self._ray.get_runtime_context().get_session_name()
        _log.info("What actors print is in Ray's /tmp/ray/%s/logs, of their hosts.", session)
        for number in range(self.settings.count):
            state = None if snapshot is None else self._part(snapshot, number)
            self._actors.append(_Held(number, state))
            self._start(self._actors[-1], done * self.source.rollout_steps)

    @functools.cached_property
    def _build(self) -> Callable[[], Any]:
        """What an actor builds its trainer with."""
        if self.settings.build is not None:
            return self.settings.build
        config = RunFolder(self.settings.folder).read_config()
        return functools.partial(configured, OmegaConf.to_yaml(config))

    def _start(self, actor: _Held, vector_step: int) -> None:
        remote = self._ray.remote(Actor).options(**self.settings.actor_options())
        actor.handle = remote.remote(self._build, actor.number, self.settings.count)
        self._calls[actor.handle.open.remote(actor.state, vector_step)] = actor, None

    def _replace(self, actor: _Held, how: str) -> None:
        """Start another in the place of a lost actor; it collects again what was owed."""
        self._lost += 1
        actor.losses += 1
        if actor.losses >= _IN_A_ROW:
            raise UserError(f"Actor {actor.number} was lost {_IN_A_ROW} times in a row: {how}")
        anew = "" if actor.state is not None else " Its environments open new episodes."
        _log.warning(
            "Actor %d was lost, another is started.%s Ray: %s", actor.number, anew, how[:300]
        )
        self._ray.kill(actor.handle)  # which may be out of reach, and not dead
        self._calls = {call: of for call, of in self._calls.items() if of[0] is not actor}
        actor.complaints = None
        first = min([k for k in actor.owed if k != _STATE], default=self._asked)
        self._start(actor, first * self.source.rollout_steps)
        for what in actor.owed:
            self._call(actor, what)

    def close(self) -> None:
        """Let the actors go."""
        actors = self._actors
        self._actors = []
        self._calls = {}
        if not actors:
            return
        closing = [a.handle.close.remote() for a in actors if a.complaints is not None]
        if closing and not self._failed:
            self._ray.wait(closing, num_returns=len(closing), timeout=_CLOSING_SECONDS)
        for actor in actors:
            self._ray.kill(actor.handle)
        if self._own:
            self._ray.shutdown()

    # ---- saving ----------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any] | None:
        """Return the environments' state, as one process would save it, and the rollouts that
        actors are ahead.
        """
        if not self._actors or not self._begun:
            return self._restored
        whole = self._whole(self._settle())
        ahead = [self._to_save(joined) for _, joined in sorted(self._joined.items())]
        return whole | ({"pending": ahead} if ahead else {})

    def _settle(self) -> list[dict[str, Any]]:
        """Have actors collect all that was ordered; return the states of their environments then.

        What is not known of those, as an actor is not there, is for all of them to open new
        episodes.
        """
        try:
            self._wait(lambda: self._next == self._asked)
            for actor in self._actors:
                actor.owed.append(_STATE)
                self._call(actor, _STATE)
            self._wait(lambda: not any(actor.owed for actor in self._actors))
            return [actor.snapshot or {} for actor in self._actors]
        except signals.StoppedError:
            unknown = {
                "name": self.source.environment.name,
                "seed": self.source.seed,
                "steps": self._next * self.source.rollout_steps,
                "observation": self._observation,
                "done": np.zeros(self.source.num_envs, bool),
                "environments": None,
                "memory": [np.asarray(known) for known in tf.nest.flatten(self._known)],
            }
            return [unknown]

    def _to_save(self, joined: Joined) -> dict[str, Any]:
        rollout = joined.rollout._asdict()
        rollout["memory"] = tf.nest.flatten(joined.rollout.memory)
        return {**rollout, "staleness": joined.staleness, "info": joined.info}

    def _unsaved(self, saved: Mapping[str, Any]) -> Joined:
        memory = tf.nest.pack_sequence_as(self._known, saved.get("memory", []))
        arrays = [saved[key] for key in ("observation", "action", "outcome", "extras")]
        info = {tag: (pair[0], pair[1]) for tag, pair in saved.get("info", {}).items()}
        return Joined(HostRollout(*arrays, memory), float(saved["staleness"]), info)

    def _whole(self, parts: list[dict[str, Any]]) -> dict[str, Any]:
        records = [part["environments"] for part in parts]
        joined = {
            key: np.concatenate([part[key] for part in parts]) for key in ("observation", "done")
        }
        memories = zip(*(part["memory"] for part in parts), strict=True)
        return {
            "name": parts[0]["name"],
            "seed": self.source.seed,
            "steps": max(part["steps"] for part in parts),
            **joined,
            "environments": None if None in records else [one for each in records for one in each],
            "memory": [np.concatenate(rows) for rows in memories],
        }

    def _part(self, snapshot: Mapping[str, Any], number: int) -> dict[str, Any]:
        rows = self._rows(number)
        environments = snapshot["environments"]
        return {
            "name": snapshot["name"],
            "seed": snapshot["seed"] + rows.start,
            "steps": snapshot["steps"],
            **{key: snapshot[key][rows] for key in ("observation", "done")},
            "environments": None if environments is None else environments[rows],
            "memory": [known[rows] for known in snapshot.get("memory", [])],
        }

    def _rows(self, number: int) -> slice:
        return slice(number * self.share, (number + 1) * self.share)

    def restore(self, snapshot: Mapping[str, Any]) -> list[str]:
        """Have actors put the environments back; one sentence for each that could not be."""
        then = len(snapshot["done"])
        if then != self.source.num_envs:
            raise UserError(
                f"The checkpoint holds {then} environments, this run has {self.source.num_envs}."
            )
        # At least one: environments lost from now on are not opened as at the run's beginning
        self._asked = max(1, snapshot["steps"] // self.source.rollout_steps)
        self._open(self._asked, snapshot)
        self._restored = dict(snapshot)
        self._observation = np.array(snapshot["observation"])
        self._wait(self._all_there)
        return [complaint for actor in self._actors for complaint in actor.complaints or ()]
