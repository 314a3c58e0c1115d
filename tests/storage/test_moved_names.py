"""Names that configs of earlier versions use resolve to what they named."""

import logging
import pkgutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sparring.errors import UserError
from sparring.storage import moved_names
from sparring.storage.moved_names import current

OLD = (Path(__file__).parent / "old_names.txt").read_text().split()  # of classes and functions


def test_every_old_name_resolves():
    assert len(OLD) > 600
    lost = []
    for name in OLD:
        if name.rpartition(".")[0] in moved_names.GONE and name not in moved_names.NAMES:
            continue
        assert current(name).startswith("sparring."), name
        try:
            pkgutil.resolve_name(current(name))
        except (ImportError, AttributeError) as error:
            lost.append(f"{name}: {error}")
    assert lost == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("agents.ppo.PPO", "sparring.agents.ppo.PPO"),
        ("agents.places.Reverb", "sparring.agents.actors.settings.Ray"),
        ("sparring.agents.actors.slots.Reverb", "sparring.agents.actors.settings.Ray"),
        ("research.strategy.one_device", "sparring.distribute.strategies.one_device"),
        ("envs.minatar.Breakout", "sparring.envs.compiled.minatar.Breakout"),
        ("gans.networks.MLPGenerator", "sparring.gans.networks.mlp.MLPGenerator"),
        (
            "envs.classic.CartPole.best_return",
            "sparring.envs.compiled.classic_control.CartPole.best_return",
        ),
        ("gymnasium.make", "gymnasium.make"),
        ("sparring.agents.ppo.PPO", "sparring.agents.ppo.PPO"),
        ("my_lab.agents.PPO", "my_lab.agents.PPO"),
    ],
)
def test_an_old_name_is_translated_and_others_are_not(old, new):
    assert current(old) == new


def test_a_users_own_package_of_an_old_name_stays_theirs(tmp_path, monkeypatch):
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents/__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert current("agents.ppo.PPO") == "agents.ppo.PPO"
    assert current("envs.toys.Catch") == "sparring.envs.compiled.toys.Catch"


def test_a_config_is_updated_in_place_and_each_name_is_announced_once(caplog, monkeypatch):
    monkeypatch.setattr(moved_names, "_said", set())
    cfg = OmegaConf.create(
        {
            "agent": {"_target_": "agents.ppo.PPO", "clip": 0.2},
            "wrappers": [{"_target_": "envs.spaces.BoundAction", "low": -1}],
            "trainer": {"agent": "${agent}", "_target_": "agents.on_policy.OnPolicyTrainer"},
            "nothing": None,
        }
    )
    OmegaConf.set_readonly(cfg, True)
    with caplog.at_level(logging.INFO, logger="sparring"):
        moved_names.update_config(cfg.trainer)
        moved_names.update_config(cfg)
    assert cfg.agent._target_ == "sparring.agents.ppo.PPO"
    assert cfg.trainer.agent._target_ == "sparring.agents.ppo.PPO"
    assert cfg.wrappers[0]._target_ == "sparring.envs.gymnasium_bridge.spaces.BoundAction"
    said = [record.getMessage() for record in caplog.records]
    assert (
        said.count("agents.ppo.PPO is sparring.agents.ppo.PPO now; the old name still works.") == 1
    )
    assert len(said) == 3


@pytest.mark.parametrize(
    "name", ["agents.wire.Line", "agents.actor.play", "sparring.agents.actors.slots.ActorSlot"]
)
def test_a_name_of_which_nothing_is_left_is_refused_with_what_to_say(name):
    with pytest.raises(UserError, match=rf"_target_={name}: .* say actors=ray"):
        current(name)


def test_double_dqn_is_dqn_that_is_double(monkeypatch):
    monkeypatch.setattr(moved_names, "_said", set())
    old = {"_target_": "sparring.agents.dqn.DoubleDQN", "discount": 0.9}
    new = {"_target_": "sparring.agents.dqn.DQN", "discount": 0.9, "double": True}
    assert moved_names.update({"agent": old}) == {"agent": new}
    cfg = OmegaConf.create({"agent": old})
    moved_names.update_config(cfg)
    assert cfg.agent == new


@pytest.mark.parametrize("name", ["agents.places.Reverb", "sparring.agents.actors.slots.Reverb"])
def test_actors_on_reverb_are_as_many_on_ray(name, monkeypatch):
    monkeypatch.setattr(moved_names, "_said", set())
    old = {"_target_": name, "count": 3, "here": 1, "port": 5, "seconds": 60, "start_seconds": 9}
    new = {"_target_": "sparring.agents.actors.settings.Ray", "count": 3}
    assert moved_names.update({"actors": old}) == {"actors": new}
    cfg = OmegaConf.create({"actors": old, "trainer": {"actors": "${actors}"}})
    moved_names.update_config(cfg)
    assert cfg.actors == new
