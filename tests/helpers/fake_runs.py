"""Run folders as training leaves them, made without training: for reports over many runs in any
state.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sparring.tensorboard.writer import Writer

TAG = "eval/episode_return"


def run(
    folder: Path,
    seed: int,
    values: Sequence[float],
    choices: Mapping[str, str],
    status: str | None = "finished",
    settings: Mapping[str, Any] | None = None,
    **result: Any,
) -> Path:
    """A run whose objective took `values`, a hundred steps apart. `status` None: it never said how
    it ended.
    """
    config: dict[str, Any] = {
        "run": {"steps": 100 * len(values), "name": folder.name},
        "seed": seed,
        "tasks": ["env"],
        "env": {"_target_": f"envs.{choices['env']}"},
        "agent": {"_target_": f"agents.{choices['agent']}", "clip": 0.2},
        "trainer": {"_target_": "agents.Trainer", "seed": "${seed}"},
    }
    for key, value in (settings or {}).items():
        part, _, name = key.partition(".")
        config[part][name] = value
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "provenance.json").write_text(json.dumps({"choices": dict(choices), "starts": []}))
    if status is not None:
        ended = {
            "status": status,
            "step": 100 * len(values),
            "maximize": True,
            "seconds": {"training": 2.0},
        }
        objective = {"name": TAG, "value": values[-1]}
        final = {TAG: values[-1], "eval/episode_length": -values[-1]}
        whole = {**ended, "objective": objective, "final": final, "message": "", **result}
        (folder / "result.json").write_text(json.dumps(whole))
    _events(folder, values, choices)
    return folder


def _events(folder: Path, values: Sequence[float], choices: Mapping[str, str]) -> None:
    writer = Writer(folder, descriptions={TAG: "Mean return."})
    writer.hparams({"agent": choices["agent"]}, {})
    for i, value in enumerate(values):
        writer.scalars({TAG: value, "loss/value": 1.0 / (i + 1)}, 100 * (i + 1))
    writer.close()


def sweep(
    folder: Path,
    agents: Mapping[str, float],
    environments: Sequence[str],
    seeds: int,
    points: int = 5,
) -> Path:
    """A sweep of finished runs: a run's last score is its agent's number plus its seed."""
    for agent, level in agents.items():
        for environment in environments:
            for seed in range(seeds):
                name = f"agent={agent},env={environment},seed={seed}"
                values = [(level + seed) * (i + 1) / points for i in range(points)]
                run(folder / name, seed, values, {"agent": agent, "env": environment})
    return folder
