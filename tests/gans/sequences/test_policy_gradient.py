"""Values of prefixes and the policy gradient, by hand on sequences of two tokens."""

import functools

import numpy as np
import tensorflow as tf

from sparring.gans.sequences.networks import RecurrentGenerator, TextCNN
from sparring.gans.sequences.policy_gradient import PolicyGradient, negative_log_likelihood
from sparring.xla import random

KEYS = random.members(random.stream(0, "test"), 64)


def biased(*shares: float) -> RecurrentGenerator:
    """Return a generator whose tokens are independent, with these probabilities."""
    generator = RecurrentGenerator(len(shares), 2, 3)
    generator(tf.zeros([1, 2], tf.int64))
    *_, kernel, bias = generator.trainable_variables
    kernel.assign(tf.zeros_like(kernel))
    bias.assign(np.log(shares))
    return generator


def first_is_one(tokens: tf.Tensor) -> tf.Tensor:
    return tf.cast(tokens[:, 0] == 1, tf.float32)


def last_is_one(tokens: tf.Tensor) -> tf.Tensor:
    return tf.cast(tokens[:, -1] == 1, tf.float32)


def test_tokens_are_drawn_with_their_probabilities_each_from_its_own_key() -> None:
    generator = biased(0.2, 0.5, 0.3)
    keys = random.members(random.stream(0, "many"), 4000)
    drawn = generator.sample(keys, 3).numpy()
    for column in drawn.T:
        # Standard error below 0.008
        shares = np.bincount(column, minlength=3) / 4000
        np.testing.assert_allclose(shares, [0.2, 0.5, 0.3], atol=0.03)
    # Columns are independent of each other
    assert abs(np.corrcoef(drawn[:, 0] == 1, drawn[:, 1] == 1)[0, 1]) < 0.06
    np.testing.assert_array_equal(generator.sample(keys[10:14], 3), drawn[10:14])


def test_a_prefix_is_kept_and_completed_by_the_rollout_policy() -> None:
    generator = biased(0.5, 0.5)
    rollout = biased(0.1, 0.9)
    game = PolicyGradient(generator, rollout, last_is_one, length=3, rollouts=50)
    tokens, values = (x.numpy() for x in game.play(KEYS))
    # Of prefixes of one and of two tokens the rollout policy adds the last: 0.9 of them are 1
    np.testing.assert_allclose(values[:, :2].mean(axis=0), 0.9, atol=0.02)
    # Of the whole it is the sequence's own reward
    np.testing.assert_array_equal(values[:, 2], tokens[:, 2] == 1)
    assert 0.3 < tokens.mean() < 0.7
    # What the first token says is known from the first on
    own = PolicyGradient(generator, rollout, first_is_one, length=3, rollouts=2)
    tokens, values = (x.numpy() for x in own.play(KEYS))
    np.testing.assert_array_equal(values, np.repeat(tokens[:, :1] == 1, 3, axis=1))


def test_the_gradient_is_the_score_functions() -> None:
    generator = biased(0.25, 0.75)
    game = PolicyGradient(generator, generator, last_is_one, length=2, rollouts=1)
    tokens = tf.constant([[0, 1]], tf.int64)
    gradients, loss = game.gradients(tokens, tf.constant([[2.0, -1.0]]))
    # The bias alone: the mean over two tokens of A (p - onehot):
    # (2 ([.25, .75] - [1, 0]) - ([.25, .75] - [0, 1])) / 2 = [-0.875, 0.875]
    np.testing.assert_allclose(gradients[-1], [-0.875, 0.875], rtol=1e-5)
    # -(2 log 0.25 - log 0.75) / 2
    np.testing.assert_allclose(loss, -(2.0 * np.log(0.25) - np.log(0.75)) / 2.0, rtol=1e-5)


def test_a_token_is_judged_by_those_before_it_alone() -> None:
    generator = RecurrentGenerator(4, 3, 5)
    tokens = np.array([[0, 1, 2, 3], [0, 1, 3, 3]])
    found = negative_log_likelihood(generator, tf.constant(tokens)).numpy()
    np.testing.assert_array_equal(found[0, :2], found[1, :2])
    assert found[0, 3] != found[1, 3]
    # Step by step it says the same
    logits, state = generator.start(2)
    for t in range(4):
        probs = tf.nn.log_softmax(logits).numpy()
        np.testing.assert_allclose(-probs[[0, 1], tokens[:, t]], found[:, t], atol=1e-5)
        logits, state = generator.step(tf.constant(tokens[:, t]), state)


def test_the_discriminator_judges_tokens_as_their_one_hots() -> None:
    network = TextCNN(length=4, words=3, embedding=2, windows=(1, 2, 9), filters=3)
    tokens = tf.constant([[0, 1, 2, 0], [2, 2, 1, 1]], tf.int64)
    one_hot = tf.reshape(tf.one_hot(tokens, 3), [2, -1])
    by_one_hot = network(one_hot, ()).numpy()
    np.testing.assert_allclose(network.of_tokens(tokens), by_one_hot, atol=1e-6)
    assert network.windows == [1, 2, 4]  # none is longer than the sequence
    # A window of one, a filter that is the token's number, no highway: the maximum over time
    plain = TextCNN(length=4, words=3, embedding=1, windows=(1,), filters=1)
    plain.of_tokens(tokens)
    plain.embedding.assign([[0.0], [1.0], [5.0]])
    plain.convolutions[0].set_weights([np.ones([1, 1]), np.zeros(1)])
    plain.gate.set_weights([np.zeros([1, 1]), np.full(1, -100.0)])
    plain.head.linear.set_weights([np.full([1, 1], 2.0), np.ones(1)])
    small = tf.constant([[0, 1, 0, 0], [2, 0, 1, 1]], tf.int64)
    np.testing.assert_allclose(plain.of_tokens(small), [3.0, 11.0])


def test_xla_draws_what_eager_draws() -> None:
    game = PolicyGradient(biased(0.3, 0.7), biased(0.4, 0.6), last_is_one, length=4, rollouts=3)
    ours = game.play(KEYS)
    theirs = tf.function(functools.partial(game.play, KEYS), jit_compile=True, autograph=False)()
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
