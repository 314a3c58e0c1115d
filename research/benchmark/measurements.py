"""Measurements of a composed config for `sparring benchmark`, each in a process of its own."""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig


def training(cfg: DictConfig, steps: int) -> dict[str, Any]:
    """Measure training steps per second over `steps` steps.

    One iteration (tracing and compiling) and a warm-up of a tenth come before. For a trainer with
    `time_breakdown()`, the share of each part of an iteration is measured too.
    """
    from sparring.distribute import cluster
    from sparring.training.experiment import build

    started = time.perf_counter()
    trainer = build(cfg)
    built = time.perf_counter()
    trainer.train(1)
    compiled = time.perf_counter()
    trainer.train(max(steps // 10, 1))
    before = trainer.step
    begun = time.perf_counter()
    trainer.train(steps)
    seconds = time.perf_counter() - begun
    found = {
        "steps_per_second": (trainer.step - before) / seconds,
        "build_seconds": built - started,
        "compile_seconds": compiled - built,
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    # Several workers would have to measure in step, so they have no breakdown
    if not cluster.Process.of(cfg.strategy).is_one_of_several:
        found |= {f"share_{part}": share for part, share in trainer.time_breakdown().items()}
    trainer.close()
    return found


def beside_keras_fit(cfg: DictConfig, steps: int, turns: int = 5) -> dict[str, Any]:
    """Measure supervised training beside Keras' `fit` on the same data and an equal model.

    Figures are examples per second. Both have the same optimizer, loss, batch size and compile
    mode, and take turns of `steps` examples in one process, after one turn each to compile and warm
    up; medians count. `fit` is measured as it is, and with 64 batches in each of its calls
    (`steps_per_execution`), which is its best way to train small models; the ratio is to the better
    of the two.
    """
    from sparring.training.experiment import build

    trainer = build(cfg)
    runs = {"ours": lambda: trainer.train(steps)}
    for name, at_once in (("keras_fit", 1), ("keras_fit_64_at_once", 64)):
        runs[name] = _keras_fit(cfg, trainer, steps, at_once)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(turns + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    rates = {name: steps / statistics.median(spent) for name, spent in seconds.items()}
    ours = rates.pop("ours")
    found = {f"{name}_examples_per_second": rate for name, rate in rates.items()}
    return {"steps_per_second": ours, "times_keras": ours / max(rates.values()), **found}


def _keras_fit(cfg: DictConfig, trainer: Any, steps: int, at_once: int) -> Callable[[], Any]:
    """Return a call of `fit` on `steps` examples."""
    import tensorflow as tf

    from sparring.config import targets
    from sparring.optim.optimizer import another

    twin = targets.instantiate(cfg.model)(outputs=trainer.task.outputs)
    inputs, labels = trainer.data.examples("train")
    source = tf.keras.Input(inputs.shape[1:])
    model = tf.keras.Model(source, twin(source))
    optimizer = trainer.stages[0].optimizers[0].keras
    model.compile(
        another(optimizer),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=trainer.mode == "xla",
        steps_per_execution=at_once,
    )
    inputs, labels = (np.resize(a, (steps, *a.shape[1:])) for a in (inputs, labels))
    return lambda: model.fit(inputs, labels, batch_size=trainer.batch_size, epochs=1, verbose=0)


def cold_start(cfg: DictConfig, command: Sequence[str], target: float) -> dict[str, Any]:
    """Measure the wall seconds of a whole command until the objective reaches `target`.

    They include starting the process. `command` is the part after `sparring`; a run that ends
    without reaching the target counts as infinitely long.
    """
    del cfg
    with tempfile.TemporaryDirectory() as folder:
        run = [f"run.target={target}", f"run.dir={folder}", "run.name=cold"]
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "sparring", *command, *run],
            check=True,
            capture_output=True,
            env=dict(os.environ),
        )
        seconds = time.perf_counter() - started
        result = json.loads((Path(folder) / "cold" / "result.json").read_text())
    reached = result["status"] == "target"
    return {
        "seconds": seconds if reached else float("inf"),
        "steps": result["step"],
        **{f"{part}_seconds": spent for part, spent in result["seconds"].items()},
    }
