"""DQN's numbers by hand, with Q(s) = s: a network without hidden layers, whose kernel is set to the
identity.
"""

import functools

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from tf_agents.utils import eager_utils

from sparring.agents.dqn import DQN
from sparring.agents.munchausen import Munchausen
from sparring.agents.replay import Transitions
from sparring.errors import UserError
from sparring.networks.mlp import MLP
from sparring.optim.optimizer import Scheduled
from sparring.optim.schedules import Linear
from sparring.xla import random

START = tf.constant(0.0)
END = tf.constant(1.0)
KEY = tf.constant([1, 2], tf.uint32)  # nothing is drawn with it
OBSERVATIONS = spaces.Box(-100, 100, (2,))
IDENTITY = np.eye(2, dtype=np.float32)
OTHER = np.array([[10, 0], [0, 2]], np.float32)


def make(kind=DQN, learning_rate=0.0, optimizer=None, space=spaces.Discrete(2), **settings) -> DQN:  # noqa: B008
    """An agent with Q(s) = s, its target network likewise; gamma is 1/2 unless said otherwise."""
    scheduled = Scheduled(optimizer or tf.keras.optimizers.SGD(), learning_rate)
    agent = kind(
        OBSERVATIONS, space, functools.partial(MLP, ()), scheduled, **{"discount": 0.5} | settings
    )
    set_kernel(agent._q_network, IDENTITY)
    set_kernel(agent._target_q_network, IDENTITY)
    return agent


def set_kernel(network, kernel) -> None:
    network.trainable_weights[0].assign(kernel)
    network.trainable_weights[1].assign([0.0, 0.0])


def kernel(network) -> np.ndarray:
    return network.trainable_weights[0].numpy()


def transitions(*rows) -> Transitions:
    """From (observation, action, reward, discount, next observation, mask) each."""
    columns = [np.array(c) for c in zip(*rows, strict=True)]
    action = tf.constant(columns.pop(1), tf.int32)
    observation, reward, discount, after, mask = (tf.constant(c, tf.float32) for c in columns)
    return Transitions(observation, action, reward, discount, after, mask)


def keys(count: int, seed: int = 0) -> tf.Tensor:
    return random.members(random.stream(seed, "policy"), count)


# targets with gamma 1/2: 1 + 1/2 * 5 = 3.5 against Q = 1: error 2.5, Huber 2.5 - 0.5 = 2, squared
# 6.25
GOES_ON = ([1, 2], 0, 1.0, 1.0, [3, 5], 1)
# terminated: 1 against 0.5: error 0.5, Huber 0.125, squared 0.25, whatever comes next
TERMINATED = ([0.5, 9], 0, 1.0, 0.0, [77, 99], 1)
# three steps, gamma**2 beside the gamma of the bootstrap: 2 + 1/8 * 4 = 2.5 against 1: error 1.5,
# Huber 1, squared 2.25
THREE_STEPS = ([8, 1], 1, 2.0, 0.25, [4, 0], 1)
# from an episode's end to the next one's beginning: no transition
BOUNDARY = ([3, 3], 0, 50.0, 1.0, [60, 70], 0)


# ---- loss ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "huber", "squared", "error"),
    [
        (GOES_ON, 2.0, 6.25, 2.5),
        (TERMINATED, 0.125, 0.25, 0.5),
        (THREE_STEPS, 1.0, 2.25, 1.5),
        (BOUNDARY, 0, 0, 0),
    ],
)
def test_the_loss_of_one_transition(row, huber, squared, error):
    batch = transitions(row)
    for loss, expected in (("huber", huber), ("squared", squared)):
        result = make(loss=loss).update(batch, KEY, START)[0]
        assert float(result["loss/td"]) == pytest.approx(expected)
        assert float(result["q/td_error"]) == pytest.approx(error)


def test_a_truncated_episode_bootstraps_and_a_terminated_one_does_not():
    rows = [([1, 1], 0, 0.0, discount, [0, 8], 1) for discount in (1.0, 0.0)]
    truncated, terminated = (
        float(make().update(transitions(row), KEY, START)[0]["q/td_error"]) for row in rows
    )
    assert (truncated, terminated) == (3.0, 1.0)  # |0 + 8/2 - 1| and |0 - 1|


def test_the_loss_is_the_mean_over_the_batch_and_the_metrics_over_its_transitions():
    batch = transitions(GOES_ON, TERMINATED, THREE_STEPS, BOUNDARY)
    result, errors = make().update(batch, KEY, START)
    np.testing.assert_allclose(errors, [2.5, 0.5, 1.5, 0.0])  # nothing begins at the boundary
    assert float(result["loss/td"]) == pytest.approx((2 + 0.125 + 1) / 4)
    assert float(result["q/td_error"]) == pytest.approx((2.5 + 0.5 + 1.5) / 3)
    assert float(result["q/mean"]) == pytest.approx((1 + 0.5 + 1) / 3)
    assert float(result["q/max"]) == 1.0  # not the boundary's 3


