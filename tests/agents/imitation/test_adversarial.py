"""GAIL and AIRL inside of the trainer: what learns from what, and that it goes on exactly."""

import functools
import logging
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from sparring.agents.imitation import rewards
from sparring.agents.imitation.adversarial import AIRL, GAIL
from sparring.agents.imitation.encoding import Encoder
from sparring.agents.networks.recurrent import Memory
from sparring.agents.ppo import PPO
from sparring.agents.training.rollout import Rollout
from sparring.envs.compiled.classic_control import Pendulum
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.errors import UserError
from sparring.gans.losses import NonSaturating, RelativisticPairing
from sparring.gans.networks.mlp import MLPDiscriminator
from sparring.storage import variable_names
from sparring.training.conformance import check_trainer
from sparring.xla import random
from tests.helpers import replicas
from tests.helpers.demonstrations import CARTPOLE, made_up
from tests.helpers.small_imitation import Paid, Seen, make, reward_source

pytestmark = pytest.mark.long


def state(trainer: Any) -> dict[str, np.ndarray]:
    return {
        name: v.numpy() for name, v in variable_names.named_variables(trainer.checkpoint).items()
    }


# ---- what learns from what -----------------------------------------------------------------------


def test_the_environments_reward_reaches_no_weight() -> None:
    plain = make()
    paid = make(environment=Paid())
    for trainer in (plain, paid):
        trainer.train(64)
    ours = state(plain)
    theirs = state(paid)
    counted = ("means", "episodes")
    assert len(ours) > 20
    for name in ours:
        if not name.startswith(counted):
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    assert paid.peek()["rollout/episode_return"] > 100.0 * plain.peek()["rollout/episode_return"]


def test_demonstrated_rewards_reach_no_weight_and_demonstrated_actions_do() -> None:
    found = {}
    whole = made_up(*CARTPOLE)
    others = {
        "plain": {},
        "reward": {"reward": whole.reward * 7.0},
        "action": {"action": 1 - whole.action},
    }
    for name, changes in others.items():
        trainer = make(demonstrations=type(whole)(**{**vars(whole), **changes}))
        trainer.train(64)
        found[name] = state(trainer)
    same = [np.array_equal(v, found["reward"][k]) for k, v in found["plain"].items()]
    assert all(same)
    names = [k for k in found["plain"] if k.startswith("reward_source/discriminator/")]
    assert any(not np.array_equal(found["plain"][k], found["action"][k]) for k in names)


def rollout(first: list[bool]) -> Rollout:
    """Return three steps of one environment, whose observations count from 0."""
    seen = np.arange(16, dtype=np.float32).reshape(4, 1, 4)
    no = tf.zeros([3, 1], tf.bool)
    return Rollout(
        tf.constant(seen),
        tf.constant([[1], [0], [1]], tf.int32),
        tf.ones([3, 1]),
        tf.constant([[False], [False], [True]]),
        no,
        tf.constant(first)[:, tf.newaxis],
        {"log_prob": tf.constant([[-0.1], [-0.2], [-0.3]])},
    )


def source(kind: Any = GAIL, **settings: Any) -> Any:
    tf.keras.utils.set_random_seed(0)
    agent = PPO(*CARTPOLE, normalize_observations=False)
    demonstrations = settings.pop("demonstrations", made_up(*CARTPOLE))
    made = reward_source(kind, demonstrations, **settings)
    return made(agent=agent, observation_space=CARTPOLE[0], action_space=CARTPOLE[1], seed=0)


def test_resets_are_shown_to_nobody_and_paid_nothing() -> None:
    gail = source(normalize=False, batch_size=64)
    gail.discriminator = Seen()
    whole = rollout([False, True, False])
    taken = gail.take_up(whole)
    gail.update(taken, tf.constant(0, tf.int64), tf.constant(0.0))
    # The steps at 0 and at 8, with the one-hots of their actions 1 and 1; the step at 4 is a reset
    shown = {tuple(row) for row in gail.discriminator.fake.tolist()}
    assert shown == {(0, 1, 2, 3, 0, 1), (8, 9, 10, 11, 0, 1)}
    assert gail.discriminator.real.shape == (64, 6)
    reward, scalars = gail.rewards(whole, taken, tf.constant(0, tf.int64))
    # softplus of the logits 0 and 8; nothing for the reset
    np.testing.assert_allclose(reward[:, 0], [np.log(2.0), 0.0, np.log1p(np.exp(8.0))], rtol=1e-6)
    assert float(scalars["imitation/reward"]) == pytest.approx(
        (np.log(2) + 8.0003354) / 2, rel=1e-5
    )
    # None of both logits is below 0
    assert float(scalars["discriminator/policy_accuracy"]) == 0.0


