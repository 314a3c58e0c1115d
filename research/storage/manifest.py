"""Plain files of one checkpoint folder: the host's state, and the manifest of all files.

`host.json` and `host.npz` hold the state outside TensorFlow (generator states, environment seeds,
counters); nothing in them is pickled and reading them runs no code. `manifest.json` is written last
and names every other file with its size and SHA-256, so a folder without a matching manifest is not
a checkpoint. SHA-256 is the fastest sound digest on processors with instructions for it: 0.9 s per
GB, BLAKE2b 1.5 to 2 s.
"""

import hashlib
import io
import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparring.errors import UserError

FORMAT = 1
MANIFEST = "manifest.json"
HOST = "host.json"
ARRAYS = "host.npz"
# Prefix of TensorFlow's files: tensors.index, tensors.data-00000-of-00001
TENSORS = "tensors"
_REQUIRED = (HOST, ARRAYS, f"{TENSORS}.index", f"{TENSORS}.data-00000-of-")


class DamagedError(Exception):
    """Reason why a folder is not a sound checkpoint, to follow "step_000000000100: "."""


def seal(folder: Path, step: int, versions: Mapping[str, str]) -> None:
    """Make every file of `folder` durable, then write its manifest, durable too.

    Raises:
        OSError: the disk refuses.
    """
    close(folder, {"format": FORMAT, "step": step, "versions": dict(versions)})


def close(folder: Path, content: Mapping[str, Any]) -> None:
    """Make every file in and below `folder` durable and write the manifest.

    The manifest holds `content`, the files, and its own digest.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files[str(path.relative_to(folder))] = {
                "size": path.stat().st_size,
                "sha256": sha256_of(path),
            }
        fsync(path)
    content = {**content, "files": files}
    write(
        folder / MANIFEST,
        json.dumps({**content, "sha256": _own_digest(content)}, indent=1).encode(),
    )
    fsync(folder)


def check(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder after checking every file that it lists.

    Raises:
        DamagedError: a file is not as it was written; the message describes the first fault.
    """
    manifest = _read_manifest(folder)
    try:
        listed = [
            (str(name), int(of["size"]), str(of["sha256"]))
            for name, of in manifest["files"].items()
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DamagedError(f"its {MANIFEST} lists no files as it should") from None
    for name, size, sha256 in listed:
        _verify_file(folder / name, size, sha256)
    return manifest


def verify(folder: Path, step: int) -> None:
    """Check every file of a checkpoint folder against its manifest, and its step.

    Raises:
        DamagedError: the first fault found.
        UserError: another version of this program wrote it, in another format.
    """
    manifest = _read_manifest(folder)
    if manifest["format"] != FORMAT:
        raise UserError(
            f"{folder} is of checkpoint format {manifest['format']}, this version of Sparring "
            f"reads {FORMAT}: "
            "use the version that wrote it, or start a new run."
        )
    if manifest["step"] != step:
        raise DamagedError(f"its {MANIFEST} is for step {manifest['step']}")
    for name in _REQUIRED:
        if not any(listed.startswith(name) for listed in manifest["files"]):
            raise DamagedError(f"its {MANIFEST} does not list {name}")
    for name, expected in manifest["files"].items():
        _verify_file(folder / name, expected["size"], expected["sha256"])


def write(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def fsync(path: Path) -> None:
    """Wait until the disk has a file's content, or a folder's entries."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def encode_host(host: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return the contents of host.json and host.npz for a nested state.

    Allowed are dicts with str keys, lists, tuples (they come back as lists), str, int of any size,
    float, bool, None, and numpy arrays and scalars of boolean, integer, float and complex types.
    Both files are made in memory: large arrays belong in TensorFlow variables.

    Raises:
        UserError: the state holds anything else; the message gives its place.
    """
    arrays: list[np.ndarray] = []
    tree = _encode(host, "host", arrays)
    npz = io.BytesIO()
    np.savez(npz, **{str(index): array for index, array in enumerate(arrays)})
    return json.dumps(tree, allow_nan=False, indent=1).encode(), npz.getvalue()


def decode_host(json_data: bytes, npz_data: bytes) -> dict[str, Any]:
    """Return the state given to `encode_host`, equal bit for bit in values, dtypes and shapes."""
    with np.load(io.BytesIO(npz_data), allow_pickle=False) as arrays:
        return _decode(json.loads(json_data), arrays)


def _encode(value: Any, where: str, arrays: list[np.ndarray]) -> Any:
    # Types are compared exactly: an IntEnum or a numpy float is an int or a float too, and would
    # come back as one.
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        # JSON has no nan or infinity, and a nan has a sign and a payload.
        return value if math.isfinite(value) else {"$float": struct.pack(">d", value).hex()}
    if type(value) is np.ndarray or isinstance(value, np.generic):
        if value.dtype.kind not in "biufc":
            raise UserError(
                f"{where}: an array of {value.dtype} cannot be saved, only boolean and numeric "
                "ones."
            )
        arrays.append(np.asarray(value))
        return {"$array" if type(value) is np.ndarray else "$scalar": str(len(arrays) - 1)}
    if isinstance(value, Mapping) and all(type(key) is str for key in value):
        tree = {key: _encode(child, f"{where}/{key}", arrays) for key, child in value.items()}
        return {"$dict": tree} if any(key.startswith("$") for key in tree) else tree
    if isinstance(value, list | tuple):
        return [_encode(child, f"{where}/{index}", arrays) for index, child in enumerate(value)]
    shown = " ".join(repr(value).split())[:60]
    raise UserError(
        f"{where}: {type(value).__name__} {shown} cannot be saved in a checkpoint. "
        "Give dicts with str keys, lists, str, int, float, bool, None and numeric numpy arrays."
    )


def _decode(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    match tree:
        case {"$float": bits}:
            return struct.unpack(">d", bytes.fromhex(bits))[0]
        case {"$array": name}:
            return arrays[name]
        case {"$scalar": name}:
            return arrays[name][()]
        case {"$dict": content}:
            return {key: _decode(child, arrays) for key, child in content.items()}
        case dict():
            return {key: _decode(child, arrays) for key, child in tree.items()}
        case list():
            return [_decode(child, arrays) for child in tree]
    return tree


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        data = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise DamagedError(f"{MANIFEST} is missing") from None
    except OSError as error:
        raise DamagedError(f"{MANIFEST} cannot be read ({error.strerror})") from error
    if not data:
        raise DamagedError(f"{MANIFEST} is empty")
    try:
        manifest = json.loads(data)
        sound = manifest.pop("sha256") == _own_digest(manifest)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise DamagedError(f"{MANIFEST} is garbled")
    return manifest


def _verify_file(path: Path, size: int, sha256: str) -> None:
    try:
        found = path.stat().st_size
        if found < size:
            raise DamagedError(f"{path.name} is short of {size - found} of its {size} bytes")
        if sha256_of(path) != sha256:
            raise DamagedError(
                f"{path.name} has changed since it was written (its SHA-256 differs)"
            )
    except FileNotFoundError:
        raise DamagedError(f"{path.name} is missing") from None
    except OSError as error:
        raise DamagedError(f"{path.name} cannot be read ({error.strerror})") from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _own_digest(content: Mapping[str, Any]) -> str:
    """Return a manifest's own digest, over its other entries in canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
