"""TensorFlow Serving's JSON: tensors of a request, tensors of a reply, a model's metadata.

    {"signature_name": "greedy", "instances": [[0.1, 0, 0, 0]]}
        ->  {"predictions": [1]}  (rows)
    {"signature_name": "greedy", "inputs": {"observation": [[0.1, 0, 0, 0]]}}
        ->  {"outputs": [1]}  (columns)

There are two differences, both settings of `Limits`: NaN and infinities among the inputs are
refused unless allowed, and the nesting of lists is bounded. There is one addition: beside
"instances" or "inputs" a request may name a "session", and ask for its "reset"; see
research/serving/sessions.py.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparring.serving.errors import Refusal

SESSION = 128  # largest number of characters of a session's name
# An unterminated string runs to the end, which keeps the time linear
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\Z)', re.DOTALL)


@dataclass(frozen=True)
class TensorSpec:
    """Tensor of a signature: its numpy dtype ("object" for strings) and its shape.

    None in the shape stands for any size.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Query:
    """Parsed request to predict: signature, inputs, and whether the reply is in rows.

    `truths`: whether true or false may be among the inputs, which numpy would take for 1 and 0
    beside a number. `session` is the name of the session whose next step the request is, if any,
    and `reset` whether that begins anew.
    """

    signature: str
    value: Any
    rows: bool
    truths: bool = False
    session: str | None = None
    reset: bool = False


def read(body: bytes, depth: int) -> Query:
    """Return the query in a body of JSON nested `depth` deep at most.

    Raises:
        Refusal: the body is no such query.
    """
    if body.count(b"[") + body.count(b"{") > depth and nesting(body) > depth:
        raise Refusal("INVALID_ARGUMENT", f"JSON nested deeper than {depth} levels")
    try:
        # UTF-8 only: in UTF-16, `nesting` would take some letters for quotes
        content = json.loads(body.decode())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal("INVALID_ARGUMENT", f"JSON Parse error: {error}") from None
    except ValueError:  # Python's limit on the digits of an integer
        raise Refusal(
            "INVALID_ARGUMENT", "JSON Parse error: a whole number of thousands of digits"
        ) from None
    if not isinstance(content, dict):
        raise Refusal("INVALID_ARGUMENT", "The request is not a JSON object")
    name = content.get("signature_name", "serving_default")
    if not isinstance(name, str):
        raise Refusal("INVALID_ARGUMENT", "'signature_name' key must be a string value.")
    given = [key for key in ("instances", "inputs") if key in content]
    if len(given) != 1:
        raise Refusal(
            "INVALID_ARGUMENT",
            "Give either 'instances' (rows) or 'inputs' (columns), one of the two",
        )
    truths = b"true" in body or b"false" in body
    return Query(
        name or "serving_default",
        content[given[0]],
        given[0] == "instances",
        truths,
        *_session(content),
    )


def _session(content: dict[str, Any]) -> tuple[str | None, bool]:
    if "session" not in content and "reset" not in content:
        return None, False
    session = content.get("session")
    reset = content.get("reset", False)
    if not isinstance(session, str) or not 1 <= len(session) <= SESSION:
        raise Refusal(
            "INVALID_ARGUMENT", f"'session' must be a string of 1 to {SESSION} characters"
        )
    if not isinstance(reset, bool):
        raise Refusal("INVALID_ARGUMENT", "'reset' must be true or false")
    return session, reset


def nesting(body: bytes) -> int:
    """Return how deep the brackets of a JSON text go, strings left out."""
    text = np.frombuffer(_STRINGS.sub(b"", body), np.uint8)
    steps = ((text == 0x5B) | (text == 0x7B)).astype(np.int8) - (
        (text == 0x5D) | (text == 0x7D)
    ).astype(np.int8)
    return int(np.cumsum(steps, dtype=np.int32).max(initial=0))


