"""Check of a compiled environment, for two lines in anyone's tests.

    from sparring.envs.testing.check import check_environment
    from my_package import MyEnvironment

    def test_my_environment():
        check_environment(MyEnvironment())

It raises a UserError that explains the first rule that the environment breaks.
"""

import copy
import functools
import traceback
from typing import Any

import numpy as np
import tensorflow as tf
from gymnasium import spaces
from tensorflow.python.framework import op_def_registry

from sparring import nested
from sparring.envs.compiled.base import CompiledEnvironment
from sparring.envs.compiled.static_shapes import place, require_observation, uncompilable
from sparring.envs.testing.step_recorder import (
    Moves,
    Outcome,
    Program,
    arrays,
    chosen,
    joined,
    play,
    unlike,
)
from sparring.errors import UserError

BATCH = 6
COUNT = 256  # steps looked at closely
LONGEST = 1000  # steps played to see an episode truncated
# Control flow counts as stateful if its branches are, which are checked themselves; XLA drops or
# names the others.
HARMLESS = {"If", "While", "Case", "StatefulPartitionedCall", "PartitionedCall", "Assert"}
HARMLESS |= {"PyFunc", "EagerPyFunc", "PrintV2", "StringFormat"}


def check_environment(
    env: CompiledEnvironment, steps: int = 200, seed: int = 0, tolerance: float = 1e-4
) -> None:
    """Check by random steps in a small batch that an environment keeps the rules of compiled ones.

    Its spaces and attributes are true; state, action and keys decide everything; a batch is its
    members side by side; episodes end, open anew and are truncated as they should; eager, graph and
    XLA agree.

    Args:
        env: the environment; it is not changed.
        steps: vector steps to play, of 6 members; as many as the time limit takes are played
            anyway, up to 1000.
        seed: for keys and actions.
        tolerance: relative difference allowed between floats from XLA and a graph, or from a batch
            and its members.

    Raises:
        UserError: the first rule that is broken, with an example and the remedy.
    """
    _check_spaces(env)
    graph = Program(env, "graph")
    _check_operations(env, graph)
    longest = max(steps, min(env.max_episode_steps or 0, LONGEST) + 2)
    try:
        moves, outcome = play(env, graph, BATCH, longest, seed)
    except tf.errors.OpError as error:
        # The reason is the line before the node's name
        reason = str(error).partition("[[")[0].rstrip().rpartition("\n")[2]
        told = (
            f"{env.name} fails when it is stepped: {reason}. Members that have ended are stepped "
            "too."
        )
        raise UserError(told) from error
    _check_values(env, moves, outcome)
    rows = chosen(moves, outcome, COUNT)
    some = moves.at(rows)
    then = outcome.at(rows)
    _check_openings(env, graph, some)
    _check_ends(env, graph, some)
    _check_end_by_clock(env, outcome)
    _check_repeats(env, some)
    _check_members(env, graph, some, then, tolerance)
    _check_xla(env, some, then, tolerance)
    _check_picture(env, some)


# ---- spaces and attributes -----------------------------------------------------------------------


def _check_spaces(env: CompiledEnvironment) -> None:
    _require(
        isinstance(getattr(env, "name", None), str),
        f"{type(env).__name__} has no name: set `name` to a string.",
    )
    seen: Any = getattr(env, "observation_space", None)
    acts: Any = getattr(env, "action_space", None)
    boxes = nested.is_observation_space(seen)
    _require(
        boxes and all(box.dtype in (np.float32, np.uint8) for box in nested.leaves(seen)),
        f"{env.name}.observation_space is {seen}: it is a Box of float32, or of uint8 for "
        "pictures, or a Dict of these.",
    )
    if isinstance(acts, spaces.Box):
        bounded = bool(np.isfinite(acts.high - acts.low).all())
        told = (
            f"{env.name}.action_space is {acts}: a Box of actions is float32 and has finite bounds."
        )
        _require(acts.dtype == np.float32 and bounded, told)
    else:
        kind = isinstance(acts, spaces.Discrete | spaces.MultiDiscrete)
        told = (
            f"{env.name}.action_space is {acts}: it is a Discrete or MultiDiscrete that counts "
            "from 0, or a Box."
        )
        _require(kind and not np.any(acts.start), told)
    limit = env.max_episode_steps
    told = f"{env.name}.max_episode_steps is {limit!r}: it is a whole number from 1 on, or None."
    _require(limit is None or (isinstance(limit, int) and limit > 0), told)


