"""Imitation by rewards that is small and quick: PPO and DQN of few weights on CartPole."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.agents.dqn import DQN
from sparring.agents.imitation.adversarial import GAIL
from sparring.agents.imitation.replayed import ReplayGAIL
from sparring.agents.ppo import PPO
from sparring.agents.training.evaluation import EvaluationSettings
from sparring.agents.training.off_policy import OffPolicyTrainer
from sparring.agents.training.on_policy import OnPolicyTrainer
from sparring.envs.compiled.classic_control import CartPole
from sparring.gans.discriminator_step import DiscriminatorStep
from sparring.gans.losses import NonSaturating
from sparring.gans.networks.mlp import MLPDiscriminator
from sparring.gans.penalties import R1
from sparring.networks.mlp import MLP
from sparring.optim.optimizer import Scheduled
from tests.helpers import replicas
from tests.helpers.demonstrations import made_up


def adam(rate: float = 1e-2) -> Scheduled:
    """Adam that makes no full step of a gradient that is zero but for rounding."""
    return Scheduled(tf.keras.optimizers.Adam(epsilon=1e-3), rate)


def reward_source(kind: Any = GAIL, demonstrations: Any = None, **settings: Any) -> Any:
    """Return a factory of a reward source with a discriminator of eight units."""
    loss = settings.pop("loss", NonSaturating())
    penalties = settings.pop("penalties", {"r1": R1(0.1)})
    optimizer = settings.pop("optimizer", None) or adam()
    network = settings.pop("network", None) or functools.partial(MLPDiscriminator, units=[8])
    discriminator = functools.partial(
        DiscriminatorStep, loss=loss, penalties=penalties, optimizer=optimizer
    )
    usual = {"batch_size": 8, "updates": 2}
    return functools.partial(
        kind,
        demonstrations=demonstrations,
        discriminator=discriminator,
        network=network,
        **usual | settings,
    )


def make(
    kind: Any = GAIL, environment: Any = None, compile: str = "eager", **settings: Any
) -> OnPolicyTrainer:
    """Return a trainer of 4 environments, 8 steps of each in a rollout."""
    tf.keras.utils.set_random_seed(0)
    environment = environment or CartPole()
    spaces = environment.observation_space, environment.action_space
    more = {k: settings.pop(k) for k in ("num_envs", "rollout_steps", "epochs") if k in settings}
    settings.setdefault("demonstrations", made_up(*spaces))
    usual = {"num_envs": 4, "rollout_steps": 8, "epochs": 1}
    return OnPolicyTrainer(
        functools.partial(PPO, normalize_observations=False),
        environment,
        functools.partial(MLP, (4,)),
        adam(),
        minibatches=1,
        total_steps=512,
        normalize_rewards=False,
        compile=compile,
        evaluation=EvaluationSettings(episodes=2, video_every=0),
        reward_source=reward_source(kind, **settings),
        **usual | more,
    )


def make_replayed(
    source: Any = None, environment: Any = None, compile: str = "eager", **settings: Any
) -> OffPolicyTrainer:
    """Return an off-policy trainer of 2 environments, 4 steps of each and 2 updates an iteration.

    `source` is a factory of a `ReplaySource`; None: of GAIL.
    """
    tf.keras.utils.set_random_seed(0)
    environment = environment or CartPole()
    spaces = environment.observation_space, environment.action_space
    agent = settings.pop("agent", functools.partial(DQN, epsilon=0.5, target_period=3))
    usual = {"num_envs": 2, "rollout_steps": 4, "updates": 2, "batch_size": 8, "capacity": 64}
    return OffPolicyTrainer(
        agent,
        environment,
        functools.partial(MLP, (4,)),
        adam(),
        learning_starts=16,
        total_steps=512,
        compile=compile,
        evaluation=EvaluationSettings(episodes=2, video_every=0),
        reward_source=source or reward_source(ReplayGAIL, made_up(*spaces)),
        **usual | settings,
    )


class Paid(CartPole):
    """CartPole that pays a thousand and the square of the position."""

    def transition(self, state: Any, action: tf.Tensor, keys: tf.Tensor) -> Any:
        new, _, terminated = super().transition(state, action, keys)
        return new, 1000.0 + tf.square(new.x), terminated


class Seen:
    """Discriminator that keeps what it is shown, and whose logits are the first number."""

    descriptions: dict[str, str] = {}  # noqa: RUF012
    state: dict[str, Any] = {}  # noqa: RUF012

    def update(self, real: Any, fake: Any, keys: Any, progress: Any) -> dict[str, Any]:
        self.real = np.asarray(real)
        self.fake = np.asarray(fake)
        return {}

    def logits(self, examples: tf.Tensor) -> tf.Tensor:
        return examples[:, 0]


def after_rewards_of_two_kinds(make: Callable[[Any], Any]) -> dict[str, np.ndarray]:
    """Train in CartPole and in one that pays otherwise, hold that only what counts rewards differs,
    and return the state of the former; `make(environment)` makes a trainer.
    """
    found = []
    for environment in (CartPole(), Paid()):
        trainer = make(environment)
        trainer.train(64)
        found.append(replicas.state(trainer))
    plain, paid = found
    for name in plain:
        if not name.startswith(("means", "episodes")):
            np.testing.assert_array_equal(plain[name], paid[name], err_msg=name)
    assert not np.array_equal(plain["episodes/running"], paid["episodes/running"])
    return plain
