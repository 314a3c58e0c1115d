"""Vector of B environments stepped together on the host.

Resets are Gymnasium's NEXT_STEP: after a step that ended an episode, the next call ignores that
environment's action and opens its next episode.
"""

import contextlib
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array

from sparring import frame_stacks, nested
from sparring.envs.gymnasium_bridge.curriculum import Course, parameters_at
from sparring.envs.gymnasium_bridge.episode_replay import (
    FAULT,
    INFO,
    START,
    Episode,
    History,
    empty,
)
from sparring.envs.gymnasium_bridge.spaces import AS_ONE, View, adapt_actions, adapt_observations
from sparring.envs.gymnasium_bridge.workers import EnvironmentFault, Workers
from sparring.errors import UserError


class Step(NamedTuple):
    """Result of one vector step of B environments; every array is the caller's to keep.

    `first` marks an environment that was reset by this call: its action was ignored, its reward is
    0, and its observation opens an episode. An episode that could not be restored opens its
    successor the same way, without a `terminated` or `truncated` before it.
    """

    observation: (
        Any  # [B, ...] float32, or uint8 where it gives bytes; of parts, see sparring.nested
    )
    reward: np.ndarray  # [B] float32
    terminated: np.ndarray  # [B] bool: the task ended, nothing follows
    truncated: np.ndarray  # [B] bool: the clock ran out, the value of `observation` follows
    first: np.ndarray  # [B] bool