def _check_operations(env: CompiledEnvironment, graph: Program) -> None:
    """Check static shapes in two batches, and that no operation is stateful.

    An operation must not remember anything or draw from a generator of its own.
    """
    try:
        # Raises an error where `initial` or `transition` break a rule
        steps = [graph.graph(count) for count in (1, BATCH)]
        keys = tf.TensorSpec([BATCH, 2], tf.uint32)
        opening = tf.function(
            lambda k: env.observe(env.initial(k)), autograph=False
        ).get_concrete_function(keys)
    except tf.errors.OperatorNotAllowedInGraphError as error:
        raise UserError(
            f"{env.name}: a Python if, while, for, and, or, not asks for a tensor's value, known "
            "only when the program "
            f"runs{place(traceback.extract_tb(error.__traceback__))}. Use tf.where, & | ~, or "
            "tf.while_loop."
        ) from error
    require_observation(env, opening.structured_outputs, BATCH)
    _check_measured(env, keys)
    for one in (opening.graph, *steps):
        _check_pure(env, one)


def _check_measured(env: CompiledEnvironment, keys: tf.TensorSpec) -> None:
    """Check that `measure` returns float32 [B] under each name in `info`."""
    measured = (
        tf.function(lambda k: env.measure(env.initial(k)), autograph=False)
        .get_concrete_function(keys)
        .structured_outputs
    )
    found = {name: (x.shape.as_list(), x.dtype) for name, x in measured.items()}
    told = f"{env.name}.measure returns {found}, and its info is {env.info}"
    wanted = dict.fromkeys(env.info, ([BATCH], tf.float32))
    _require(found == wanted, f"{told}: return float32 [B] under each of these names.")


def _check_pure(env: CompiledEnvironment, graph: Any) -> None:
    definition = graph.as_graph_def()
    inner = [node for function in definition.library.function for node in function.node_def]
    for node in [*definition.node, *inner]:
        if node.op not in HARMLESS and op_def_registry.get(node.op).is_stateful:
            raise UserError(
                f"{env.name} uses {node.op}{_line(graph, node.name)}, which remembers something or "
                "draws from a "
                "generator of its own, so a step would not be the same twice. Keep what is "
                "remembered in the state, "
                "and draw random numbers from `keys` with sparring.xla.random."
            )


def _line(graph: Any, name: str) -> str:
    """Return the line of an operation, or "" if it is inside another's branch."""
    return next((place(op.traceback) for op in graph.get_operations() if op.name == name), "")


# ---- results of steps ----------------------------------------------------------------------------


def _check_values(env: CompiledEnvironment, moves: Moves, outcome: Outcome) -> None:
    openings = env.observe(env.initial(tf.constant(moves.keys[:512])))
    for what, seen in (
        ("an episode's first observation", nested.map_parts(np.asarray, openings)),
        ("an observation", outcome.step.observation),
    ):
        nested.map_parts(
            functools.partial(_check_inside, f"{env.name}: {what}"), env.observation_space, seen
        )
    finite = np.isfinite(outcome.step.reward)
    told = (
        f"{env.name}: a reward is {outcome.step.reward[~finite][:1]}, after the action "
        f"{moves.action[~finite][:1]}."
    )
    _require(finite.all(), f"{told} Rewards are finite numbers.")


def _check_inside(what: str, space: spaces.Box, seen: np.ndarray) -> None:
    """Refuse observations [N, ...] outside their space by more than rounding."""
    slack = 1e-4 * (1.0 + np.abs(np.nan_to_num(seen, posinf=0.0, neginf=0.0)))
    outside = ~((seen >= space.low - slack) & (seen <= space.high + slack))
    if outside.any():
        index = tuple(int(i) for i in np.argwhere(outside)[0])
        raise UserError(
            f"{what} is {seen[index]} at {list(index[1:])}, its space goes from "
            f"{space.low[index[1:]]} to {space.high[index[1:]]}. Mend one of the two."
        )


def _check_end_by_clock(env: CompiledEnvironment, outcome: Outcome) -> None:
    ends = outcome.step.terminated
    limit = env.max_episode_steps
    _require(
        limit is None or not ends.any() or bool((outcome.state.elapsed[ends] < limit).any()),
        f"{env.name} says terminated only ever at max_episode_steps ({limit}). If the clock ends "
        "the episode, return "
        "terminated False there; if the task does, set max_episode_steps to None.",
    )


