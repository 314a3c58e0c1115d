"""Checks that an environment can be compiled: the shapes and dtypes of its state never change.

The checks run in Python while a step is traced, so a compiled step pays nothing for them.
"""

import re
from pathlib import Path
from typing import Any

import tensorflow as tf
from gymnasium import spaces

from sparring import nested
from sparring.errors import UserError

LIBRARY = str(Path(tf.__file__).parent)
HOST_PATH = (
    "An environment that cannot be written so still runs on the host: write it as a gymnasium.Env "
    "and give it as "
    "env=gymnasium env.id=your_module:YourEnv."
)


def require_initial(environment: Any, state: Any, num_envs: int) -> None:
    """Require of `initial` a state with `num_envs` in front and static shapes throughout.

    Raises:
        UserError: a part of the state has no such shape; the message names it.
    """
    for part, tensor in leaves(state):
        _require_static(environment, "initial", part, tensor, num_envs)


def require_transition(
    environment: Any, before: Any, after: Any, reward: Any, terminated: Any
) -> None:
    """Require of `transition` a state of the structure, shapes and dtypes that it was given.

    Reward and end must be float32 and bool [B].

    Raises:
        UserError: something differs; the message says what and how.
    """
    name = environment.name
    try:
        tf.nest.assert_same_structure(before, after)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{name}.transition returns a state built otherwise than the one it got, which "
            "`initial` made: "
            f"{_layout(after)} instead of {_layout(before)}."
        ) from error
    for (part, old), (_, new) in zip(leaves(before), leaves(after), strict=True):
        _require_static(environment, "transition", part, new, old.shape[0])
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise UserError(
                f"{name}.transition turns {part} from {_described(old)} into {_described(new)}: it "
                "must keep the "
                f"shape and dtype that `initial` gives it."
            )
    count = leaves(before)[0][1].shape[0]
    for what, tensor, dtype in (
        ("reward", reward, tf.float32),
        ("terminated", terminated, tf.bool),
    ):
        if not tf.is_tensor(tensor) or tensor.shape != [count] or tensor.dtype != dtype:
            raise UserError(
                f"{name}.transition returns a {what} that is {_described(tensor)}: it must be "
                f"{dtype.name} [{count}], "
                "one for each member of the batch."
            )


def require_observation(environment: Any, observation: Any, num_envs: int) -> None:
    """Require of `observe` the observation space's dtype, and its shape behind the batch.

    Raises:
        UserError: shape or dtype differ from the space's.
    """
    space = environment.observation_space
    if isinstance(space, spaces.Dict) != isinstance(observation, dict) or (
        isinstance(observation, dict) and set(observation) != set(space.spaces)
    ):
        raise UserError(
            f"{environment.name}.observe returns {_layout(observation)}, its observation_space is "
            f"{space}: make them the same."
        )

    def require(box: spaces.Box, part: Any) -> None:
        wanted = [num_envs, *box.shape]
        if not tf.is_tensor(part) or part.shape != wanted or part.dtype != box.dtype:
            raise UserError(
                f"{environment.name}.observe returns {_described(part)}, its observation_space "
                f"says {box.dtype} {wanted}: make them the same."
            )

    nested.map_parts(require, space, observation)


def leaves(state: Any) -> list[tuple[str, Any]]:
    """Return the parts of a state with their names, in tf.nest's order."""
    if hasattr(state, "_fields"):
        children = [(f".{field}", getattr(state, field)) for field in state._fields]
    elif isinstance(state, dict):
        children = [(f"[{key!r}]", state[key]) for key in sorted(state)]
    elif isinstance(state, tuple | list):
        children = [(f"[{index}]", child) for index, child in enumerate(state)]
    else:
        return [("state", state)]
    found = []
    for at, child in children:
        for name, leaf in leaves(child):
            found.append(("state" + at + name[len("state") :], leaf))
    return found


def _require_static(environment: Any, method: str, part: str, tensor: Any, num_envs: int) -> None:
    if not tf.is_tensor(tensor):
        raise UserError(
            f"{environment.name}.{method} returns {part} as {type(tensor).__name__}, not a tensor: "
            "everything an "
            "environment remembers is a tensor with one row for each member of the batch."
        )
    if not tensor.shape.is_fully_defined():
        raise UserError(
            f"{environment.name}.{method} returns {part} as {_described(tensor)}: its shape "
            "depends on values, which "
            "no compiled program can carry from step to step. Use a fixed size and a mask. "
            f"{HOST_PATH}"
        )
    if tensor.shape.rank == 0 or tensor.shape[0] != num_envs:
        raise UserError(
            f"{environment.name}.{method} returns {part} as {_described(tensor)} for a batch of "
            f"{num_envs}: the "
            f"batch comes first, so its shape must begin with {num_envs}."
        )


def _described(tensor: Any) -> str:
    if not tf.is_tensor(tensor):
        return f"{type(tensor).__name__} {tensor!r}"
    return (
        f"{tensor.dtype.name} "
        f"{tensor.shape.as_list() if tensor.shape.rank is not None else '[unknown]'}"
    )


def _layout(state: Any) -> str:
    return "(" + ", ".join(part for part, _ in leaves(state)) + ")"


def uncompilable(environment: Any, error: Exception, alone: bool = True) -> UserError | None:
    """Return the user's error for an `error` that XLA raised because of the environment, else None.

    With `alone` nothing but the environment was compiled, so that it is to blame even though the
    operation is not named.
    """
    text = str(error)
    if "XLA" not in text and "tf2xla" not in text:
        return None
    operations = sorted(set(re.findall(r"(\w+) \(No registered", text)))
    where = _used(environment, operations)
    if where is None and not alone:
        return None
    what = (
        f"XLA has no {' or '.join(operations)}"
        if operations
        else f"XLA says: {text.splitlines()[0].strip()}"
    )
    return UserError(
        f"{environment.name} cannot be compiled: {what}{where or ''}. Write it in other TensorFlow "
        "operations, or run "
        f"it without XLA: compile=graph. {HOST_PATH}"
    )


def _used(environment: Any, operations: list[str]) -> str | None:
    """Return the place where the environment uses one of these operations, "" if unknown.

    The compiler reports only the loop an operation is in. Returns None if none of them is used.
    """
    state = environment.specs(1).state
    keys = tf.TensorSpec([1, 2], tf.uint32)
    found = None
    parts = (
        (environment.transition, state, environment.action_spec(1), keys),
        (environment.initial, keys),
    )
    for function, *specs in (*parts, (environment.observe, state)):
        graph = tf.function(function, autograph=False).get_concrete_function(*specs).graph
        for operation in graph.get_operations():
            if operation.type in operations:
                return place(operation.traceback)
        if any(
            node.op in operations
            for inner in graph.as_graph_def().library.function
            for node in inner.node_def
        ):
            # In a branch or a loop, whose operations do not know where they were written
            found = ""
    return found


def place(frames: Any) -> str:
    """Return the innermost frame of a stack that is not TensorFlow's own, in brackets."""
    own = [frame for frame in frames or () if not frame.filename.startswith(LIBRARY)]
    return f" ({own[-1].filename} line {own[-1].lineno})" if own else ""
