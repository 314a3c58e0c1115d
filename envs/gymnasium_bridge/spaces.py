"""Translation between a Gymnasium environment's spaces and those of agents, in batches.

An agent meets three kinds of action space (Discrete from 0, MultiDiscrete from 0, Box in float32
with finite bounds) and one kind of observation space (Box, float32, or uint8 where the environment
gives bytes). Everything here works on a whole batch at once: one numpy call for a vector step, not
one per environment.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sparring import frame_stacks, nested
from sparring.envs.gymnasium_bridge import pictures
from sparring.errors import UserError, warn_once

MOST_CHOICES = 1_000_000  # of one Discrete space: one-hot, or an output each

Translate = Callable[[Any], np.ndarray]


class BoundAction(gym.ActionWrapper):
    """Declare finite bounds for an environment whose Box actions have none.

    The actions pass unchanged. Gymnasium's RescaleAction cannot do this: it requires an infinite
    bound to stay infinite.
    """

    def __init__(self, env: gym.Env, low: float | Sequence[float], high: float | Sequence[float]):
        super().__init__(env)
        if not isinstance(env.action_space, spaces.Box):
            kind = _kind(env.action_space)
            raise UserError(
                "sparring.envs.gymnasium_bridge.spaces.BoundAction bounds Box actions; this "
                f"environment's are {kind}."
            )
        inner: Any = env.action_space
        low_array, high_array = (
            np.broadcast_to(np.asarray(x, inner.dtype), inner.shape) for x in (low, high)
        )
        self.action_space = spaces.Box(low_array, high_array, dtype=inner.dtype)

    def action(self, action: np.ndarray) -> np.ndarray:
        """Return the action unchanged."""
        return action


def rescaled(env: gym.Env) -> gym.Env:
    """Return an environment whose Box actions go from -1 to 1, stretched to its own bounds.

    Raises:
        UserError: its actions are no Box of floats with finite bounds.
    """
    space: Any = env.action_space
    floats = isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)
    if not floats or not space.is_bounded():
        raise UserError(
            f"env.rescale_actions: the actions are {space}; those of a Box of floats with finite "
            "bounds can be rescaled."
        )
    one = np.ones(space.shape, space.dtype)
    return gym.wrappers.RescaleAction(env, -one, one)


class Actions(NamedTuple):
    """Action space for agents, and the translation of a batch [B, ...] to the environment.

    The translated batch is a fresh array.
    """

    space: spaces.Discrete | spaces.MultiDiscrete | spaces.Box
    to_environment: Translate


class Observations(NamedTuple):
    """Observation space for agents, and the translation of Gymnasium's batch to fresh arrays.

    Where the space is of stacks (see sparring.frame_stacks), the translation gives the newest
    frame.
    """

    space: spaces.Box | spaces.Dict
    to_agent: Callable[[Any], Any]


class View(NamedTuple):
    """Settings of what an agent sees: see `Gymnasium`'s arguments of these names."""

    channels: str = "auto"
    parts: str = "flat"
    masked: bool = False
    frame_stack: int = 1


AS_ONE = View()


def adapt_actions(space: gym.Space, name: str) -> Actions:
    """Return the agent's side of an environment's action space.

    Discrete and MultiDiscrete count from 0, MultiBinary is a MultiDiscrete of twos, several axes of
    choices become one, Box is float32 (a scalar Box has shape (1,)) and is clipped to the
    environment's own bounds on the way out.

    Raises:
        UserError: the Box has no finite bounds, or no agent here acts in such a space.
    """
    if isinstance(space, spaces.Discrete):
        start = space.start
        count = int(space.n)  # type: ignore[arg-type]
        if count > MOST_CHOICES:
            raise UserError(
                f"{name} takes Discrete({count}) actions, and a network would need an output for "
                "each: list a gymnasium.ActionWrapper under env.wrappers that offers fewer."
            )
        dtype = space.dtype
        return Actions(spaces.Discrete(count), lambda actions: np.asarray(actions, dtype) + start)
    if isinstance(space, spaces.MultiDiscrete):
        shape = (-1, *space.shape)
        starts = space.start
        kind = space.dtype
        agent = spaces.MultiDiscrete(space.nvec.ravel())
        return Actions(agent, lambda actions: np.asarray(actions, kind).reshape(shape) + starts)
    if isinstance(space, spaces.MultiBinary):
        bits = (-1, *space.shape)
        agent = spaces.MultiDiscrete(np.full(int(np.prod(space.shape)), 2))
        return Actions(agent, lambda actions: np.array(actions, space.dtype).reshape(bits))
    if isinstance(space, spaces.Box):
        return _adapt_box_actions(space, name)
    raise UserError(
        f"{name} takes {_kind(space)} actions. Agents here act in Discrete, MultiDiscrete, "
        "MultiBinary and Box spaces: "
        "list a gymnasium.ActionWrapper under env.wrappers that turns one of these into it."
    )


