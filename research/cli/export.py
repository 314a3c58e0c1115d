"""Command `sparring export RUN`: write a run's model as a SavedModel."""

import argparse
import json
import logging
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from sparring.cli import setup
from sparring.cli.parser import strict
from sparring.errors import UserError
from sparring.export.model_versions import NAME
from sparring.export.saved_model import FIDELITY, Small, _manifest, _publish, _scratch, _shrink
from sparring.export.signatures import objections
from sparring.storage.manifest import MANIFEST
from sparring.storage.run_folder import RunFolder
from sparring.training.trained_model import restored

_log = logging.getLogger("sparring")
# Formats of TensorFlow Lite; see research/export/tflite_onnx.py
FORMATS = ("float32", "float16", "dynamic", "int8")


def main(arguments: Sequence[str]) -> int:
    """Parse the flags, export, print the folder; return the exit code."""
    chosen = _parse(arguments)
    setup.prepare()
    small = Small(chosen.tflite, chosen.onnx, chosen.inputs, chosen.seeds)
    folder = export(chosen.run, chosen.name, chosen.out, chosen.checkpoint, small)
    run = json.loads((folder / MANIFEST).read_text())["run"]
    print(folder)
    print(f"the {run['checkpoint']} model, of step {run['step']}")
    if small:
        from sparring.export import tflite_onnx

        report = json.loads((folder / FIDELITY).read_text())
        print(*tflite_onnx.lines(report), sep="\n")
        for sentence in tflite_onnx.objections(report):
            _log.warning("%s", sentence)
    print(f"serve it: sparring serve {chosen.out}")
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sparring export", description="Write what a run has learned for others."
    )
    strict(parser)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--name", help="the model's name; default: the run's")
    parser.add_argument(
        "--out", type=Path, default=Path("models"), help="the folder of models; default models"
    )
    parser.add_argument(
        "--checkpoint",
        choices=("best", "latest"),
        default=None,
        help="which model; default best, if the run was evaluated",
    )
    parser.add_argument(
        "--tflite", type=_formats, default=(), help=f"for small devices: {','.join(FORMATS)}"
    )
    parser.add_argument("--onnx", action="store_true", help="an ONNX file too")
    parser.add_argument(
        "--inputs",
        type=int,
        default=10_000,
        help="inputs that these are compared on; default 10000",
    )
    parser.add_argument(
        "--seeds", type=int, default=5, help="seeds under which they are judged; default 5"
    )
    chosen = parser.parse_args(list(arguments))
    if chosen.inputs < 1 or chosen.seeds < 0:
        raise UserError("--inputs is at least 1, --seeds at least 0.")
    chosen.name = chosen.name or _name_of(chosen.run.resolve().name)
    if not NAME.fullmatch(chosen.name):
        raise UserError(
            f"--name {chosen.name}: give letters, digits, '.', '_' and '-', 64 at most, as in "
            "--name cart."
        )
    return chosen


def _name_of(run: str) -> str:
    """Return a run's name in signs that a model's takes: `agent-dqn-seed-0` of agent=dqn,seed=0."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", run).strip("-._")[:64]


def _formats(text: str) -> tuple[str, ...]:
    formats = tuple(dict.fromkeys(text.split(",")))
    if unknown := [kind for kind in formats if kind not in FORMATS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]}: choose from {','.join(FORMATS)}")
    return formats


def export(
    run: Path,
    name: str,
    out: Path,
    checkpoint: str | None = None,
    small: Small = Small(),  # noqa: B008
) -> Path:
    """Write the next version of model `name` in `out`; return its folder.

    `checkpoint` is "best" or "latest"; None: the best, if the run was evaluated, else the latest.

    Raises:
        UserError: there is nothing to export, or it cannot be written.
    """
    cfg = RunFolder(run).read_config()
    if checkpoint is None:
        checkpoint = "best" if any((run / "best").glob("step_*")) else "latest"
    with restored(run, cfg, checkpoint) as (trainer, step):
        exported = trainer.export()
        module = exported.module()
        for sentence in objections(exported, module):
            _log.warning("%s", sentence)
        scratch = _scratch(out / name)
        try:
            module.save(str(scratch))
            if small:
                _shrink(scratch, exported, module, small)
            return _publish(
                scratch, out / name, _manifest(run, cfg, name, checkpoint, step, exported, module)
            )
        except OSError as error:
            raise UserError(
                f"{out / name}: nothing was exported: {error.strerror or error}."
            ) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
