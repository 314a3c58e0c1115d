"""Imitators reach their expert: a script that balances CartPole."""

from pathlib import Path

import numpy as np
import pytest

from sparring.agents.imitation.recording import record
from sparring.cli import setup
from sparring.config.composer import Composer
from sparring.envs.compiled.classic_control import FixedHorizonCartPole
from sparring.training.experiment import build

pytestmark = pytest.mark.long


def balance(observation: np.ndarray, t: int) -> np.ndarray:
    """Push towards where the pole leans and moves, and a little towards the middle."""
    del t
    x, x_dot, theta, theta_dot = observation.T
    return (theta + 0.3 * theta_dot + 0.03 * x + 0.1 * x_dot > 0.0).astype(np.int64)


@pytest.fixture(scope="module")
def expert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("expert") / "cartpole.npz"
    found = record(FixedHorizonCartPole(), balance, 16, seed=0)
    assert found.returns.min() == 500.0
    found.save(path)
    return path


def returned(experiment: str, expert: Path, *overrides: str) -> float:
    """Return the evaluated return of an experiment's imitator."""
    setup.prepare()
    typed = [f"experiment={experiment}", f"expert={expert}", *overrides, "run.name=x"]
    cfg = Composer("imitation").compose([*typed, "trainer.evaluation.sampled=false"])
    trainer = build(cfg)
    trainer.train(cfg.run.steps)
    found = trainer.evaluate(episodes=20, media=False).scalars
    assert found["imitation/expert_share"] <= 1.0
    return found["eval/episode_return"]


def test_cloning_reaches_a_script(expert: Path) -> None:
    assert returned("imitation_bc_cartpole", expert) >= 475.0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gail", "airl"])
def test_a_discriminators_reward_reaches_a_script(method: str, expert: Path) -> None:
    assert returned("imitation_gail_cartpole", expert, f"method={method}") >= 475.0