def test_airl_is_shown_the_next_observation_the_end_and_the_log_probability() -> None:
    airl = source(AIRL, normalize=False, batch_size=64)
    airl.discriminator = Seen()
    taken = airl.take_up(rollout([False, True, False]))
    airl.update(taken, tf.constant(0, tf.int64), tf.constant(0.0))
    shown = {tuple(np.round(row, 4)) for row in airl.discriminator.fake.tolist()}
    assert shown == {
        (0, 1, 2, 3, 0, 1, 4, 5, 6, 7, 0, -0.1),
        (8, 9, 10, 11, 0, 1, 12, 13, 14, 15, 1, -0.3),
    }
    # Of the expert: the policy as it is
    row = airl.discriminator.real[:1]
    seen = tf.constant(row[:, :4])
    log_prob = airl.agent.log_probability(seen, tf.constant(row[:, 5].astype(np.int32)))
    np.testing.assert_allclose(row[:, -1], log_prob, rtol=1e-5)


def test_batches_are_of_keys() -> None:
    found = []
    for number in (0, 0, 1):
        gail = source(batch_size=64)
        gail.discriminator = Seen()
        taken = gail.take_up(rollout([False, False, False]))
        gail.update(taken, tf.constant(number, tf.int64), tf.constant(0.0))
        found.append(gail.discriminator.real)
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


class Margin:
    """A loss of a user's own: squared distance to 2 and to -2."""

    relativistic = False

    def discriminator(self, real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
        return tf.square(real - 2.0) + tf.square(fake + 2.0)

    def generator(self, fake: tf.Tensor, real: Any) -> tf.Tensor:
        return -fake


class Small:
    """A penalty of a user's own: the squared logit at real examples."""

    def __call__(self, critic: Any, real: Any, fake: Any, keys: Any, progress: Any) -> tf.Tensor:
        return 0.01 * tf.square(critic(real))


def test_a_users_own_loss_penalty_and_reward_work_unedited() -> None:
    trainer = make(loss=Margin(), penalties={"small": Small()}, form=lambda logits: 3.0 * logits)
    trainer.train(256)
    values = trainer.scalars()
    assert values["penalty/small"] > 0.0
    assert values["loss/discriminator"] < 8.0  # of logits 0: 2^2 + 2^2
    assert values["imitation/reward"] < values["imitation/expert_reward"]


# ---- the trainer's contract ----------------------------------------------------------------------

KINDS = {
    "airl": {"kind": AIRL, "form": rewards.logit, "penalties": {}},
    "spectral": {
        "network": functools.partial(MLPDiscriminator, units=[8], normalization="spectral"),
        "form": rewards.negative,
    },
}


@pytest.mark.parametrize("name", KINDS)
def test_the_contract_is_kept(name: str) -> None:
    check_trainer(lambda: make(**KINDS[name]), steps=64)


def test_the_contract_is_kept_by_environments_on_the_host() -> None:
    def made() -> Any:
        environment = Gymnasium("tests.helpers.rollouts:toy/Coin-v0")
        return make(environment=environment)

    check_trainer(made, steps=64)


def test_xla_computes_what_eager_code_does() -> None:
    eager = make(kind=AIRL)
    xla = make(kind=AIRL, compile="xla")
    for trainer in (eager, xla):
        trainer.train(64)
    replicas.assert_same_means(eager, xla, rel=1e-3)


def test_two_replicas_are_one() -> None:
    one, two = replicas.pair(lambda: make(kind=AIRL, compile="graph"))
    for trainer in (one, two):
        trainer.train(128)
    replicas.assert_alike(one, two, atol=1e-5)
    replicas.assert_in_agreement(two)
    replicas.assert_same_means(one, two)


def test_other_demonstrations_are_told_of() -> None:
    trainer = make()
    before = {"reward_source": trainer.reward_source.fingerprint}
    assert trainer.check_state(before) == []
    other = make(demonstrations=made_up(*CARTPOLE, episodes=6))
    assert (
        "demonstrations, or the run that the reward is of, are others"
        in other.check_state(before)[0]
    )


# ---- evaluation and warnings ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("random_return", "value", "share"),
    [(None, 3.0, 0.5), (2.0, 3.0, 0.25), (2.0, 2.0, 0.0), (6.0, 7.0, None)],
)
def test_the_share_of_the_experts_return(
    random_return: float | None, value: float, share: float | None
) -> None:
    # Its episodes have six steps of a reward of one
    shown = source(demonstrations=made_up(*CARTPOLE, random_return=random_return))
    assert shown.expert.share(value) == share