def _adapt_box_actions(space: spaces.Box, name: str) -> Actions:
    shape = space.shape or (1,)
    # A float64 bound beyond float32 becomes infinite, and is refused below
    with np.errstate(over="ignore"):
        low, high = (
            np.asarray(x).astype(np.float32).reshape(shape) for x in (space.low, space.high)
        )
        span = high - low
    if not np.isfinite(span).all():
        raise UserError(
            f"{name} takes Box actions without finite bounds (low {low.min()}, high {high.max()}); "
            "a policy cannot "
            "spread its actions over that. Declare bounds: env.wrappers=[{_target_: "
            "sparring.envs.gymnasium_bridge.spaces.BoundAction, "
            "_partial_: true, low: -1, high: 1}]. If env.wrappers lists "
            "gymnasium.wrappers.ClipAction, leave it out: "
            "it removes the bounds, and actions are clipped to them here."
        )
    whole = np.issubdtype(space.dtype, np.integer)
    batch = (-1, *space.shape)
    bottom = space.low
    top = space.high
    dtype = space.dtype

    def to_environment(actions: np.ndarray) -> np.ndarray:
        chosen = np.asarray(actions).reshape(batch)
        # To the environment's own bounds: rounded to float32 they may lie outside.
        clipped = np.clip(np.rint(chosen) if whole else chosen, bottom, top)
        return clipped.astype(dtype, copy=False)

    return Actions(spaces.Box(low, high, dtype=np.float32), to_environment)


def adapt_observations(space: gym.Space, name: str, view: View = AS_ONE) -> Observations:
    """Return the agent's side of an environment's observation space.

    Every translated array is a fresh copy.

    Box keeps its shape (a scalar becomes (1,)) as float32, or as uint8 if it is uint8; pictures
    have their channels last (see sparring.envs.gymnasium_bridge.pictures). Everything else is one
    float32 vector laid out as gymnasium.spaces.utils.flatten does: Discrete and MultiDiscrete
    one-hot, MultiBinary as it is, bytes divided by the highest they can be, Dict and Tuple
    concatenated in the space's order. A Dict or Tuple of one Box is that Box. With `view.parts` a
    Dict or Tuple stays a Dict, of such a Box for each of its leaves, named by the path to it. With
    `view.frame_stack` the space is of stacks.

    Raises:
        UserError: the space holds Text, Graph, Sequence or another kind with no fixed size, or has
            too many choices to be one-hot.
    """
    seen = _adapt_observations(space, name, view)
    return seen._replace(space=frame_stacks.stacked(seen.space, view.frame_stack))


def _adapt_observations(space: gym.Space, name: str, view: View) -> Observations:
    if isinstance(space, spaces.Box):
        return _adapt_box_observations(space, name, view.channels)
    parts = list(_parts(space, (), name))
    if len(parts) == 1 and isinstance(parts[0].space, spaces.Box):
        alone = _adapt_box_observations(parts[0].space, name, view.channels)
        return Observations(alone.space, lambda raw: alone.to_agent(parts[0].pick(raw)))
    masked = view.masked or view.parts != "flat"
    masks = [part for part in parts if masked and part.name == nested.MASK]
    if _keeps(parts, view):
        return _named(parts, name, view)
    if masks:
        return _beside_mask(masks[0], space, name, view)
    for part in parts:
        _tell_of_picture(part, name)
    low, high = (
        np.concatenate([getattr(part, bound) for part in parts]) for bound in ("low", "high")
    )
    if len(parts) == 1 and not parts[0].path:
        return Observations(
            spaces.Box(low, high, dtype=np.float32), lambda raw: parts[0].flatten(raw)
        )

    def to_agent(raw: Any) -> np.ndarray:
        # [B, all the sizes]
        return np.concatenate([part.flatten(part.pick(raw)) for part in parts], axis=1)

    return Observations(spaces.Box(low, high, dtype=np.float32), to_agent)


