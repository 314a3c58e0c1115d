"""Observations of several parts: what each encoder is given, and what is refused."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from sparring.agents.conformance import check_agent
from sparring.agents.dqn import DQN
from sparring.agents.networks.part_encoders import PartEncoders
from sparring.agents.ppo import PPO
from sparring.errors import UserError
from sparring.networks.mlp import MLP

SPACE = spaces.Dict(
    camera=spaces.Box(0, 255, (4, 4, 1), np.uint8),
    joints=spaces.Box(-np.inf, np.inf, (2,)),
    speed=spaces.Box(-np.inf, np.inf, (1,)),
)


class Sum(tf.keras.layers.Layer):
    """Sum of what it is given, times `factor`: [B, ...] -> [B, 1]."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.factor * tf.reshape(tf.reduce_sum(x, range(1, x.shape.rank)), [-1, 1])


def parts(**settings: Callable) -> PartEncoders:
    return PartEncoders(picture=lambda: Sum(1.0), vector=lambda: Sum(10.0), **settings)


SEEN = {
    "camera": tf.ones([1, 4, 4, 1]),
    "joints": tf.constant([[1.0, 2.0]]),
    "speed": tf.constant([[4.0]]),
}


def test_pictures_have_an_encoder_each_and_all_else_shares_one() -> None:
    # 16 pixels of one; 10 * (1 + 2 + 4)
    np.testing.assert_allclose(parts()(SEEN), [[16.0, 70.0]])


def test_a_part_may_have_an_encoder_of_its_own() -> None:
    network = parts(encoders={"speed": lambda: Sum(100.0)}, joined=lambda: Sum(2.0))
    # 2 * (16 + 400 + 10 * 3)
    np.testing.assert_allclose(network(SEEN), [[892.0]])
    with pytest.raises(UserError, match=r"no part speeed; .* camera, joints, speed"):
        parts(encoders={"speeed": lambda: Sum(1.0)})(SEEN)


def test_bytes_are_scaled_and_numbers_normalised_part_by_part() -> None:
    """Bytes by 255; joints of mean 3 and standard deviation 1 among (2, 4), speed as it is."""
    agent = PPO(SPACE, spaces.Discrete(2), network=parts)
    seen = {
        "camera": tf.fill([2, 4, 4, 1], tf.constant(51, tf.uint8)),
        "joints": tf.constant([[2.0, 0.0], [4.0, 0.0]]),
        "speed": tf.constant([[5.0], [5.0]]),
    }
    agent.observation_normalizer.update(seen, tf.ones([2]))
    inputs = []
    agent._value_net._torso.call = lambda given: inputs.append(given) or tf.zeros([2, 2])
    agent.value(seen)
    np.testing.assert_allclose(inputs[0]["camera"], np.full((2, 4, 4, 1), 0.2), rtol=1e-6)
    np.testing.assert_allclose(inputs[0]["joints"][:, 0], [-1.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(inputs[0]["speed"], [[0.0], [0.0]])  # 5 - 5


@pytest.mark.parametrize("kind", [PPO, DQN])
def test_agents_keep_their_contract_with_parts_and_a_mask(kind: type) -> None:
    masked = spaces.Dict({**SPACE.spaces, "action_mask": spaces.Box(0, 1, (3,), np.uint8)})
    network = lambda: PartEncoders(picture=MLP, vector=MLP)  # noqa: E731
    check_agent(
        lambda *space: kind(*space, network=network, normalize_observations=True),
        masked,
        spaces.Discrete(3),
    )


def test_parts_are_refused_where_there_is_one_observation() -> None:
    with pytest.raises(UserError, match=r"is given one of \[3\]: choose another"):
        parts()(tf.zeros([1, 3]))


def test_a_network_of_one_observation_is_refused() -> None:
    with pytest.raises(UserError, match=r"camera \[4, 4, 1\], .* MLP does not join.*network=parts"):
        PPO(SPACE, spaces.Discrete(2))
