"""Scaling of training speed with the number of environments and the width of the network."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

# Varied settings, with their names in a chart
AXES = {"num_envs": "environments", "units": "units in each layer"}
# Bounds on the steps of a rollout
LEAST = 512
MOST = 16384


def scaling(
    cfg: DictConfig, num_envs: Sequence[int], units: Sequence[int], seconds: float = 4.0
) -> dict[str, Any]:
    """Measure the steps per second of `cfg` at each of `num_envs`, then at each width of `units`.

    Every point is a process of its own and takes about `seconds`, without compiling. A rollout has
    as many steps as in `cfg`, kept in bounds by `rollout_steps`. `steps_per_second` in the result
    is the best point.
    """
    base = cfg.trainer.rollout_steps
    layers = len(cfg.network.units)
    changes = {
        f"num_envs_{n}": {"trainer": {"num_envs": n, "rollout_steps": rollout_steps(n, base)}}
        for n in num_envs
    } | {f"units_{n}": {"network": {"units": [n] * layers}} for n in units}
    found = {
        point: alone(rate, _changed(cfg, change), seconds) for point, change in changes.items()
    }
    return {"steps_per_second": max(found.values()), **found}


def rollout_steps(num_envs: int, base: int) -> int:
    """Return `base`, or more or fewer steps to keep a rollout's size in bounds.

    A rollout of all environments has at least 512 steps and, if one step each allows it, at most 16
    384.
    """
    return max(1, -(-LEAST // num_envs), min(base, MOST // num_envs))


def rate(config: Mapping[str, Any], seconds: float) -> float:
    """Measure training steps per second over at least half of `seconds`.

    One iteration, which traces and compiles, comes before.
    """
    from sparring.training.experiment import build

    trainer = build(OmegaConf.create(dict(config)))
    trainer.train(1)
    steps = 1
    while True:
        before = trainer.step
        begun = time.perf_counter()
        trainer.train(steps)
        elapsed = time.perf_counter() - begun
        taken = trainer.step - before
        if elapsed > seconds / 2:
            trainer.close()
            return taken / elapsed
        steps = max(2 * taken, int(taken * seconds / max(elapsed, 1e-6)))


def alone(work: Callable[..., float], *arguments: Any) -> float:
    """Return `work(*arguments)`, computed in a process of its own.

    It shares neither memory nor threads with earlier work.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(work, *arguments).result()


def _changed(cfg: DictConfig, change: Mapping[str, Any]) -> Any:
    """Return the config with `change` as plain values, which another process can take.

    The change is made before interpolations are resolved.
    """
    kept = OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k != "hydra"])
    OmegaConf.set_struct(kept, False)
    return OmegaConf.to_container(OmegaConf.merge(kept, change), resolve=True)


def curves(figures: Mapping[str, Any]) -> dict[str, list[tuple[int, float]]]:
    """Return (size, steps per second) by size, for each axis with points in the figures."""
    found: dict[str, list[tuple[int, float]]] = {}
    for key, value in figures.items():
        axis, _, size = key.rpartition("_")
        if axis in AXES:
            found.setdefault(axis, []).append((int(size), value))
    return {axis: sorted(points) for axis, points in found.items()}


def draw(found: Mapping[str, Mapping[str, Any]], file: Path) -> str:
    """Draw a chart for each axis, with a line for each case that has points on it.

    Returns a line on the outcome, or "" if there is nothing to draw.
    """
    drawn = {name: points for name, figures in found.items() if (points := curves(figures))}
    if not drawn:
        return ""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return f"{file} is not drawn: pip install matplotlib."
    axes = [axis for axis in AXES if any(axis in points for points in drawn.values())]
    figure = Figure(figsize=(5 * len(axes), 4), layout="constrained")
    for place, axis in zip(figure.subplots(1, len(axes), squeeze=False)[0], axes, strict=True):
        for name in [name for name, points in drawn.items() if axis in points]:
            place.plot(*zip(*drawn[name][axis], strict=True), marker="o", label=name)
        place.set(
            xscale="log", yscale="log", xlabel=AXES[axis], ylabel="environment steps per second"
        )
        low, high = place.get_ylim()  # whole decades: a flat curve looks flat
        place.set_ylim(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high)))
        place.grid(alpha=0.3)
        place.legend()
    figure.savefig(file, dpi=150)
    return f"drawn: {file}"
