"""Stable-Baselines3's side of a benchmark: `python sb3.py ppo '{"num_envs": 8, ...}' steps threads`
prints steps/s.

Run with the interpreter that `make peers` sets up. The model is trained for a warm-up first, which
is not counted. With --learn SEED it is trained for `steps` alone, and the returns of twenty greedy
episodes are printed.
"""

import json
import sys
import time

import torch
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy


def model(kind: str, settings: dict, seed: int = 0) -> PPO | DQN | SAC:
    env = make_vec_env(settings["env"], n_envs=settings["num_envs"], seed=seed)
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
            seed=seed,
        )
    kinds = {"dqn": DQN, "sac": SAC}
    return kinds[kind](
        "MlpPolicy",
        env,
        train_freq=1,
        gradient_steps=1,
        batch_size=settings["batch_size"],
        learning_starts=settings.get("learning_starts", 100),
        buffer_size=settings["capacity"],
        policy_kwargs=policy,
        device="cpu",
        seed=seed,
    )


def learn(kind: str, settings: dict, steps: int, seed: int) -> dict:
    """Train from the start; return the mean return of twenty greedy episodes, and the seconds."""
    learner = model(kind, settings, seed)
    started = time.perf_counter()
    learner.learn(steps)
    seconds = time.perf_counter() - started
    env = make_vec_env(settings["env"], n_envs=1, seed=seed + 1000)
    mean, deviation = evaluate_policy(learner, env, n_eval_episodes=20)
    return {"return": float(mean), "deviation": float(deviation), "seconds": seconds, "seed": seed}


def main() -> None:
    kind = sys.argv[1]
    settings = json.loads(sys.argv[2])
    steps = int(sys.argv[3])
    threads = int(sys.argv[4])
    torch.set_num_threads(threads)
    if "--learn" in sys.argv:
        print(json.dumps(learn(kind, settings, steps, int(sys.argv[-1]))))
        return
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
