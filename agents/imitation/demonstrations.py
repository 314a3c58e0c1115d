"""Demonstrations: whole episodes of an expert, in a file of plain arrays.

The file is an npz without pickles: `schema`, `metadata` (JSON), and per step of all episodes, one
after the other, [N, ...]: `observation` (or `observation/NAME` of each part), `action`, `reward`,
`terminated`, `truncated`, `first`, which opens an episode; and `last_observation` [E, ...], which
each of the E episodes ended with; perhaps `film` [T, H, W, 3] of an episode. Rewards say how good
the expert was, and are learned from by nobody. TensorFlow is not imported here: a config's mistakes
show before it is.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from sparring import nested
from sparring.agents.imitation import minari_episodes
from sparring.errors import UserError
from sparring.storage import atomic, provenance
from sparring.storage.settings import flat

SCHEMA = 1
_COLUMNS = ("action", "reward", "terminated", "truncated", "first")
_SEEN = ("observation", "last_observation")
_ABSENT = "absent"


class Transitions(NamedTuple):
    """Steps of an expert, [N, ...] each, without rewards: all that training is shown.

    `following` are the observations that the steps led to.
    """

    observation: Any  # of one part or several, see sparring.nested
    action: np.ndarray
    following: Any
    terminated: np.ndarray


@dataclass(frozen=True)
class Demonstrations:
    """Whole episodes of an expert.

    Args:
      observation: [N, ...], of one part or several by name; uint8 or float32.
      action: [N, ...], in the agent's space: choices count from 0, vectors are within bounds.
      reward: [N] float32, of the environment.
      terminated, truncated, first: [N] bool; `first` opens an episode.
      last_observation: [E, ...], of each episode.
      metadata: plain values: "environment" (its config), "observation_space", "action_space",
        "random_return" (mean return of random play) and more.
      film: an episode of the expert, uint8 [T, H, W, 3], to be shown beside the agent's.
      source: begins the messages of errors, such as "expert=mine.npz".
      other_settings: accept an environment whose settings differ.
    """

    observation: Any
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    first: np.ndarray
    last_observation: Any
    metadata: Mapping[str, Any] = field(default_factory=dict)
    film: np.ndarray | None = None
    source: str = "demonstrations"
    other_settings: bool = False

    def __post_init__(self) -> None:
        self._check_lengths()
        self._check_episodes()
        for name in ("observation", "last_observation", "action"):
            _check_finite(getattr(self, name), f"{self.source}: {name}")

    def _check_lengths(self) -> None:
        count = len(self.action)
        if count == 0:
            raise UserError(f"{self.source}: there is no step in it. Record whole episodes.")
        columns = [getattr(self, name) for name in _COLUMNS]
        for column in [*columns, *nested.leaves(self.observation)]:
            if len(column) != count:
                raise UserError(
                    f"{self.source}: it has {count} actions and {len(column)} of another column: "
                    "it is damaged, record it again."
                )

    def _check_episodes(self) -> None:
        ended = self.terminated | self.truncated
        whole = bool(self.first[0] and ended[-1] and np.array_equal(self.first[1:], ended[:-1]))
        known = {len(part) for part in nested.leaves(self.last_observation)}
        if not whole or known != {self.episodes}:
            raise UserError(
                f"{self.source}: its episodes are not whole: each begins where `first` is true and "
                "ends where `terminated` or `truncated` is, with a last observation."
            )

    @property
    def episodes(self) -> int:
        """Number of episodes."""
        return int(self.first.sum())

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.action)

    @property
    def returns(self) -> np.ndarray:
        """Undiscounted return of each episode, float64 [E]: to be reported, never learned from."""
        starts = np.flatnonzero(self.first)
        return np.add.reduceat(self.reward.astype(np.float64), starts)

    @property
    def random_return(self) -> float | None:
        """Mean return of random play, if the metadata says it."""
        value = self.metadata.get("random_return")
        return None if value is None else float(value)

    def limited(self, episodes: int) -> "Demonstrations":
        """Return the first `episodes` episodes; UserError if there are fewer."""
        if episodes > self.episodes:
            raise UserError(
                f"demonstrations.episodes={episodes}: {self.source} has {self.episodes}. Record "
                "more by sparring demonstrate --episodes, or take fewer."
            )
        starts = [*np.flatnonzero(self.first), self.steps]
        end = int(starts[episodes])
        columns = {name: getattr(self, name)[:end] for name in _COLUMNS}
        return Demonstrations(
            observation=nested.map_parts(lambda part: part[:end], self.observation),
            last_observation=nested.map_parts(lambda part: part[:episodes], self.last_observation),
            metadata=self.metadata,
            film=self.film,
            source=self.source,
            other_settings=self.other_settings,
            **columns,
        )

    def transitions(self) -> Transitions:
        """Return the steps with the observations that they led to."""
        ends = np.append(np.flatnonzero(self.first)[1:], self.steps) - 1  # [E]

        def following(part: np.ndarray, last: np.ndarray) -> np.ndarray:
            shifted = np.concatenate([part[1:], part[-1:]])
            shifted[ends] = last
            return shifted

        after = nested.map_parts(following, self.observation, self.last_observation)
        return Transitions(self.observation, self.action, after, self.terminated)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Plain values by which a resumed run knows whether its demonstrations are the same."""
        content = hashlib.blake2b(digest_size=16)
        for array in (*nested.leaves(self.observation), self.action, self.terminated):
            content.update(np.ascontiguousarray(array).data.cast("B"))
        return {"episodes": self.episodes, "steps": self.steps, "content": content.hexdigest()}

    # ---- against the environment -----------------------------------------------------------------

    def check(self, environment: Any, config: Mapping[str, Any] | None = None) -> None:
        """Raise UserError unless they are of `environment`, whose composed config is `config`.

        Spaces must be equal. Settings must be too, unless `other_settings`.
        """
        self.check_spaces(environment.observation_space, environment.action_space)
        made = self.metadata.get("environment")
        if config is None or made is None or self.other_settings:
            return
        theirs = flat(dict(made))
        ours = flat(dict(config))
        for key in sorted({*theirs, *ours}):
            before = theirs.get(key)
            now = ours.get(key)
            if before != now:
                raise UserError(
                    f"{self.source}: env.{key} was {before} where it was recorded, and is {now} "
                    "here. Make them equal, or say demonstrations.other_settings=true if the "
                    "difference is meant."
                )

    def check_spaces(
        self, observation_space: gymnasium.Space, action_space: gymnasium.Space
    ) -> None:
        """Raise UserError unless the steps fit the spaces."""
        said = self.metadata
        for name, space in (
            ("observation space", observation_space),
            ("action space", action_space),
        ):
            recorded = said.get(name.replace(" ", "_"), str(space))
            if recorded != str(space):
                raise UserError(
                    f"{self.source}: its {name} is {recorded}, and the environment's is {space}: "
                    "record demonstrations in this environment."
                )
        parts = nested.leaves(self.observation)
        alike = isinstance(observation_space, gymnasium.spaces.Dict) == isinstance(
            self.observation, Mapping
        )
        fits = alike and all(
            part.shape[1:] == box.shape and part.dtype == box.dtype
            for part, box in self._beside(observation_space)
        )
        if not fits:
            shown = ", ".join(f"{part.dtype} {list(part.shape[1:])}" for part in parts)
            raise UserError(
                f"{self.source}: its observations are {shown}, which do not fit "
                f"{observation_space}: record demonstrations in this environment."
            )
        self._check_actions(action_space)

    def _beside(self, space: gymnasium.Space) -> list[tuple[np.ndarray, gymnasium.Space]]:
        """Return each part of the observations with its space, no rows where one is absent."""
        if not isinstance(space, gymnasium.spaces.Dict):
            return [(self.observation, space)]
        absent = np.zeros((0,))
        return [(self.observation.get(name, absent), box) for name, box in space.spaces.items()]

    def _check_actions(self, space: gymnasium.Space) -> None:
        if isinstance(space, gymnasium.spaces.Box):
            within = self.action.dtype.kind == "f"
            low: Any = space.low
            high: Any = space.high
        else:
            within = self.action.dtype.kind in "iu"
            low = 0
            high = np.asarray(getattr(space, "nvec", getattr(space, "n", 0))) - 1
        if (
            self.action.shape[1:] != (space.shape or ())
            or not within
            or np.any(self.action < low)
            or np.any(self.action > high)
        ):
            raise UserError(
                f"{self.source}: its actions, {self.action.dtype} {list(self.action.shape[1:])}, "
                f"are not all in {space}: record demonstrations in this environment."
            )

    # ---- file ------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write the file whole; its metadata gain the versions of packages."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _COLUMNS}
        for name in _SEEN:
            parts = getattr(self, name)
            if isinstance(parts, Mapping):
                arrays |= {f"{name}/{key}": part for key, part in parts.items()}
            else:
                arrays[name] = parts
        if self.film is not None:
            arrays["film"] = self.film
        metadata = {**self.metadata, "written_by": provenance.versions()}
        content = io.BytesIO()
        np.savez_compressed(
            content, schema=np.int64(SCHEMA), metadata=np.array(json.dumps(metadata)), **arrays
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(path, content.getvalue())


def load(
    path: str, episodes: int | None = None, other_settings: bool = False, key: str = "expert"
) -> Demonstrations:
    """Read a file of demonstrations, and of it the first `episodes` (None: all).

    `path` may be "minari:NAME", a data set of Minari's. `other_settings` accepts an environment
    whose settings differ; `key` is the config's, for the messages of errors.

    Raises:
      UserError: there is no such file, or it is of another kind, damaged, empty or not finite.
    """
    source = f"{key}={path}"
    if path.startswith(minari_episodes.PREFIX):
        columns = minari_episodes.read(path.removeprefix(minari_episodes.PREFIX), source)
        whole = Demonstrations(**columns, source=source, other_settings=other_settings)
        return whole if episodes is None else whole.limited(episodes)
    if not Path(path).is_file():
        raise UserError(
            f"{source}: there is no such file. Record one: sparring demonstrate RUN --out {path}."
        )
    if not zipfile.is_zipfile(path):
        raise UserError(f"{source}: this is no npz file, as sparring demonstrate writes them.")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{source}: it cannot be read as demonstrations ({' '.join(str(error).split())})."
        ) from error
    if int(arrays.get("schema", -1)) != SCHEMA:
        raise UserError(
            f"{source}: its schema is {arrays.get('schema', _ABSENT)}, and this version of "
            f"Sparring reads {SCHEMA}: record it by sparring demonstrate."
        )
    found = _from_arrays(arrays, source, other_settings)
    if found.metadata.get("memory"):
        raise UserError(
            f"{source}: its expert has a memory, whose actions no single observation explains: "
            "record an agent without one."
        )
    return found if episodes is None else found.limited(episodes)