def test_an_evaluation_has_the_share_and_a_histogram_of_rewards() -> None:
    trainer = make()
    trainer.train(32)
    found = trainer.evaluate(episodes=2)
    assert found.scalars["imitation/expert_share"] == pytest.approx(
        found.scalars["eval/episode_return"] / 6.0
    )
    assert found.histograms["imitation/rewards"].shape == (256,)
    assert found.histograms["imitation/rewards"].min() > 0.0  # -log(1 - D)


def test_a_saturated_discriminator_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    gail = source()
    with caplog.at_level(logging.WARNING, "sparring"):
        for _ in range(19):
            gail.watch({"discriminator/accuracy": 1.0}, 7)
        assert caplog.text == ""
        gail.watch({"discriminator/accuracy": 0.5}, 7)
        for _ in range(40):
            gail.watch({"discriminator/accuracy": 0.995}, 8)
    assert caplog.text.count("ordered 99.5% of pairs right for 20 points") == 1
    assert "Try penalty=r1" in caplog.text


def test_a_relativistic_loss_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    for loss, told in ((NonSaturating(), 0), (RelativisticPairing(), 1)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "sparring"):
            make(loss=loss)
        assert sum("level of the logits open" in r.getMessage() for r in caplog.records) == told


def test_agents_that_cannot_imitate_are_refused() -> None:
    made = reward_source(GAIL, made_up(*CARTPOLE))
    given = {"observation_space": CARTPOLE[0], "action_space": CARTPOLE[1], "seed": 0}
    with pytest.raises(UserError, match=r"^memory: demonstrations are learned from step by step"):
        made(agent=PPO(*CARTPOLE, memory=functools.partial(Memory, units=[4])), **given)
    with pytest.raises(UserError, match="lacks log_probability, take_up, which sparring"):
        made(agent=object(), **given)


# ---- encoding ------------------------------------------------------------------------------------


def test_actions_are_one_hots_or_scaled() -> None:
    seen = CARTPOLE[0]
    several = Encoder(seen, spaces.MultiDiscrete([2, 3]))
    np.testing.assert_array_equal(several.action(tf.constant([[1, 2]])), [[0, 1, 0, 0, 1]])
    assert several.action_width == 5
    pendulum = Encoder(Pendulum.observation_space, Pendulum.action_space)
    # Torques from -2 to 2; one of 7 acts as 2
    np.testing.assert_array_equal(pendulum.action(tf.constant([[1.0], [7.0]])), [[0.5], [1.0]])


def test_parts_are_joined_and_bytes_scaled() -> None:
    space = spaces.Dict(
        {
            "a": spaces.Box(0, 10, (2,), np.uint8),
            "action_mask": spaces.Box(0, 1, (2,), np.uint8),
            "b": spaces.Box(-1, 1, (1, 2), np.float32),
        }
    )
    encoder = Encoder(space, spaces.Discrete(2))
    seen = {
        "a": tf.constant([[5, 10]], tf.uint8),
        "action_mask": tf.constant([[0, 1]], tf.uint8),
        "b": tf.constant([[[0.25, -3.0]]]),
    }
    np.testing.assert_array_equal(encoder.observation(seen), [[0.5, 1.0, 0.25, -3.0]])
    assert encoder.observation_width == 4


def test_keys_of_members_do_not_hang_on_the_batch() -> None:
    key = random.stream(0, "imitation expert")
    whole = random.members(key, 8)
    np.testing.assert_array_equal(random.members(key, 4, 4), whole[4:])
