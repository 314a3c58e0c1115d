"""Naming an environment: what is checked at once, what is refused and how, and the presets that
name one.
"""

import functools
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import ClipAction, RescaleAction, TimeAwareObservation, TransformReward
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from sparring.config.composer import Composer
from sparring.envs.gymnasium_bridge.bridge import EnvironmentFault, Gymnasium
from sparring.errors import UserError
from tests.helpers.toy_envs import Slow

pytestmark = pytest.mark.long

CONF = Path(__file__).parents[3] / "conf" / "env"


def test_an_environment_says_what_it_is_before_it_is_stepped():
    env = Gymnasium("CartPole-v1")
    assert (env.name, env.compiled, env.max_episode_steps, env.renders) == (
        "CartPole-v1",
        False,
        500,
        True,
    )
    assert env.action_space == spaces.Discrete(2)
    assert env.observation_space.dtype == np.float32
    assert Gymnasium("tests.helpers.toy_envs:toy/Dice-v0").name == "Dice-v0"
    assert not Gymnasium("tests.helpers.toy_envs:toy/Dice-v0").renders


@pytest.mark.parametrize("vectorization", ["sync", "vector_entry_point"])
def test_max_episode_steps_replaces_the_registered_limit(vectorization):
    env = Gymnasium("CartPole-v1", max_episode_steps=3, vectorization=vectorization)
    assert env.max_episode_steps == 3
    vector = env.vector(1, seed=0)
    vector.reset()
    assert [bool(vector.step(np.array([i % 2])).truncated[0]) for i in range(4)] == [
        False,
        False,
        True,
        False,
    ]
    assert Gymnasium("tests.helpers.toy_envs:Chain").max_episode_steps is None


def test_what_makes_an_environment_differ_from_others_of_its_name_is_told_alike_in_every_process():
    def made(start: float = 0.0, seconds: float = 0.5, steps: int | None = None) -> str:
        slow = functools.partial(Slow, seconds=seconds)
        # Lies at an address of its own each time
        also = functools.partial(TransformReward, func=lambda r: r)
        return Gymnasium(
            "tests.helpers.toy_envs:Chain", {"start": start}, [slow, also], max_episode_steps=steps
        ).described

    assert made() == made()
    assert len({made(), made(start=1.0), made(seconds=0.25), made(steps=5)}) == 4


def test_constructor_arguments_reach_the_environment():
    vector = Gymnasium("tests.helpers.toy_envs:Chain", {"start": 2}).vector(2, seed=0)
    np.testing.assert_array_equal(vector.reset(), [[2], [2]])


def test_the_ith_environment_is_seeded_with_seed_plus_i():
    observation = Gymnasium("Pendulum-v1").vector(3, seed=20).reset()
    for index, row in enumerate(observation):
        np.testing.assert_array_equal(row, gym.make("Pendulum-v1").reset(seed=20 + index)[0])