def test_the_gradient_by_hand():
    # dL/dQ is -1 where the Huber loss is linear, and minus the error below 1; each over four of the
    # batch
    agent = make(learning_rate=1.0)
    batch = transitions(GOES_ON, TERMINATED, THREE_STEPS, BOUNDARY)
    result = agent.update(batch, KEY, START)[0]
    first = (1 * np.array([1, 2]) + 0.5 * np.array([0.5, 9])) / 4  # of action 0
    second = 1 * np.array([8, 1]) / 4  # of action 1
    np.testing.assert_allclose(
        kernel(agent._q_network), IDENTITY + np.stack([first, second], 1), rtol=1e-5
    )
    bias = np.array([1.5, 1.0]) / 4
    np.testing.assert_allclose(agent._q_network.trainable_weights[1], bias, rtol=1e-5)
    norm = np.sqrt(sum(np.sum(x**2) for x in (first, second, bias)))
    np.testing.assert_allclose(result["gradient/norm"], norm, rtol=1e-5)


def test_a_boundary_moves_nothing():
    agents = [make(learning_rate=1.0) for _ in range(2)]
    for agent, junk in zip(agents, (BOUNDARY, ([-9, 4], 1, -30.0, 1.0, [5, 5], 0)), strict=True):
        agent.update(transitions(GOES_ON, junk), KEY, START)
    for a, b in zip(*(agent.trainable for agent in agents), strict=True):
        np.testing.assert_array_equal(a, b)
    agent = make(learning_rate=1.0)
    result = agent.update(transitions(BOUNDARY, BOUNDARY), KEY, START)[0]
    np.testing.assert_array_equal(kernel(agent._q_network), IDENTITY)
    assert all(np.isfinite(float(v)) for v in result.values())


def test_next_values_are_the_targets_and_double_dqn_lets_the_online_network_choose():
    # online: Q(s') = (3, 5) chooses action 1; target: (30, 10). DQN takes 30, double DQN 10.
    errors = {}
    for double in (False, True):
        agent = make(double=double)
        set_kernel(agent._target_q_network, OTHER)
        errors[double] = float(agent.update(transitions(GOES_ON), KEY, START)[0]["q/td_error"])
    assert errors[False] == 1 + 15 - 1
    assert errors[True] == 1 + 5 - 1


def test_munchausens_value_is_soft_and_its_log_policy_is_a_reward() -> None:
    agent = make(munchausen=Munchausen(temperature=2.0, weight=0.5, lowest=-10.0))
    # Q(s) = (0, 2 log 3): the policy takes action 0 with 1/4. Q(s') = (2 log 3, 2 log 3), of the
    # soft value 2 log 6. 1 + 1/2 of 2 log(1/4), + 1/2 of 2 log 6, - 0
    three = 2 * np.log(3.0)
    row = ([0.0, three], 0, 1.0, 1.0, [three, three], 1)
    error = float(agent.update(transitions(row), KEY, START)[0]["q/td_error"])
    assert error == pytest.approx(1 + np.log(0.25) + np.log(6.0), rel=1e-5)


def test_no_gradient_passes_through_the_target():
    agent = make(learning_rate=1.0)
    agent.update(transitions(GOES_ON), KEY, START)
    np.testing.assert_array_equal(kernel(agent._target_q_network), IDENTITY)
    # only action 0, of the first observation, learned: nothing of s' = (3, 5)
    np.testing.assert_allclose(kernel(agent._q_network), [[2, 0], [2, 1]])


# ---- the target network --------------------------------------------------------------------------


def test_the_target_starts_as_a_copy_of_its_own():
    settings = {"discount": 0.5}
    scheduled = Scheduled(tf.keras.optimizers.SGD(), 0.1)
    agent = DQN(
        OBSERVATIONS, spaces.Discrete(2), functools.partial(MLP, (3,)), scheduled, **settings
    )
    online = agent._q_network.trainable_weights
    target = agent._target_q_network.trainable_weights
    for a, b in zip(online, target, strict=True):
        assert a is not b
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("mode", ["eager", "xla"])
def test_the_target_is_copied_every_period(mode):
    agent = make(learning_rate=0.01, target_period=3)
    update = (
        agent.update
        if mode == "eager"
        else tf.function(agent.update, jit_compile=True, autograph=False)
    )
    copied = []
    for _ in range(7):
        update(transitions(GOES_ON), KEY, START)
        copied.append(np.array_equal(kernel(agent._target_q_network), kernel(agent._q_network)))
    assert copied == [False, False, True, False, False, True, False]