def _from_arrays(
    arrays: Mapping[str, np.ndarray], source: str, other_settings: bool
) -> Demonstrations:
    try:
        metadata = json.loads(str(arrays["metadata"]))
        return Demonstrations(
            observation=_parts(arrays, "observation"),
            last_observation=_parts(arrays, "last_observation"),
            metadata=metadata,
            film=arrays.get("film"),
            source=source,
            other_settings=other_settings,
            **{name: arrays[name] for name in _COLUMNS},
        )
    except (KeyError, json.JSONDecodeError) as error:
        raise UserError(f"{source}: it lacks {error}: it is damaged, record it again.") from error


def _parts(arrays: Mapping[str, np.ndarray], name: str) -> Any:
    if name in arrays:
        return arrays[name]
    parts = {
        key.partition("/")[2]: array for key, array in arrays.items() if key.startswith(f"{name}/")
    }
    if not parts:
        raise KeyError(name)
    return parts


def _check_finite(parts: Any, source: str) -> None:
    for part in nested.leaves(parts):
        if part.dtype.kind == "f" and not np.isfinite(part).all():
            row = int(np.flatnonzero(~np.isfinite(part).reshape(len(part), -1).all(axis=1))[0])
            raise UserError(
                f"{source} is NaN or infinite at row {row}: leave that episode out, or record it "
                "again."
            )