def test_wrappers_are_applied_in_order():
    """(0 + 1) * 10 = 10, not 0 * 10 + 1 = 1."""
    plus, times = (
        functools.partial(TransformReward, func=f) for f in (lambda r: r + 1, lambda r: r * 10)
    )
    vector = Gymnasium("tests.helpers.toy_envs:Chain", wrappers=[plus, times]).vector(1, seed=0)
    vector.reset()
    assert vector.step(np.array([0])).reward == [10.0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"id": "CartPol-v1"}, "Did you mean CartPole-v1"),
        (
            {"id": "CartPole-v1", "vectorization": "threads"},
            r"vectorization=threads .*sync, async, vector_entry_point",
        ),
        (
            {"id": "Acrobot-v1", "vectorization": "vector_entry_point"},
            "Acrobot-v1 has no vectorised version of its own",
        ),
        ({"id": "CartPole-v1", "max_episode_steps": 0}, "max_episode_steps=0: it is at least 1"),
        ({"id": "CartPole-v1", "wrappers": ["RescaleAction"]}, "'RescaleAction'.*_partial_: true"),
        (
            {"id": "CartPole-v1", "kwargs": {"gravty": 1}},
            r"env\.kwargs=.*gravty.* does not fit CartPole-v1",
        ),
        ({"id": "Pendulum-v1", "wrappers": [ClipAction]}, "ClipAction, leave it out"),
        (
            {"id": "Pendulum-v1", "wrappers": [lambda env: None]},
            "gave NoneType, not an environment",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_its_fix(arguments, says):
    with pytest.raises(UserError, match=says) as refused:
        Gymnasium(**arguments)
    assert not isinstance(refused.value, EnvironmentFault)
    assert "\n" not in str(refused.value)


def test_wrappers_on_an_environments_own_vectorised_version_are_refused():
    with pytest.raises(UserError, match=r"env\.wrappers wrap single environments"):
        Gymnasium(
            "CartPole-v1", wrappers=[TimeAwareObservation], vectorization="vector_entry_point"
        )


def test_an_environment_that_needs_a_package_names_the_extra_that_has_it(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "Box2D", None)
    with pytest.raises(
        UserError, match=r"LunarLander-v3 needs a package that is not installed.*sparring\[box2d\]"
    ):
        Gymnasium("LunarLander-v3")


def test_an_environment_whose_first_step_raises_is_shown_with_its_traceback():
    with pytest.raises(
        EnvironmentFault,
        match=r"(?s)Jams could not be built and stepped once:.*toy_envs.py.*jammed",
    ):
        Gymnasium("tests.helpers.toy_envs:Jams", {"at": 1})


def test_an_environment_that_breaks_gymnasiums_rules_is_told_before_training():
    with pytest.warns(UserWarning, match="not within the observation space"):
        Gymnasium("tests.helpers.toy_envs:Chain", {"start": 11})


def test_pictures_that_cannot_be_had_are_refused():
    with pytest.raises(UserError, match="Dice-v0 draws no pictures"):
        Gymnasium("tests.helpers.toy_envs:toy/Dice-v0").vector(1, seed=0, render=True)
    with pytest.raises(UserError, match="0 environments cannot be stepped"):
        Gymnasium("CartPole-v1").vector(0, seed=0)


PRESETS = {
    "cartpole": "CartPole-v1",
    "acrobot": "Acrobot-v1",
    "mountain_car": "MountainCar-v0",
    "mountain_car_continuous": "MountainCarContinuous-v0",
    "pendulum": "Pendulum-v1",
}


# Presets for the environments of a package that may be absent
SUITES = ("atari", "box2d", "envpool", "minigrid", "mujoco")


def composed(*overrides: str):
    with initialize_config_dir(str(CONF.parent), version_base="1.3"):
        return compose(overrides=list(overrides)).env


@pytest.mark.parametrize(
    "preset", sorted({p.stem for p in CONF.glob("*.yaml")} - {"gymnasium", *SUITES})
)
def test_every_gymnasium_preset_builds(preset):
    config = composed(f"+env={preset}")
    if config._target_ != "sparring.envs.gymnasium_bridge.bridge.Gymnasium":
        pytest.skip("not an environment of the bridge")
    assert instantiate(config).name == PRESETS[preset]


@pytest.mark.parametrize(
    ("preset", "package", "shape", "highest"),
    [
        ("env=mujoco env.id=Hopper-v5", "mujoco", (11,), np.inf),
        ("env=box2d", "Box2D", (8,), 10),
        ("env=minigrid", "minigrid", (7, 7, 3), 10),
        ("env=atari env.id=ALE/Pong-v5", "ale_py", (84, 84, 4), 255),
    ],
)
def test_a_suites_environment_shows_an_agent_what_it_can_learn_from(
    preset, package, shape, highest
):
    pytest.importorskip(package)
    if package == "ale_py":
        pytest.importorskip("cv2")
    environment = instantiate(Composer("rl").compose(preset.split()).env)
    space = environment.observation_space
    assert (space.shape, space.high.max()) == (shape, highest)
    assert space.dtype == (np.uint8 if len(shape) == 3 else np.float32)
    vector = environment.vector(2, seed=0)
    opening = vector.reset()
    actions = environment.action_space
    for _ in range(3):
        step = vector.step(np.stack([actions.sample() for _ in range(2)]))
        assert space.contains(step.observation[0])
    np.testing.assert_array_equal(vector.reset(seed=0), opening)
    vector.close()


def test_a_config_lists_wrappers_by_target_and_loses_hydras_slow_partials():
    wrapper = (
        "{_target_: gymnasium.wrappers.RescaleAction, _partial_: true, min_action: -0.5, "
        "max_action: 0.5}"
    )
    env = instantiate(
        composed(
            "+env=gymnasium", "env.id=Pendulum-v1", "+env.kwargs.g=9.5", f"env.wrappers=[{wrapper}]"
        )
    )
    assert env.action_space == spaces.Box(-0.5, 0.5, (1,), np.float32)
    (partial,) = env._recipe.wrappers
    # Hydra's own is a subclass that checks its target at every call
    assert type(partial) is functools.partial
    assert partial.func is RescaleAction
    assert type(env._recipe.kwargs) is dict
    assert env.vector(1, seed=0)._vector.envs[0].unwrapped.g == 9.5


def test_naming_an_environment_does_not_load_tensorflow():
    code = (
        "import sys, sparring.envs.gymnasium_bridge.bridge; "
        "sparring.envs.gymnasium_bridge.bridge.Gymnasium('CartPole-v1'); print('tensorflow' in "
        "sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=CONF.parents[1],
        timeout=60,
    )
    assert run.stdout.strip() == "False", run.stderr


def test_wrappers_that_keep_statistics_are_refused_with_what_to_use_here():
    for name, remedy in (
        ("NormalizeObservation", "agent.normalize_observations=true"),
        ("NormalizeReward", "trainer.normalize_rewards=true"),
    ):
        wrapper = getattr(gym.wrappers, name)
        with pytest.raises(
            UserError, match=rf"env.wrappers: {name} keeps .*agent=ppo with {remedy}"
        ):
            Gymnasium("CartPole-v1", wrappers=[wrapper])


def test_wrappers_that_change_rewards_are_known_by_name():
    wrappers = [
        functools.partial(gym.wrappers.ClipReward, min_reward=-1, max_reward=1),
        functools.partial(gym.wrappers.TransformReward, func=lambda reward: 2 * reward),
        gym.wrappers.TimeAwareObservation,
    ]
    found = Gymnasium("CartPole-v1", wrappers=wrappers).reward_wrappers
    assert set(found) >= {"ClipReward", "TransformReward"}
    assert "TimeAwareObservation" not in found
