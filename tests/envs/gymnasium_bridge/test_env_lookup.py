"""From a typed id to a specification, or to a sentence that helps."""

import sys

import gymnasium as gym
import pytest

from sparring.envs.gymnasium_bridge.env_lookup import find, missing_package, nearest
from sparring.errors import UserError


def test_a_registered_id_needs_no_module():
    assert find("CartPole-v1") == (None, gym.spec("CartPole-v1"))


def test_without_a_version_the_newest_is_meant():
    find("tests.helpers.toy_envs:toy/Chain-v0")
    assert find("toy/Chain")[1].id == "toy/Chain-v1"


def test_a_module_before_the_name_is_imported_and_registers_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "tests.helpers.toy_envs", raising=False)
    for name in [name for name in gym.registry if name.startswith("toy/")]:
        monkeypatch.delitem(gym.registry, name)
    module, spec = find("tests.helpers.toy_envs:toy/Chain-v0")
    assert (module, spec.id, spec.max_episode_steps) == (
        "tests.helpers.toy_envs",
        "toy/Chain-v0",
        5,
    )
    assert "tests.helpers.toy_envs" in sys.modules


def test_a_class_needs_no_registration():
    module, spec = find("tests.helpers.toy_envs:SameArray")
    assert (module, spec.id, spec.entry_point) == (
        "tests.helpers.toy_envs",
        "SameArray",
        "tests.helpers.toy_envs:SameArray",
    )


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("cartpole", "CartPole-v1"),
        ("CartPol-v1", "CartPole-v1"),
        ("CartPole-v7", "CartPole-v1"),
        ("MountainCarContinous-v0", "MountainCarContinuous-v0"),
        ("LunarLander-v2", "LunarLander-v3"),
    ],
)
def test_a_mistyped_id_is_answered_with_the_nearest(typed, meant):
    assert nearest(typed)[0] == meant
    with pytest.raises(
        UserError, match=rf"env\.id={typed} is not a registered .*Did you mean {meant}"
    ):
        find(typed)


def test_nothing_is_guessed_for_an_id_like_no_other():
    with pytest.raises(UserError) as refused:
        find("Xyzzy-v0")
    assert "Did you mean" not in str(refused.value)
    assert "your_module:YourEnv-v0" in str(refused.value)


def test_an_absent_module_is_named():
    with pytest.raises(
        UserError,
        match=r"env\.id=no_such_lab:Maze-v0: there is no module 'no_such_lab'.*PYTHONPATH",
    ):
        find("no_such_lab:Maze-v0")


def test_a_module_that_registers_something_else_is_named():
    with pytest.raises(
        UserError, match=r"Maze-v0 is not a registered .* after importing tests\.helpers\.toy_envs"
    ):
        find("tests.helpers.toy_envs:Maze-v0")


def test_a_module_that_cannot_be_imported_is_shown_with_its_own_traceback(tmp_path, monkeypatch):
    (tmp_path / "broken_lab.py").write_text("import gymnasium\nspaces = gymnasium.no_such_thing\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        UserError, match=r"(?s)importing 'broken_lab' failed:.*broken_lab\.py.*no_such_thing"
    ):
        find("broken_lab:Maze-v0")
    with pytest.raises(UserError, match=r"importing '\.lab' failed"):
        find(".lab:Maze-v0")


def test_ids_of_well_known_packages_are_answered_with_how_to_get_them(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # none is installed
    monkeypatch.delitem(gym.registry, "ALE/Pong-v5", raising=False)
    with pytest.raises(
        UserError, match=r"^env\.id=ALE/Pong-v5 needs .*: pip install 'sparring\[atari\]'\.$"
    ):
        find("ALE/Pong-v5")


def test_a_package_that_registers_when_it_is_imported_is_imported_by_its_ids(monkeypatch, tmp_path):
    (tmp_path / "ale_py.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('ALE/Pretend-v5', 'gymnasium.envs.classic_control:CartPoleEnv')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ale_py", raising=False)
    module, spec = find("ALE/Pretend-v5")
    assert (module, spec.id) == ("ale_py", "ALE/Pretend-v5")
    del gym.registry["ALE/Pretend-v5"]
    sys.modules.pop("ale_py")


@pytest.mark.parametrize(
    ("env_id", "fix"),
    [
        ("LunarLander-v3", "pip install 'sparring[box2d]'"),
        ("Hopper-v5", "pip install 'sparring[mujoco]'"),
        ("phys2d/CartPole-v1", "pip install 'gymnasium[jax]'"),
    ],
)
def test_a_missing_package_is_answered_with_the_extra_that_has_it(env_id, fix):
    text = str(missing_package(gym.spec(env_id), ImportError("No module named 'x'")))
    assert (
        text == f"env.id={env_id} needs a package that is not installed: {fix}. It says: No module "
        "named 'x'."
    )