def _adapt_box_observations(space: spaces.Box, name: str, channels: str) -> Observations:
    dtype: type[np.uint8 | np.float32] = np.uint8 if space.dtype == np.uint8 else np.float32
    layout = pictures.layout(space, channels)
    shape = space.shape or (1,)
    low, high = (
        _as_float32(bound).reshape(shape).astype(dtype) for bound in (space.low, space.high)
    )
    if layout is not None:
        if channels == "auto":
            warn_once(
                f"{name}: observations {list(shape)} are taken for pictures and turned to "
                f"{list(layout.shape)}, channels last; env.channels=last takes them as they are."
            )
        agent = spaces.Box(layout.turn_bounds(low), layout.turn_bounds(high), dtype=dtype)
        return Observations(agent, lambda raw: layout.turn(np.asarray(raw, dtype)))
    agent = spaces.Box(low, high, dtype=dtype)
    if space.shape:
        # np.array always copies
        return Observations(agent, lambda raw: np.array(raw, dtype))
    return Observations(agent, lambda raw: np.array(raw, dtype).reshape(-1, 1))


def _keeps(parts: Sequence["_Part"], view: View) -> bool:
    """Return whether parts stay apart."""
    seen = [part for part in parts if part.name != nested.MASK]
    if view.parts == "auto":
        return len(seen) > 1 and any(part.is_picture for part in seen)
    return view.parts == "keep" and parts[0].path != ()


def _named(parts: Sequence["_Part"], name: str, view: View) -> Observations:
    """Return a Dict of all parts."""
    each = {}
    for part in parts:
        if isinstance(part.space, spaces.Box):
            each[part.name] = _adapt_box_observations(part.space, name, view.channels)
        elif part.name == nested.MASK:
            each[part.name] = _mask(part)
        else:
            each[part.name] = Observations(
                spaces.Box(part.low, part.high, dtype=np.float32), part.flatten
            )
    picks = {part.name: part.pick for part in parts}

    def to_agent(raw: Any) -> dict[str, np.ndarray]:
        return {key: each[key].to_agent(pick(raw)) for key, pick in picks.items()}

    return Observations(spaces.Dict({key: one.space for key, one in each.items()}), to_agent)


def _beside_mask(mask: "_Part", space: gym.Space, name: str, view: View) -> Observations:
    """Return a Dict of the mask and of all else, as it is without a mask."""
    assert isinstance(space, spaces.Dict)
    others = {key: child for key, child in space.spaces.items() if key != nested.MASK}
    seen = _adapt_observations(spaces.Dict(others), name, view)
    allowed = _mask(mask)

    def to_agent(raw: Any) -> dict[str, Any]:
        return {
            nested.OBSERVATION: seen.to_agent({key: raw[key] for key in others}),
            nested.MASK: allowed.to_agent(mask.pick(raw)),
        }

    both = spaces.Dict({nested.OBSERVATION: seen.space, nested.MASK: allowed.space})
    return Observations(both, to_agent)


def _mask(part: "_Part") -> Observations:
    """Return a mask of actions as bytes [B, A]."""
    size = int(np.prod(part.space.shape or ()))
    return Observations(
        spaces.Box(0, 1, (size,), np.uint8), lambda raw: np.array(raw, np.uint8).reshape(-1, size)
    )


def _tell_of_picture(part: "_Part", name: str) -> None:
    """Say what becomes of a picture among other observations."""
    if not part.is_picture:
        return
    warn_once(
        f"{name}: the picture {list(part.space.shape or ())} at {part.where} is divided by "
        f"{part.highest:g} and joined with the other observations as {len(part.low)} numbers, at "
        "which no convolution can look. env.parts=keep network=parts keeps them apart."
    )