def _check_openings(env: CompiledEnvironment, graph: Program, some: Moves) -> None:
    """Check that an opening follows every end, whatever the action.

    Its reward is 0, its state `initial`'s, its clock 0.
    """
    opened = graph(some.within(done=True))
    alone = arrays(env.reset(tf.constant(some.keys)))
    told = f"{env.name}.step is not what CompiledEnvironment.step makes of it: "
    for at, ours, theirs in unlike(opened.state, alone, 1e-4):
        raise UserError(
            f"{told}after an end, {at} is {ours}, where `initial` gives {theirs} for the same key."
        )
    quiet = (
        opened.step.first
        & (opened.step.reward == 0)
        & ~opened.step.terminated
        & ~opened.step.truncated
    )
    _require(quiet.all(), f"{told}an opening is first=True with reward 0, and ends nothing.")


def _check_ends(env: CompiledEnvironment, graph: Program, some: Moves) -> None:
    """Check that `transition` ends tasks, and the base class alone truncates by the clock."""
    limited = copy.copy(env)
    limited.max_episode_steps = 3
    cut = Program(limited, "graph")
    for elapsed in (0, 1, 2):
        now = some.within(elapsed=np.int32(elapsed), done=False)
        ours = cut(now).step
        _require(
            (graph(now).step.terminated == ours.terminated).all(),
            f"{env.name}.transition ends episodes by max_episode_steps: leave the clock to the "
            "base class, which "
            "truncates them. A value follows where the clock ran out, none where the task has "
            "ended.",
        )
        _require(
            (ours.truncated == (elapsed == 2)).all(),
            f"{env.name}: a limit of 3 steps does not cut at the third.",
        )


def _check_repeats(env: CompiledEnvironment, some: Moves) -> None:
    eager = Program(env, "eager")
    one = eager(some)
    other = eager(some)
    for at, first, second in unlike(one, other, 0.0):
        raise UserError(
            f"{env.name} gives another {at} when the same step is taken twice: {first}, then "
            f"{second}. Something is "
            "remembered or drawn outside of state and keys, such as an attribute or a numpy "
            "generator."
        )


def _check_members(
    env: CompiledEnvironment, graph: Program, some: Moves, then: Outcome, tolerance: float
) -> None:
    """Check that members' steps do not depend on the batch around them, nor on eager mode.

    Steps in a batch of BATCH must equal those in another batch, alone, and in eager mode.
    """
    few = slice(0, 16)
    alone = joined([graph(some.at([row])) for row in range(16)])
    for found, of, how in ((graph(some), then, "among others"), (alone, then.at(few), "alone")):
        for at, theirs, ours in unlike(found, of, tolerance):
            raise UserError(
                f"{env.name}: a member's {at} is {ours} in its batch, and {theirs} when it is "
                f"stepped {how}. Members "
                "must not mix: reduce over no first axis, and draw member i's numbers from keys[i]."
            )
    for at, eager, traced in unlike(Program(env, "eager")(some), graph(some), tolerance):
        raise UserError(
            f"{env.name} gives another {at} in eager mode, {eager}, than in a graph, {traced}. "
            "Something was computed "
            "by Python while the graph was traced: use TensorFlow operations for what depends on "
            "state, action or keys."
        )


def _check_xla(env: CompiledEnvironment, some: Moves, then: Outcome, tolerance: float) -> None:
    try:
        compiled = Program(env, "xla")(some)
    except tf.errors.OpError as error:
        refused = uncompilable(env, error)
        if refused is None:
            raise
        raise refused from error
    for at, xla, graph in unlike(compiled, then, tolerance):
        raise UserError(
            f"{env.name} gives another {at} under XLA, {xla}, than in a graph, {graph}. Look for "
            "what is undefined: "
            "indices past an end, a division by zero, int overflow. Rounding alone stays below "
            "`tolerance`."
        )


def _check_picture(env: CompiledEnvironment, some: Moves) -> None:
    if not env.renders:
        return
    picture = env.render(tf.nest.map_structure(lambda array: array[0], some.state.state))
    good = (
        isinstance(picture, np.ndarray)
        and picture.dtype == np.uint8
        and picture.ndim == 3
        and picture.shape[2] == 3
    )
    told = (
        f"{picture.dtype} {list(picture.shape)}"
        if isinstance(picture, np.ndarray)
        else type(picture).__name__
    )
    _require(good, f"{env.name}.render returns {told}: a picture is uint8 [H, W, 3].")


def _require(kept: Any, told: str) -> None:
    if not kept:
        raise UserError(told)