class HostVector:
    """Vector of B environments on the host: plain arrays in, plain arrays out.

    After an EnvironmentFault nothing more can be stepped, but `snapshot` still describes the last
    whole step. `info` holds the numbers that the last step said under the names asked for, float64
    [B] by name, NaN where it said none.
    """

    def __init__(
        self,
        vector: VectorEnv,
        name: str,
        seed: int,
        replay_limit: float | None,
        view: View = AS_ONE,
        info: Sequence[str] = (),
        curriculum: Mapping[str, Course] | None = None,
    ):
        self.num_envs = vector.num_envs
        self.name = name
        # Gymnasium's three kinds share no more than reset, step and close
        self._vector: Any = vector
        self._seed = seed
        self._replay_limit = replay_limit
        self.observation_space, self._to_agent = adapt_observations(
            vector.single_observation_space, name, view
        )
        self.action_space, self._to_environment = adapt_actions(vector.single_action_space, name)
        # An environment's own vectorised version steps all its episodes from one generator: none is
        # replayed alone.
        self._history = (
            History(self.num_envs, vector.single_action_space) if replay_limit is not None else None
        )
        self._observation: Any = None
        self._done = np.zeros(self.num_envs, bool)
        self._steps = 0
        self.info = dict.fromkeys(info, np.full(self.num_envs, np.nan))
        self._curriculum = curriculum or {}
        self._parameters: dict[str, float] = {}
        # Replaces the next step, if not None
        self._instead: Callable[[], Step] | None = None
        self.follow(1.0)

    def follow(self, progress: float) -> None:
        """Have the episodes that begin from now on be those of a share `progress` of the run."""
        parameters = parameters_at(self._curriculum, progress)
        if parameters != self._parameters:
            self._parameters = parameters
            self._asked(self._vector.set_attr, "parameters", [parameters] * self.num_envs)

    @property
    def observation(self) -> Any:
        """Latest observations [B, ...]; after `restore`, those to act on next."""
        assert self._observation is not None, "reset() or restore() comes first"
        return nested.map_parts(np.copy, self._observation)

    def reset(self, seed: int | None = None) -> Any:
        """Open the first episode of every environment, of `seed` (None: as it was made with).

        Returns the observations [B, ...].
        """
        if seed is not None:
            self._seed = seed
        return self._reset_all(self._seed)

    def _reset_all(self, seed: int) -> Any:
        # Gymnasium gives the i-th environment seed + i
        raw, infos = self._asked(self._vector.reset, seed=seed)
        self._raise_fault(infos)
        self._note_starts(infos)
        self._done = np.zeros(self.num_envs, bool)
        frame = self._to_agent(raw)
        self._check_finite(frame)
        self._observation = frame_stacks.opened(self.observation_space, frame)
        return self.observation

    def step(self, actions: np.ndarray) -> Step:
        """Step every environment with `actions` [B, ...] of the agent's action space.

        Box actions may lie outside their bounds: the environment receives them clipped, `actions`
        is left unchanged.

        Raises:
            EnvironmentFault: an environment raised, or its process died.
        """
        if self._instead is not None:
            return self._instead()
        batch = self._to_environment(actions)
        if self._history is not None:
            self._history.propose(batch)
        raw, reward, terminated, truncated, infos = self._asked(self._vector.step, batch)
        reward = np.array(reward, np.float32)
        if FAULT in infos:
            self._raise_fault(infos)
        if self._history is not None:
            self._history.confirm(reward)
            if START in infos:
                self._note_starts(infos)
        first = self._done
        self._done = np.logical_or(terminated, truncated)
        frame = self._to_agent(raw)
        self._check_finite(frame)
        observation = frame_stacks.pushed(self.observation_space, self._observation, frame, first)
        # The caller may change its own
        self._observation = nested.map_parts(np.copy, observation)
        self._steps += 1
        # An environment's own vectorised version gives its infos as they are
        prefix = "" if self._history is None else INFO
        self.info = {name: self._said(infos, prefix + name) for name in self.info}
        return Step(
            observation, reward, np.array(terminated, bool), np.array(truncated, bool), first
        )

    def _said(self, infos: Mapping[str, Any], name: str) -> np.ndarray:
        """Return the numbers in a step's infos under a name, float64 [B], NaN where it is none."""
        found = np.full(self.num_envs, np.nan)
        if name not in infos:
            return found
        for index in np.flatnonzero(infos.get(f"_{name}", np.ones(self.num_envs, bool))):
            with contextlib.suppress(TypeError, ValueError):
                found[index] = float(infos[name][index])
        return found

    def restart(self, steps: int) -> Any:
        """Replace a vector that was lost after `steps` steps: the next step opens all episodes.

        Their seeds differ from those of the episodes before. Returns zeros [B, ...] as
        observations; actions on them have no effect.
        """
        self._steps = steps
        self._instead = self._restart_step
        self._observation = nested.map_parts(
            lambda box: np.zeros((self.num_envs, *box.shape), box.dtype), self.observation_space
        )
        return self.observation

    def _restart_step(self) -> Step:
        """Open an episode in every environment at once, in place of a step."""
        self._instead = None
        observation = self._reset_all(
            int(np.random.SeedSequence([self._seed, self._steps]).generate_state(1)[0] >> 1)
        )
        no = np.zeros(self.num_envs, bool)
        return Step(observation, np.zeros(self.num_envs, np.float32), no, no.copy(), ~no)

    def _raise_fault(self, infos: Mapping[str, Any]) -> None:
        for index, text in enumerate(infos.get(FAULT, ())):
            if text is None:
                continue
            where = self._where(index)
            if text.startswith("Traceback"):
                raise self._given_up(f"{where} failed:\n{text.rstrip()}")
            raise self._given_up(f"{where}: {text}")

    def _where(self, index: int) -> str:
        return f"environment {index} ({self.name}) at step {self._steps + 1}"

    def _check_finite(self, observation: Any) -> None:
        """Refuse observations [B, ...] that hold NaN or infinity, before a network learns them."""
        nested.map_parts(self._check_part, observation)

    def _check_part(self, observation: np.ndarray) -> None:
        if observation.dtype == np.uint8 or np.isfinite(observation).all():
            return
        index, *entry = (int(i) for i in np.argwhere(~np.isfinite(observation))[0])
        value = observation[(index, *entry)]
        raise self._given_up(
            f"{self._where(index)}: the observation is not finite, it holds {value} at {entry}."
        )

    def _note_starts(self, infos: Mapping[str, Any]) -> None:
        for index, start in enumerate(infos.get(START, ())):
            if start is not None and self._history is not None:
                self._history.begin(index, start)

    def _asked(self, ask: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return the vector environment's answer; turn any exception into an EnvironmentFault."""
        try:
            return ask(*args, **kwargs)
        except Exception as fault:
            dead = isinstance(fault, EOFError | OSError) and isinstance(self._vector, Workers)
            text = (
                f"{self._vector.obituary()} while the run went on"
                if dead
                else traceback.format_exc().rstrip()
            )
            raise self._given_up(f"{self.name}: {text}") from fault

    def _given_up(self, text: str) -> EnvironmentFault:
        """Close everything, and return the fault to raise, now and at any later step."""

        def again() -> Step:
            raise EnvironmentFault(text)

        self._instead = again
        with contextlib.suppress(Exception):  # the fault that led here is the one to report
            self.close()
        return EnvironmentFault(text)

    def snapshot(self) -> dict[str, Any]:
        """Return all that `restore` needs: nested dicts and lists of numbers, strings and arrays.

        Call it after `reset`.
        """
        if self._observation is None:
            raise RuntimeError("snapshot() before reset(): there is nothing to keep yet")
        return {
            "name": self.name,
            "seed": self._seed,
            "steps": self._steps,
            "observation": self.observation,
            "done": self._done.copy(),
            "environments": self._history.snapshot() if self._history is not None else None,
        }

    def restore(self, snapshot: Mapping[str, Any]) -> list[str]:
        """Bring every environment back to its saved state by replaying its episode.

        Returns one sentence for each environment that could not be restored: it opens a new episode
        at the next step (see Step.first). A vector that restores needs no reset.

        Raises:
            UserError: the snapshot is of another environment or another number of them.
        """
        then = (snapshot["name"], len(snapshot["done"]))
        if then != (self.name, self.num_envs):
            raise UserError(
                f"The checkpoint holds {then[1]} environments of {then[0]}, this run has "
                f"{self.num_envs} of "
                f"{self.name}: resume with the settings it was saved with."
            )
        if self._observation is not None:
            self._asked(self._vector.reset)  # a used vector has resets of its own due
        self._seed = snapshot["seed"]
        self._steps = snapshot["steps"]
        self._observation = nested.map_parts(np.array, snapshot["observation"])
        self._done = np.array(snapshot["done"], bool)
        environments = snapshot["environments"]
        if self._history is None or environments is None:
            return self._restart_everything(environments)
        problems = self._replay(environments, self._observation)
        self._history.restore(environments, [problem is None for problem in problems])
        resets: list[dict[str, Any] | None] = [
            {"seed": None} if done else None for done in self._done
        ]
        for index in (i for i, problem in enumerate(problems) if problem):
            resets[index] = {"seed": self._history.fresh_seed(index)}
            self._done[index] = True
        self._asked(self._vector.set_attr, "due", resets)
        return [
            f"Environment {index} ({self.name}) starts a new episode: {problem}."
            for index, problem in enumerate(problems)
            if problem
        ]

    def _replay(
        self, environments: Sequence[Mapping[str, Any]], observation: Any
    ) -> list[str | None]:
        """Replay every episode where its environment lives; return each one's problem, or None."""
        past = [
            Episode.of(saved, bool(done))
            for saved, done in zip(environments, self._done, strict=True)
        ]
        self._asked(self._vector.set_attr, "past", past)
        replayed = self._asked(self._vector.call, "replay", self._replay_limit)
        space = self._vector.single_observation_space
        nothing = empty(space)
        rows = [nothing if one.observation is None else one.observation for one in replayed]
        now = self._to_agent(concatenate(space, rows, create_empty_array(space, self.num_envs)))
        then = frame_stacks.newest(self.observation_space, observation)
        problems: list[str | None] = []
        for index, (episode, one) in enumerate(zip(past, replayed, strict=True)):
            problem = (
                one.problem
                if episode
                else "its episode's beginning is unknown, or too long ago to be kept"
            )
            if not problem and _bytes_of(now, index) != _bytes_of(then, index):
                problem = "its actions led to another observation: it is not deterministic"
            problems.append(problem)
        return problems

    def _restart_everything(self, environments: Any) -> list[str]:
        """Open new episodes everywhere, because nothing can be replayed.

        Either side is an environment's own vectorised version.
        """
        why = (
            "its own vectorised version cannot be replayed"
            if self._history is None
            else "it was saved without a record"
        )
        self._instead = self._restart_step
        if self.num_envs == 1:
            return [f"Environment 0 ({self.name}) starts a new episode: {why}."]
        return [f"All {self.num_envs} environments ({self.name}) start new episodes: {why}."]

    def render(self) -> np.ndarray:
        """Return environment 0 as an image, uint8 [H, W, 3]; needs a vector with render=True."""
        frames = (
            self._vector.render()
            if self._history is None
            else self._asked(self._vector.call, "frame")
        )
        return _picture(frames[0], self.name)

    def close(self) -> None:
        """End the environments and their processes within seconds, whatever state they are in."""
        self._vector.close()


def _bytes_of(observation: Any, index: int) -> list[bytes]:
    """Return the bits of one environment's observation, part by part."""
    return [part[index].tobytes() for part in nested.leaves(observation)]


def _picture(frame: Any, name: str) -> np.ndarray:
    """Return what render() gave as a colour picture, uint8 [H, W, 3].

    Grey ones get three equal channels, transparency is left out, and numbers from 0 to 1 go up to
    255.

    Raises:
        UserError: it is no picture.
    """
    if isinstance(frame, str):  # an exception's text
        raise UserError(f"{name} cannot be drawn: {frame}.")
    if isinstance(frame, list) and frame:  # of render_mode rgb_array_list
        frame = frame[-1]
    if isinstance(frame, np.ndarray) and frame.ndim == 2:
        frame = frame[:, :, np.newaxis]
    if not (isinstance(frame, np.ndarray) and frame.ndim == 3 and frame.shape[-1] in (1, 3, 4)):
        what = type(frame).__name__
        if isinstance(frame, np.ndarray):
            what = f"an array {list(frame.shape)}"
        raise UserError(f"{name} cannot be drawn: render() gave {what}, not a colour picture.")
    if frame.shape[-1] == 1:
        frame = np.repeat(frame, 3, axis=-1)
    frame = frame[:, :, :3]
    if np.issubdtype(frame.dtype, np.floating):
        scale = 255.0 if np.nanmax(frame, initial=0.0) <= 1.0 else 1.0
        frame = np.clip(np.nan_to_num(frame) * scale, 0.0, 255.0).round()
    return np.array(frame, np.uint8)
