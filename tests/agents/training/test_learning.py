"""Agents learn. Quick ones here; `make test-slow` runs every experiment over five seeds and holds
it to its header.
"""

from typing import Any

import numpy as np
import pytest

from sparring.config.composer import Composer
from sparring.training.experiment import build

pytestmark = pytest.mark.long

# experiment -> (least mean return over seeds, least number of seeds of five that reach `solved`,
# solved)
EXPECTED = {
    "ppo_cartpole": (475.0, 5, 475.0),
    "dqn_cartpole": (475.0, 4, 475.0),
    "ppo_acrobot": (-100.0, 4, -100.0),
    "dqn_acrobot": (-100.0, 4, -100.0),
    "dqn_mountain_car": (-120.0, 4, -120.0),
    "ppo_pendulum": (-300.0, 4, -300.0),
    "a2c_cartpole": (475.0, 5, 475.0),
    "ppo_kl_cartpole": (475.0, 5, 475.0),
    "ppo_deep_sea": (0.9, 5, 0.99 - 1e-3),
    "ppo_cartpole_masked_actions": (475.0, 5, 450.0),
    "sac_pendulum": (-170.0, 4, -200.0),
    "td3_pendulum": (-170.0, 4, -200.0),
    "sac_mountain_car_continuous": (90.0, 5, 90.0),
    "td3_mountain_car_continuous": (90.0, 5, 90.0),
}

# agent and environment, by defaults alone -> the least return of each seed of five
DEFAULTS = {
    ("ppo", "cartpole"): 475.0,
    ("ppo", "acrobot"): -100.0,
    ("ppo", "mountain_car"): -130.0,
    ("ppo", "mountain_car_continuous"): 90.0,
    ("ppo", "pendulum"): -300.0,
    ("ppo", "catch"): 0.95,
    ("dqn", "cartpole"): 475.0,
    ("dqn", "acrobot"): -100.0,
    ("dqn", "mountain_car"): -150.0,
    ("dqn", "catch"): 0.95,
}

# experiment -> the least and the most modes of any seed, the least mean share of high quality
MODES = {
    "gan_ring": (8, 8, 0.9),
    "gan_grid": (24, 25, 0.9),
    "gan_grid_wgan_gp": (24, 25, 0.9),
    "gan_grid_non_saturating": (1, 24, 0.0),  # it drops some, which is what the others are for
}


def trained(*overrides: str) -> Any:
    cfg = Composer("rl").compose([*overrides, "run.name=x", "trainer.evaluation.sampled=false"])
    trainer = build(cfg)
    trainer.train(cfg.run.steps)
    return trainer


def test_ppo_solves_compiled_cartpole_and_a_random_policy_does_not() -> None:
    trainer = trained("experiment=ppo_cartpole", "seed=3")
    assert trainer.evaluate(episodes=100, media=False).scalars["eval/episode_return"] >= 475
    untrained = trained(
        "experiment=ppo_cartpole", "seed=3", "run.steps=1", "optimizer.learning_rate=1e-9"
    )
    assert untrained.evaluate(episodes=100, media=False).scalars["eval/episode_return"] < 200


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPECTED)
def test_an_experiment_reaches_what_its_header_says(experiment: str) -> None:
    least, count, solved = EXPECTED[experiment]
    returns = []
    for seed in range(5):
        trainer = trained(f"experiment={experiment}", f"seed={seed}")
        returns.append(trainer.evaluate(episodes=100, media=False).scalars["eval/episode_return"])
    assert np.mean(returns) >= least, returns
    assert sum(r >= solved for r in returns) >= count, returns


@pytest.mark.slow
@pytest.mark.parametrize(("agent", "env"), DEFAULTS)
def test_an_agent_learns_by_its_defaults(agent: str, env: str) -> None:
    returns = []
    for seed in range(5):
        trainer = trained(f"agent={agent}", f"env={env}", f"seed={seed}")
        returns.append(trainer.evaluate(episodes=100, media=False).scalars["eval/episode_return"])
    print(agent, env, returns)  # for docs/results.md: ARGS="-s -k by_its_defaults"
    assert min(returns) >= DEFAULTS[agent, env], returns


@pytest.mark.slow
@pytest.mark.parametrize("experiment", MODES)
def test_a_gan_covers_the_modes_that_its_header_says(experiment: str) -> None:
    least, most, quality = MODES[experiment]
    modes = []
    shares = []
    for seed in range(5):
        cfg = Composer("gan").compose([f"experiment={experiment}", f"seed={seed}", "run.name=x"])
        trainer = build(cfg)
        trainer.train(cfg.run.steps)
        found = trainer.evaluate(media=False).scalars
        modes.append(found["gan/modes"])
        shares.append(found["gan/high_quality"])
    assert least <= min(modes) <= most, modes
    assert np.mean(shares) >= quality, shares
