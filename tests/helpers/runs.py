"""Running the command line in processes of its own, and comparing what two runs left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

ROOT = Path(__file__).resolve().parents[2]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "sparring", *arguments]


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    """Start `sparring ...` in `folder`, its output in a file there."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"}
    with (folder / "output.txt").open("a") as out:
        return subprocess.Popen(
            command(*arguments), cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT
        )


def sparring(folder: Path, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess:
    """Run `sparring ...` in `folder` to its end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"}
    return subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def result(run: Path) -> dict:
    return json.loads((run / "result.json").read_text())


def newest(run: Path) -> Path:
    return sorted((run / "checkpoints").glob("step_*"))[-1]


def tensors(run: Path) -> dict[str, np.ndarray]:
    """Every tensor of the run's newest checkpoint: weights, slots, replay, counters, means."""
    return read(newest(run))


def read(checkpoint: Path) -> dict[str, np.ndarray]:
    """Every tensor of a checkpoint's folder."""
    reader = tf.train.load_checkpoint(str(checkpoint / "tensors"))
    names = [n for n in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in n]
    return {n: reader.get_tensor(n) for n in names}


def scalars(run: Path) -> dict[str, dict[int, float]]:
    """Tag -> step -> value as TensorBoard shows them: the latest write of a step counts. Timings
    are left out.
    """
    found: dict[str, dict[int, float]] = {}
    curves: set[str] = set()  # only a tag's first event in a file says which plugin it is for
    for path in sorted(run.glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars" and not value.tag.startswith(
                    "time/"
                ):
                    curves.add(value.tag)
                if value.tag in curves:
                    found.setdefault(value.tag, {})[event.step] = float(
                        tf.make_ndarray(value.tensor)
                    )
    return found


def assert_equal(run: Path, other: Path) -> None:
    """Two runs ended at the same state to the last bit, and logged the same curves."""
    assert newest(run).name == newest(other).name
    ours = tensors(run)
    theirs = tensors(other)
    assert ours.keys() == theirs.keys()
    different = [n for n in ours if not np.array_equal(ours[n], theirs[n], equal_nan=True)]
    assert not different, f"tensors differ: {different}"
    host, other_host = (json.loads((newest(r) / "host.json").read_text()) for r in (run, other))
    assert {**host, "seconds": None} == {**other_host, "seconds": None}
    arrays, other_arrays = (np.load(newest(r) / "host.npz") for r in (run, other))
    assert set(arrays) == set(other_arrays)
    assert all(np.array_equal(arrays[k], other_arrays[k]) for k in arrays)
    curves = scalars(run)
    other_curves = scalars(other)
    assert curves.keys() == other_curves.keys()
    assert not {
        tag: (curves[tag], other_curves[tag]) for tag in curves if curves[tag] != other_curves[tag]
    }
