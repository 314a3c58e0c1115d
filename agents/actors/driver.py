"""The learner's side of actors: processes of Ray's that step a slow environment for it.

Each actor has an equal share of the environments. For every iteration it collects a rollout of
them; the learner joins the shares, in the order of the iterations, and learns as it does from
environments of its own. Rollout k is collected with the weights that have learned from k - `ahead`
rollouts, whoever is fast or slow: with ahead=0 that is what one process computes, up to the
rounding of batches of one. Every rollout is learned from once, none is dropped.

A lost actor is Ray's to start again, and so is its call (see `Ray.actor_options`).
"""

import functools
import importlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from omegaconf import OmegaConf

from sparring import nested
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
_PATIENCE_SECONDS = 20.0  # for what was ordered, once a signal has asked for the end
_TELL_SECONDS = 60.0  # of waiting, until the user is told who is waited for
_CLOSING_SECONDS = 5.0
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
        self._actors: list[Any] = []
        self._opening: list[Any] = []  # the calls that open environments
        self._ordered: dict[int, tuple[int, list[Any]]] = {}  # iteration -> version, calls
        self._joined: dict[int, Joined] = {}  # iteration -> rollout
        self._asked = self._next = 0  # iterations whose rollouts were ordered, and joined
        self._observation: Any = None  # [B, ...] where the newest joined one ended
        self._lives: list[str] = []  # of the actors, as last heard
        self._failed = False

    # ---- learning --------------------------------------------------------------------------------

    def iterate(self, done: int, count: int) -> None:
        """Iterations `done`, done + 1, ... `count` of them."""
        self._open(done, [None] * self.settings.count)
        for iteration in range(done, done + count):
            started = time.perf_counter()
            self._order(iteration)
            self._join_until(iteration)
            joined = self._joined.pop(iteration)
            collected = time.perf_counter()
            self.learn(joined.rollout, np.int64((iteration + 1) * self.source.rollout_steps))
            self.note({**joined.info, "actors/staleness": (joined.staleness, 1.0)})
            self.seconds["collect"] += collected - started
            self.seconds["update"] += time.perf_counter() - collected

    def _order(self, iteration: int) -> None:
        """Order what actors may collect when an iteration is about to be learned from."""
        last = iteration + self.settings.ahead
        if self._asked <= last:
            weights = self._ray.put([v.numpy() for v in self._variables])
        while self._asked <= last:
            calls = [actor.collect.remote(self._asked, weights) for actor in self._actors]
            self._ordered[self._asked] = iteration, calls
            self._asked += 1

    def _join_until(self, last: int) -> None:
        """Await the rollouts of the iterations up to `last`."""
        while self._next <= last:
            version, calls = self._ordered[self._next]
            shares = self._answers(calls)
            del self._ordered[self._next]
            self._joined[self._next] = self._join(shares, float(self._next - version))
            self._next += 1

    def _answers(self, calls: list[Any]) -> list[Any]:
        """Await what every actor answers to its call.

        Raises:
            StoppedError: the run is to end, and an actor is not there yet, or gives no answer.
              Environments are then somewhere within a rollout.
            UserError: an environment's, or an actor was lost again and again.
        """
        missing = calls
        since = time.monotonic()
        asked = 0.0
        while missing:
            if self._failed:
                raise signals.StoppedError
            _, missing = self._ray.wait(calls, num_returns=len(calls), timeout=_LOOK_SECONDS)
            now = time.monotonic()
            if missing and signals.asked():
                asked = asked or now
                absent = self._ray.wait(self._opening, num_returns=len(calls), timeout=0)[1]
                self._failed = bool(absent) or now - asked > _PATIENCE_SECONDS
            elif missing and now - since > _TELL_SECONDS:
                late = ", ".join(str(i) for i, call in enumerate(calls) if call in missing)
                warn_once(
                    f"Waiting for actors {late}, more than {_TELL_SECONDS:g} s. `ray status` says "
                    "whether Ray has a CPU for each."
                )
        return [self._answer(number, call) for number, call in enumerate(calls)]

    def _answer(self, number: int, call: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(call)
        except errors.RayError as error:
            self._failed = True  # nothing more is waited for, not even to save
            cause = getattr(error, "cause", None)
            if isinstance(cause, UserError):
                raise UserError(f"Actor {number}: {cause}") from error
            if isinstance(error, errors.RayTaskError):
                raise
            how = " ".join(str(error).split())[:300]
            raise UserError(f"Actor {number} was lost, as was each in its place: {how}") from error

    def _join(self, shares: list[Share], staleness: float) -> Joined:
        """Return the rollout of all environments."""
        parts: list[Any] = [share.rollout._asdict() | {"outcome": ()} for share in shares]
        whole = tf.nest.map_structure(lambda *rows: np.concatenate(rows, axis=1), *parts)
        outcome = np.concatenate([share.rollout.outcome for share in shares], axis=2)
        # What a lost actor's rollout began with is not where the last one ended
        if self._observation is not None:
            nested.map_parts(_begin_with, whole["observation"], self._observation)
        self._observation = nested.map_parts(lambda part: part[-1], whole["observation"])
        info: dict[str, tuple[float, float]] = {}
        for share in shares:
            add_sums(info, share.info)
        lives = [share.life for share in shares]
        lost = [i for i, life in enumerate(self._lives) if life != lives[i]]
        for number in lost:
            _log.warning("Actor %d was lost. Its environments have opened new episodes.", number)
        self._lives = lives
        add_sums(info, {"actors/lost": (float(len(lost)), 1.0)})
        return Joined(HostRollout(**{**whole, "outcome": outcome}), staleness, info)

    # ---- opening and closing ---------------------------------------------------------------------

    def _open(self, done: int, states: list[Any]) -> None:
        """Start the actors after iteration `done`, with these states of their environments."""
        if self._actors:
            return
        self._own = connect(self.settings)
        self._ray = importlib.import_module("ray")
        session = self._ray.get_runtime_context().get_session_name()
        _log.info("What actors print is in /tmp/ray/%s/logs of their hosts.", session)
        build = self.settings.build
        if build is None:
            config = RunFolder(self.settings.folder).read_config()
            build = functools.partial(configured, OmegaConf.to_yaml(config))
        remote = self._ray.remote(Actor).options(**self.settings.actor_options())
        self._asked = self._next = done
        for number, state in enumerate(states):
            actor = remote.remote(build, number, self.settings.count)
            self._actors.append(actor)
            self._opening.append(actor.open.remote(state, done))

    def close(self) -> None:
        """Let the actors go."""
        closing = [] if self._failed else [actor.close.remote() for actor in self._actors]
        if closing:
            self._ray.wait(closing, num_returns=len(closing), timeout=_CLOSING_SECONDS)
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []
        self._opening = []
        if self._own:
            self._ray.shutdown()
            self._own = False

    # ---- saving ----------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any] | None:
        """Return the environments' state, as one process would save it, and the rollouts that
        actors are ahead; None before there are actors.
        """
        if not self._actors:
            return None
        parts = self._settled()
        records = [part["environments"] for part in parts]
        seen = [part["observation"] for part in parts]
        memories = zip(*(part["memory"] for part in parts), strict=True)
        ahead = [
            {**one.rollout._asdict(), "memory": tf.nest.flatten(one.rollout.memory)}
            | {"staleness": one.staleness, "info": one.info}
            for _, one in sorted(self._joined.items())
        ]
        return {
            **parts[0],
            "observation": nested.map_parts(lambda *rows: np.concatenate(rows), *seen),
            "done": np.concatenate([part["done"] for part in parts]),
            "environments": None if None in records else [one for each in records for one in each],
            "memory": [np.concatenate(rows) for rows in memories],
            **({"pending": ahead} if ahead else {}),
        }

    def _settled(self) -> list[dict[str, Any]]:
        """Have actors collect all that was ordered; return the states of their environments then.

        What is not known of those, as an actor is not there, is for all of them to open new
        episodes.
        """
        try:
            self._join_until(self._asked - 1)
            return self._answers([actor.snapshot.remote(self._asked) for actor in self._actors])
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
        parts = [self._part(state, number) for number in range(self.settings.count)]
        self._open(snapshot["steps"] // self.source.rollout_steps, parts)
        self._observation = nested.map_parts(np.array, snapshot["observation"])
        for iteration, saved in enumerate(pending, start=self._next - len(pending)):
            of = {key: saved[key] for key in ("observation", "action", "outcome", "extras")}
            of["memory"] = tf.nest.pack_sequence_as(self._known, saved.get("memory", []))
            info = {tag: (pair[0], pair[1]) for tag, pair in saved.get("info", {}).items()}
            self._joined[iteration] = Joined(HostRollout(**of), float(saved["staleness"]), info)
        complaints = self._answers(self._opening)
        return [complaint for each in complaints for complaint in each]

    def _part(self, state: Mapping[str, Any], number: int) -> dict[str, Any]:
        """Return an actor's part of the state of all environments."""
        share = self.source.num_envs // self.settings.count
        rows = slice(number * share, (number + 1) * share)
        environments = state["environments"]
        return {
            **state,
            "seed": state["seed"] + rows.start,
            "observation": nested.map_parts(lambda part: part[rows], state["observation"]),
            "done": state["done"][rows],
            "environments": None if environments is None else environments[rows],
            "memory": [known[rows] for known in state.get("memory", [])],
        }


def _begin_with(rollout: np.ndarray, observation: np.ndarray) -> None:
    """Have observations [T + 1, B, ...] begin with `observation` [B, ...]."""
    rollout[0] = observation
