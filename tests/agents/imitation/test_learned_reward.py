"""Reward of an earlier run as another agent's: the very numbers that the run ended with."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from omegaconf import OmegaConf

from sparring.agents.imitation.learned_reward import LearnedReward
from sparring.agents.training.rollout import Rollout
from sparring.cli import setup
from sparring.config.composer import Composer
from sparring.errors import UserError
from sparring.storage import run_folder
from sparring.training.experiment import train
from tests.helpers import demonstrations, runs
from tests.helpers.demonstrations import ACROBOT, CARTPOLE, made_up

pytestmark = pytest.mark.long

SHORT = (
    "compile=eager",
    "network.units=[4]",
    "run.steps=32",
    "run.evaluate_every=32",
    "trainer.num_envs=2",
    "trainer.rollout_steps=8",
    "trainer.epochs=1",
    "trainer.minibatches=1",
    "trainer.evaluation.episodes=2",
    "trainer.evaluation.video_every=0",
)


def run(kind: str, folder: Path, *overrides: str) -> dict[str, Any]:
    """Run `sparring KIND` in this process; return its result."""
    setup.prepare()
    typed = [*SHORT, *overrides, f"run.dir={folder.parent}", f"run.name={folder.name}"]
    cfg = Composer(kind).compose(typed)
    OmegaConf.resolve(cfg.run)
    train(OmegaConf.masked_copy(cfg, [k for k in cfg if k != "hydra"]), folder, time.time())
    found: dict[str, Any] = json.loads((folder / run_folder.RESULT).read_text())
    return found


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of AIRL whose g and h are linear in the observation as it is."""
    folder = tmp_path_factory.mktemp("runs") / "airl"
    run(
        "imitation",
        folder,
        "method=airl",
        f"expert={demonstrations.file('cartpole')}",
        "discriminator.units=[]",
        "reward_source.normalize=false",
        "reward_source.state_only=true",
    )
    return folder


def source(folder: Path, spaces: Any = CARTPOLE) -> LearnedReward:
    return LearnedReward(None, *spaces, 0, run=str(folder), demonstrations=made_up(*spaces))


def rollout(first: list[bool]) -> Rollout:
    """Return two steps of one environment."""
    seen = tf.constant([[[0.1, 0.2, 0.0, 1.0]], [[0.3, 0.0, 0.1, 0.0]], [[0.0, 0.0, 0.0, 0.0]]])
    empty = tf.zeros([2, 1], tf.bool)
    return Rollout(
        observation=seen,
        action=tf.zeros([2, 1], tf.int64),
        reward=tf.fill([2, 1], 99.0),
        terminated=empty,
        truncated=empty,
        first=tf.constant(first)[:, tf.newaxis],
        extras={},
        memory=(),
    )


def test_the_reward_is_g_of_the_runs_last_checkpoint_and_0_in_resets(learned: Path) -> None:
    kept = runs.tensors(learned)
    part = "reward_source/discriminator/reward_network/head/"
    values = {name: v for name, v in kept.items() if name.startswith(part)}
    kernel = next(v for v in values.values() if v.shape == (4, 1))[:, 0]
    bias = next(v for v in values.values() if v.shape == (1,))[0]
    assert np.abs(kernel).max() > 0.01
    shown = rollout([False, True])
    found = source(learned)
    reward, scalars = found.rewards(shown, found.take_up(shown), tf.constant(0))
    expected = np.float32([0.1, 0.2, 0.0, 1.0]) @ kernel + bias
    np.testing.assert_allclose(reward, [[expected], [0.0]], atol=1e-6)
    assert float(scalars["imitation/reward"]) == pytest.approx(expected, abs=1e-6)


def test_an_agent_learns_from_it_and_evaluates_again(learned: Path) -> None:
    folder = learned.parent / "transfer"
    given = ["method=transfer", f"reward_from={learned}"]
    given += [f"expert={demonstrations.file('cartpole')}", "env.max_episode_steps=20"]
    found = run("imitation", folder, *given)
    assert found["status"] == "finished"
    assert {"imitation/reward", "imitation/permutation_p_value"} <= found["final"].keys()
    host = json.loads((runs.newest(folder) / "host.json").read_text())
    assert host["trainer"]["reward_source"] == {"run": str(learned), "step": 32}


def test_runs_that_learned_no_such_reward_are_refused(learned: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"reward_from=.*none: no run's folder"):
        source(tmp_path / "none")
    with pytest.raises(UserError, match=r"its observation space is Box.*4.*ment's is Box.*6"):
        source(learned, ACROBOT)
    plain = tmp_path / "plain"
    run("rl", plain, "agent=ppo", "env=cartpole")
    with pytest.raises(UserError, match="that run learned no reward: take one of sparring imitat"):
        source(plain)
