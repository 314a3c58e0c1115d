"""`sparring export RUN --name cart --out models`: what a run has learned, as a folder that TensorFlow Serving reads.

    models/cart/1/saved_model.pb, variables/, manifest.json

A version is written beside its place and renamed, so that a server that watches the folder sees it whole or not at all.
"""

import argparse
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from research import evaluate, launch, provenance, record
from research.cli import strict
from research.errors import UserError
from research.versions import NAME, versions

FORMAT = 1
FIDELITY = "fidelity.json"
FORMATS = ("float32", "float16", "dynamic", "int8")  # of TensorFlow Lite; see research/edge.py
_SCRATCH = ".scratch-"


def main(arguments: Sequence[str]) -> int:
    """Parse the flags, export, say where it is; returns the exit code."""
    chosen = _parse(arguments)
    launch.prepare()
    small = Small(chosen.tflite, chosen.onnx, chosen.inputs, chosen.seeds)
    folder = export(chosen.run, chosen.name, chosen.out, chosen.checkpoint, small)
    print(folder)
    if small:
        from research import edge

        print(*edge.lines(json.loads((folder / FIDELITY).read_text())), sep="\n")
    print(f"serve it: sparring serve {chosen.out}")
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sparring export", description="Write what a run has learned for others.")
    strict(parser)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--name", help="the model's name; default: the run's")
    parser.add_argument("--out", type=Path, default=Path("models"), help="the folder of models; default models")
    parser.add_argument(
        "--checkpoint", choices=("best", "latest"), default="latest", help="which model; default latest"
    )
    parser.add_argument("--tflite", type=_formats, default=(), help=f"for small devices: {','.join(FORMATS)}")
    parser.add_argument("--onnx", action="store_true", help="an ONNX file too")
    parser.add_argument("--inputs", type=int, default=10_000, help="inputs that these are compared on; default 10000")
    parser.add_argument("--seeds", type=int, default=5, help="seeds under which they are judged; default 5")
    chosen = parser.parse_args(list(arguments))
    if chosen.inputs < 1 or chosen.seeds < 0:
        raise UserError("--inputs is at least 1, --seeds at least 0.")
    chosen.name = chosen.name or chosen.run.resolve().name
    if not NAME.fullmatch(chosen.name):
        raise UserError(f"--name {chosen.name}: give letters, digits, '.', '_' and '-', 64 at most, as in --name cart.")
    return chosen


def _formats(text: str) -> tuple[str, ...]:
    formats = tuple(dict.fromkeys(text.split(",")))
    if unknown := [kind for kind in formats if kind not in FORMATS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]}: choose from {','.join(FORMATS)}")
    return formats


class Small(NamedTuple):
    """What is made for small devices: TensorFlow Lite formats, ONNX; how many inputs and seeds they are judged by."""

    formats: Sequence[str] = ()
    onnx: bool = False
    inputs: int = 10_000
    seeds: int = 5

    def __bool__(self) -> bool:
        return bool(self.formats or self.onnx)


def export(run: Path, name: str, out: Path, checkpoint: str, small: Small = Small()) -> Path:  # noqa: B008
    """Write the next version of model `name` in `out`; returns its folder. UserError if there is nothing to export."""
    cfg = record.read_config(run)
    with evaluate.learned(run, cfg, checkpoint) as (trainer, step):
        if not hasattr(trainer, "export"):
            raise UserError(f"{run}: its trainer, {type(trainer).__name__}, has no export().")
        exported = trainer.export()
        scratch = _scratch(out / name)
        try:
            module = exported.module()
            module.save(str(scratch))
            if small:
                _shrink(scratch, exported, module, small)
            return _publish(scratch, out / name, _manifest(run, cfg, name, checkpoint, step, exported, module))
        except OSError as error:
            raise UserError(f"{out / name}: nothing was exported: {error.strerror or error}.") from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _shrink(folder: Path, exported: Any, module: Any, small: Small) -> None:
    from research import edge

    report = edge.write(folder, exported, module, small)
    (folder / FIDELITY).write_text(json.dumps(report, indent=1) + "\n")


def _scratch(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: no folder can be made there: {error.strerror}.") from error
    scratch = folder / f"{_SCRATCH}{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)  # of a killed export, as numbers of processes come again in containers
    return scratch


def _publish(scratch: Path, folder: Path, content: dict[str, Any]) -> Path:
    """Seal the finished folder and give it the next number; another export may take a number at the same time."""
    from research import manifest

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
    result = record.read_result(run)
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
        "metrics": {key: result[key] for key in ("objective", "final", "best", "evaluations") if key in result},
        "notes": dict(exported.notes),
        "signatures": {
            key: {
                "about": signature.about,
                "inputs": {n: _described(t, [None, *t.shape]) for n, t in signature.inputs.items()},
                "outputs": {n: _described(t, t.shape) for n, t in module.signatures[key].structured_outputs.items()},
            }
            for key, signature in exported.signatures.items()
        },
    }


def _described(tensor: Any, shape: Sequence[int | None]) -> dict[str, Any]:
    return {"dtype": tensor.dtype.name, "shape": list(shape)}
