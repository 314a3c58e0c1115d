"""Experiments that are advised for an agent and an environment."""

import pytest

from sparring.config import suites
from sparring.config.composer import Composer


@pytest.mark.parametrize(
    ("overrides", "preset"),
    [
        (["method=gail", "env=acrobot"], "imitation_gail_acrobot"),
        (["method=bc", "env=cartpole_fixed_horizon"], "imitation_bc_cartpole"),
        (["method=gail", "env=cartpole"], ""),
        (["method=airl", "env=acrobot"], ""),
    ],
)
def test_the_experiment_of_this_method_and_environment_is_found(overrides, preset):
    cfg = Composer("imitation").compose([*overrides, "run.name=x"])
    assert suites.preset(cfg.hydra.runtime.choices) == preset


@pytest.mark.parametrize(
    ("overrides", "preset"),
    [
        (["agent=dqn", "env=mountain_car"], "dqn_mountain_car"),
        (["agent=ppo", "env=pendulum"], "ppo_pendulum"),
        (["agent=double_dqn", "env=mountain_car"], ""),
        (["experiment=ppo_pendulum"], ""),
        (["agent=ppo", "env=pendulum", "debug=smoke"], ""),
        (["env=gymnasium", "env.id=CartPole-v1"], ""),
    ],
)
def test_the_experiment_of_this_agent_and_environment_is_found(overrides, preset):
    cfg = Composer("rl").compose([*overrides, "run.name=x"])
    assert suites.preset(cfg.hydra.runtime.choices) == preset
    if preset:  # and it is an experiment of these two
        cfg = Composer("rl").compose([f"experiment={preset}", "run.name=x"])
        chosen = cfg.hydra.runtime.choices
        assert [f"agent={chosen.agent}", f"env={chosen.env}"] == overrides
