"""`sparring evaluate RUN`: measure a run's model again, with as many episodes as wanted, and add it to its result."""

import argparse
import contextlib
import copy
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from research import launch, mistakes, record
from research.cli import strict
from research.errors import UserError


def main(arguments: Sequence[str]) -> int:
    """Parse the flags, evaluate, print and record; returns the exit code."""
    parser = argparse.ArgumentParser(prog="sparring evaluate", description="Evaluate what a run has learned.")
    strict(parser)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--episodes", type=int, default=100, help="how many episodes (or samples); default 100")
    parser.add_argument(
        "--checkpoint", choices=("best", "latest"), default="latest", help="which model; default latest"
    )
    parser.add_argument("--seed", type=int, default=None, help="evaluate under another seed than the run's")
    chosen = parser.parse_args(list(arguments))
    if chosen.episodes < 1:
        raise UserError(f"--episodes {chosen.episodes}: at least one.")
    launch.prepare()
    print(*evaluate(chosen.run, chosen.episodes, chosen.checkpoint, chosen.seed), sep="\n")
    return 0


def evaluate(folder: Path, episodes: int, checkpoint: str, seed: int | None) -> list[str]:
    """Evaluate and add the finding to result.json under "evaluations"; returns it as lines."""
    cfg = record.read_config(folder)
    if seed is not None:
        cfg.seed = seed
    with learned(folder, cfg, checkpoint) as (trainer, step):
        found = trainer.evaluate(episodes=episodes, media=False, step=step)
    entry = {
        "checkpoint": checkpoint,
        "step": step,
        "episodes": episodes,
        "seed": int(cfg.seed),
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "scalars": found.scalars,
        **({"notes": found.notes} if found.notes else {}),
    }
    record.add_evaluation(folder, entry)
    lines = [f"{folder}: {checkpoint} checkpoint, step {step}, {episodes} episodes"]
    return [*lines, *(f"  {tag} {value:.4g}" for tag, value in found.scalars.items())]


@contextlib.contextmanager
def learned(folder: Path, cfg: DictConfig, checkpoint: str) -> Iterator[tuple[Any, int]]:
    """The trainer of a run's config with the model of its "best" or "latest" checkpoint, and that checkpoint's step."""
    mistakes.check_composed(cfg)

    from research import train
    from research.checkpoint import Checkpoints, restore_into
    from research.fit import model_only

    kind = "best" if checkpoint == "best" else "checkpoints"
    source = Checkpoints(folder / kind, keep=10**9).restore(None)
    if source is None:
        raise UserError(f"{folder} holds no checkpoint under {kind}/.")
    here = copy.deepcopy(cfg)  # wherever it was trained: a model alone is restored, and one device is enough
    OmegaConf.update(here, "strategy", {"_target_": "research.strategy.one_device"}, merge=False, force_add=True)
    trainer = train.build(here)
    try:
        yield trainer, restore_into(model_only(trainer), source.folder)
    finally:
        trainer.close()