def test_the_target_moves_by_its_share():
    agent = make(target_period=2, target_tau=0.25)
    set_kernel(agent._target_q_network, OTHER)
    agent.update(transitions(GOES_ON), KEY, START)
    np.testing.assert_array_equal(kernel(agent._target_q_network), OTHER)
    for share in (0.75, 0.75**2):  # of OTHER that is left; the online network stands still
        agent.update(transitions(GOES_ON), KEY, START)
        np.testing.assert_allclose(
            kernel(agent._target_q_network), share * OTHER + (1 - share) * IDENTITY
        )
        agent.update(transitions(GOES_ON), KEY, START)


# ---- acting --------------------------------------------------------------------------------------

COUNT = 10_000


def test_epsilon_is_the_share_of_random_actions():
    # Q(s) = s = (1, 2): greedy takes 1. With epsilon e the other one is taken with probability e/2.
    seen = tf.tile([[1.0, 2.0]], [COUNT, 1])
    for epsilon, progress, expected in (
        (0.0, 0.0, 0.0),
        (1.0, 0.0, 0.5),
        (0.3, 1.0, 0.15),
        (Linear(1.0, 0.1, 0.5), 0.25, 0.275),  # halfway: (1 + 0.1) / 2 / 2
        (Linear(1.0, 0.1, 0.5), 1.0, 0.05),
    ):
        other = (
            1 - make(epsilon=epsilon).act_sampled(seen, keys(COUNT), tf.constant(progress)).numpy()
        )
        bound = 5 * np.sqrt(expected * (1 - expected) / COUNT)  # five standard errors
        assert abs(other.mean() - expected) <= bound
        result = make(epsilon=epsilon).update(transitions(GOES_ON), KEY, tf.constant(progress))[0]
        np.testing.assert_allclose(result["schedule/epsilon"], 2 * expected, rtol=1e-6)


def test_boltzmann_exploration_draws_by_the_values() -> None:
    # Q(s) = s = (0, 2 log 3), at a temperature of 2: softmax(0, log 3) takes 1 with 3/4; at one of
    # 4, with sqrt(3) / (1 + sqrt(3)). With epsilon 1/2 half of the actions are uniform instead
    seen = tf.tile([[0.0, 2 * np.log(3.0)]], [COUNT, 1])
    hot = 3**0.5 / (1 + 3**0.5)
    for boltzmann, epsilon, expected in (
        (2.0, 0.0, 0.75),
        (Linear(2.0, 6.0), 0.0, hot),
        (2.0, 0.5, 0.625),
    ):
        agent = make(epsilon=epsilon, boltzmann=boltzmann)
        taken = agent.act_sampled(seen, keys(COUNT), tf.constant(0.5)).numpy().mean()
        assert abs(taken - expected) <= 5 * np.sqrt(expected * (1 - expected) / COUNT)
        told = agent.update(transitions(GOES_ON), KEY, tf.constant(0.5))[0]["schedule/boltzmann"]
        assert float(told) == (4.0 if callable(boltzmann) else boltzmann)
        assert "schedule/boltzmann" in agent.descriptions


def test_random_actions_are_uniform_and_greedy_ones_the_best():
    agent = make()
    counts = np.bincount(agent.act_random(tf.zeros([COUNT, 2]), keys(COUNT)), minlength=2)
    assert abs(counts[0] / COUNT - 0.5) < 5 * 0.5 * COUNT**-0.5
    seen = tf.constant([[1.0, 2.0], [2.0, 1.0], [-1.0, -2.0]])
    assert agent.act_greedy(seen).numpy().tolist() == [1, 0, 0]
    assert agent.act_greedy(seen).dtype == agent.act_sampled(seen, keys(3), START).dtype == tf.int32


def test_members_explore_by_their_own_keys():
    agent = make(epsilon=0.5)
    seen = tf.tile([[1.0, 2.0]], [50, 1])
    together = agent.act_sampled(seen, keys(50), START).numpy()
    np.testing.assert_array_equal(together, agent.act_sampled(seen, keys(50), START))
    for first in (0, 7, 49):
        alone = agent.act_sampled(seen[:1], keys(50)[first : first + 1], START)
        assert int(alone[0]) == together[first]
    assert np.any(together != agent.act_sampled(seen, keys(50, seed=1), START))


# ---- the optimizer, compiling, changing ----------------------------------------------------------


