"""Policies of Box actions: densities that integrate to one, entropies, samples, bounds."""

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from scipy import stats

from sparring.agents.conformance import check_agent
from sparring.agents.networks import distributions
from sparring.agents.networks.box_heads import (
    BetaHead,
    BoxBeta,
    SquashedNormal,
    SquashedNormalHead,
    StateNormalHead,
)
from sparring.agents.ppo import PPO
from sparring.errors import UserError
from sparring.xla import random

N = 20_000
LOW = np.array([-3.0], np.float32)
HIGH = np.array([5.0], np.float32)
SQUASHED = SquashedNormal(tf.constant([[0.3]]), tf.constant([[0.8]]), LOW, HIGH)
BETA = BoxBeta(tf.constant([[2.0]]), tf.constant([[3.5]]), LOW, HIGH)


def grid() -> np.ndarray:
    """Actions [N, 1] in the middles of N equal parts of the Box."""
    return (LOW + (HIGH - LOW) * (np.arange(N)[:, None] + 0.5) / N).astype(np.float32)


def many(policy: distributions.KeyedDistribution) -> np.ndarray:
    """N samples of a policy for one state."""
    wide = type(policy)(
        *(tf.repeat(tensor, N, axis=0) for tensor in policy.tensors.values()), LOW, HIGH
    )
    keys = random.members(random.stream(3, "policy"), N)
    return distributions.sample(wide, keys).numpy()[:, 0]


@pytest.mark.parametrize("policy", [SQUASHED, BETA])
def test_a_density_integrates_to_one_and_its_entropy_is_that_of_the_density(policy) -> None:
    log_density = np.array([policy.log_prob(row[None])[0] for row in grid()[::40]], np.float64)
    width = 8.0 / len(log_density)
    density = np.exp(log_density)
    np.testing.assert_allclose(density.sum() * width, 1.0, atol=2e-3)
    entropy = -(density * log_density).sum() * width
    np.testing.assert_allclose(policy.entropy()[0], entropy, atol=5e-3)


def test_a_squashed_density_by_hand() -> None:
    """At 1, the middle: x = 0, so N(0; 0.3, 0.8) = 0.4648, over the slope of half of 8, 4."""
    found = np.exp(SQUASHED.log_prob([[1.0]]))
    np.testing.assert_allclose(found, [0.46481887 / 4.0], rtol=1e-5)
    np.testing.assert_allclose(SQUASHED.mode(), [[1.0 + 4.0 * np.tanh(0.3)]], rtol=1e-6)


def test_a_beta_density_by_hand() -> None:
    """Of 2 and 3.5: mode (2 - 1) / (2 + 3.5 - 2) = 2 / 7 of the way from -3 to 5."""
    np.testing.assert_allclose(BETA.mode(), [[-3.0 + 8.0 * 2.0 / 7.0]], rtol=1e-6)
    found = np.exp(BETA.log_prob([[1.0]]))
    np.testing.assert_allclose(found, [stats.beta(2.0, 3.5).pdf(0.5) / 8.0], rtol=1e-5)


def test_samples_follow_their_law() -> None:
    """Kolmogorov and Smirnov's distance is below 1.95 / sqrt(N) with a probability of 0.999."""
    squashed = np.arctanh((many(SQUASHED) - 1.0) / 4.0)
    assert stats.kstest(squashed, stats.norm(0.3, 0.8).cdf).statistic < 1.95 / np.sqrt(N)
    share = (many(BETA) + 3.0) / 8.0
    assert stats.kstest(share, stats.beta(2.0, 3.5).cdf).statistic < 1.95 / np.sqrt(N)


@pytest.mark.parametrize("policy", [SQUASHED, BETA])
def test_an_action_at_a_bound_has_a_finite_probability_and_gradient(policy) -> None:
    for action in (LOW, HIGH):
        parameters = list(policy.tensors.values())
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            log_prob = type(policy)(*parameters, LOW, HIGH).log_prob(action[None])
        gradients = tape.gradient(log_prob, parameters)
        assert np.isfinite(log_prob).all()
        assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_a_state_has_its_own_standard_deviation_within_bounds() -> None:
    head = StateNormalHead(spaces.Box(-1.0, 1.0, (1,)), log_std=-0.5, log_std_bounds=(-1.0, 1.0))
    head(tf.zeros([1, 2]))
    head.log_std.kernel.assign([[1.0], [0.0]])
    found = head(tf.constant([[0.0, 0.0], [0.2, 0.0], [9.0, 0.0], [-9.0, 0.0]])).stddev()
    np.testing.assert_allclose(found[:, 0], np.exp([-0.5, -0.3, 1.0, -1.0]), rtol=1e-6)


@pytest.mark.parametrize("head", [StateNormalHead, SquashedNormalHead, BetaHead])
def test_ppo_keeps_its_contract_with_each_head(head: type) -> None:
    space = spaces.Box(np.float32([-3.0, 0.0]), np.float32([5.0, 1.0]))
    check_agent(lambda *given: PPO(*given, head=head), spaces.Box(-1.0, 1.0, (3,)), space)


def test_another_space_is_refused() -> None:
    with pytest.raises(UserError, match=r"a Box of vectors, and the actions are Discrete\(2\)"):
        BetaHead(spaces.Discrete(2))
