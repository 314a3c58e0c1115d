"""Agents on two replicas are agents on one that is given the same minibatches."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparring.agents.c51 import C51
from sparring.agents.dqn import DQN
from sparring.agents.intrinsic import RND
from sparring.agents.kl_penalty import AdaptiveKL
from sparring.agents.networks.recurrent import Memory
from sparring.agents.networks.regularized import BatchRenorm, RegularizedMLP
from sparring.agents.networks.state_dependent_noise import StateDependentNoiseHead
from sparring.agents.ppo import PPO
from sparring.agents.pqn import PQN
from sparring.agents.replay import Ring
from sparring.agents.sac import SAC
from sparring.agents.td3 import TD3
from sparring.agents.training.evaluation import EvaluationSettings
from sparring.agents.training.off_policy import OffPolicyTrainer
from sparring.agents.training.on_policy import OnPolicyTrainer
from sparring.distribute import replicas as distribute_replicas
from sparring.distribute import strategies
from sparring.envs.compiled.classic_control import CartPole, Pendulum
from sparring.envs.compiled.toys import PointMass
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.errors import UserError
from sparring.networks.mlp import MLP
from sparring.optim.optimizer import Scheduled
from sparring.optim.pruning import Magnitude
from sparring.storage.checkpoints import Checkpoints, restore_into
from sparring.training.conformance import check_trainer
from sparring.xla import random
from tests.helpers import replicas

pytestmark = pytest.mark.long

EVALUATION = EvaluationSettings(episodes=2, sampled=False, video_every=0)


class BothOrders(OnPolicyTrainer):
    """Each minibatch is what two replicas would put into theirs."""

    def _key(self, iteration: tf.Tensor) -> tf.Tensor:
        return random.fold(random.fold(self._shuffle, tf.range(2)), iteration)  # [2, 2]

    def order(self, key: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        half = self.num_envs // 2
        size = half * (1 if self.sequences else self.rollout_steps)
        orders = [
            random.permutation(random.fold(key[r], epoch), size) for r in (0, 1)
        ]  # of a replica's t * half + b
        everyone = [o // half * self.num_envs + r * half + o % half for r, o in enumerate(orders)]
        parts = tf.reshape(tf.stack(everyone), [2, self.minibatches, -1])
        return tf.reshape(tf.transpose(parts, [1, 0, 2]), [-1])


class TwoRings(tf.Module):
    """The rings of two replicas."""

    def __init__(self, rings: list[Ring]) -> None:
        super().__init__()
        self.rings = rings

    def learned(self, *arguments: Any) -> None:
        """Draw uniformly, whatever was learned."""

    def write(self, *columns: Any) -> None:
        halves = [columns[0].shape[1] // 2] * 2
        for n, ring in enumerate(self.rings):
            half = partial(_share, number=n, sizes=halves)
            ring.write(*tf.nest.map_structure(half, columns))


class BothRings(OffPolicyTrainer):
    """Samples what two replicas would sample from rings of their own."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        spaces = self.environment.observation_space, self.environment.action_space
        self.replay = TwoRings(
            [Ring(settings["capacity"] // 2, self.num_envs // 2, *spaces) for _ in (0, 1)]
        )

    def _key(self, iteration: tf.Tensor) -> tf.Tensor:
        return random.fold(random.fold(self._sampling, tf.range(2)), iteration)  # [2, 2]

    def sample(self, key: tf.Tensor, i: tf.Tensor, progress: tf.Tensor) -> Any:
        keys = random.fold(key, tf.fill([2], i))
        half = self.batch_size // 2
        both = [
            r.sample(keys[n], half, self.n_step, self.agent.discount)
            for n, r in enumerate(self.replay.rings)
        ]
        return (), tf.nest.map_structure(lambda *pair: tf.concat(pair, axis=0), *both)


def _share(column: tf.Tensor, number: int, sizes: list[int]) -> tf.Tensor:
    """Return a replica's environments of a column [T, B, ...]."""
    return tf.split(column, sizes, axis=1)[number]


def steady(rate: float, prune: Magnitude | None = None) -> Scheduled:
    return Scheduled(tf.keras.optimizers.Adam(epsilon=1e-3, global_clipnorm=0.5), rate, prune=prune)


def ppo(kind: Any = OnPolicyTrainer, **settings: Any) -> OnPolicyTrainer:
    tf.keras.utils.set_random_seed(0)
    return kind(
        **{
            "agent": partial(
                PPO, entropy_coefficient=0.01, normalize_observations=True, target_kl=1.0
            ),
            "environment": CartPole(max_episode_steps=15),
            "network": partial(MLP, (8,)),
            "optimizer": steady(1e-2),
            "num_envs": 4,
            "rollout_steps": 8,
            "epochs": 2,
            "minibatches": 2,
            "seed": 0,
            "total_steps": 1000,
            "normalize_rewards": True,
            "compile": "graph",
            "evaluation": EVALUATION,
            **settings,
        }
    )


def dqn(kind: Any = OffPolicyTrainer, **settings: Any) -> OffPolicyTrainer:
    tf.keras.utils.set_random_seed(0)
    return kind(
        **{
            "agent": partial(DQN, target_period=3, epsilon=0.5),
            "environment": CartPole(max_episode_steps=15),
            "network": partial(MLP, (8,)),
            "optimizer": steady(1e-2),
            "num_envs": 4,
            "rollout_steps": 2,
            "updates": 2,
            "batch_size": 16,
            "capacity": 64,
            "learning_starts": 16,
            "n_step": 2,
            "seed": 0,
            "total_steps": 1000,
            "compile": "graph",
            "evaluation": EVALUATION,
            **settings,
        }
    )


def pruned(kind: Any = OnPolicyTrainer) -> OnPolicyTrainer:
    # After 200 of the test's 320 steps
    return ppo(kind, optimizer=steady(1e-2, Magnitude(0.75, end=0.2, every=3)))


class BothKeys:
    """Draws for the two halves of a batch what two replicas draw for theirs; given two keys."""

    def row_keys(self, key: tf.Tensor, count: int) -> tf.Tensor:
        if key.shape.rank == 1:
            return random.members(key, count)
        return tf.concat([random.members(key[n], count // 2) for n in (0, 1)], axis=0)


class SACBothKeys(BothKeys, SAC):
    """SAC on one device that draws as on two."""


class TD3BothKeys(BothKeys, TD3):
    """TD3 on one device that draws as on two."""


class BothDraws(BothRings):
    """Samples and draws what two replicas would."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._drawing = random.fold(self._drawing, tf.range(2))  # [2, 2]


def continuous(kind: Any = OffPolicyTrainer, **settings: Any) -> OffPolicyTrainer:
    return dqn(kind, **{"environment": Pendulum(max_episode_steps=15), **settings})


RENORMALIZED = partial(
    RegularizedMLP, (8,), dropout=0.2, batch_renorm=partial(BatchRenorm, warmup=3)
)
CROSSQ = {"target_tau": None, "policy_period": 2, "normalize_observations": True}

PARTS = {
    "sac": (continuous, BothDraws, {"agent": SACBothKeys, "compile": "xla"}),
    "crossq": (
        continuous,
        BothDraws,
        {"agent": partial(SACBothKeys, **CROSSQ), "network": RENORMALIZED},
    ),
    "td3": (continuous, BothDraws, {"agent": TD3BothKeys}),
    "ppo": (ppo, BothOrders, {"compile": "xla"}),
    "ppo_host": (ppo, BothOrders, {"environment": Gymnasium("CartPole-v1", max_episode_steps=15)}),
    "ppo_kl_limit": (
        ppo,
        BothOrders,
        {"agent": partial(PPO, target_kl=2e-3), "epochs": 4, "compile": "xla"},
    ),
    "ppo_kl": (
        ppo,
        BothOrders,
        {"agent": partial(PPO, clip=None, kl_penalty=partial(AdaptiveKL, target=1e-3))},
    ),
    "ppo_rnd": (ppo, BothOrders, {"agent": partial(PPO, intrinsic=partial(RND, features=4))}),
    "ppo_noise": (
        ppo,
        BothOrders,
        {
            "agent": partial(PPO, head=StateDependentNoiseHead, noise_steps=3),
            "environment": PointMass(max_episode_steps=15),
        },
    ),
    "ppo_pruned": (pruned, BothOrders, {}),
    "ppo_memory": (ppo, BothOrders, {"agent": partial(PPO, memory=partial(Memory, "lstm", (6,)))}),
    "dqn": (dqn, BothRings, {}),
    "c51": (dqn, BothRings, {"agent": partial(C51, double=True, target_period=3, epsilon=0.5)}),
    "pqn": (ppo, BothOrders, {"agent": partial(PQN, normalize_observations=True)}),
}


@pytest.mark.parametrize("name", PARTS)
def test_two_replicas_are_one_with_the_whole_batch(name: str) -> None:
    make, kind, settings = PARTS[name]
    one, two = replicas.pair(
        lambda: make(
            kind if distribute_replicas.num_replicas() == 1 else make.__defaults__[0], **settings
        )
    )
    for trainer in (one, two):
        trainer.train(10 * one.steps_per_iteration)
    if name == "ppo_kl_limit":  # some of 4 epochs of 2 minibatches, not all
        assert 0.0 < one.peek()["policy/updates_per_iteration"] < 8.0
    replicas.assert_alike(one, two, but="replay")
    replicas.assert_in_agreement(two)
    replicas.assert_same_means(one, two)
    if name == "ppo_pruned":  # a quarter is left of every kernel of the actor
        shares = [float(np.mean(w == 0)) for w in one.agent._actor_net.get_weights() if w.ndim > 1]
        assert shares == [0.75] * 2
    one.close(), two.close()


@pytest.mark.parametrize(
    "name", ["dqn", *(pytest.param(n, marks=pytest.mark.slow) for n in ("ppo", "ppo_host"))]
)
def test_the_contract_is_kept_by_two_replicas(name: str) -> None:
    make, _, settings = PARTS[name]

    def made() -> Any:
        with strategies.mirrored(2).scope():
            return make(**settings)

    check_trainer(made, steps=100)


def test_replicas_have_keys_and_environments_of_their_own() -> None:
    with strategies.mirrored(2).scope():
        trainer = dqn()

    def drawn() -> tf.Tensor:
        key = random.fold(distribute_replicas.replica_key(random.stream(0, "replay")), 0)
        return tf.concat(
            [
                random.integers(key, 8, 1000),
                tf.cast([distribute_replicas.replica_index()], tf.int64),
            ],
            0,
        )

    one, two = trainer.replicas.strategy.experimental_local_results(
        trainer.replicas.function(lambda: trainer.replicas.run(drawn), "graph")()
    )
    assert (one[-1], two[-1]) == (0, 1)
    assert not np.intersect1d(one[:-1], two[:-1]).size
    trainer.train(80)
    rings = [np.asarray(v) for v in trainer.replay.observation.values]
    assert np.any(rings[0] != rings[1])
    seen = trainer.driver.carry.parts[-1].numpy()  # the observations of all four environments
    assert len(np.unique(seen, axis=0)) == 4


def test_a_run_goes_on_with_another_number_of_replicas(tmp_path: Any) -> None:
    settings = {"compile": "graph", "minibatches": 1}
    one, two = replicas.pair(lambda: ppo(**settings))
    for trainer in (one, two):
        trainer.train(5 * one.steps_per_iteration)
    Checkpoints(tmp_path).save(two.step, two.checkpoint, {"trainer": two.host_state()})
    _, other = replicas.pair(lambda: ppo(**settings))
    with strategies.one_device().scope():
        resumed = ppo(**settings)
    for trainer in (other, resumed):
        found = Checkpoints(tmp_path).restore(trainer.checkpoint)
        assert found is not None
        assert trainer.load_host_state(found.host["trainer"]) == []
        trainer.train(5 * one.steps_per_iteration)
    one.train(5 * one.steps_per_iteration)
    replicas.assert_alike(other, resumed)
    replicas.assert_alike(one, resumed)


def test_a_replay_that_two_replicas_shared_is_refused_by_name_on_one(tmp_path: Any) -> None:
    one, two = replicas.pair(dqn)
    for trainer in (one, two):
        trainer.train(40)
    saved = Checkpoints(tmp_path).save(two.step, two.checkpoint, {})
    with pytest.raises(
        UserError,
        match=r"not in the checkpoint: replay/(.|\n)*only in the checkpoint: replay_of_repl",
    ):
        Checkpoints(tmp_path).restore(one.checkpoint)
    with strategies.one_device().scope():
        learned = dqn()
    # What was learned can be taken up
    restore_into(tf.train.Checkpoint(model=learned.model), saved)
    np.testing.assert_array_equal(
        learned.agent.trainable[0].numpy(), two.agent.trainable[0].numpy()
    )


def test_sizes_that_replicas_cannot_share_are_refused() -> None:
    with strategies.mirrored(2).scope():
        with pytest.raises(UserError, match=r"trainer.num_envs=3 is no multiple of the 2 replicas"):
            ppo(num_envs=3, rollout_steps=8)
        with pytest.raises(
            UserError, match=r"trainer.batch_size=15 is no multiple of the 2 replicas"
        ):
            dqn(batch_size=15)
        with pytest.raises(UserError, match=r"minibatches=32 .*16 for each of 2 replicas"):
            ppo(minibatches=32)
