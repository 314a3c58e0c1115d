"""Demonstrations that are made up, for tests of what is around them."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from omegaconf import OmegaConf

from sparring.agents.imitation.demonstrations import Demonstrations

CARTPOLE = (
    spaces.Box(
        np.array([-4.8, -np.inf, -0.41887903, -np.inf], np.float32),
        np.array([4.8, np.inf, 0.41887903, np.inf], np.float32),
    ),
    spaces.Discrete(2),
)
POINT_MASS = (
    spaces.Box(-np.inf, np.inf, (4,), np.float32),
    spaces.Box(-1.0, 1.0, (2,), np.float32),
)
PENDULUM = (
    spaces.Box(np.array([-1, -1, -8], np.float32), np.array([1, 1, 8], np.float32)),
    spaces.Box(-2.0, 2.0, (1,), np.float32),
)
ACROBOT = (spaces.Box(-np.ones(6, np.float32), np.ones(6, np.float32)), spaces.Discrete(3))


def made_up(
    observation_space: Any, action_space: Any, episodes: int = 5, length: int = 6, **metadata: Any
) -> Demonstrations:
    """Return episodes of `length` steps whose numbers are random and within the spaces' dtypes."""
    rng = np.random.default_rng(0)
    count = episodes * length

    def drawn(rows: int) -> np.ndarray:
        return rng.uniform(-0.2, 0.2, (rows, *observation_space.shape)).astype(np.float32)

    space = spaces.Discrete(1) if isinstance(action_space, spaces.Box) else action_space
    action = rng.integers(0, getattr(space, "n", 1), count)
    if isinstance(action_space, spaces.Box):
        action = rng.uniform(-0.5, 0.5, (count, *action_space.shape)).astype(np.float32)
    step = np.arange(count) % length
    return Demonstrations(
        observation=drawn(count),
        action=action,
        reward=np.ones(count, np.float32),
        terminated=step == length - 1,
        truncated=np.zeros(count, bool),
        first=step == 0,
        last_observation=drawn(episodes),
        metadata=metadata,
    )


@functools.cache
def file(task: str) -> str:
    """Return the path of a file of demonstrations of a task, such as "cartpole", in a folder that
    is left to the system to clean.
    """
    path = Path(tempfile.mkdtemp()) / f"{task}.npz"
    made_up(*_SPACES[task]).save(path)
    return str(path)


def of_experiment(name: str) -> str:
    """Return the path of a file for an experiment, or another option, by the task in its name."""
    return file(next((task for task in _SPACES if task in name), "cartpole"))


@functools.cache
def run() -> str:
    """Return the folder of a run of PPO on CartPole that has a config, and nothing learned yet."""
    from sparring.cli import setup
    from sparring.config.composer import Composer
    from sparring.storage.run_folder import CONFIG

    setup.prepare()
    folder = Path(tempfile.mkdtemp()) / "expert"
    folder.mkdir()
    small = ["compile=eager", "network.units=[4]", "env.max_episode_steps=15", "run.steps=16"]
    small += ["trainer.num_envs=2", "trainer.rollout_steps=8", "trainer.minibatches=1"]
    small += [
        "trainer.epochs=1",
        "trainer.evaluation.episodes=1",
        "trainer.evaluation.video_every=0",
    ]
    typed = [*small, f"run.dir={folder.parent}", "run.name=expert"]
    cfg = Composer("rl").compose(typed)
    OmegaConf.resolve(cfg.run)
    job = OmegaConf.masked_copy(cfg, [k for k in cfg if k != "hydra"])
    OmegaConf.save(job, folder / CONFIG)
    return str(folder)


@functools.cache
def trained_run() -> str:
    """Return the folder of `run`, which has learned from a rollout."""
    from sparring.training.experiment import train

    folder = Path(run())
    train(OmegaConf.load(folder / "config.yaml"), folder, 0.0)
    return str(folder)


_SPACES = {"cartpole": CARTPOLE, "acrobot": ACROBOT, "pendulum": PENDULUM, "pointmass": POINT_MASS}
