"""The learner's side of actors: processes of Ray's that step a slow environment for it.

Each actor has an equal share of the environments. For every iteration it collects a rollout of
them; the learner joins the shares, in the order of the iterations, and learns as it does from
environments of its own. Rollout k is collected with the weights that have learned from k - `ahead`
rollouts, whoever is fast or slow: with ahead=0 that is what one process computes, up to the
rounding of batches of one. Every rollout is learned from once, none is dropped.
"""

import dataclasses
import functools
import importlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from omegaconf import OmegaConf

from sparring.agents.actors.actor import Actor, Share, configured
from sparring.agents.actors.settings import Ray, connect
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
_OPEN = -2  # what is asked of an actor in an iteration's place: to open its environments,
_STATE = -1  # and to give their state
_IN_A_ROW = 3  # losses of an actor without an answer in between that end the run
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
    owed: list[int] = dataclasses.field(default_factory=list)  # iterations, and _STATE
    snapshot: dict[str, Any] = dataclasses.field(default_factory=dict)
    losses: int = 0  # since it last answered


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
        settings: Ray,
    ) -> None:
        self.source = source
        self.learn = learn
        self.settings = settings
        self.note = note
        self.seconds = {"collect": 0.0, "update": 0.0}
        self._known = known
        self._variables = [v for _, v in sorted(variable_names.named_variables(model).items())]
        self._ray: Any = None
        self._own = False  # whether Ray is this run's to shut down
        self._actors: list[_Held] = []
        self._calls: dict[Any, tuple[_Held, int]] = {}  # Ray's reference -> whose, and what
        self._weights: dict[int, tuple[int, Any]] = {}  # iteration -> version, reference
        self._shares: dict[int, dict[int, Share]] = {}  # iteration -> actor -> its share
        self._joined: dict[int, Joined] = {}  # iteration -> rollout
        self._asked = self._next = 0  # iterations whose rollouts were ordered, and joined
        self._observation: np.ndarray | None = None  # [B, ...] where the newest joined one ended
        self._lost = 0
        self._failed = False

    # ---- learning --------------------------------------------------------------------------------

    def iterate(self, done: int, count: int) -> None:
        """Iterations `done`, done + 1, ... `count` of them."""
        self._open(done, [None] * self.settings.count)
        for iteration in range(done, done + count):
            started = time.perf_counter()
            self._order(iteration)
            self._wait(functools.partial(self._joined.__contains__, iteration))
            joined = self._joined.pop(iteration)
            collected = time.perf_counter()
            self.learn(joined.rollout, np.int64((iteration + 1) * self.source.rollout_steps))
            lost = {"actors/lost": (float(self._lost), 1.0)}
            self.note({**joined.info, "actors/staleness": (joined.staleness, 1.0), **lost})
            self._lost = 0
            self.seconds["collect"] += collected - started
            self.seconds["update"] += time.perf_counter() - collected

    def _order(self, iteration: int) -> None:
        """Order what actors may collect when an iteration is about to be learned from."""
        last = iteration + self.settings.ahead
        if self._asked <= last:
            weights = self._ray.put([v.numpy() for v in self._variables])
        while self._asked <= last:
            self._weights[self._asked] = iteration, weights
            for actor in self._actors:
                self._owe(actor, self._asked)
            self._asked += 1

    def _owe(self, actor: _Held, what: int) -> None:
        actor.owed.append(what)
        self._call(actor, what)

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
                if ready:
                    heard = time.monotonic()
                    self._hear(ready[0])
                silence = time.monotonic() - heard
                there = self._all_there()
                if silence > _TELL_SECONDS:
                    late = ", ".join(sorted({str(of.number) for of, _ in self._calls.values()}))
                    why = "" if there else " Has Ray a free CPU for each? See `ray status`."
                    warn_once(f"Waiting for actors {late}, more than {_TELL_SECONDS:g} s.{why}")
                if signals.asked() and (not there or silence > _PATIENCE_SECONDS):
                    self._failed = not done()
        except UserError:
            self._failed = True  # nothing more is waited for, not even to save
            raise

    def _all_there(self) -> bool:
        return all(actor.complaints is not None for actor in self._actors)

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
            self._replace(actor, " ".join(str(error).split())[:300])
            return
        if what == _OPEN:
            actor.complaints = answer
            actor.state = None
            return
        actor.losses = 0
        actor.owed.remove(what)
        if what == _STATE:
            actor.snapshot = answer
            return
        self._shares.setdefault(what, {})[actor.number] = answer
        while len(self._shares.get(self._next, ())) == len(self._actors):
            shares = [share for _, share in sorted(self._shares.pop(self._next).items())]
            version, _ = self._weights.pop(self._next)
            self._joined[self._next] = self._join(shares, float(self._next - version))
            self._next += 1

    def _join(self, shares: list[Share], staleness: float) -> Joined:
        """Return the rollout of all environments."""
        parts = [share.rollout._replace(outcome=()) for share in shares]
        whole = tf.nest.map_structure(lambda *rows: np.concatenate(rows, axis=1), *parts)
        outcome = np.concatenate([share.rollout.outcome for share in shares], axis=2)
        # What a lost actor's rollout began with is not where the last one ended
        if self._observation is not None:
            whole.observation[0] = self._observation
        self._observation = whole.observation[-1]
        info: dict[str, tuple[float, float]] = {}
        for share in shares:
            add_sums(info, share.info)
        return Joined(whole._replace(outcome=outcome), staleness, info)

    # ---- opening, replacing, closing -------------------------------------------------------------

    def _open(self, done: int, states: Sequence[dict[str, Any] | None]) -> None:
        """Start the actors after iteration `done`, with these states of their environments."""
        if self._actors:
            return
        self._own = connect(self.settings)
        self._ray = importlib.import_module("ray")
        session = self._ray.get_runtime_context().get_session_name()
        _log.info("What actors print is in /tmp/ray/%s/logs of their hosts.", session)
        self._asked = self._next = done
        for number, state in enumerate(states):
            self._actors.append(_Held(number, state))
            self._start(self._actors[-1])

    @functools.cached_property
    def _build(self) -> Callable[[], Any]:
        """What an actor builds its trainer with."""
        if self.settings.build is not None:
            return self.settings.build
        config = RunFolder(self.settings.folder).read_config()
        return functools.partial(configured, OmegaConf.to_yaml(config))

    def _start(self, actor: _Held) -> None:
        """Start an actor, to do what is owed."""
        remote = self._ray.remote(Actor).options(**self.settings.actor_options())
        actor.handle = remote.remote(self._build, actor.number, self.settings.count)
        first = min((k for k in actor.owed if k != _STATE), default=self._asked)
        opening = actor.handle.open.remote(actor.state, first * self.source.rollout_steps)
        self._calls[opening] = actor, _OPEN
        for what in actor.owed:
            self._call(actor, what)

    def _replace(self, actor: _Held, how: str) -> None:
        """Start another in the place of a lost actor."""
        self._lost += 1
        actor.losses += 1
        if actor.losses >= _IN_A_ROW:
            raise UserError(f"Actor {actor.number} was lost {_IN_A_ROW} times in a row: {how}")
        said = "Actor %d was lost, and another is started. Its environments open new episodes. (%s)"
        _log.warning(said, actor.number, how)
        self._ray.kill(actor.handle)  # which may be out of reach, and not dead
        self._calls = {call: of for call, of in self._calls.items() if of[0] is not actor}
        actor.complaints = None
        self._start(actor)

    def close(self) -> None:
        """Let the actors go."""
        actors = self._actors
        self._actors = []
        self._calls = {}
        if actors and not self._failed:
            closing = [actor.handle.close.remote() for actor in actors]
            self._ray.wait(closing, num_returns=len(closing), timeout=_CLOSING_SECONDS)
        for actor in actors:
            self._ray.kill(actor.handle)
        if self._own:
            self._ray.shutdown()
            self._own = False

    # ---- saving ----------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Return the environments' state, as one process would save it, and the rollouts that
        actors are ahead.
        """
        parts = self._settle()
        records = [part["environments"] for part in parts]
        joined = {key: np.concatenate([part[key] for part in parts]) for key in _ROWS}
        memories = zip(*(part["memory"] for part in parts), strict=True)
        ahead = [
            {**one.rollout._asdict(), "memory": tf.nest.flatten(one.rollout.memory)}
            | {"staleness": one.staleness, "info": one.info}
            for _, one in sorted(self._joined.items())
        ]
        return {
            **parts[0],
            **joined,
            "environments": None if None in records else [one for each in records for one in each],
            "memory": [np.concatenate(rows) for rows in memories],
            **({"pending": ahead} if ahead else {}),
        }

    def _settle(self) -> list[dict[str, Any]]:
        """Have actors collect all that was ordered; return the states of their environments then.

        What is not known of those, as an actor is not there, is for all of them to open new
        episodes.
        """
        try:
            self._wait(lambda: self._next == self._asked)
            for actor in self._actors:
                self._owe(actor, _STATE)
            self._wait(lambda: not any(actor.owed for actor in self._actors))
            return [actor.snapshot for actor in self._actors]
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

    def restore(self, snapshot: Mapping[str, Any]) -> list[str]:
        """Have actors put the environments back; one sentence for each that could not be."""
        then = len(snapshot["done"])
        if then != self.source.num_envs:
            raise UserError(
                f"The checkpoint holds {then} environments, this run has {self.source.num_envs}."
            )
        state = dict(snapshot)
        pending = state.pop("pending", [])
        self._open(
            snapshot["steps"] // self.source.rollout_steps,
            [self._part(state, number) for number in range(self.settings.count)],
        )
        self._observation = np.array(snapshot["observation"])
        for iteration, saved in enumerate(pending, start=self._next - len(pending)):
            memory = tf.nest.pack_sequence_as(self._known, saved.get("memory", []))
            arrays = [saved[key] for key in ("observation", "action", "outcome", "extras")]
            info = {tag: (pair[0], pair[1]) for tag, pair in saved.get("info", {}).items()}
            rollout = HostRollout(*arrays, memory)
            self._joined[iteration] = Joined(rollout, float(saved["staleness"]), info)
        self._wait(self._all_there)
        return [complaint for actor in self._actors for complaint in actor.complaints or ()]

    def _part(self, state: Mapping[str, Any], number: int) -> dict[str, Any]:
        """Return an actor's part of the state of all environments."""
        share = self.source.num_envs // self.settings.count
        rows = slice(number * share, (number + 1) * share)
        environments = state["environments"]
        return {
            **state,
            "seed": state["seed"] + rows.start,
            **{key: state[key][rows] for key in _ROWS},
            "environments": None if environments is None else environments[rows],
            "memory": [known[rows] for known in state.get("memory", [])],
        }


_ROWS = ("observation", "done")  # arrays of a state with a row for each environment
