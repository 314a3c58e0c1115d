"""Measures the updates a second of DQN's family on compiled CartPole, beside DQN's own.

`python -m tests.measure.dqn_family [name ...]`: the cases by turns, five times; medians and ratios.
Every case takes a gradient step of 64 transitions for each environment step, in one program.
"""

import functools
import statistics
import sys
import time
from typing import Any

import tensorflow as tf

from sparring.agents.c51 import C51
from sparring.agents.dqn import DQN
from sparring.agents.iqn import IQN
from sparring.agents.prioritized_replay import PrioritizedRing
from sparring.agents.qr_dqn import QRDQN
from sparring.agents.replay import Ring
from sparring.agents.training.evaluation import EvaluationSettings
from sparring.agents.training.off_policy import OffPolicyTrainer
from sparring.envs.compiled.classic_control import CartPole
from sparring.networks.mlp import MLP

SMALL = 100_000
LARGE = 1_000_000
# Agent, replay and capacity; the first of a capacity is what others of it are compared with
CASES: dict[str, tuple[Any, Any, int]] = {
    "uniform_million": (DQN, Ring, LARGE),
    "prioritized_million": (DQN, PrioritizedRing, LARGE),
    "dqn": (DQN, Ring, SMALL),
    "c51": (C51, Ring, SMALL),
    "qr_dqn": (QRDQN, Ring, SMALL),
    "qr_dqn_10": (functools.partial(QRDQN, quantiles=10), Ring, SMALL),
    "iqn": (IQN, Ring, SMALL),
}
STEPS = 8_000
REPEATS = 5


def trainer(agent: Any, replay: Any, capacity: int) -> OffPolicyTrainer:
    """Return a trainer with two layers of 64 units, its program compiled."""
    tf.keras.utils.set_random_seed(0)
    made = OffPolicyTrainer(
        agent,
        CartPole(),
        functools.partial(MLP, (64, 64), "relu"),
        capacity=capacity,
        total_steps=LARGE,
        replay=replay,
        evaluation=EvaluationSettings(episodes=2, video_every=0),
    )
    made.train(2_000)
    return made


def main(names: list[str]) -> None:
    """Measure the cases called `names`, or all, and print a line for each."""
    trainers = {name: trainer(*CASES[name]) for name in names or CASES}
    rates: dict[str, list[float]] = {name: [] for name in trainers}
    for _ in range(REPEATS):
        for name, each in trainers.items():
            begun = time.perf_counter()
            each.train(STEPS)
            rates[name].append(STEPS / (time.perf_counter() - begun))
    first: dict[int, float] = {}
    for name, found in rates.items():
        median = statistics.median(found)
        base = first.setdefault(CASES[name][2], median)
        told = ", ".join(f"{rate:,.0f}" for rate in found)
        print(f"{name}: {median:,.0f} updates/s, {median / base:.2f} of the first ({told})")


if __name__ == "__main__":
    main(sys.argv[1:])
