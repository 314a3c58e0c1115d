"""Variables of a checkpoint and of a program: their names, and how they differ."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph


def named_variables(root: tf.train.Checkpoint) -> dict[str, tf.Variable]:
    """Return every variable reachable from `root`, by its shortest path of names."""
    view = tf.train.TrackableView(root)
    names = {id(root): ""}
    queue = [root]
    found = {}
    for node in queue:  # grows while it is read: breadth first
        for name, child in sorted(view.children(node).items()):
            if id(child) not in names:
                names[id(child)] = f"{names[id(node)]}/{name}".removeprefix("/")
                queue.append(child)
                if isinstance(child, tf.Variable):
                    found[names[id(child)]] = child
    return found


class Leaf(NamedTuple):
    """Variable of a program or of a checkpoint."""

    dtype: tf.DType
    shape: tf.TensorShape
    key: str = ""  # its key in the checkpoint

    def __str__(self) -> str:
        return f"{self.dtype.name} {self.shape}"

    def fits(self, other: "Leaf") -> bool:
        return self.dtype == other.dtype and self.shape.is_compatible_with(other.shape)


class _Graph(NamedTuple):
    """Objects by index, 0 the root: their children by name, and the variables among them."""

    children: dict[int, dict[str, int]]
    leaves: dict[int, Leaf]


def differences(tensors: tf.train.Checkpoint, prefix: str, partly: bool = False) -> list[str]:
    """Return how the variables of `tensors` and of the checkpoint at `prefix` differ.

    There is a line for each difference, none if they fit. Objects are paired as TensorFlow does it,
    by the names of the edges from the root, not by the variables' names. With `partly`, variables
    that only the checkpoint holds are no difference.
    """
    here = _graph_here(tensors)
    there = _graph_there(prefix)
    here_names = _names(0, here.children.__getitem__)
    there_names = _names(0, there.children.__getitem__)
    pairs = _names((0, 0), lambda pair: _common(here.children[pair[0]], there.children[pair[1]]))
    both = [(h, t) for h, t in pairs if h in here.leaves and t in there.leaves]
    found_here = {h for h, _ in both}
    found_there = {t for _, t in both}
    lines = [
        f"not in the checkpoint: {here_names[h]} ({here.leaves[h]})"
        for h in here.leaves
        if h not in found_here
    ]
    if not partly:
        extra = [t for t in there.leaves if t in there_names and t not in found_there]
        lines += [f"only in the checkpoint: {there_names[t]} ({there.leaves[t]})" for t in extra]
    return lines + [
        f"differs: {here_names[h]} is {there.leaves[t]} in the checkpoint, {here.leaves[h]} here"
        for h, t in both
        if not here.leaves[h].fits(there.leaves[t])
    ]


def named(prefix: str) -> dict[str, Leaf]:
    """Return the variables in the checkpoint at `prefix`, by their shortest paths of names."""
    graph = _graph_there(prefix)
    names = _names(0, graph.children.__getitem__)
    return {names[number]: leaf for number, leaf in graph.leaves.items() if number in names}


def _graph_here(tensors: tf.train.Checkpoint) -> _Graph:
    view = tf.train.TrackableView(tensors)
    objects = list(view.descendants())  # the root first
    numbers = {id(thing): number for number, thing in enumerate(objects)}
    children = {}
    leaves = {}
    for number, thing in enumerate(objects):
        children[number] = {
            name: numbers[id(child)] for name, child in view.children(thing).items()
        }
        if isinstance(thing, tf.Variable):
            leaves[number] = Leaf(thing.dtype.base_dtype, thing.shape)
    return _Graph(children, leaves)


def _graph_there(prefix: str) -> _Graph:
    reader = tf.train.load_checkpoint(prefix)
    shapes = reader.get_variable_to_shape_map()
    dtypes = reader.get_variable_to_dtype_map()
    nodes = TrackableObjectGraph.FromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH")).nodes
    children = {}
    leaves = {}
    for index, node in enumerate(nodes):
        children[index] = {child.local_name: child.node_id for child in node.children}
        for value in node.attributes:
            key = value.checkpoint_key
            if key in shapes:
                leaves[index] = Leaf(dtypes[key], tf.TensorShape(shapes[key]), key)
    return _Graph(children, leaves)


def _common(here: Mapping[str, int], there: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    return {name: (here[name], there[name]) for name in here.keys() & there.keys()}


def _names(root: Any, children: Callable[[Any], Mapping[str, Any]]) -> dict[Any, str]:
    """Return everything reachable from `root` with its shortest path of names, nearest first."""
    names = {root: ""}
    queue = deque([root])
    while queue:
        node = queue.popleft()
        for name, child in sorted(children(node).items()):
            if child not in names:
                names[child] = f"{names[node]}/{name}".removeprefix("/")
                queue.append(child)
    return names
