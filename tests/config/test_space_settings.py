"""Settings chosen by the spaces of an environment, and those that are left alone."""

from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium import spaces

from sparring.cli import setup
from sparring.config import space_settings, validation
from sparring.config.composer import Composer

CHOICES = spaces.Discrete(3)
FORCES = spaces.Box(-1, 1, (2,), np.float32)
PPO = {
    "network": "nature_cnn",
    "agent.clip": 0.1,
    "optimizer.learning_rate": 2.5e-4,
    "trainer.epochs": 4,
    "trainer.minibatches": 4,
}
WITH_CHOICES = {**PPO, "agent.entropy_coefficient": 0.01}


def chosen(shape, actions=CHOICES, overrides=(), compiled=False, primary="rl"):
    composer = Composer(primary)
    cfg = composer.compose(["env=gymnasium", "env.id=X", *overrides])
    environment = SimpleNamespace(
        observation_space=spaces.Box(0, 255, shape, np.uint8),
        action_space=actions,
        compiled=compiled,
    )
    typed = [override.partition("=")[0].lstrip("+") for override in overrides]
    return space_settings.chosen(composer, cfg, environment, typed)


@pytest.mark.parametrize(
    ("shape", "actions", "overrides", "wanted"),
    [
        ((8,), CHOICES, [], {}),
        ((8,), FORCES, [], {}),
        ((2, 9, 3), CHOICES, [], {}),  # smaller than a kernel
        ((7, 7, 3), CHOICES, [], {"network": "cnn"}),
        ((35, 84, 1), FORCES, [], {"network": "cnn"}),
        ((36, 84, 1), FORCES, [], PPO),
        ((84, 84, 4), CHOICES, [], WITH_CHOICES),
        ((84, 84, 4), spaces.MultiDiscrete([2, 3]), [], WITH_CHOICES),
        (
            (84, 84, 4),
            CHOICES,
            ["agent=double_dqn"],
            {
                "network": "nature_cnn",
                "optimizer.learning_rate": 1.0e-4,
                "trainer.updates": 1,
                "trainer.batch_size": 32,
            },
        ),
    ],
)
def test_settings_are_chosen_by_observations_and_actions(shape, actions, overrides, wanted):
    assert chosen(shape, actions, overrides) == wanted


@pytest.mark.parametrize(
    ("low", "high", "far"),
    [
        (-1.0, 1.0, False),
        (-2.0, 2.0, False),
        (-0.4, 0.4, False),
        (-5.0, 5.0, True),  # a standard normal stays within a fifth
        (-0.1, 0.1, True),  # nine of ten of its actions are clipped
        (0.0, 1.0, True),  # half are
    ],
)
def test_actions_far_from_one_are_rescaled(low, high, far):
    box = spaces.Box(low, high, (2,), np.float32)
    assert chosen((8,), box) == ({"env.rescale_actions": True} if far else {})
    assert chosen((8,), box, ["env.rescale_actions=false"]) == {}


def test_parts_are_joined_and_a_mask_beside_one_observation_is_not_a_part():
    def wanted(**parts):
        composer = Composer("rl")
        cfg = composer.compose(["env=gymnasium", "env.id=X"])
        space = spaces.Dict(parts)
        made = SimpleNamespace(observation_space=space, action_space=CHOICES, compiled=False)
        return space_settings.chosen(composer, cfg, made, ["env"])

    eye = spaces.Box(0, 255, (7, 7, 3), np.uint8)
    mask = spaces.Box(0, 1, (3,), np.uint8)
    assert wanted(eye=eye, arm=FORCES, action_mask=mask) == {"network": "parts"}
    assert wanted(observation=eye, action_mask=mask) == {"network": "cnn"}


def without(*keys):
    return {key: value for key, value in WITH_CHOICES.items() if key not in keys}


@pytest.mark.parametrize(
    ("typed", "left"),
    [
        ("network=mlp", without("network")),
        ("network=cnn", without("network")),
        ("network.units=[32]", without("network")),  # of the network that it has
        ("optimizer=adam_linear", without("optimizer.learning_rate")),
        ("optimizer.learning_rate=1e-3", without("optimizer.learning_rate")),
        ("agent.clip=0.2", without("agent.clip")),  # its default, but typed
        ("agent=ppo", WITH_CHOICES),
        ("trainer.epochs=3", without("trainer.epochs", "trainer.minibatches")),  # go together
        ("trainer.num_envs=8", without("trainer.epochs", "trainer.minibatches")),
        # It has minibatches of its own, and the network behind it sees no picture
        ("memory=lstm", without("network", "trainer.epochs", "trainer.minibatches")),
        ("experiment=gym_ppo_cartpole", {}),
        ("agent._target_=my_lab.agents.Mine", {}),  # whose settings may be others
    ],
)
def test_what_is_typed_or_set_by_a_preset_is_left_alone(typed, left):
    assert chosen((84, 84, 4), overrides=[typed]) == left


def test_a_compiled_environment_has_its_experiments():
    assert chosen((10, 10, 4), compiled=True) == {}


def test_the_jobs_of_a_sweep_share_what_all_of_them_would_have():
    ppo = chosen((84, 84, 4))
    dqn = chosen((84, 84, 4), overrides=["agent=dqn"])
    assert space_settings.common([ppo, dqn]) == ["network=nature_cnn"]
    assert space_settings.common([ppo, {}]) == []


@pytest.mark.parametrize("multirun", [False, True])
def test_a_command_has_them_in_its_config_and_its_overrides(multirun):
    setup.prepare()
    seeds = ["seed=1,2"] if multirun else []
    typed = ["env=gymnasium", "env.id=tests.helpers.toy_envs:Film", "agent.clip=0.3", *seeds]
    found = validation.Command(Composer("rl"), typed, multirun)
    assert {"network=nature_cnn", "agent.entropy_coefficient=0.01"} < set(found.by_spaces)
    assert found.overrides == [*typed, *found.by_spaces]
    assert found.cfg.hydra.runtime.choices.network == "nature_cnn"
    assert (found.cfg.agent.clip, found.cfg.trainer.epochs) == (0.3, 4)
    # Chosen already, as a run that is resumed by the same words finds them, they stay
    again = validation.Command(Composer("rl"), found.overrides, multirun)
    assert (again.by_spaces, again.overrides) == ([], found.overrides)
