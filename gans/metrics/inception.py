"""Inception network of 2015, from the user's own file: the extractor of `fid`.

The file is classify_image_graph_def.pb of the archive inception-2015-12-05.tgz, which published
scores are computed with; other Inception weights give other scores. It is a program in TensorFlow's
graph format, and a graph can hold operations that write files. So nothing of it is imported: its
nodes are read, and those below are carried out, one by one; any other is refused.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.data.dataset import Data
from sparring.data.pixel_values import pixels
from sparring.errors import UserError
from sparring.gans.metrics.extractors import flat, in_batches
from sparring.xla import compilation

# An image [1, H, W, 3] with values 0 .. 255, its 2048 features [1, 1, 1, 2048]
INPUT = "ExpandDims"
OUTPUT = "pool_3"


class Inception:
    """Extractor of 2048 features: the 2015 network up to its last pooling, as in published FIDs.

    `path` is the graph's file and `sha256` its hash, which must agree: `sha256sum FILE`. Images are
    rounded to bytes, grey is repeated as RGB, and the graph's own bilinear resize to 299x299,
    without antialiasing, is kept. UserError for a missing file, another hash, a graph that is
    another network, and data that is no grey or RGB image.
    """

    name = ""

    def __init__(self, data: Data, path: str, sha256: str) -> None:
        if len(data.shape) != 3 or data.shape[-1] not in (1, 3):
            raise UserError(
                "extractor=inception takes grey or RGB images, not examples of shape "
                f"{list(data.shape)}."
            )
        content = _read(Path(path), sha256)
        self._network = Graph(content, f"extractor.path={path}", INPUT, OUTPUT)
        self._function = compilation.function(
            self._network, compilation.resolve("auto", self._network.weights)
        )
        self.members: Sequence[Callable[[np.ndarray], np.ndarray]] = (self.features,)
        self.notes: Mapping[str, Any] = {
            "features": f"Inception 2015, {OUTPUT}; bilinear resize to 299x299 without "
            "antialiasing",
            "extractor": sha256.lower(),
        }

    def features(self, examples: np.ndarray) -> np.ndarray:
        """Compute features of images [N, H, W, C] in [-1, 1], float32 [N, 2048]."""
        parts = []
        # Bytes as floats, as RGB: a bounded piece at a time
        for start in range(0, len(examples), 1024):
            images = pixels(examples[start : start + 1024]).astype(np.float32)
            rgb = images if images.shape[-1] == 3 else np.repeat(images, 3, axis=-1)
            parts.append(flat(in_batches(self._function, rgb, batch=32)))
        return np.concatenate(parts)


def _read(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"extractor.path={path}: {error.strerror}.") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256.strip().lower():
        raise UserError(
            f"extractor.path={path}: its SHA-256 is {found}, not extractor.sha256={sha256}: it is "
            "another file, or "
            "damaged."
        )
    return content


class Graph:
    """Frozen graph's nodes between its `source` and its `output`, as a function of a tensor."""

    def __init__(self, content: bytes, where: str, source: str, output: str) -> None:
        try:
            graph = tf.compat.v1.GraphDef.FromString(content)
        except Exception as error:  # protobuf's DecodeError
            raise UserError(f"{where} is no frozen TensorFlow graph.") from error
        nodes = {node.name: node for node in graph.node}
        for name in (source, output):
            if name not in nodes:
                raise UserError(f"{where} has no node {name}: it is another network.")
        self._source = source
        self._output = output
        self._nodes = [nodes[name] for name in _needed(nodes, source, output, where)]
        for node in self._nodes:
            if node.op not in (*_OPERATIONS, "Const"):
                raise UserError(
                    f"{where}: its node {node.name} is a {node.op}, which is not carried out."
                )
        self._constants = {
            n.name: tf.make_ndarray(n.attr["value"].tensor) for n in self._nodes if n.op == "Const"
        }

    @property
    def weights(self) -> list[tf.Tensor]:
        """Constants of the graph."""
        return [tf.convert_to_tensor(c) for c in self._constants.values()]

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        values: dict[str, Any] = {self._source: inputs, **self._constants}
        for node in self._nodes:
            if node.name not in values:
                arguments = [values[_name(i)] for i in node.input if not i.startswith("^")]
                values[node.name] = _OPERATIONS[node.op](node.attr, *arguments)
        return values[self._output]


def _needed(nodes: Mapping[str, Any], source: str, output: str, where: str) -> list[str]:
    """Return names of the nodes that `output` needs, in topological order, without the source."""
    order: dict[str, None] = {}
    stack = [(output, False)]
    while stack:
        name, ready = stack.pop()
        if name == source or name in order:
            continue
        if ready:
            order[name] = None
            continue
        if name not in nodes:
            raise UserError(f"{where} lacks its node {name}: it is damaged.")
        stack.append((name, True))
        stack += [(_name(i), False) for i in nodes[name].input if not i.startswith("^")]
    return list(order)


def _name(reference: str) -> str:
    return reference.partition(":")[0]


def _conv(attr: Any, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    return tf.nn.conv2d(x, kernel, list(attr["strides"].list.i), attr["padding"].s.decode())


def _pool(pool: Callable[..., tf.Tensor], attr: Any, x: tf.Tensor) -> tf.Tensor:
    return pool(
        x, list(attr["ksize"].list.i), list(attr["strides"].list.i), attr["padding"].s.decode()
    )


def _batch_norm(attr: Any, x: Any, mean: Any, variance: Any, beta: Any, gamma: Any) -> tf.Tensor:
    scale = gamma if attr["scale_after_normalization"].b else None
    return tf.nn.batch_normalization(x, mean, variance, beta, scale, attr["variance_epsilon"].f)


def _resize(attr: Any, x: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    corners = attr["align_corners"].b
    centers = attr["half_pixel_centers"].b
    return tf.raw_ops.ResizeBilinear(
        images=x, size=size, align_corners=corners, half_pixel_centers=centers
    )


_OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "Identity": lambda attr, x: x,
    "CheckNumerics": lambda attr, x: x,
    "Conv2D": _conv,
    "BatchNormWithGlobalNormalization": _batch_norm,
    "BiasAdd": lambda attr, x, bias: x + bias,
    "Add": lambda attr, x, y: x + y,
    "Sub": lambda attr, x, y: x - y,
    "Mul": lambda attr, x, y: x * y,
    "Relu": lambda attr, x: tf.nn.relu(x),
    "MaxPool": functools.partial(_pool, tf.nn.max_pool2d),
    "AvgPool": functools.partial(_pool, tf.nn.avg_pool2d),
    "Concat": lambda attr, axis, *xs: tf.concat(xs, int(axis)),
    "ConcatV2": lambda attr, *xs: tf.concat(xs[:-1], int(xs[-1])),
    "ResizeBilinear": _resize,
}
