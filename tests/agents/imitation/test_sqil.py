"""SQIL: half of each batch is the expert's, at a reward of 1, and none is the environment's."""

import functools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparring.agents.dqn import DQN
from sparring.agents.imitation.demonstrations import Demonstrations
from sparring.agents.imitation.sqil import SQIL, expert_replay
from sparring.agents.networks.recurrent import Memory
from sparring.agents.replay import Rows
from sparring.agents.sac import SAC
from sparring.envs.compiled.classic_control import CartPole, Pendulum
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.errors import UserError
from sparring.training.conformance import check_trainer
from tests.helpers import replicas
from tests.helpers.demonstrations import CARTPOLE, made_up
from tests.helpers.small_imitation import after_rewards_of_two_kinds, make_replayed

pytestmark = pytest.mark.long


def make(environment: Any = None, demonstrations: Any = None, **settings: Any) -> Any:
    environment = environment or CartPole()
    spaces = environment.observation_space, environment.action_space
    found = demonstrations or made_up(*spaces)
    source = functools.partial(SQIL, demonstrations=found)
    return make_replayed(source, environment, **settings)


def counted() -> Demonstrations:
    """Two episodes of two and three steps, whose observations count; one is terminated."""
    count = np.arange(5, dtype=np.float32)[:, np.newaxis]
    columns = np.repeat(count, 4, axis=1)
    return Demonstrations(
        observation=columns,
        action=np.array([0, 1, 1, 0, 1]),
        reward=np.full(5, 9.0, np.float32),
        terminated=np.array([False, True, False, False, False]),
        truncated=np.array([False, False, False, False, True]),
        first=np.array([True, False, True, False, False]),
        last_observation=np.array([[20.0] * 4, [50.0] * 4], np.float32),
    )


# Step, and n: reward, discount and where it leads to. Rewards of 1 at a discount of 0.5: two steps
# are worth 1.5. The first episode terminates, the second is truncated and bootstraps.
TRANSITIONS = {
    (0, 1): (1.0, 1.0, 1.0),
    (1, 1): (1.0, 0.0, 20.0),
    (0, 2): (1.5, 0.0, 20.0),
    (1, 2): (1.0, 0.0, 20.0),
    (3, 2): (1.5, 0.5, 4.0),  # slot 2 is the first episode's last observation
    (5, 2): (1.0, 1.0, 50.0),
}


@pytest.mark.parametrize("steps", [1, 2])
def test_the_experts_replay_by_hand(steps: int) -> None:
    replay = expert_replay(counted(), *CARTPOLE)
    for (slot, n), (reward, discount, after) in TRANSITIONS.items():
        if n != steps:
            continue
        rows = Rows(tf.constant([slot], tf.int64), tf.constant([0], tf.int64))
        found = replay.gather(rows, n, 0.5)
        assert float(found.reward[0]) == reward, slot
        assert float(found.discount[0]) == discount, slot
        assert float(found.next_observation[0, 0]) == after, slot


def test_all_of_the_experts_steps_are_drawn_and_nothing_else() -> None:
    replay = expert_replay(counted(), *CARTPOLE)
    found = replay.gather(replay.choose(tf.constant([1, 2], tf.uint32), 500, 1), 3)
    shown = {(float(o), int(a)) for o, a in zip(found.observation[:, 0], found.action, strict=True)}
    assert shown == {(0, 0), (1, 1), (2, 1), (3, 0), (4, 1)}
    assert float(tf.reduce_min(found.mask)) == 1.0


def test_half_of_a_batch_is_the_experts_and_pays_one() -> None:
    trainer = make(demonstrations=counted(), n_step=1)
    trainer.train(24)
    key = tf.constant([3, 4], tf.uint32)
    _, batch, _ = trainer._rewarded(trainer.reward_source, key, tf.constant(0.5))
    np.testing.assert_array_equal(batch.reward, [0, 0, 0, 0, 1, 1, 1, 1])
    seen = batch.observation[4:, 0].numpy()
    assert set(seen.tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0}
    assert np.abs(batch.observation[:4].numpy()).max() < 5.0
    assert not np.all(batch.observation[:4, 0] == np.round(batch.observation[:4, 0]))


def test_the_environments_reward_reaches_no_weight() -> None:
    assert len(after_rewards_of_two_kinds(lambda env: make(environment=env))) > 15


# ---- the trainer's contract ----------------------------------------------------------------------


def test_the_contract_is_kept() -> None:
    check_trainer(lambda: make(compile="graph"), steps=32)


def test_the_contract_is_kept_by_environments_on_the_host() -> None:
    check_trainer(
        lambda: make(Gymnasium("tests.helpers.rollouts:toy/Coin-v0"), compile="graph"), steps=32
    )


def test_sac_imitates_vectors() -> None:
    trainer = make(Pendulum(max_episode_steps=15), agent=SAC, n_step=1)
    trainer.train(64)
    assert np.isfinite(trainer.scalars()["loss/critic"])


def test_xla_computes_what_eager_code_does() -> None:
    eager = make()
    xla = make(compile="xla")
    for trainer in (eager, xla):
        trainer.train(64)
    replicas.assert_same_means(eager, xla, rel=1e-3)


def test_replicas_draw_the_experts_steps_each_for_itself() -> None:
    _, two = replicas.pair(lambda: make(compile="graph", demonstrations=counted()))
    two.train(64)
    for weight in two.agent.trainable:
        ours, theirs = two.replicas.strategy.experimental_local_results(weight)
        np.testing.assert_array_equal(ours, theirs)
    source = two.reward_source
    key = tf.constant([1, 2], tf.uint32)

    def drawn() -> tf.Tensor:
        rows = two.replay.choose(key, 2, two.span, 0.0)
        batch, _ = source.batch(two.replay, rows, 1, key)
        return tf.concat([batch.reward, batch.observation[:, 0]], axis=0)

    found = two.replicas.strategy.run(drawn)
    parts = [p.numpy() for p in two.replicas.strategy.experimental_local_results(found)]
    for part in parts:
        np.testing.assert_array_equal(part[:4], [0, 0, 1, 1])
        assert set(part[6:].tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0}
    assert not np.array_equal(parts[0], parts[1])


# ---- refusals ------------------------------------------------------------------------------------


def test_an_odd_batch_cannot_be_halved() -> None:
    trainer = make(batch_size=7)
    with pytest.raises(UserError, match="share of it is 7, and SQIL halves it"):
        trainer.train(32)


def test_a_memory_is_refused() -> None:
    agent = functools.partial(DQN, memory=functools.partial(Memory, units=[4]), burn_in=1, unroll=2)
    with pytest.raises(UserError, match=r"^memory: demonstrations are learned from step by step"):
        make(agent=agent)
