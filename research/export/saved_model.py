"""Export of a run's model as a folder that TensorFlow Serving reads, for `sparring export`.

`sparring export RUN --name cart --out models` writes

    models/cart/1/saved_model.pb, variables/, manifest.json

A version is written beside its final place and renamed, so that a server that watches the folder
sees all of it or nothing.
"""

import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from sparring.errors import UserError
from sparring.export.model_versions import versions
from sparring.storage import provenance
from sparring.storage.run_folder import RunFolder

FORMAT = 1
FIDELITY = "fidelity.json"
_SCRATCH = ".scratch-"


class Small(NamedTuple):
    """Exports for small devices: TensorFlow Lite formats and ONNX.

    `inputs` and `seeds` say how many are used to measure their fidelity.
    """

    formats: Sequence[str] = ()
    onnx: bool = False
    inputs: int = 10_000
    seeds: int = 5

    def __bool__(self) -> bool:
        return bool(self.formats or self.onnx)


def _shrink(folder: Path, exported: Any, module: Any, small: Small) -> None:
    from sparring.export import tflite_onnx

    report = tflite_onnx.write(folder, exported, module, small)
    (folder / FIDELITY).write_text(json.dumps(report, indent=1) + "\n")


def _scratch(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: no folder can be made there: {error.strerror}.") from error
    scratch = folder / f"{_SCRATCH}{os.getpid()}"
    # A killed export may have left it, as process ids repeat in containers
    shutil.rmtree(scratch, ignore_errors=True)
    return scratch


def _publish(scratch: Path, folder: Path, content: dict[str, Any]) -> Path:
    """Seal the finished folder and move it to the next version.

    Another export may take that version at the same time.
    """
    from sparring.storage import manifest

    while True:
        version = max(versions(folder), default=0) + 1
        manifest.close(scratch, {**content, "version": version})
        try:
            scratch.rename(folder / str(version))
        except OSError:
            if version not in versions(folder):
                raise
            (scratch / manifest.MANIFEST).unlink()
            continue
        manifest.fsync(folder)
        return folder / str(version)


def _manifest(
    run: Path, cfg: DictConfig, name: str, checkpoint: str, step: int, exported: Any, module: Any
) -> dict[str, Any]:
    """Return the model's origin, metrics and signatures."""
    result = RunFolder(run).read_result()
    ours = provenance.versions()
    return {
        "format": FORMAT,
        "name": name,
        "exported": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "run": {
            "name": run.resolve().name,
            "checkpoint": checkpoint,
            "step": step,
            "commit": result.get("commit"),
            "versions": result.get("versions", {}),
        },
        "exporter": {"commit": ours["commit"], "versions": ours["versions"]},
        "config": OmegaConf.to_container(cfg, resolve=False),
        "metrics": {
            key: result[key]
            for key in ("objective", "final", "best", "evaluations")
            if key in result
        },
        "notes": dict(exported.notes),
        "signatures": {
            key: _signature(signature, module.signatures[key].structured_outputs)
            for key, signature in exported.signatures.items()
        },
    }


def _signature(signature: Any, outputs: dict[str, Any]) -> dict[str, Any]:
    return {
        "about": signature.about,
        "inputs": {n: _described(t, [None, *t.shape]) for n, t in signature.inputs.items()},
        "outputs": {n: _described(t, t.shape) for n, t in outputs.items()},
    }


def _described(tensor: Any, shape: Sequence[int | None]) -> dict[str, Any]:
    return {"dtype": tensor.dtype.name, "shape": list(shape)}
