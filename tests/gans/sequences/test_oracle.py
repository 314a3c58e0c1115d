"""The oracle's likelihoods by hand, and by the generator with the oracle's weights."""

import math

import numpy as np
import pytest
import tensorflow as tf

from sparring.errors import UserError
from sparring.gans.data.mixtures import ring
from sparring.gans.metrics.oracle_likelihood import OracleLikelihood
from sparring.gans.sequences.networks import RecurrentGenerator
from sparring.gans.sequences.oracle import Oracle, OracleLSTM
from sparring.gans.sequences.policy_gradient import negative_log_likelihood


def test_without_weights_every_token_is_equally_likely() -> None:
    oracle = OracleLSTM(5, 2, 3, 0)
    oracle.head = np.zeros_like(oracle.head)
    oracle.head_bias = np.zeros_like(oracle.head_bias)
    np.testing.assert_allclose(oracle.log_likelihoods(np.array([[0, 1], [4, 4]])), -math.log(5.0))
    # With a bias alone tokens are independent: p = 1/2, 1/4, 1/4
    three = OracleLSTM(3, 2, 3, 0)
    three.head = np.zeros_like(three.head)
    three.head_bias = np.log([0.5, 0.25, 0.25])
    # Mean over the tokens: (log 1/2 + log 1/4) / 2
    expected = 0.5 * (math.log(0.5) + math.log(0.25))
    np.testing.assert_allclose(three.log_likelihoods(np.array([[0, 2]])), [expected])
    drawn = three.sample(4000, 2, 1)
    shares = np.bincount(drawn.ravel(), minlength=3) / drawn.size
    # Standard error 0.0056
    np.testing.assert_allclose(shares, [0.5, 0.25, 0.25], atol=0.02)


def test_a_generator_with_the_oracles_weights_is_the_oracle() -> None:
    data = Oracle(0, words=7, length=6, train=20, test=10, embedding=3, units=4)
    oracle = data.oracle
    generator = RecurrentGenerator(7, 3, 4)
    sequences, _ = data.examples("train")
    generator(tf.constant(sequences))
    weights = ("embedding", "kernel", "recurrent", "bias", "head", "head_bias")
    generator.set_weights([getattr(oracle, name) for name in weights])
    ours = -negative_log_likelihood(generator, tf.constant(sequences)).numpy().mean(axis=1)
    np.testing.assert_allclose(ours, oracle.log_likelihoods(sequences), atol=1e-5)


def test_the_oracle_prefers_what_it_drew_itself() -> None:
    data = Oracle(0, words=20, length=8, train=200, test=400)
    uniform = np.random.default_rng(0).integers(20, size=(400, 8))
    metric = OracleLikelihood(data, samples=400)
    own = metric(lambda count: (data.examples("test")[0][:count], np.zeros(count)))
    other = metric(lambda count: (uniform[:count], np.zeros(count)))
    assert own["gan/nll_oracle"] == own["gan/nll_oracle_floor"]
    assert other["gan/nll_oracle"] > own["gan/nll_oracle"] + 1.0
    twice = metric(lambda count: (np.repeat(uniform[: count // 2], 2, axis=0), None))
    assert twice["gan/distinct"] == 0.5


def test_the_data_is_the_same_in_every_run_and_its_order_is_the_seeds() -> None:
    one, two, other = (
        Oracle(seed, oracle_seed, words=9, length=4, train=30, test=10)
        for seed, oracle_seed in ((0, 0), (1, 0), (0, 1))
    )
    assert one.fingerprint == two.fingerprint != other.fingerprint
    assert not np.array_equal(one.plan(0, 1, 30), two.plan(0, 1, 30))


def test_what_cannot_be_is_refused_in_a_line() -> None:
    with pytest.raises(UserError, match=r"data.length=1: 2 at least"):
        Oracle(0, length=1)
    with pytest.raises(UserError, match="choose data=oracle"):
        OracleLikelihood(ring())