class _Part(NamedTuple):
    """Leaf of an observation space.

    `path` locates it in the space, `low` and `high` are its bounds once flat, and `flatten` turns
    its batch into [B, size]. `highest` is what bytes are divided by.
    """

    space: gym.Space
    path: tuple[str | int, ...]
    low: np.ndarray
    high: np.ndarray
    flatten: Translate
    highest: float = 1.0

    @property
    def where(self) -> str:
        """Return the path as it is written in Python: "['camera'][0]"."""
        return "".join(f"[{key!r}]" for key in self.path)

    @property
    def name(self) -> str:
        """Return the path as a name: "camera", "arms.0"."""
        return ".".join(map(str, self.path))

    @property
    def is_picture(self) -> bool:
        """Return whether it is a picture, for a convolution to look at."""
        return self.space.dtype == np.uint8 and len(self.space.shape or ()) >= 2

    def pick(self, raw: Any) -> Any:
        """Return this leaf of a nested batch."""
        for key in self.path:
            raw = raw[key]
        return raw


def _parts(space: gym.Space, path: tuple[str | int, ...], name: str) -> Iterator[_Part]:
    """Yield the leaves of `space` in Gymnasium's flattening order."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        children: Any = (
            space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        )
        for key, child in children:
            yield from _parts(child, (*path, key), name)
    elif isinstance(space, spaces.Box):
        yield _box(space, path)
    elif isinstance(space, spaces.Discrete):
        _require_few(space, int(space.n), name)  # type: ignore[arg-type]
        yield _one_hot(space, path, np.array([space.n]), np.array([space.start]))
    elif isinstance(space, spaces.MultiDiscrete):
        _require_few(space, int(space.nvec.sum(dtype=np.float64)), name)
        yield _one_hot(space, path, space.nvec.ravel(), space.start.ravel())
    elif isinstance(space, spaces.MultiBinary):
        size = int(np.prod(space.shape))
        yield _Part(space, path, np.zeros(size, np.float32), np.ones(size, np.float32), _flat)
    else:
        where = "".join(f"[{key!r}]" for key in path)
        raise UserError(
            f"{name} gives {_kind(space)} observations{' at ' + where if where else ''}, which "
            "have no fixed size a "
            "network could take: list a gymnasium.ObservationWrapper under env.wrappers that "
            "removes or encodes them."
        )


def _require_few(space: gym.Space, count: int, name: str) -> None:
    if count > MOST_CHOICES:
        raise UserError(
            f"{name} gives {_kind(space)} observations with {count} values, which one-hot are as "
            f"many numbers each ({4 * count / 1e9:.3g} GB): list a gymnasium.ObservationWrapper "
            "under env.wrappers that encodes them."
        )


def _box(space: spaces.Box, path: tuple[str | int, ...]) -> _Part:
    low = _as_float32(space.low).ravel()
    high = _as_float32(space.high).ravel()
    if space.dtype != np.uint8:
        return _Part(space, path, low, high, _flat)
    highest = float(max(high.max(), 1.0))
    return _Part(
        space, path, low / highest, high / highest, lambda raw: _flat(raw) / highest, highest
    )


def _one_hot(
    space: gym.Space, path: tuple[str | int, ...], counts: np.ndarray, starts: np.ndarray
) -> _Part:
    """Return the part for choices with `counts` values from `starts` on, one-hot.

    Each choice takes as many columns as it has values.
    """
    owner = np.repeat(np.arange(len(counts)), counts)  # [size]: which choice a column belongs to
    # [size]
    value = np.concatenate(
        [start + np.arange(count) for count, start in zip(counts, starts, strict=True)]
    )
    size = len(value)

    def flatten(raw: Any) -> np.ndarray:
        choices = np.asarray(raw).reshape(-1, len(counts))  # [B, choices]
        return (choices[:, owner] == value).astype(np.float32)  # [B, size]

    return _Part(space, path, np.zeros(size, np.float32), np.ones(size, np.float32), flatten)


def _flat(raw: Any) -> np.ndarray:
    batch = np.asarray(raw, np.float32)
    return batch.reshape(len(batch), -1)


def _as_float32(bound: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # bounds beyond float32 become infinite, as they are meant
        return np.asarray(bound).astype(np.float32)


def _kind(space: gym.Space) -> str:
    return type(space).__name__
