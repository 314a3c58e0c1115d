"""State that losses, penalties and augmentations keep, for the checkpoint."""

import functools
import types
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from sparring.errors import UserError
from sparring.gans.objective import Objective

Trackable = tf.__internal__.tracking.Trackable
_FOREIGN = {
    "builtins",
    "numpy",
    "tensorflow",
    "keras",
    "tf_keras",
}  # packages whose objects are not searched


def objective_state(objective: Objective) -> dict[str, Any]:
    """Return what losses, penalties and augmentations keep, for `tf.train.Checkpoint`.

    The dictionary has the one key "objective", or is empty if there is no such state.
    """
    parts = {
        "loss": objective.loss,
        "penalty": objective.penalties,
        "augmentation": objective.augmentations,
    }
    held = {}
    for name, part in parts.items():
        state = trackable_state(name, part)
        if state is not None:
            held[name] = state
    return {"objective": held} if held else {}


def trackable_state(name: str, thing: Any) -> Any:
    """Return the part of `thing` that holds `tf.Variable`s, as a checkpoint tracks it, else None.

    A variable, `tf.Module` or other trackable is returned as it is. A plain object, container,
    partial or closure becomes a dictionary of what it holds, by attribute, key or position.
    `name` is what an error calls it.

    Raises:
      UserError: a trackable holds a variable that TensorFlow would not save with it.
    """
    return _state(name, thing, {})


def _state(name: str, thing: Any, known: dict[int, Any]) -> Any:
    if isinstance(thing, tf.Variable):
        return thing
    if id(thing) in known:  # which also ends cycles
        return known[id(thing)]
    known[id(thing)] = None
    held = {}
    for key, child in _children(thing).items():
        state = _state(f"{name}.{key}", child, known)
        if state is not None:
            held[key] = state
    found: Any = held or None
    if isinstance(thing, Trackable):
        tracked = _variables(thing)
        missed = [key for key, state in held.items() if not _variables(state) <= tracked]
        if missed:
            raise UserError(
                f"{name}.{missed[0]} holds a tf.Variable that no checkpoint would save: derive "
                f"the class of {missed[0]} from tf.Module."
            )
        found = thing if tracked else None
    known[id(thing)] = found
    return found


def _children(thing: Any) -> dict[str, Any]:
    """Return what a Python object holds, by name; nothing of objects of other libraries."""
    if isinstance(thing, Mapping):
        return {str(key): value for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return {str(i): value for i, value in enumerate(thing)}
    if isinstance(thing, functools.partial):
        return {"func": thing.func, "args": thing.args, "keywords": thing.keywords}
    if isinstance(thing, types.MethodType):
        return {"self": thing.__self__}
    if isinstance(thing, types.FunctionType):
        cells = zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True)
        return {name: cell.cell_contents for name, cell in cells}
    if isinstance(thing, type) or type(thing).__module__.split(".")[0] in _FOREIGN:
        return {}
    return _attributes(thing)


def _attributes(thing: Any) -> dict[str, Any]:
    found = dict(getattr(thing, "__dict__", {}))
    for base in type(thing).__mro__:
        slots = base.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            value = getattr(thing, slot, None)
            if value is not None:
                found[slot] = value
    return found


def _variables(state: Any) -> set[int]:
    """Return the identities of the variables that a checkpoint of `state` would hold."""
    if isinstance(state, dict) and not isinstance(state, Trackable):
        found: set[int] = set()
        for child in state.values():
            found |= _variables(child)
        return found
    descendants = tf.train.TrackableView(state).descendants()
    return {id(thing) for thing in descendants if isinstance(thing, tf.Variable)}
