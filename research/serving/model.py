"""Model version in memory: verified, loaded, warmed up, and called on arrays."""

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from sparring.serving.rest_api import TensorSpec
from sparring.storage import manifest
from sparring.xla.compilation import direct

# A SavedModel is a program. These operations reach beyond it: to files, the interpreter, and other
# machines.
FORBIDDEN = frozenset(
    (
        *("WriteFile", "ReadFile", "MatchingFiles", "WholeFileReader", "WholeFileReaderV2"),
        *(
            "Save",
            "SaveSlices",
            "Restore",
            "RestoreSlice",
            "CreateSummaryFileWriter",
            "CreateSummaryDbWriter",
        ),
        *("PyFunc", "PyFuncStateless", "EagerPyFunc", "Print", "PrintV2"),
        *(
            "RpcCall",
            "RpcClient",
            "RpcServer",
            "DebugIdentity",
            "DebugIdentityV2",
            "WriteSummary",
            "ImmutableConst",
        ),
        *(
            "SaveDataset",
            "SaveDatasetV2",
            "CacheDataset",
            "CacheDatasetV2",
            "SnapshotDataset",
            "SnapshotDatasetV2",
        ),
        *("TextLineDataset", "TFRecordDataset", "TFRecordDatasetV2", "FixedLengthRecordDataset"),
        *(
            "FixedLengthRecordDatasetV2",
            "TextLineReader",
            "TextLineReaderV2",
            "TFRecordReader",
            "TFRecordReaderV2",
        ),
        *(
            "FixedLengthRecordReader",
            "FixedLengthRecordReaderV2",
            "LoadAndRemapMatrix",
            "GenerateVocabRemapping",
        ),
        *("InitializeTableFromTextFile", "InitializeTableFromTextFileV2"),
    )
)
# Saving its variables is part of every SavedModel, but forbidden in a signature that is served
SAVING = frozenset(("SaveV2", "MergeV2Checkpoints", "ShardedFilename"))


class Unfit(Exception):  # noqa: N818 - named for what it is
    """Reason why a folder is not served, to follow its name and a colon."""


@dataclass(frozen=True)
class Signature:
    """Function of a loaded model.

    `batched`: whether every input and output has a free first dimension. `seconds`: the time of a
    call with two members.
    """

    name: str
    takes: Mapping[str, TensorSpec]
    gives: Mapping[str, TensorSpec]
    call: Any  # Mapping[str, array] -> dict[str, array]
    batched: bool
    seconds: float = math.inf


@dataclass(frozen=True, eq=False)
class Servable:
    """Version of a model, ready to be called. `seconds`: to load it, and to warm it up."""

    name: str
    version: int
    signatures: Mapping[str, Signature]
    seconds: tuple[float, float]


def load(folder: Path, name: str, version: int, unverified: bool = False) -> Servable:
    """Return the model in `folder`, loaded and warmed up.

    Raises:
        Unfit: the model is damaged, dangerous, or does not run; the message is the reason.
    """
    started = time.perf_counter()
    if not unverified:
        _verify(folder, name)
    _scan(folder)
    try:
        loaded = tf.saved_model.load(str(folder))
        signatures = {key: _signature(key, concrete) for key, concrete in loaded.signatures.items()}
    except Unfit:
        raise
    except Exception as error:  # of any kind, for files that are not what they seem
        raise Unfit(f"TensorFlow cannot load it: {' '.join(str(error).split())[:300]}") from error
    if not signatures:
        raise Unfit("it has no signatures")
    ready = time.perf_counter()
    try:
        signatures = {key: replace(s, seconds=warm_up(s)) for key, s in signatures.items()}
    except Exception as error:
        raise Unfit(f"it does not run: {' '.join(str(error).split())[:300]}") from error
    return Servable(name, version, signatures, (ready - started, time.perf_counter() - ready))


def _verify(folder: Path, name: str) -> None:
    try:
        content = manifest.check(folder)
    except manifest.DamagedError as fault:
        raise Unfit(str(fault)) from fault
    for required in ("saved_model.pb", "variables/variables.index"):
        if required not in content["files"]:
            raise Unfit(f"its manifest does not list {required}")
    if content.get("name") != name:
        raise Unfit(f"its manifest is of a model {content.get('name')}")


def _scan(folder: Path) -> None:
    """Raise Unfit for a graph with operations that reach beyond it."""
    try:
        model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    except Exception as error:  # protobuf's own differs between versions
        raise Unfit(f"saved_model.pb cannot be read ({type(error).__name__})") from error
    operations: set[str] = set()
    for graph in model.meta_graphs:
        operations.update(_operations(graph.graph_def))
    found = operations & FORBIDDEN
    if found:
        raise Unfit(
            f"it has operations that a served model may not have: {', '.join(sorted(found))}"
        )


def _operations(graph: Any) -> Iterable[str]:
    yield from (node.op for node in graph.node)
    for function in graph.library.function:
        yield from (node.op for node in function.node_def)


def _signature(name: str, concrete: Any) -> Signature:
    if saving := SAVING.intersection(_operations(concrete.graph.as_graph_def())):
        raise Unfit(
            f"its signature {name} has operations that write files: {', '.join(sorted(saving))}"
        )
    takes = {
        key: _spec(key, s) for key, s in sorted(concrete.structured_input_signature[1].items())
    }
    gives = {key: _spec(key, s) for key, s in sorted(concrete.structured_outputs.items())}
    batched = bool(takes) and all(
        s.shape[:1] == (None,) for s in (*takes.values(), *gives.values())
    )
    return Signature(name, takes, gives, direct(concrete), batched)


def _spec(name: str, tensor: Any) -> TensorSpec:
    if tensor.shape.rank is None:
        raise ValueError(f"{name} has no known rank")
    return TensorSpec(name, np.dtype(tensor.dtype.as_numpy_dtype), tuple(tensor.shape.as_list()))


def warm_up(signature: Signature) -> float:
    """Call a signature on one member and on two, and return the seconds of the fastest call.

    This also pays for what a first call sets up.
    """
    seconds = []
    for batch in (1, 2, 2, 2):
        inputs = {name: _blank(spec, batch) for name, spec in signature.takes.items()}
        started = time.perf_counter()
        signature.call(inputs)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _blank(spec: TensorSpec, batch: int) -> np.ndarray:
    shape = [
        batch if n is None and i == 0 else (1 if n is None else n) for i, n in enumerate(spec.shape)
    ]
    return np.full(shape, b"", object) if spec.dtype == object else np.zeros(shape, spec.dtype)
