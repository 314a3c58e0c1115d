"""Command `sparring evaluate RUN`: evaluate a run's model again and add it to its result."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from sparring.cli import setup
from sparring.cli.parser import strict
from sparring.errors import UserError, near
from sparring.storage import run_folder
from sparring.storage.run_folder import RunFolder
from sparring.training.trained_model import restored

_ABSENT = object()
_EPISODES = 100


def main(arguments: Sequence[str]) -> int:
    """Parse the flags, evaluate, print and record; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="sparring evaluate", description="Evaluate what a run has learned."
    )
    strict(parser)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument(
        "overrides",
        nargs="*",
        help="settings other than the run's, such as env.max_episode_steps=1000",
    )
    parser.add_argument(
        "--episodes",
        type=int,
        default=None,
        help="how many episodes, or samples; default 100 episodes, of other runs the samples that "
        "the run itself was scored by",
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
    if chosen.episodes is not None and chosen.episodes < 1:
        raise UserError(f"--episodes {chosen.episodes}: at least one.")
    setup.prepare()
    found = evaluate(chosen.run, chosen.episodes, chosen.checkpoint, chosen.seed, chosen.overrides)
    print(*found, sep="\n")
    return 0


def evaluate(
    folder: Path,
    episodes: int | None,
    checkpoint: str,
    seed: int | None,
    overrides: Sequence[str] = (),
) -> list[str]:
    """Evaluate, add the scores to result.json under "evaluations", and return them as lines.

    Without `episodes` an agent plays 100, and others are scored as in their run. `overrides` are
    settings other than the run's.
    """
    cfg = RunFolder(folder).read_config()
    if seed is not None:
        cfg.seed = seed
    override(cfg, overrides)
    with restored(folder, cfg, checkpoint) as (trainer, step):
        playing = trainer.unit in ("env_steps", "expert_steps")
        if episodes is None and playing:
            episodes = _EPISODES
        found = trainer.evaluate(episodes=episodes, media=False, step=step)
    entry = {
        "checkpoint": checkpoint,
        "step": step,
        "episodes": episodes,
        "seed": int(cfg.seed),
        **({"overrides": list(overrides)} if overrides else {}),
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "scalars": found.scalars,
        **({"notes": found.notes} if found.notes else {}),
    }
    RunFolder(folder).add_evaluation(entry)
    asked = f"{episodes} {'episodes' if playing else 'samples at most'}"
    if episodes is None:
        asked = "the samples of the run's own evaluations"
    lines = [f"{folder}: {checkpoint} checkpoint, step {step}, {asked}"]
    if "samples at most" in found.notes:
        lines.append("  not to be compared with the run's own scores, which are of more samples")
    return [*lines, *(f"  {tag} {value:.4g}" for tag, value in found.scalars.items())]


def override(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Change settings of a run's config; `+key=value` adds one.

    Raises:
      UserError: the config has no such key.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise UserError(" ".join(str(error).split())) from error
    for override in parsed:
        key = override.key_or_group
        if not override.is_add() and OmegaConf.select(cfg, key, default=_ABSENT) is _ABSENT:
            known = list(run_folder.flat(OmegaConf.to_container(cfg)))
            raise UserError(f"{key}: the run's config has no such key. {near(key, known)}".strip())
        OmegaConf.update(cfg, key, override.value(), force_add=True)
