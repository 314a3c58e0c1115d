"""`sparring export RUN --name cart --out models`: what a run has learned, as a folder that
TensorFlow Serving reads.

    models/cart/1/saved_model.pb, variables/, manifest.json

A version is written beside its place and renamed, so that a server that watches the folder sees it
whole or not at all.
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
    """What is made for small devices: TensorFlow Lite formats, ONNX; how many inputs and seeds they
    are judged by.
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
    # Of a killed export, as numbers of processes come again in containers
    shutil.rmtree(scratch, ignore_errors=True)
    return scratch


def _publish(scratch: Path, folder: Path, content: dict[str, Any]) -> Path:
    """Seal the finished folder and give it the next number; another export may take a number at the
    same time.
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
    """Where the model is from, and what it takes and gives."""
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
            key: {
                "about": signature.about,
                "inputs": {n: _described(t, [None, *t.shape]) for n, t in signature.inputs.items()},
                "outputs": {
                    n: _described(t, t.shape)
                    for n, t in module.signatures[key].structured_outputs.items()
                },
            }
            for key, signature in exported.signatures.items()
        },
    }


def _described(tensor: Any, shape: Sequence[int | None]) -> dict[str, Any]:
    return {"dtype": tensor.dtype.name, "shape": list(shape)}