def test_the_gradient_is_clipped_as_a_whole_where_stock_clips_each_variable():
    agent = make(learning_rate=1.0, optimizer=tf.keras.optimizers.SGD(global_clipnorm=0.5))
    # one transition, a linear loss: the gradient is (-1, -2) in the kernel and -1 in the bias, of
    # norm sqrt(6)
    result = agent.update(transitions(GOES_ON), KEY, START)[0]
    np.testing.assert_allclose(result["gradient/norm"], 6**0.5, rtol=1e-5)
    np.testing.assert_allclose(result["gradient/update_norm"], 0.5, rtol=1e-5)
    np.testing.assert_allclose(
        kernel(agent._q_network)[:, 0] - [1, 0], 0.5 * np.array([1, 2]) / 6**0.5, rtol=1e-5
    )
    gradients = [tf.constant([-1.0, -2.0]), tf.constant([-1.0])]
    stock = eager_utils.clip_gradient_norms([(g, None) for g in gradients], 0.5)
    # the mending: kernel and bias each shrink to 0.5, which turns the step and makes it sqrt(2)
    # times as long
    np.testing.assert_allclose(
        tf.linalg.global_norm([g for g, _ in stock]), 0.5 * 2**0.5, rtol=1e-5
    )


def test_eager_graph_and_xla_learn_the_same():
    batch = transitions(GOES_ON, TERMINATED, THREE_STEPS, BOUNDARY)
    learned = []
    for jit in (None, False, True):
        agent = make(
            DQN, 0.01, tf.keras.optimizers.Adam(global_clipnorm=1.0), target_period=2, double=True
        )
        update = (
            agent.update
            if jit is None
            else tf.function(agent.update, jit_compile=jit, autograph=False)
        )
        results = [update(batch, KEY, tf.constant(p)) for p in (0.0, 0.5, 1.0)]
        scalars, errors = results[-1]
        found = [*agent.trainable, *scalars.values(), errors]
        learned.append([np.asarray(value) for value in found])
    for other in learned[1:]:
        for a, b in zip(learned[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("jit", [False, True])
def test_a_subclass_changes_one_hook(jit):
    class Optimist(DQN):
        def _compute_next_q_values(self, next_time_steps, info):
            return tf.fill(tf.shape(next_time_steps.reward), 100.0)

    class Absolute(DQN):
        def _td_loss(self, q_values, next_q_values, rewards, discounts):
            error = rewards + discounts * next_q_values - q_values
            return 10.0 * tf.abs(error), error

    # Huber of an error of 50; 10 * 2.5
    for kind, expected in ((Optimist, 1 + 50 - 1 - 0.5), (Absolute, 25.0)):
        agent = make(kind)
        update = tf.function(agent.update, jit_compile=jit, autograph=False)
        assert float(update(transitions(GOES_ON), KEY, START)[0]["loss/td"]) == pytest.approx(
            expected
        )


def test_a_subclass_may_compute_its_own_values():
    class Halved(DQN):
        def _compute_q_values(self, time_steps, actions, training=False):
            values, _ = self._q_network(time_steps.observation)
            return tf.gather(values, actions, batch_dims=1) / 2.0

    result = make(Halved, loss="squared").update(transitions(GOES_ON), KEY, START)[0]
    assert float(result["loss/td"]) == 9.0  # 3.5 - 0.5
    assert "q/mean" not in result  # left out, since it was not given


def test_every_scalar_is_described():
    agent = make()
    assert set(agent.update(transitions(GOES_ON), KEY, START)[0]) == set(agent.descriptions) - {
        "schedule/learning_rate"
    }


@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (2,)), spaces.MultiDiscrete([2, 3])])
def test_action_spaces_it_cannot_act_in_are_refused(space):
    with pytest.raises(
        UserError, match=r"action space is .*: use agent=ppo, or an environment with a Discrete"
    ):
        make(space=space)


def test_an_unknown_loss_is_refused():
    with pytest.raises(UserError, match=r"agent.loss=hubber: choose one of huber, squared"):
        make(loss="hubber")


def test_the_defaults_are_the_papers_where_stock_looks_ahead_forever_and_copies_every_step():
    scheduled = Scheduled(tf.keras.optimizers.SGD(), 0.0)
    agent = DQN(OBSERVATIONS, spaces.Discrete(2), functools.partial(MLP, ()), scheduled)
    set_kernel(agent._q_network, IDENTITY)
    set_kernel(agent._target_q_network, OTHER)
    # Q(s') = (30, 10): 1 + 0.99 * 30 - 1; the target network stays where it is
    np.testing.assert_allclose(
        agent.update(transitions(GOES_ON), KEY, START)[0]["q/td_error"], 29.7, rtol=1e-6
    )
    np.testing.assert_array_equal(kernel(agent._target_q_network), OTHER)


def test_layers_that_the_target_would_share_are_refused():
    same = tf.keras.layers.Dense(4)
    with pytest.raises(UserError, match="the target network would be the online one"):
        DQN(spaces.Box(-1, 1, (3,)), spaces.Discrete(2), lambda: same)
