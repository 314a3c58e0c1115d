"""Episodes of a Minari data set as the plain columns of demonstrations.

Minari (https://minari.farama.org) keeps episodes that others have recorded; it is asked for by name
where it is installed, and not otherwise imported.
"""

import importlib
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sparring.errors import UserError

PREFIX = "minari:"
_log = logging.getLogger("sparring")


def read(name: str, source: str) -> dict[str, Any]:
    """Return the columns of a data set that is on this machine, and metadata.

    `source` begins the messages of errors, such as "expert=minari:NAME".

    Raises:
      UserError: Minari is not installed, or there is no such data set.
    """
    try:
        load_dataset: Any = importlib.import_module("minari").load_dataset
    except (ImportError, AttributeError) as error:  # the latter of a folder of that name
        raise UserError(
            f"{source}: Minari is not installed: pip install 'minari[hdf5]' (it needs numpy 2)."
        ) from error
    try:
        data = load_dataset(name)
        episodes = list(data.iterate_episodes())
    except (FileNotFoundError, ImportError, ValueError, OSError) as error:
        raise UserError(
            f"{source}: Minari cannot load it ({' '.join(str(error).split())}). "
            f"minari list local says what is here; minari download {name} brings it."
        ) from error
    made = data.env_spec.id if data.env_spec is not None else "not said"
    _log.info("%s: of %s; its settings are not compared with yours.", source, made)
    return {
        **columns(episodes, int(getattr(data.action_space, "start", 0)), source),
        "metadata": {"minari": name, "gymnasium_id": made},
    }


def columns(episodes: Iterable[Any], start: int, source: str) -> dict[str, Any]:
    """Return steps of episodes one after the other, as `Demonstrations` has them.

    Of T steps an episode has T + 1 `observations` and T `actions`, `rewards`, `terminations` and
    `truncations`. Choices count from `start`. An episode that was broken off is taken for
    truncated, and said to be.
    """
    kept = [episode for episode in episodes if len(episode.rewards)]
    if not kept:
        raise UserError(f"{source}: there is no step in it.")
    ended = [bool(e.terminations[-1] or e.truncations[-1]) for e in kept]
    if not all(ended):
        _log.warning(
            "%s: %d of %d episodes break off without an end, and are taken for truncated.",
            source,
            ended.count(False),
            len(kept),
        )
    lengths = [len(e.rewards) for e in kept]
    first = np.zeros(sum(lengths), bool)
    first[np.cumsum([0, *lengths[:-1]])] = True
    truncated = np.concatenate([np.asarray(e.truncations, bool) for e in kept])
    terminated = np.concatenate([np.asarray(e.terminations, bool) for e in kept])
    last = np.cumsum(lengths) - 1
    truncated[last] |= ~terminated[last]
    seen = [_parts(e.observations, source) for e in kept]
    return {
        "observation": _joined([{k: v[:-1] for k, v in parts.items()} for parts in seen]),
        "last_observation": _joined([{k: v[-1:] for k, v in parts.items()} for parts in seen]),
        "action": _narrow(np.concatenate([np.asarray(e.actions) for e in kept])) - start,
        "reward": np.concatenate([np.asarray(e.rewards, np.float32) for e in kept]),
        "terminated": terminated,
        "truncated": truncated,
        "first": first,
    }


def _parts(observations: Any, source: str) -> dict[str, np.ndarray]:
    """Return observations [T + 1, ...] by their parts' names, "" of one part."""
    parts = observations if isinstance(observations, Mapping) else {"": observations}
    for name, part in parts.items():
        if not isinstance(part, np.ndarray):
            raise UserError(
                f"{source}: its observations {name} are of type {type(part).__name__}: arrays, and "
                "arrays by name, can be learned from."
            )
    return {name: _narrow(part) for name, part in parts.items()}


def _joined(several: list[dict[str, np.ndarray]]) -> Any:
    found = {name: np.concatenate([parts[name] for parts in several]) for name in several[0]}
    return found[""] if list(found) == [""] else found


def _narrow(values: np.ndarray) -> np.ndarray:
    """Return floats as float32, which environments show, and others as they are."""
    return values.astype(np.float32) if values.dtype.kind == "f" else values
