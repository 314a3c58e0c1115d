"""C51, QR-DQN and IQN by hand: networks without hidden layers, all of whose numbers are set."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from tf_agents.agents.categorical_dqn.categorical_dqn_agent import project_distribution

from sparring.agents.c51 import C51, projected
from sparring.agents.conformance import check_agent
from sparring.agents.dqn import DQN
from sparring.agents.iqn import IQN
from sparring.agents.munchausen import Munchausen
from sparring.agents.networks.q_heads import DuelingHead
from sparring.agents.qr_dqn import QRDQN, quantile_loss
from sparring.agents.replay import Transitions
from sparring.errors import UserError
from sparring.networks.mlp import MLP
from sparring.optim.optimizer import Scheduled
from sparring.xla import random

SEEN = spaces.Box(-100, 100, (1,))
KEY = tf.constant([1, 2], tf.uint32)
HALF = tf.constant(0.5)
ACTIONS = spaces.Discrete(2)


def make(kind, **settings):
    """An agent whose outputs at an observation s are s times a kernel; gamma is 1/2."""
    scheduled = Scheduled(tf.keras.optimizers.SGD(), 0.0)
    return kind(SEEN, ACTIONS, functools.partial(MLP, ()), scheduled, discount=0.5, **settings)


def set_outputs(network, outputs) -> None:
    """Have a network give `outputs` [A, N] at the observation 1, and multiples elsewhere."""
    kernel, bias = network.trainable_weights
    kernel.assign(np.reshape(outputs, [1, -1]))
    bias.assign(tf.zeros_like(bias))


def one(reward=0.0, discount=1.0, weight=1.0, action=0) -> Transitions:
    """A transition from the observation 1 to the observation 1."""
    columns = [[[1.0]], [action], [reward], [discount], [[1.0]], [weight]]
    observation, taken, *rest = (np.array(c) for c in columns)
    reward, discount, after, weight = (tf.constant(c, tf.float32) for c in rest)
    return Transitions(
        tf.constant(observation, tf.float32),
        tf.constant(taken, tf.int32),
        reward,
        discount,
        after,
        weight,
    )


# ---- C51 -----------------------------------------------------------------------------------------


def test_a_projection_is_shared_by_neighbours_and_what_is_beyond_is_moved_to_the_ends() -> None:
    support = tf.constant([-1.0, 0.0, 1.0])
    values = tf.constant([[-5.0, 0.25, 1.0], [0.0, 0.5, 9.0]])
    shares = tf.constant([[0.2, 0.4, 0.4], [0.5, 0.25, 0.25]])
    # -5 is moved to -1; 0.25 gives 0 three quarters of 0.4, and 1 one; 0.5 one half to each
    expected = [[0.2, 0.3, 0.5], [0.0, 0.625, 0.375]]
    np.testing.assert_allclose(projected(values, shares, support), expected, atol=1e-6)
    stock = project_distribution(values, shares, support)
    np.testing.assert_allclose(projected(values, shares, support), stock, atol=1e-6)


C51_SETTINGS = {"atoms": 3, "lowest": -1.0, "highest": 1.0}
# Of action 0 the masses (1/4, 1/2, 1/4), of mean 0; of action 1 (1/8, 1/8, 3/4), of mean 5/8
LOGITS = np.log([[0.25, 0.5, 0.25], [0.125, 0.125, 0.75]])


@pytest.mark.parametrize(("reward", "discount", "wanted", "beyond"), [
    # 1/2 times the support, in the masses of the better action 1: -1/2, 0 and 1/2 are half way
    (0.0, 1.0, [0.0625, 0.5625, 0.375], 0.0),
    # a quarter more: -1/4, 1/4 and 3/4
    (0.25, 1.0, [0.03125, 0.375, 0.59375], 0.0),
    # after a termination all is at the reward
    (0.25, 0.0, [0.0, 0.75, 0.25], 0.0),
    # up to 1.25 at the third atom, which is beyond the support
    (0.75, 1.0, [0.0, 0.125 * 0.75 + 0.125 * 0.25, 0.125 * 0.25 + 0.125 * 0.75 + 0.75], 0.75),
    # three steps, gamma ** 2 beside the gamma of the bootstrap: an eighth of the support
    (0.0, 0.25, [0.125 / 8, 0.125 * 7 / 8 + 0.125 + 0.75 * 7 / 8, 0.75 / 8], 0.0),
])  # fmt: skip
def test_the_loss_of_c51(reward, discount, wanted, beyond) -> None:
    agent = make(C51, **C51_SETTINGS)
    for network in (agent._q_network, agent._target_q_network):
        set_outputs(network, LOGITS)
    scalars, errors = agent.update(one(reward, discount), KEY, HALF)
    entropy = -np.sum(wanted * np.log([0.25, 0.5, 0.25]))
    assert float(scalars["loss/td"]) == pytest.approx(entropy, rel=1e-5)
    own = -sum(p * np.log(p) for p in wanted if p > 0)
    np.testing.assert_allclose(errors, [entropy - own], rtol=1e-4)
    mean = np.dot(wanted, [-1, 0, 1])
    assert float(scalars["q/td_error"]) == pytest.approx(abs(mean), abs=1e-6)
    assert float(scalars["q/beyond_support"]) == pytest.approx(beyond)
    assert float(scalars["q/mean"]) == pytest.approx(0.0, abs=1e-6)


def test_a_double_agent_takes_the_distribution_of_the_action_that_the_online_network_prefers():
    losses = {}
    for double in (False, True):
        agent = make(C51, double=double, **C51_SETTINGS)
        set_outputs(agent._q_network, LOGITS[::-1])  # prefers action 0
        set_outputs(agent._target_q_network, LOGITS)  # prefers action 1
        losses[double] = float(agent.update(one(), KEY, HALF)[0]["loss/td"])
    taken = np.log([0.125, 0.125, 0.75])  # the online network's of action 0
    assert losses[False] == pytest.approx(-np.dot([0.0625, 0.5625, 0.375], taken), rel=1e-5)
    # 1/4, 1/2 and 1/4 at -1/2, 0 and 1/2
    assert losses[True] == pytest.approx(-np.dot([0.125, 0.75, 0.125], taken), rel=1e-5)


@pytest.mark.parametrize("kind", [functools.partial(C51, **C51_SETTINGS), QRDQN, IQN, DQN])
def test_a_transition_weighs_in_the_loss_and_not_in_its_error(kind) -> None:
    agent = make(kind)
    whole, errors = agent.update(one(reward=0.5), KEY, HALF)
    light, same = agent.update(one(reward=0.5, weight=0.25), KEY, HALF)
    np.testing.assert_allclose(light["loss/td"], 0.25 * whole["loss/td"], rtol=1e-6)
    np.testing.assert_allclose(errors, same, rtol=1e-6)
    for tag in ("q/td_error", "q/mean", "q/max"):
        np.testing.assert_allclose(light[tag], whole[tag], rtol=1e-6)
    none, nothing = agent.update(one(reward=0.5, weight=0.0), KEY, HALF)
    assert float(none["loss/td"]) == float(nothing[0]) == 0.0


# ---- quantiles -----------------------------------------------------------------------------------


def test_the_loss_of_pairs_of_quantiles() -> None:
    # Quantiles 0 and 2 at the levels 1/4 and 3/4, for samples 1 and 4. Errors of 0: 1 and 4, Huber
    # 0.5 and 3.5, above it, so each a quarter: mean 0.5. Of 2: -1, below it, |3/4 - 1| of 0.5, and
    # 2, 3/4 of 1.5: mean (0.125 + 1.125) / 2 = 0.625
    huber = make(QRDQN)._td_errors_loss_fn
    levels = tf.constant([[0.25, 0.75]])
    found = quantile_loss(tf.constant([[1.0, 4.0]]), tf.constant([[0.0, 2.0]]), levels, huber)
    np.testing.assert_allclose(found, [0.5 + 0.625])


def test_the_loss_of_qr_dqn_and_the_mean_of_its_quantiles() -> None:
    agent = make(QRDQN, quantiles=2, loss="squared")
    for network in (agent._q_network, agent._target_q_network):
        set_outputs(network, [[0.0, 2.0], [2.0, 6.0]])  # means 1 and 4
    np.testing.assert_allclose(agent.q_values(tf.constant([[1.0]])), [[1.0, 4.0]])
    scalars, errors = agent.update(one(reward=1.0), KEY, HALF)
    # Samples 1 + 1/2 of 2 and 6: 2 and 4. Of quantile 0, a quarter of 4 and 16: mean 2.5; of
    # quantile 2, 3/4 of 0 and 4: mean 1.5
    assert float(scalars["loss/td"]) == pytest.approx(4.0)
    np.testing.assert_allclose(errors, [3.0 - 1.0])
    scalars, errors = agent.update(one(reward=1.0, discount=0.0), KEY, HALF)
    # Terminated: both samples 1. A quarter of 1, and |3/4 - 1| of 1
    assert float(scalars["loss/td"]) == pytest.approx(0.5)


def test_quantile_regression_finds_the_quantiles() -> None:
    rng = np.random.default_rng(0)
    samples = tf.constant(rng.exponential(size=[1, 4000]), tf.float32)
    levels = tf.constant([[0.1, 0.5, 0.9]])
    found = tf.Variable([[0.0, 0.0, 0.0]])
    absolute = lambda a, b: tf.abs(a - b)  # noqa: E731
    for _ in range(400):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(quantile_loss(samples, found, levels, absolute))
        found.assign_sub(0.05 * tape.gradient(loss, found))
    # Of an exponential law: -log(1 - level)
    np.testing.assert_allclose(found[0], -np.log(1 - levels[0]), atol=0.12)


def test_iqn_multiplies_features_by_the_embedding_of_a_level() -> None:
    agent = make(IQN, cosines=2, acting_quantiles=2)
    head = agent._q_network._head
    head.embedding.kernel.assign([[1.0], [3.0]])
    head.embedding.bias.assign([0.5])
    head.values.kernel.assign([[1.0, 2.0]])
    head.values.bias.assign([0.0, 1.0])
    # Level 1/4: cos(pi / 4) + 3 cos(pi / 2) + 0.5 = 1.2071; level 1/2: 0 - 3 + 0.5, rectified to 0
    features = tf.constant([[2.0]])
    found = head.at(features, tf.constant([[0.25, 0.5]]))
    at = 0.5 + 0.5**0.5
    np.testing.assert_allclose(found, [[[2 * at, 0.0], [4 * at + 1, 1.0]]], rtol=1e-5)
    # Acting, at 1/4 and 3/4: -cos(pi / 4) + 0.5, rectified to 0
    np.testing.assert_allclose(agent.q_values(tf.constant([[2.0]])), [[at, 2 * at + 1]], rtol=1e-5)


def test_iqn_draws_levels_for_each_transition_and_network() -> None:
    agent = make(IQN, quantiles=3, next_quantiles=4)
    with agent._drawing(KEY):
        quantiles, levels = agent.now(tf.ones([5, 1]))
        after, _ = agent.after(tf.ones([5, 1]))
    assert quantiles.shape == (5, 2, 3)
    assert after.shape == (5, 2, 4)
    assert len(np.unique(levels)) == 15
    keys = random.members(random.fold(KEY, 2), 5)
    np.testing.assert_array_equal(levels, random.uniform(keys, 3))


# ---- parts together ------------------------------------------------------------------------------

NOISY = functools.partial(DuelingHead, units=(4,), std=0.5)
TOGETHER = {
    "rainbow": functools.partial(C51, double=True, head=NOISY, epsilon=0.0),
    "qr_dqn": functools.partial(QRDQN, head=NOISY, munchausen=Munchausen()),
    "iqn": functools.partial(IQN, head=DuelingHead, double=True, boltzmann=0.5),
}
MASKED = spaces.Dict(
    observation=spaces.Box(-1, 1, (3,)), action_mask=spaces.Box(0, 1, (3,), np.uint8)
)


@pytest.mark.long
@pytest.mark.parametrize("name", TOGETHER)
def test_agents_of_several_parts_keep_the_contract_with_masks(name: str) -> None:
    make = functools.partial(TOGETHER[name], network=functools.partial(MLP, (4,)))
    check_agent(make, MASKED, spaces.Discrete(3))


def test_what_cannot_be_together_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"agent.munchausen: .* use agent=dqn, qr_dqn or iqn"):
        make(C51, munchausen=Munchausen())
    with pytest.raises(UserError, match=r"set agent.double=false"):
        make(DQN, double=True, munchausen=Munchausen())
    with pytest.raises(UserError, match=r"agent.loss=huber: C51 learns a distribution"):
        make(C51, loss="huber")
    with pytest.raises(UserError, match=r"agent.lowest=1 agent.highest=1: the first must be below"):
        make(C51, lowest=1, highest=1)
