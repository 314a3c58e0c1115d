"""TD3's numbers by hand, with critics and policies whose weights are set."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from sparring.agents.networks.critics import CriticEnsemble
from sparring.agents.td3 import TD3
from sparring.errors import UserError
from sparring.networks.mlp import MLP
from sparring.optim.optimizer import Scheduled
from sparring.optim.schedules import Linear
from sparring.xla import random
from tests.agents.test_sac import BOX, GOES_ON, KEY, LINEAR, NOTHING, SEEN, set_critics, transitions

START = tf.constant(0.0)


def make(learning_rate=0.0, optimizer=None, box=BOX, **settings) -> TD3:
    """Critics Q1 = s + a and Q2 = 2 s + a; a policy that acts 0, a target policy that acts
    tanh(1/2); gamma is 1/2.
    """
    scheduled = Scheduled(optimizer or tf.keras.optimizers.SGD(), learning_rate)
    agent = TD3(SEEN, box, LINEAR, scheduled, **{"discount": 0.5} | settings)
    for ensemble in (agent.critics, agent.target_critics):
        set_critics(ensemble, [[1.0, 1.0], [2.0, 1.0]])
    for weight in (*agent.policy.weights, *agent.target_policy.weights):
        weight.assign(tf.zeros_like(weight))
    agent.target_policy.head.bias.assign([0.5])
    return agent


def test_the_next_state_is_valued_by_the_target_policys_action_with_clipped_noise():
    noise = float(random.normal(random.fold(random.members(KEY, 1), 0), 1)[0, 0])
    for size, clip in ((0.0, 0.5), (0.3, 0.5), (0.3, 0.05), (9.0, 9.0)):
        agent = make(target_noise=size, target_noise_clip=clip)
        _, errors = agent.update(transitions(GOES_ON), KEY, START)
        action = np.clip(np.tanh(0.5) + np.clip(size * noise, -clip, clip), -1.0, 1.0)
        # 3 + 1/2 (4 + a') against 1.5 and 2.5
        np.testing.assert_allclose(errors, [3.0 + 0.5 * (4.0 + action) - 2.0], rtol=1e-5)


def test_the_policy_climbs_the_first_critic_by_hand():
    agent = make(1.0, policy_period=1)
    set_critics(agent.critics, [[1.0, 1.0], [1.0, -5.0]])
    # Both are right: reward 1 and no next state at s = 1, a = 0
    right = ([1.0], [0.0], 1.0, 0.0, [0.0], 1.0)
    scalars, _ = agent.update(transitions(right, NOTHING), KEY, START)
    np.testing.assert_allclose(scalars["loss/policy"][0], -1.0, rtol=1e-6)
    # d Q1 / d a = 1, tanh'(0) = 1
    np.testing.assert_allclose(agent.policy.head.bias, [1.0], rtol=1e-6)
    np.testing.assert_allclose(agent.policy.head.kernel, [[1.0]], rtol=1e-6)


@pytest.mark.parametrize("mode", ["eager", "xla"])
def test_the_policy_and_all_targets_wait_for_their_period(mode):
    agent = make(0.01, tf.keras.optimizers.Adam(), policy_period=2, target_tau=0.5)
    set_critics(agent.target_critics, [[9.0, 9.0], [9.0, 9.0]])
    update = agent.update
    if mode == "xla":
        update = tf.function(agent.update, jit_compile=True, autograph=False)
    watched = [
        agent.policy.head.bias,
        agent.target_policy.head.bias,
        agent.target_critics.critics[1].value.kernel,
        agent.critics.critics[0].value.kernel,
    ]
    moved = []
    for _ in range(4):
        before = [w.numpy() for w in watched]
        update(transitions(GOES_ON), KEY, START)
        moved.append([bool(np.any(b != w)) for b, w in zip(before, watched, strict=True)])
    waits = [False, False, False, True]
    assert moved == [waits, [True] * 4, waits, [True] * 4]


def test_targets_follow_by_tau():
    agent = make(policy_period=1, target_tau=0.25)
    agent.update(transitions(GOES_ON), KEY, START)
    np.testing.assert_allclose(agent.target_policy.head.bias, [0.5 * 0.75], rtol=1e-6)
    fresh = TD3(SEEN, BOX, functools.partial(MLP, (3,)))
    pairs = zip(fresh.policy.variables, fresh.target_policy.variables, strict=True)
    assert all(a is not b and np.array_equal(a, b) for a, b in pairs)


def test_exploration_is_normal_noise_on_scaled_actions_kept_within_the_bounds():
    count = 10_000
    keys = random.members(KEY, count)
    agent = make(exploration_noise=Linear(0.2, 0.0, 1.0))
    action = agent.act_sampled(tf.zeros([count, 1]), keys, tf.constant(0.5)).numpy()
    # Half of 0.2, times 2 for the bounds: standard error of a deviation 0.2 / sqrt(2 n)
    assert abs(action.std() - 0.2) < 5 * 0.2 / np.sqrt(2 * count)
    assert abs(action.mean()) < 5 * 0.2 / np.sqrt(count)
    np.testing.assert_array_equal(agent.act_greedy(tf.zeros([1, 1])), [[0.0]])
    wild = make(exploration_noise=50.0).act_sampled(tf.zeros([count, 1]), keys, START).numpy()
    assert (wild.min(), wild.max()) == (-2.0, 2.0)
    np.testing.assert_allclose(
        agent.update(transitions(GOES_ON), KEY, tf.constant(0.5))[0]["schedule/exploration_noise"],
        0.1,
        rtol=1e-6,
    )


def test_every_scalar_is_described():
    agent = make()
    scalars = agent.update(transitions(GOES_ON), KEY, START)[0]
    rates = {tag for tag in agent.descriptions if "learning_rate" in tag}
    assert set(scalars) == set(agent.descriptions) - rates


def test_critics_of_ones_own_choose_what_is_climbed():
    agent = make(critics=functools.partial(CriticEnsemble, policy_value="mean"), policy_period=1)
    # Q1 = 1 and Q2 = 2 at s = 1, a = 0
    scalars, _ = agent.update(transitions(GOES_ON), KEY, START)
    np.testing.assert_allclose(scalars["loss/policy"][0], -1.5, rtol=1e-6)


def test_what_it_cannot_act_in_is_refused():
    with pytest.raises(UserError, match="TD3 chooses vectors of numbers"):
        TD3(SEEN, spaces.Discrete(2))