def inputs(query: Query, specs: Mapping[str, TensorSpec], finite: bool) -> dict[str, np.ndarray]:
    """Return the arrays of a query by name, of the dtypes and shapes of `specs`.

    Raises:
        Refusal: an input does not fit.
    """
    columns = _of_rows(query.value, specs) if query.rows else _of_columns(query.value, specs)
    for name, spec in specs.items():
        if query.truths and spec.dtype.kind in "fiu" and _has_truth(columns[name]):
            raise Refusal("INVALID_ARGUMENT", f"{name}: not of the expected type {spec.dtype.name}")
    return {name: tensor(columns[name], spec, finite) for name, spec in specs.items()}


def _has_truth(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, list) and any(map(_has_truth, value)))


def _of_rows(rows: Any, specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    if not isinstance(rows, list) or not rows:
        raise Refusal("INVALID_ARGUMENT", "'instances' must be a list, of one instance at least")
    named = isinstance(rows[0], dict) and not _is_base64(rows[0])
    if not named:
        if len(specs) != 1:
            raise Refusal(
                "INVALID_ARGUMENT",
                f"Each instance must be an object with the inputs {_listed(specs)}",
            )
        return {next(iter(specs)): rows}
    for i, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() != specs.keys():
            raise Refusal(
                "INVALID_ARGUMENT",
                f"Instance {i} is not an object with the inputs {_listed(specs)}",
            )
    return {name: [row[name] for row in rows] for name in specs}


def _of_columns(value: Any, specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    if isinstance(value, dict) and not _is_base64(value):
        if value.keys() != specs.keys():
            raise Refusal(
                "INVALID_ARGUMENT", f"'inputs' is not an object with the inputs {_listed(specs)}"
            )
        return value
    if len(specs) != 1:
        raise Refusal(
            "INVALID_ARGUMENT", f"'inputs' must be an object with the inputs {_listed(specs)}"
        )
    return {next(iter(specs)): value}


def _listed(specs: Mapping[str, TensorSpec]) -> str:
    return ", ".join(specs)


def tensor(value: Any, spec: TensorSpec, finite: bool) -> np.ndarray:
    """Return the array of a nested list.

    Raises:
        Refusal: the list is ragged, or of another type or shape, or numbers do not fit the dtype.
    """
    try:
        found = _strings(value) if spec.dtype == object else np.array(value)
    except (ValueError, OverflowError, TypeError):
        raise Refusal(
            "INVALID_ARGUMENT", f"{spec.name}: lists of different lengths, or nested too deeply"
        ) from None
    if found.ndim != len(spec.shape) or any(
        n not in (None, m) for n, m in zip(spec.shape, found.shape, strict=True)
    ):
        wanted = [-1 if n is None else n for n in spec.shape]
        raise Refusal(
            "INVALID_ARGUMENT",
            f"{spec.name}: shape {list(found.shape)}, expected {wanted} (-1: any)",
        )
    if spec.dtype == object or found.size == 0:
        return found if spec.dtype == object else found.astype(spec.dtype)
    return _numbers(found, spec, finite)


def _numbers(found: np.ndarray, spec: TensorSpec, finite: bool) -> np.ndarray:
    allowed = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}[spec.dtype.kind]
    if found.dtype.kind not in allowed:
        raise Refusal(
            "INVALID_ARGUMENT", f"{spec.name}: not of the expected type {spec.dtype.name}"
        )
    if spec.dtype.kind in "iu":
        limits = np.iinfo(spec.dtype)
        if int(found.min()) < limits.min or int(found.max()) > limits.max:
            raise Refusal(
                "INVALID_ARGUMENT", f"{spec.name}: a number does not fit {spec.dtype.name}"
            )
        return found.astype(spec.dtype)
    with np.errstate(over="ignore"):
        numbers = found.astype(spec.dtype)
    if finite and numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
        raise Refusal(
            "INVALID_ARGUMENT",
            f"{spec.name}: a number is NaN, infinite, or too large for {spec.dtype.name}",
        )
    return numbers


def _strings(value: Any) -> np.ndarray:
    flat: list[bytes] = []
    shape: list[int] = []

    def walk(node: Any, level: int) -> None:
        if isinstance(node, list):
            if level == len(shape) and not flat:
                shape.append(len(node))
            if level >= len(shape) or len(node) != shape[level]:
                raise ValueError
            for child in node:
                walk(child, level + 1)
        elif level == len(shape):
            flat.append(_bytes(node))
        else:
            raise ValueError

    walk(value, 0)
    found = np.empty(len(flat), object)
    found[:] = flat
    return found.reshape(shape)


def _bytes(node: Any) -> bytes:
    if isinstance(node, str):
        return node.encode("utf-8", "surrogatepass")
    if _is_base64(node):
        try:
            return base64.b64decode(node["b64"], validate=True)
        except (binascii.Error, ValueError):
            raise Refusal("INVALID_ARGUMENT", "Unable to base64 decode") from None
    raise Refusal("INVALID_ARGUMENT", "A value is neither a string nor {'b64': ...}")


def _is_base64(node: Any) -> bool:
    return isinstance(node, dict) and node.keys() == {"b64"} and isinstance(node["b64"], str)


def reply(outputs: Mapping[str, np.ndarray], rows: bool, finite: bool = True) -> bytes:
    """Return the body of a reply to outputs, in rows or columns.

    A float32 is written as the shortest double that is equal to it, so nothing is lost.

    Raises:
        Refusal: the outputs have no rows in common; or `finite`, and a number is NaN or infinite,
          for which JSON has no word.
    """
    for name, array in outputs.items() if finite else ():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise Refusal(
                "INTERNAL",
                f"{name}: the model's answer to these inputs is NaN or infinite, which JSON cannot "
                "say",
            )
    lists = {name: _values(name, array) for name, array in outputs.items()}
    if not rows:
        return _dump("outputs", next(iter(lists.values())) if len(lists) == 1 else lists)
    if (
        any(array.ndim == 0 for array in outputs.values())
        or len({len(a) for a in outputs.values()}) > 1
    ):
        raise Refusal(
            "INVALID_ARGUMENT",
            "The outputs have no batch dimension in common: ask with 'inputs' instead",
        )
    if len(lists) == 1:
        return _dump("predictions", next(iter(lists.values())))
    names = list(lists)
    return _dump(
        "predictions",
        [dict(zip(names, row, strict=True)) for row in zip(*lists.values(), strict=True)],
    )


def _values(name: str, array: np.ndarray) -> Any:
    if array.dtype != object:
        return array.tolist()
    binary = name.endswith("_bytes")

    def text(node: Any) -> Any:
        if isinstance(node, list):
            return [text(child) for child in node]
        return (
            {"b64": base64.b64encode(node).decode()} if binary else node.decode("utf-8", "replace")
        )

    return text(array.tolist())


def _dump(key: str, value: Any) -> bytes:
    return json.dumps({key: value}, separators=(",", ":")).encode()


def metadata(
    name: str, version: int, signatures: Mapping[str, tuple[Sequence[TensorSpec], ...]]
) -> dict[str, Any]:
    """Return the reply to `/metadata`: inputs and outputs of every signature.

    The format is that in which TensorFlow Serving writes its protobufs.
    """
    definitions = {
        key: {
            "inputs": {s.name: _tensor_info(s) for s in takes},
            "outputs": {s.name: _tensor_info(s) for s in gives},
            "method_name": "tensorflow/serving/predict",
        }
        for key, (takes, gives) in signatures.items()
    }
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(version)},
        "metadata": {
            "signature_def": {
                "@type": "type.googleapis.com/tensorflow.serving.SignatureDefMap",
                "signature_def": definitions,
            }
        },
    }


_PROTO = {
    "float32": "DT_FLOAT",
    "float64": "DT_DOUBLE",
    "object": "DT_STRING",
    "float16": "DT_HALF",
}


def _tensor_info(spec: TensorSpec) -> dict[str, Any]:
    dims = [{"size": str(-1 if n is None else n), "name": ""} for n in spec.shape]
    return {
        "dtype": _PROTO.get(spec.dtype.name, f"DT_{spec.dtype.name.upper()}"),
        "tensor_shape": {"dim": dims, "unknown_rank": False},
        "name": spec.name,
    }
