"""Environment steps per second with an environment of which every step takes 5 ms longer: one
process against actors.

python -m tests.measure.actors [REPEATS [AGENT]]  prints a table; half a minute a run
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.helpers import runs

COMMON = [
    "rl",
    "env=gymnasium",
    "env.id=CartPole-v1",
    "packages=[tests]",
    "trainer.num_envs=8",
    "run.log_every=1e6",
    "env.wrappers=[{_target_:tests.helpers.toy_envs.Slow,_partial_:true,seconds:0.005}]",
    "run.evaluate_every=1e6",
    "run.checkpoint_every=1e6",
    "trainer.evaluation.episodes=1",
    "trainer.evaluation.sampled=false",
    "trainer.evaluation.video_every=0",
]
AGENTS = {
    "ppo": ["agent=ppo", "trainer.rollout_steps=32", "trainer.minibatches=4", "trainer.epochs=4"],
    "dqn": [
        "agent=dqn",
        "trainer.rollout_steps=4",
        "trainer.updates=4",
        "trainer.learning_starts=256",
    ],
}
ITERATION = {"ppo": 256, "dqn": 32}  # steps of the first call, which compiles and is not counted
ACTORS = {f"{n} actors": (["actors=ray", f"actors.count={n}"], n) for n in (1, 2, 4, 8)}
WAYS = {  # how -> what is typed, and how many environments at once
    "one process": ([], 1),
    "one process, `env.vectorization=async`": (["env.vectorization=async"], 8),
    **ACTORS,
    "8 actors, `actors.ahead=1`": ([*ACTORS["8 actors"][0], "actors.ahead=1"], 8),
}


def rate(agent: str, arguments: list[str], steps: int) -> float:
    """Environment steps per second of a run, compilation and evaluation left out."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *COMMON,
            *AGENTS[agent],
            *arguments,
            f"run.steps={steps}",
            f"run.dir={folder}",
            "run.name=measured",
        ]
        environment = {**os.environ, "PYTHONPATH": str(runs.ROOT)}
        subprocess.run(runs.command(*command), env=environment, check=True, capture_output=True)
        result = json.loads((Path(folder) / "measured" / "result.json").read_text())
    return (result["step"] - ITERATION[agent]) / result["seconds"]["training"]


def main(repeats: int = 3, *agents: str) -> None:
    """Print a row for each way, the median of so many runs, and their least and most.

    The rows are run in turn, so that what else the machine does falls on all of them.
    """
    for agent in agents or AGENTS:
        rates: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(repeats):
            for way, (arguments, at_once) in WAYS.items():
                rates[way].append(rate(agent, arguments, 1536 * at_once))
        for way, found in rates.items():
            print(
                f"| {agent} | {way} | {statistics.median(found):.0f} | {min(found):.0f} to "
                f"{max(found):.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *sys.argv[2:])
