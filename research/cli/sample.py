"""Command `sparring sample RUN`: draw examples from a GAN's generator into a folder."""

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparring.cli import setup
from sparring.cli.parser import strict
from sparring.errors import UserError
from sparring.storage import atomic
from sparring.storage.run_folder import RunFolder
from sparring.training.trained_model import restored

ARRAYS = "samples.npz"
GRID = "grid.png"
ABOUT = "samples.json"


def main(arguments: Sequence[str]) -> int:
    """Parse the flags, draw, write and print; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="sparring sample", description="Draw examples from what a GAN's run has learned."
    )
    strict(parser)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--count", type=int, default=64, help="how many; default 64")
    parser.add_argument(
        "--out", type=Path, default=None, help="a new folder; default samples-SEED in the run"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the examples; default 0")
    parser.add_argument(
        "--class",
        dest="label",
        default=None,
        help="the class of all of them, of a conditional generator; default: as in its data",
    )
    parser.add_argument(
        "--checkpoint",
        choices=("best", "latest"),
        default=None,
        help="which model; default best, if the run was evaluated",
    )
    chosen = parser.parse_args(list(arguments))
    if chosen.count < 1:
        raise UserError(f"--count {chosen.count}: at least one.")
    if not 0 <= chosen.seed < 2**31:
        raise UserError(f"--seed {chosen.seed}: from 0 to {2**31 - 1}.")
    cfg = RunFolder(chosen.run).read_config()
    if "discriminator_optimizer" not in cfg or "env" in cfg:
        raise UserError(f"{chosen.run}: this run has no generator to draw examples from.")
    out = chosen.out or chosen.run / f"samples-{chosen.seed}"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: there is something there already; name a new folder.")
    setup.prepare()
    print(*draw(chosen, cfg, out), sep="\n")
    return 0


def draw(chosen: argparse.Namespace, cfg: Any, out: Path) -> list[str]:
    """Draw the examples that the flags ask for, write them to `out`, and return lines to print."""
    kind = chosen.checkpoint or ("best" if any(chosen.run.glob("best/step_*")) else "latest")
    with restored(chosen.run, cfg, kind) as (trainer, step):
        found = trainer.generate(chosen.count, chosen.seed, chosen.label)
    about = {
        "run": str(chosen.run.resolve()),
        "checkpoint": kind,
        "step": step,
        "count": chosen.count,
        "seed": chosen.seed,
        "class": chosen.label,
    }
    lines = [f"{out}: {chosen.count} examples of the {kind} model, of step {step}"]
    try:
        out.mkdir(parents=True, exist_ok=True)
        lines += _written(found, out)
        atomic.write_text(out / ABOUT, json.dumps(about, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror or error}.") from error
    return [*lines, f"  {ABOUT}: where they are from"]


def _written(found: Any, out: Path) -> list[str]:
    """Write samples to a folder; return a line about each kind of file."""
    content = io.BytesIO()
    np.savez_compressed(content, **found.arrays)
    atomic.write_bytes(out / ARRAYS, content.getvalue())
    shapes = (f"{name} {list(a.shape)} {a.dtype}" for name, a in found.arrays.items())
    lines = [f"  {ARRAYS}: {', '.join(shapes)}"]
    if found.images is not None:
        digits = len(str(len(found.images) - 1))
        for number, image in enumerate(found.images):
            (out / f"{number:0{digits}}.png").write_bytes(_png(image))
        lines.append(f"  {0:0{digits}}.png to {len(found.images) - 1:0{digits}}.png: an image each")
    if found.grid is not None:
        grid = found.grid[0] if found.grid.ndim == 4 else found.grid
        atomic.write_bytes(out / GRID, _png(grid))
        lines.append(f"  {GRID}: many of them in one image")
    return lines


def _png(image: np.ndarray) -> bytes:
    """Return bytes [H, W, C], C of 1, 3 or 4, as a file."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(content, "png")
    return content.getvalue()
