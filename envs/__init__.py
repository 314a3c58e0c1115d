"""Environments: the bridge to Gymnasium, and environments compiled as TensorFlow ops."""

import os

import gymnasium

# Environments that draw do it off screen and in silence: frames go to TensorBoard. Set these to see
# a window.
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("SDL_AUDIODRIVER", "dummy")

# Compiled environments under Gymnasium's API: gymnasium.make_vec("sparring/CartPole-v1",
# num_envs=64). They are named here and imported, and TensorFlow with them, when one is made.
_COMPILED = {
    "CartPole-v1": ("sparring.envs.compiled.classic_control:CartPole", 500),
    "CartPole-FixedHorizon-v0": (
        "sparring.envs.compiled.classic_control:FixedHorizonCartPole",
        500,
    ),
    "Acrobot-v1": ("sparring.envs.compiled.acrobot:Acrobot", 500),
    "MountainCar-v0": ("sparring.envs.compiled.classic_control:MountainCar", 200),
    "MountainCarContinuous-v0": (
        "sparring.envs.compiled.classic_control:MountainCarContinuous",
        999,
    ),
    "Pendulum-v1": ("sparring.envs.compiled.classic_control:Pendulum", 200),
    "FrozenLake-v1": ("sparring.envs.compiled.frozen_lake:FrozenLake", 100),
    "Catch-v0": ("sparring.envs.compiled.toys:Catch", None),
    "DeepSea-v0": ("sparring.envs.compiled.toys:DeepSea", None),
    "Memory-v0": ("sparring.envs.compiled.toys:Memory", None),
    "PointMass-v0": ("sparring.envs.compiled.toys:PointMass", 50),
    "MinAtar-Asterix-v0": ("sparring.envs.compiled.minatar:Asterix", None),
    "MinAtar-Breakout-v0": ("sparring.envs.compiled.minatar:Breakout", None),
    "MinAtar-Freeway-v0": ("sparring.envs.compiled.minatar:Freeway", None),
    "MinAtar-Seaquest-v0": ("sparring.envs.compiled.minatar:Seaquest", None),
    "MinAtar-SpaceInvaders-v0": ("sparring.envs.compiled.minatar:SpaceInvaders", None),
}
for _name, (_path, _limit) in _COMPILED.items():
    gymnasium.register(
        f"sparring/{_name}",
        entry_point="sparring.envs.compiled.gymnasium_vector:CompiledEnv",
        vector_entry_point="sparring.envs.compiled.gymnasium_vector:CompiledVectorEnv",
        max_episode_steps=_limit,
        kwargs={"environment": _path},
    )
