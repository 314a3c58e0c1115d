"""Agents keep their protocols, and one that does not is told what is wrong."""

import functools
import re
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from sparring.agents.agent import OffPolicyAgent, OnPolicyAgent, require
from sparring.agents.conformance import check_agent
from sparring.agents.dqn import DQN
from sparring.agents.intrinsic import RND
from sparring.agents.kl_penalty import AdaptiveKL
from sparring.agents.networks.critics import CriticEnsemble
from sparring.agents.networks.recurrent import Memory
from sparring.agents.networks.regularized import BatchRenorm, RegularizedMLP
from sparring.agents.networks.state_dependent_noise import StateDependentNoiseHead
from sparring.agents.ppo import PPO
from sparring.agents.sac import SAC
from sparring.agents.td3 import TD3
from sparring.errors import UserError
from sparring.networks.mlp import MLP

pytestmark = pytest.mark.long

SEEN = spaces.Box(-1.0, 1.0, (3,))
SMALL = functools.partial(MLP, (4,))
DROPPED = functools.partial(RegularizedMLP, (4,), layer_norm=True, dropout=0.1)
DROQ = functools.partial(
    SAC,
    network=SMALL,
    critics=functools.partial(CriticEnsemble, network=DROPPED, policy_value="mean"),
)
RENORMALIZED = functools.partial(RegularizedMLP, (4,), batch_renorm=BatchRenorm)
CROSSQ = functools.partial(SAC, network=RENORMALIZED, target_tau=None)


@pytest.mark.parametrize(
    ("make", "action_space"),
    [
        (functools.partial(PPO, network=SMALL), spaces.Box(-1.0, 1.0, (2,))),
        (
            functools.partial(PPO, network=SMALL, memory=functools.partial(Memory, "gru", (3,))),
            spaces.Discrete(3),
        ),
        (
            functools.partial(PPO, network=SMALL, clip=None, kl_penalty=AdaptiveKL),
            spaces.MultiDiscrete([2, 3]),
        ),
        (
            functools.partial(
                PPO,
                network=SMALL,
                intrinsic=functools.partial(RND, features=3),
                memory=functools.partial(Memory, "gru", (3,)),
            ),
            spaces.Discrete(3),
        ),
        (
            functools.partial(PPO, network=SMALL, head=StateDependentNoiseHead, noise_steps=2),
            spaces.Box(-1.0, 1.0, (2,)),
        ),
        (functools.partial(DQN, network=SMALL), spaces.Discrete(3)),
        (
            functools.partial(SAC, network=SMALL, normalize_observations=True),
            spaces.Box(-2, 2, (2,)),
        ),
        (functools.partial(TD3, network=SMALL), spaces.Box(-2, 2, (2,))),
        (DROQ, spaces.Box(-2, 2, (2,))),
        (CROSSQ, spaces.Box(-2, 2, (2,))),
    ],
    ids=[
        "ppo",
        "ppo-memory",
        "ppo-kl",
        "ppo-rnd",
        "ppo-noise",
        "dqn",
        "sac",
        "td3",
        "droq",
        "crossq",
    ],
)
def test_our_agents_keep_the_protocol(make: Any, action_space: spaces.Space) -> None:
    check_agent(make, SEEN, action_space)


@pytest.mark.parametrize(
    ("settings", "action_space"),
    [
        ({"memory": functools.partial(Memory, "lstm", (3,))}, spaces.Discrete(3)),
        (
            {"memory": functools.partial(Memory, "gru", (3,)), "kl_penalty": AdaptiveKL},
            spaces.MultiDiscrete([2, 1]),
        ),
    ],
    ids=["discrete", "multi-discrete-kl"],
)
def test_a_memory_beside_a_mask_keeps_the_protocol(
    settings: dict[str, Any], action_space: spaces.Space
) -> None:
    masked = spaces.Dict(observation=SEEN, action_mask=spaces.Box(0, 1, (3,), np.uint8))
    check_agent(functools.partial(PPO, network=SMALL, **settings), masked, action_space)


class Whole(DQN):
    """One number for all transitions."""

    def update(self, batch: Any, key: tf.Tensor, progress: tf.Tensor) -> Any:
        scalars, errors = super().update(batch, key, progress)
        return scalars, tf.reduce_mean(errors)


class Together(DQN):
    """Members follow the first one's key."""

    def act_sampled(self, observation: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor) -> Any:
        return super().act_sampled(observation, tf.zeros_like(keys) + keys[:1], tf.constant(0.0))


class Still(DQN):
    """Learns nothing."""

    def update(self, batch: Any, key: tf.Tensor, progress: tf.Tensor) -> Any:
        before = [tf.identity(w) for w in self.trainable]
        found = super().update(batch, key, progress)
        for weight, value in zip(self.trainable, before, strict=True):
            weight.assign(value)
        return found


class Silent(DQN):
    """Returns a scalar that nothing describes."""

    def update(self, batch: Any, key: tf.Tensor, progress: tf.Tensor) -> Any:
        scalars, errors = super().update(batch, key, progress)
        return scalars | {"q/secret": tf.constant(1.0)}, errors


class Forgetful(DQN):
    """Saves its target network alone."""

    def parts(self) -> dict[str, tf.Module]:
        return {"target_q_network": self._target_q_network}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Whole, "update returns errors () of 16 transitions"),
        (Still, "an update changes no weight in `trainable`"),
        (Silent, "scalars without a description: ['q/secret']"),
        (Forgetful, "parts() lacks weights that are learned: ["),
        (Together, "act_sampled: a member's action depends on more than its observation and key"),
    ],
)
def test_what_an_agent_does_wrong_is_named(kind: Any, message: str) -> None:
    settings = {"epsilon": 1.0} if kind is Together else {}
    with pytest.raises(AssertionError, match=re.escape(message)):
        check_agent(functools.partial(kind, network=SMALL, **settings), SEEN, spaces.Discrete(1000))


def test_what_an_agent_lacks_is_named() -> None:
    class Bare:
        """Nothing but an action."""

        discount = 0.9

        def act_greedy(self, seen: Any) -> Any: ...

    with pytest.raises(
        UserError,
        match=r"Bare lacks act, act_sampled, .*, see, start, step, trainable, which "
        r"sparring.agents.agent.OnPolicyAgent describes; sparring.agents.agent.Memoryless has",
    ):
        require(Bare(), OnPolicyAgent)
    require(DQN(SEEN, spaces.Discrete(2), SMALL), OffPolicyAgent)
