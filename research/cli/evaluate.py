"""Command `sparring evaluate RUN`: evaluate a run's model again and add it to its result."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from sparring.cli import setup
from sparring.cli.parser import strict
from sparring.errors import UserError
from sparring.storage.run_folder import RunFolder
from sparring.training.trained_model import restored


def main(arguments: Sequence[str]) -> int:
    """Parse the flags, evaluate, print and record; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="sparring evaluate", description="Evaluate what a run has learned."
    )
    strict(parser)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument(
        "--episodes", type=int, default=100, help="how many episodes (or samples); default 100"
    )
    parser.add_argument(
        "--checkpoint",
        choices=("best", "latest"),
        default="latest",
        help="which model; default latest",
    )
    parser.add_argument(
        "--seed", type=int, default=None, help="evaluate under another seed than the run's"
    )
    chosen = parser.parse_args(list(arguments))
    if chosen.episodes < 1:
        raise UserError(f"--episodes {chosen.episodes}: at least one.")
    setup.prepare()
    print(*evaluate(chosen.run, chosen.episodes, chosen.checkpoint, chosen.seed), sep="\n")
    return 0


def evaluate(folder: Path, episodes: int, checkpoint: str, seed: int | None) -> list[str]:
    """Evaluate, add the scores to result.json under "evaluations", and return them as lines."""
    cfg = RunFolder(folder).read_config()
    if seed is not None:
        cfg.seed = seed
    with restored(folder, cfg, checkpoint) as (trainer, step):
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
    RunFolder(folder).add_evaluation(entry)
    lines = [f"{folder}: {checkpoint} checkpoint, step {step}, {episodes} episodes"]
    return [*lines, *(f"  {tag} {value:.4g}" for tag, value in found.scalars.items())]
