"""Weights of a backbone: from a file, an address or the Keras cache.

Only arrays are read. A whole model in an .h5 file would have Keras execute what its layers hold;
here the network is built from its name, and the file gives weights alone.
"""

import logging
from pathlib import Path

import h5py
import numpy as np
import tensorflow as tf

from sparring.errors import UserError
from sparring.storage.manifest import sha256_of

_log = logging.getLogger("sparring")


def locate(weights: str, sha256: str | None) -> Path:
    """Return the file behind a path or an address, after a check of its SHA-256.

    An address (https, http or file) needs a checksum; fetched files are kept in Keras' own cache,
    ~/.keras/models.

    Raises:
        UserError: the file does not exist, cannot be fetched, or has another checksum.
    """
    if "://" in weights:
        if sha256 is None:
            raise UserError(
                f"weights={weights}: an address needs a checksum: give its `sha256` beside it."
            )
        return _fetched(weights, sha256)
    try:
        path = Path(weights).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"weights={weights}: there is no such home: give the file's whole path."
        ) from error
    if not path.is_file():
        raise UserError(f"weights={weights}: there is no such file.")
    found = sha256_of(path)
    if sha256 is not None and found != sha256.lower():
        raise UserError(
            f"weights={weights} is not the file that was meant: its SHA-256 is {found}."
        )
    _log.info("Weights from %s, SHA-256 %s.", path, found)
    return path


def _fetched(address: str, sha256: str) -> Path:
    name = f"{sha256[:16].lower()}_{address.rpartition('/')[2]}"
    try:
        found = tf.keras.utils.get_file(
            name, address, cache_subdir="models", file_hash=sha256.lower(), hash_algorithm="sha256"
        )
    except Exception as error:  # Keras raises bare Exceptions
        said = " ".join(str(error).split())
        raise UserError(f"weights={address} cannot be had: {said}") from error
    if (digest := sha256_of(Path(found))) != sha256.lower():
        raise UserError(
            f"weights={address} is not the file that was meant: its SHA-256 is {digest}."
        )
    return Path(found)


def load(model: tf.keras.Model, path: Path) -> None:
    """Assign weights of an .h5 file to the layers of the same names.

    The file is written by `save_weights` or `save`.

    Raises:
        UserError: layers are missing on either side, or have other shapes; all are listed, and
          nothing is assigned.
    """
    try:
        with h5py.File(path, "r") as file:
            found = _layers(file.get("model_weights", file))
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"weights={path} holds no weights by layer: {error}. Write them by "
            "model.save_weights('name.h5')."
        ) from error
    here = {layer.name: layer for layer in model.layers if layer.weights}
    faults = [f"only in the file: {n}" for n in found if n not in here]
    faults += [f"not in the file: {n}" for n in here if n not in found]
    for name in here.keys() & found.keys():
        ours = [tuple(weight.shape) for weight in here[name].weights]
        theirs = [array.shape for array in found[name]]
        if ours != theirs:
            faults.append(f"differs: {name} is {theirs} in the file, {ours} here")
    if faults:
        shown = "".join(f"\n  {f}" for f in sorted(faults)[:20]) + (
            f"\n  and {len(faults) - 20} more" * (len(faults) > 20)
        )
        raise UserError(f"weights={path} does not fit this backbone:{shown}")
    for name, layer in here.items():
        layer.set_weights(found[name])


def _layers(group: h5py.Group) -> dict[str, list[np.ndarray]]:
    """Return arrays by layer, from a file in Keras' HDF5 format."""
    found = {}
    for name in map(_text, group.attrs["layer_names"]):
        layer = group[name]
        arrays = [np.asarray(layer[_text(weight)]) for weight in layer.attrs["weight_names"]]
        if arrays:
            found[name] = arrays
    return found


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
