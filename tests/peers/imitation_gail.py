"""`imitation`'s side of a benchmark: `python imitation_gail.py gail '{"num_envs": 8, ...}' steps
threads` prints environment steps/s of GAIL with Stable-Baselines3's PPO.

Run with the interpreter that `make peers` sets up. Demonstrations are of random play, which costs
as much to learn from as an expert's. A round trains first, which is not counted.
"""

import json
import sys
import tempfile
import time

import gymnasium
import numpy as np
import torch
from imitation.algorithms.adversarial.gail import GAIL
from imitation.data.types import Trajectory
from imitation.rewards.reward_nets import BasicRewardNet
from imitation.util.logger import configure
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env


def random_play(name: str, episodes: int) -> list[Trajectory]:
    env = gymnasium.make(name)
    env.action_space.seed(0)
    found = []
    for seed in range(episodes):
        seen = [env.reset(seed=seed)[0]]
        actions = []
        ended = False
        while not ended:
            actions.append(env.action_space.sample())
            observation, _, terminated, truncated, _ = env.step(actions[-1])
            seen.append(observation)
            ended = terminated or truncated
        found.append(Trajectory(np.array(seen), np.array(actions), None, terminal=True))
    return found


def trainer(settings: dict) -> GAIL:
    env = make_vec_env(settings["env"], n_envs=settings["num_envs"], seed=0)
    policy = {
        "net_arch": settings["units"],
        "activation_fn": getattr(torch.nn, settings["activation"]),
    }
    learner = PPO(
        "MlpPolicy",
        env,
        n_steps=settings["rollout_steps"],
        batch_size=settings["batch_size"],
        n_epochs=settings["epochs"],
        policy_kwargs=policy,
        device="cpu",
        seed=0,
    )
    reward = BasicRewardNet(
        env.observation_space, env.action_space, hid_sizes=tuple(settings["discriminator_units"])
    )
    return GAIL(
        demonstrations=random_play(settings["env"], settings["demonstrations"]),
        demo_batch_size=settings["discriminator_batch"],
        n_disc_updates_per_round=settings["discriminator_updates"],
        venv=env,
        gen_algo=learner,
        reward_net=reward,
        allow_variable_horizon=True,
        custom_logger=configure(tempfile.mkdtemp(), []),
    )


def main() -> None:
    settings = json.loads(sys.argv[2])
    steps = int(sys.argv[3])
    threads = int(sys.argv[4])
    torch.set_num_threads(threads)
    learner = trainer(settings)
    learner.train(settings["num_envs"] * settings["rollout_steps"])
    started = time.perf_counter()
    learner.train(steps)
    seconds = time.perf_counter() - started
    print(json.dumps({"steps_per_second": steps / seconds, "threads": threads}))


if __name__ == "__main__":
    main()
