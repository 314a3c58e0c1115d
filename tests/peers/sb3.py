"""Stable-Baselines3's side of a benchmark: `python sb3.py ppo '{"num_envs": 8, ...}' steps threads`
prints steps/s.

Run with the interpreter that `make peers` sets up. The model is trained for a warm-up first, which
is not counted.
"""

import json
import sys
import time

import torch
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.env_util import make_vec_env


def model(kind: str, settings: dict) -> PPO | DQN | SAC:
    env = make_vec_env(settings["env"], n_envs=settings["num_envs"], seed=0)
    policy = {
        "net_arch": settings["units"],
        "activation_fn": getattr(torch.nn, settings["activation"]),
    }
    if kind == "ppo":
        return PPO(
            "MlpPolicy",
            env,
            n_steps=settings["rollout_steps"],
            batch_size=settings["batch_size"],
            n_epochs=settings["epochs"],
            policy_kwargs=policy,
            device="cpu",
            seed=0,
        )
    kinds = {"dqn": DQN, "sac": SAC}
    return kinds[kind](
        "MlpPolicy",
        env,
        train_freq=1,
        gradient_steps=1,
        batch_size=settings["batch_size"],
        learning_starts=100,
        buffer_size=settings["capacity"],
        policy_kwargs=policy,
        device="cpu",
        seed=0,
    )


def main() -> None:
    kind = sys.argv[1]
    settings = json.loads(sys.argv[2])
    steps = int(sys.argv[3])
    threads = int(sys.argv[4])
    torch.set_num_threads(threads)
    learner = model(kind, settings)
    learner.learn(max(steps // 10, 500))
    before = learner.num_timesteps
    started = time.perf_counter()
    learner.learn(steps, reset_num_timesteps=False)
    seconds = time.perf_counter() - started
    print(
        json.dumps(
            {"steps_per_second": (learner.num_timesteps - before) / seconds, "threads": threads}
        )
    )


main()
