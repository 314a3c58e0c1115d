"""Environments: the bridge to Gymnasium, and environments compiled as TensorFlow ops."""

import os

import gymnasium

import research as _research  # noqa: F401  (chooses legacy Keras before TensorFlow is imported)

# Environments that draw do it off screen and in silence: frames go to TensorBoard. Set these to see a window.
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("SDL_AUDIODRIVER", "dummy")

# Compiled environments under Gymnasium's API: gymnasium.make_vec("sparring/CartPole-v1", num_envs=64). They are named
# here and imported, and TensorFlow with them, when one is made.
_COMPILED = {
    "CartPole-v1": ("envs.classic:CartPole", 500),
    "Acrobot-v1": ("envs.acrobot:Acrobot", 500),
    "MountainCar-v0": ("envs.classic:MountainCar", 200),
    "MountainCarContinuous-v0": ("envs.classic:MountainCarContinuous", 999),
    "Pendulum-v1": ("envs.classic:Pendulum", 200),
    "FrozenLake-v1": ("envs.frozen_lake:FrozenLake", 100),
    "Catch-v0": ("envs.toys:Catch", None),
    "DeepSea-v0": ("envs.toys:DeepSea", None),
    "Memory-v0": ("envs.toys:Memory", None),
    "PointMass-v0": ("envs.toys:PointMass", 50),
    "MinAtar-Asterix-v0": ("envs.minatar:Asterix", None),
    "MinAtar-Breakout-v0": ("envs.minatar:Breakout", None),
    "MinAtar-Freeway-v0": ("envs.minatar:Freeway", None),
    "MinAtar-Seaquest-v0": ("envs.minatar:Seaquest", None),
    "MinAtar-SpaceInvaders-v0": ("envs.minatar:SpaceInvaders", None),
}
for _name, (_path, _limit) in _COMPILED.items():
    gymnasium.register(
        f"sparring/{_name}",
        entry_point="envs.vector:CompiledEnv",
        vector_entry_point="envs.vector:CompiledVectorEnv",
        max_episode_steps=_limit,
        kwargs={"environment": _path},
    )
