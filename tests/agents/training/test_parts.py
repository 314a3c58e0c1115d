"""Observations of several parts, each a stack of frames, with a mask of actions, from the
environment to the checkpoint, on the host and compiled.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from sparring.agents.dqn import DQN
from sparring.agents.networks.part_encoders import PartEncoders
from sparring.agents.networks.recurrent import Memory
from sparring.agents.ppo import PPO
from sparring.agents.training.evaluation import EvaluationSettings
from sparring.agents.training.off_policy import OffPolicyTrainer
from sparring.agents.training.on_policy import OnPolicyTrainer
from sparring.agents.training.policy import Policy
from sparring.envs.compiled.base import CompiledEnvironment
from sparring.envs.compiled.frame_stack import Stacked
from sparring.envs.compiled.wrapper import Wrapper
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.envs.testing.check import check_environment
from sparring.networks.mlp import MLP
from sparring.storage.checkpoints import Checkpoints
from sparring.storage.variable_names import named_variables
from sparring.xla import random
from tests.helpers.small_trainers import off_policy

WORST = -100.0  # reward of an action that is not allowed


class GatesState(NamedTuple):
    taken: tf.Tensor  # [B] int32
    noise: tf.Tensor  # [B, 4, 4, 1] uint8


class CompiledGates(CompiledEnvironment):
    """tests.helpers.toy_envs.Gates in TensorFlow ops."""

    name = "CompiledGates"
    observation_space = spaces.Dict(
        camera=spaces.Box(0, 255, (4, 4, 1), np.uint8),
        place=spaces.Box(-10.0, 10.0, (2,), np.float32),
        action_mask=spaces.Box(0, 1, (3,), np.uint8),
    )
    action_space = spaces.Discrete(3)
    max_episode_steps = 20

    def initial(self, keys: tf.Tensor) -> GatesState:
        noise = tf.reshape(random.integers(keys, 16, 255), [-1, 4, 4, 1])
        return GatesState(tf.zeros(keys.shape[:1], tf.int32), tf.cast(noise, tf.uint8))

    def observe(self, state: GatesState) -> dict[str, tf.Tensor]:
        place = tf.cast(tf.stack([state.taken, -state.taken], axis=1), tf.float32)
        return {"camera": state.noise, "place": place, "action_mask": self._allowed(state)}

    def transition(
        self, state: GatesState, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[GatesState, tf.Tensor, tf.Tensor]:
        right = tf.gather(self._allowed(state), action, batch_dims=1) > 0
        taken = tf.minimum(state.taken + 1, 10)
        reward = tf.where(right, tf.cast(action, tf.float32), WORST)
        return state._replace(taken=taken), reward, ~right | (taken == 7)

    def _allowed(self, state: GatesState) -> tf.Tensor:
        odd = tf.cast(state.taken % 2, tf.uint8)
        return tf.stack([tf.ones_like(odd), odd, tf.zeros_like(odd)], axis=1)


def on_host(**settings: Any) -> Gymnasium:
    gates = "tests.helpers.toy_envs:Gates"
    return Gymnasium(gates, parts="auto", action_mask=True, **settings)


def stacked_on_host() -> Gymnasium:
    return on_host(frame_stack=2)


def stacked_compiled() -> Stacked:
    return Stacked(CompiledGates(), 2)


def network() -> PartEncoders:
    return PartEncoders(picture=lambda: MLP([8]), vector=lambda: MLP([8]))


def ppo(environment: Any, memory: Callable[[], Memory] | None = None) -> OnPolicyTrainer:
    tf.keras.utils.set_random_seed(1)
    return OnPolicyTrainer(
        lambda *given, **more: PPO(*given, **more, memory=memory),
        environment,
        network=network if memory is None else None,  # behind the memory there is one vector
        num_envs=4,
        rollout_steps=16,
        epochs=2,
        minibatches=2,
        seed=1,
        total_steps=64 * 40,
        evaluation=EvaluationSettings(episodes=4, video_every=0),
    )


def ppo_remembers(environment: Any) -> OnPolicyTrainer:
    return ppo(environment, lambda: Memory("gru", (8,), network))


def dqn(environment: Any) -> OffPolicyTrainer:
    normalised = functools.partial(DQN, normalize_observations=True)
    return off_policy(environment, normalised, network=network, num_envs=4, updates=2, seed=1)


def weights(trainer: Any) -> dict[str, np.ndarray]:
    found = named_variables(trainer.checkpoint)
    return {name: variable.numpy() for name, variable in found.items()}


@pytest.mark.parametrize("make", [ppo, ppo_remembers, dqn])
@pytest.mark.parametrize("environment", [stacked_on_host, stacked_compiled])
def test_what_is_not_allowed_is_never_done_and_a_resumed_run_is_the_same(
    make: Callable[[Any], Any], environment: Callable[[], Any], tmp_path: Path
) -> None:
    """One action that is not allowed would take the mean return below -10."""
    whole = make(environment())
    whole.train(256)
    found = whole.scalars()
    assert found["rollout/episode_length"] == 7.0
    assert 0.0 <= found["rollout/episode_return"] <= 3.0  # at steps 1, 3 and 5
    Checkpoints(tmp_path).save(whole.step, whole.checkpoint, {"trainer": whole.host_state()})
    whole.train(256)
    evaluated = whole.evaluate(media=False).scalars
    assert evaluated["eval/episode_length"] == 7.0
    assert evaluated["eval/episode_return_sampled"] >= 0.0

    resumed = make(environment())
    saved = Checkpoints(tmp_path).restore(resumed.checkpoint)
    assert resumed.load_host_state(saved.host["trainer"]) == []
    resumed.train(256)
    ours = weights(resumed)
    for name, value in weights(whole).items():
        if not name.startswith("means"):
            np.testing.assert_array_equal(ours[name], value, err_msg=name)
    whole.close()
    resumed.close()


def test_a_compiled_environment_of_parts_keeps_the_rules() -> None:
    check_environment(stacked_compiled(), steps=30)


def test_a_policy_is_asked_by_the_names_of_the_parts() -> None:
    trainer = ppo(on_host())
    signature = trainer.export().signatures["greedy"]
    assert {name: spec.dtype.name for name, spec in signature.inputs.items()} == {
        "observation_action_mask": "uint8",
        "observation_camera": "uint8",
        "observation_place": "float32",
    }
    observation = {
        "camera": np.zeros((2, 4, 4, 1), np.uint8),
        "place": np.zeros((2, 2), np.float32),
        "action_mask": np.array([[0, 1, 0], [0, 0, 1]], np.uint8),
    }
    policy = Policy(trainer)
    actions, state = policy.predict(observation)
    np.testing.assert_array_equal(actions, [1, 2])  # the only ones allowed
    assert state is None
    sampled, _ = policy.predict(observation, deterministic=False)
    np.testing.assert_array_equal(sampled, [1, 2])
    one, _ = policy.predict({name: part[1] for name, part in observation.items()})
    assert one == 2


def stacked_inside() -> Wrapper:
    return Wrapper(stacked_compiled(), "what is around a stack")


@pytest.mark.parametrize("environment", [stacked_on_host, stacked_compiled, stacked_inside])
def test_a_policy_stacks_what_it_is_shown_one_at_a_time(environment: Callable[[], Any]) -> None:
    """Places 1, 2, 3: an agent sees 1 1, 1 2 and 2 3, as Policy does, from its state."""
    trainer = dqn(environment())
    policy = Policy(trainer)
    if trainer.environment.compiled:
        assert trainer.environment.original_observation_space["place"].shape == (2,)
    camera = np.zeros((4, 4, 1), np.uint8)
    state = None
    for place, seen in ((1.0, [1, 1, 1, 1]), (2.0, [1, 1, 2, 2]), (3.0, [2, 2, 3, 3])):
        shown = {"camera": camera, "place": np.float32([place, place]), "action_mask": [1, 1, 1]}
        action, state = policy.predict(shown, state)
        np.testing.assert_array_equal(state["place"], [seen])
        same = {name: tf.constant(part) for name, part in state.items()}
        assert action == trainer.agent.act_greedy(same).numpy()[0]
    trainer.close()


def test_a_policy_that_remembers_keeps_its_memory_beside_its_stack() -> None:
    """Shown the same again, it says what the agent says after two steps."""
    trainer = ppo_remembers(stacked_compiled())
    policy = Policy(trainer)
    shown = {
        "camera": np.zeros((4, 4, 1), np.uint8),
        "place": np.float32([1.0, -1.0]),
        "action_mask": np.uint8([1, 1, 1]),
    }
    _, state = policy.predict(shown)
    _, (memory, stack) = policy.predict(shown, state)
    agent = trainer.agent
    wanted = agent.start(1)
    for _ in range(2):
        _, wanted = agent.see({n: tf.constant(part) for n, part in stack.items()}, wanted)
    np.testing.assert_allclose(memory, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(stack["place"], [[1, -1, 1, -1]])
