"""Seconds and peak memory of each metric on as many samples as asked for, each in a process of its
own.

    python -m tests.measure.metrics            # 10 000 samples of the coloured shapes
    python -m tests.measure.metrics 50000 prdc_random

Generated examples are real ones with noise, already in memory. The first call works out what is
needed of the real data as well, and the floor; later calls are what an evaluation costs. Memory is
the most a process held during the calls, less what it held before them, when data and samples were
in memory.
"""

import functools
import resource
import subprocess
import sys
import threading
import time

NAMES = (
    "fid_classifier",
    "kid_classifier",
    "prdc",
    "features",
    "fid_random",
    "kid_random",
    "prdc_random",
)
NAMES += ("is_classifier", "swd", "memorisation", "prdc_package")


def measure(name: str, count: int) -> str:
    import numpy as np
    from hydra import compose, initialize_config_dir

    from sparring.config import targets
    from sparring.config.composer import CONF
    from sparring.data import synthetic_shapes

    data = synthetic_shapes.Shapes(seed=0, train=count, test=2000)
    examples, labels = data.examples("train")
    noise = np.random.default_rng(0).standard_normal(examples.shape, np.float32)
    examples = np.clip(examples + 0.2 * noise, -1, 1)
    del noise

    def sample(n):
        return examples[:n], labels[:n]

    if name == "prdc_package":
        call = functools.partial(_package, data, examples)
    else:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose(overrides=[f"+metric={name}"])
        metric = targets.instantiate(cfg.metrics)[name](data)
        metric.samples = count
        if hasattr(metric, "reference"):
            metric.reference = count
        getattr(getattr(metric, "extractor", None), "accuracy", None)  # trains the classifier, once
        call = functools.partial(metric, sample)
    before = _now()
    seconds = []
    with _Peak() as peak:
        for _ in range(3):
            started = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - started)
    return (
        f"{name:16} first {seconds[0]:6.1f} s, then {min(seconds[1:]):6.1f} s, "
        f"{peak.most - before:6.0f} MB"
    )


def _package(data, examples):
    """The prdc package on the features of one random network."""
    from prdc import compute_prdc

    from sparring.gans.metrics.extractors import RandomNetworks

    (member,) = RandomNetworks(data, 1).members
    compute_prdc(member(data.examples("train")[0]), member(examples), nearest_k=5)


def _now() -> float:
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


class _Peak:
    """The most memory held while it is open, looked at a hundred times a second."""

    def __enter__(self):
        self.most = _now()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._over.wait(0.01):
            self.most = max(self.most, _now())

    def __exit__(self, *error):
        self._over.set()
        self._thread.join()


if __name__ == "__main__":
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    if "--here" in sys.argv:
        print(measure(sys.argv[2], samples))
    for each in sys.argv[2:] or NAMES if "--here" not in sys.argv else ():
        subprocess.run(
            [sys.executable, "-m", "tests.measure.metrics", str(samples), each, "--here"],
            check=True,
        )
