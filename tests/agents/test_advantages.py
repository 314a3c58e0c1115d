"""GAE by hand and against a plain loop, and beside stock TF-Agents where that is wrong."""

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from tf_agents.agents.ppo import ppo_agent, ppo_clip_agent
from tf_agents.trajectories import time_step as ts

from sparring.agents.advantages import normalize_advantages
from sparring.agents.ppo import PPO
from sparring.networks.mlp import MLP
from sparring.optim.optimizer import Scheduled


def make(**settings) -> PPO:
    optimizer = Scheduled(tf.keras.optimizers.SGD(), 0.0)
    return PPO(spaces.Box(-1, 1, (1,)), spaces.Discrete(2), lambda: MLP(()), optimizer, **settings)


# Two environments, five steps. The first terminates at step 1, the second is truncated at step 2;
# the step after an end is the reset. values[:, t] is of the observation that step t acts on, so at
# an end values[:, t + 1] is of the final observation; values[:, 5] is of the last state reached.
REWARDS = tf.constant([[1.0, 3.0, 0.0, 8.0, 16.0], [1.0, 1.0, 1.0, 0.0, 2.0]])
VALUES = tf.constant([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.0, 1.0, 2.0, 3.0, 4.0, 8.0]])
NEXT = ts.TimeStep(
    step_type=tf.constant([[1, 2, 1, 1, 1], [1, 1, 2, 1, 1]]),
    reward=REWARDS,
    discount=tf.constant([[1.0, 0.0, 1.0, 1.0, 1.0], [1.0] * 5]),
    observation=(),
)
# With discount 1/2 and lambda 1/2, delta = r + V'/2 - V and A = delta + A'/4, backwards:
ADVANTAGES = [
    # t=4: 16 + 3 - 5 = 14;  t=3: 8 + 2.5 - 4 + 14/4 = 10;  t=2 (reset): 0 + 2 - 3 + 10/4 = 1.5;
    # t=1 (terminated): 3 - 2 = 1;  t=0: 1 + 1 - 1 + 1/4 = 1.25
    [1.25, 1.0, 1.5, 10.0, 14.0],
    # t=4: 2 + 4 - 4 = 2;  t=3 (reset): 0 + 2 - 3 + 2/4 = -0.5;  t=2 (truncated): 1 + 3/2 - 2 = 0.5,
    # nothing beyond; t=1: 1 + 1 - 1 + 0.5/4 = 1.125;  t=0: 1 + 0.5 - 0 + 1.125/4 = 1.78125
    [1.78125, 1.125, 0.5, -0.5, 2.0],
]


@pytest.mark.parametrize("mode", ["eager", "xla"])
def test_advantages_by_hand(mode):
    agent = make(discount=0.5, gae_lambda=0.5)
    compute = agent.compute_return_and_advantage
    if mode == "xla":
        compute = tf.function(compute, jit_compile=True, autograph=False)
    returns, advantages = compute(NEXT, VALUES)
    np.testing.assert_allclose(advantages, ADVANTAGES, rtol=1e-6)
    np.testing.assert_allclose(returns, ADVANTAGES + VALUES[:, :-1], rtol=1e-6)


def test_stock_advantages_are_wrong_in_the_last_bootstrap_and_at_the_truncation():
    agent = make(discount=0.5, gae_lambda=0.5)
    _, stock = ppo_clip_agent.PPOClipAgent.compute_return_and_advantage(agent, NEXT, VALUES)
    # the last step bootstraps from its own state's value: 16 + 5/2 - 5 = 13.5 and 2 + 4/2 - 4 = 0;
    # the truncation is taken for a termination: 1 - 2 = -1. Before each the error goes on, by
    # quarters.
    np.testing.assert_allclose(stock[0], [1.25, 1.0, 1.46875, 9.875, 13.5], rtol=1e-6)
    np.testing.assert_allclose(stock[1], [1.6875, 0.75, -1.0, -1.0, 0.0], rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_advantages_are_those_of_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    batch = 4
    steps = 30
    discount = 0.97
    lam = 0.9
    reward = rng.normal(size=(batch, steps))
    values = rng.normal(size=(batch, steps + 1))
    terminated, truncated = rng.random((2, batch, steps)) < 0.1
    expected = np.zeros((batch, steps))
    for b in range(batch):
        after = 0.0
        for t in reversed(range(steps)):
            if terminated[b, t]:
                after = reward[b, t] - values[b, t]
            elif truncated[b, t]:
                after = reward[b, t] + discount * values[b, t + 1] - values[b, t]
            else:
                after = (
                    reward[b, t]
                    + discount * values[b, t + 1]
                    - values[b, t]
                    + discount * lam * after
                )
            expected[b, t] = after
    step_type = np.where(terminated | truncated, 2, 1)
    steps_after = ts.TimeStep(
        *(tf.constant(x) for x in (step_type, np.float32(reward), np.float32(~terminated))), ()
    )
    returns, advantages = make(discount=discount, gae_lambda=lam).compute_return_and_advantage(
        steps_after, tf.constant(values, tf.float32)
    )
    np.testing.assert_allclose(advantages, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(returns, expected + values[:, :-1], rtol=1e-4, atol=1e-5)


def test_advantages_are_normalised_over_the_steps_that_count():
    # 1, 3, 5 count: mean 3, deviation sqrt(8/3) = 1.632993
    values = tf.constant([1.0, 3.0, 100.0, 5.0])
    mask = tf.constant([1.0, 1.0, 0.0, 1.0])
    np.testing.assert_allclose(
        normalize_advantages(values, mask), [-1.224745, 0.0, 0.0, 1.224745], rtol=1e-5
    )
    stock = ppo_agent._normalize_advantages(values, axes=(0,)).numpy()
    assert abs(stock[[0, 1, 3]].mean()) > 0.5  # what does not count has moved what does


def test_advantages_that_are_all_equal_or_all_masked_are_zero():
    assert normalize_advantages(tf.fill([3], 7.0), tf.ones([3])).numpy().tolist() == [0.0] * 3
    assert (
        normalize_advantages(tf.constant([1.0, 9.0]), tf.zeros([2])).numpy().tolist() == [0.0] * 2
    )


def test_the_defaults_are_ppos_where_stock_clips_nothing_and_uses_no_gae():
    agent = make()
    assert float(agent.clip(tf.constant(0.0))) == pytest.approx(0.2)
    # two steps of reward 1 from values 0: delta 1, and 1 + 0.99 * 0.95 * 1
    steps = ts.TimeStep(tf.constant([[1, 1]]), tf.ones([1, 2]), tf.ones([1, 2]), ())
    returns, advantages = agent.compute_return_and_advantage(steps, tf.zeros([1, 3]))
    np.testing.assert_allclose(advantages, [[1.9405, 1.0]], rtol=1e-6)
    np.testing.assert_allclose(returns, [[1.9405, 1.0]], rtol=1e-6)
    time_step_spec = agent.time_step_spec
    stock = ppo_clip_agent.PPOClipAgent(
        time_step_spec,
        agent.action_spec,
        optimizer=tf.keras.optimizers.SGD(),
        actor_net=agent._actor_net,
        value_net=agent._value_net,
    )
    assert (stock._importance_ratio_clipping, stock._use_gae, stock._num_epochs) == (0.0, False, 25)
