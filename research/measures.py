"""What `sparring benchmark` can measure of a composed config, each in a process of its own."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig


def training(cfg: DictConfig, steps: int) -> dict[str, Any]:
    """Steps per second over `steps` steps, after one iteration (tracing and compiling) and a warm-up of a tenth.

    A trainer with `anatomy()` also says which share of an iteration each of its parts takes.
    """
    from research.train import build

    started = time.perf_counter()
    trainer = build(cfg)
    built = time.perf_counter()
    trainer.train(1)
    compiled = time.perf_counter()
    trainer.train(max(steps // 10, 1))
    before, begun = trainer.step, time.perf_counter()
    trainer.train(steps)
    seconds = time.perf_counter() - begun
    found = {
        "steps_per_second": (trainer.step - before) / seconds,
        "build_seconds": built - started,
        "compile_seconds": compiled - built,
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    if hasattr(trainer, "anatomy"):
        found |= {f"share_{part}": share for part, share in trainer.anatomy().items()}
    trainer.close()
    return found


def cold_start(cfg: DictConfig, command: Sequence[str], target: float) -> dict[str, Any]:
    """Wall seconds of a whole command, from the shell to its end, until the objective reaches `target`.

    `command` is what follows `sparring`; a run that ends without reaching the target counts as infinitely long.
    """
    del cfg
    with tempfile.TemporaryDirectory() as folder:
        run = [f"run.target={target}", f"run.dir={folder}", "run.name=cold"]
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "research", *command, *run], check=True, capture_output=True, env=dict(os.environ)
        )
        seconds = time.perf_counter() - started
        result = json.loads((Path(folder) / "cold" / "result.json").read_text())
    reached = result["status"] == "target"
    return {
        "seconds": seconds if reached else float("inf"),
        "steps": result["step"],
        **{f"{part}_seconds": spent for part, spent in result["seconds"].items()},
    }
