"""Policy heads and sampling from keys: the right law, the same action for the same key, no
impossible action.
"""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from sparring.agents.networks import distributions
from sparring.errors import UserError
from sparring.xla import random

tfd = distributions.tfd
N = 10_000
KEYS = random.members(random.stream(5, "test"), N)


def made(space: gymnasium.Space, features: int = 3):
    head = distributions.head(space)
    return head, head(tf.ones([2, features]))


def repeated(logits) -> tf.Tensor:
    return tf.tile(tf.constant([logits]), [N] + [1] * np.ndim(logits))


def assert_frequencies(actions: np.ndarray, probabilities: np.ndarray) -> None:
    """Each action's share of N draws within five standard errors sqrt(p (1 - p) / N)."""
    shares = np.bincount(actions, minlength=len(probabilities)) / len(actions)
    assert len(shares) == len(probabilities)
    bound = 5 * np.sqrt(probabilities * (1 - probabilities) / len(actions))
    assert (np.abs(shares - probabilities) <= bound).all()


def softmax(logits) -> np.ndarray:
    e = np.exp(np.asarray(logits, np.float64))
    return e / e.sum()


def test_categorical_samples_follow_the_softmax():
    logits = [1.0, -1.0, 0.0, 0.5]
    actions = distributions.sample(tfd.Categorical(logits=repeated(logits)), KEYS)
    assert (actions.dtype, actions.shape) == (tf.int32, (N,))
    assert_frequencies(actions.numpy(), softmax(logits))


def test_choices_of_different_sizes_are_independent_and_never_impossible():
    head = distributions.MultiCategoricalHead(np.array([2, 5, 3]))
    head(tf.zeros([1, 1]))  # makes its weights
    padded = np.array(
        [[0.3, -0.3, 9, 9, 9], [0.0, 1.0, -1.0, 0.5, 0.2], [2.0, 0.0, -2.0, 9, 9]], np.float32
    )
    head.logits.bias.assign(padded.reshape(-1))  # the padding's own logits are the largest
    policy = head(tf.zeros([N, 1]))
    actions = distributions.sample(policy, KEYS).numpy()
    assert (actions.dtype, actions.shape) == (np.int32, (N, 3))
    parts = [padded[0, :2], padded[1], padded[2, :3]]
    for i, logits in enumerate(parts):
        assert_frequencies(actions[:, i], softmax(logits))  # also that none is past its size
    # independent: the pair (0, 0) has the product of the two shares
    p = softmax(parts[0])[0] * softmax(parts[1])[0]
    assert (
        abs(np.mean((actions[:, 0] == 0) & (actions[:, 1] == 0)) - p) < 5 * (p * (1 - p) / N) ** 0.5
    )


def test_log_probability_and_entropy_are_sums_over_the_choices():
    head = distributions.MultiCategoricalHead(np.array([2, 3]))
    head(tf.zeros([1, 1]))
    head.logits.bias.assign(np.log(np.array([0.25, 0.75, 1.0, 0.5, 0.3, 0.2], np.float32)))
    policy = head(tf.zeros([3, 1]))
    actions = np.array([[0, 0], [1, 2], [1, 1]], np.int32)
    # ln(0.25 * 0.5), ln(0.75 * 0.2), ln(0.75 * 0.3)
    np.testing.assert_allclose(policy.log_prob(actions), np.log([0.125, 0.15, 0.225]), rtol=1e-5)
    # entropies of (1/4, 3/4): 0.562335, and of (0.5, 0.3, 0.2): 1.029653
    np.testing.assert_allclose(policy.entropy(), [1.591988] * 3, rtol=1e-5)
    np.testing.assert_array_equal(policy.mode(), [[1, 0]] * 3)
    singles = [tfd.Categorical(probs=[0.25, 0.75]), tfd.Categorical(probs=[0.5, 0.3, 0.2])]
    np.testing.assert_allclose(
        policy.log_prob(actions), sum(s.log_prob(actions[:, i]) for i, s in enumerate(singles))
    )
    np.testing.assert_allclose(policy.entropy()[0], sum(s.entropy() for s in singles), rtol=1e-6)


def test_the_entropy_of_choices_of_different_sizes_has_a_gradient():
    head = distributions.MultiCategoricalHead(np.array([2, 5]))
    with tf.GradientTape() as tape:
        entropy = head(tf.ones([1, 2])).entropy()
    for gradient in tape.gradient(entropy, head.trainable_weights):
        assert np.isfinite(gradient.numpy()).all()


def test_normal_samples_have_the_mean_and_spread_of_the_policy():
    head = distributions.NormalHead(2, log_std=-0.5)
    head(tf.zeros([1, 1]))
    head.mean.bias.assign([3.0, -1.0])
    head.log_std.assign([0.0, np.log(0.1)])
    actions = distributions.sample(head(tf.zeros([N, 1])), KEYS).numpy()
    assert (actions.dtype, actions.shape) == (np.float32, (N, 2))
    # standard errors: of a mean s / sqrt(N), of a standard deviation s / sqrt(2 N)
    for i, (mean, spread) in enumerate([(3.0, 1.0), (-1.0, 0.1)]):
        assert abs(actions[:, i].mean(dtype=np.float64) - mean) < 5 * spread * N**-0.5
        assert abs(actions[:, i].std(dtype=np.float64) - spread) < 5 * spread * (2 * N) ** -0.5
    assert abs(np.corrcoef(actions.T)[0, 1]) < 5 * N**-0.5


def test_normal_log_probability_by_hand():
    head = distributions.NormalHead(2, log_std=-0.5)
    policy = head(tf.zeros([1, 1]))
    np.testing.assert_allclose(policy.stddev(), [[0.606531, 0.606531]], rtol=1e-5)  # e**-0.5
    # at the mean: -2 (ln(sqrt(2 pi)) + ln s) = -2 (0.918939 - 0.5); one spread away in one number:
    # 1/2 less
    np.testing.assert_allclose(policy.log_prob([[0.0, 0.0]]), [-0.837877], rtol=1e-5)
    np.testing.assert_allclose(policy.log_prob([[0.606531, 0.0]]), [-1.337877], rtol=1e-5)


POLICIES = {
    "categorical": lambda b: tfd.Categorical(logits=tf.reshape(tf.range(b * 5.0), [b, 5]) % 3.0),
    "choices": lambda b: tfd.Independent(tfd.Categorical(logits=tf.zeros([b, 2, 4])), 1),
    "normal": lambda b: tfd.MultivariateNormalDiag(tf.zeros([b, 2]) + 1.0, tf.ones([b, 2])),
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_member_samples_by_its_own_key_whatever_the_batch(name):
    keys = random.members(random.stream(1, "policy"), 16)
    together = distributions.sample(POLICIES[name](16), keys).numpy()
    np.testing.assert_array_equal(together, distributions.sample(POLICIES[name](16), keys))
    assert len(np.unique(together, axis=0)) > 1
    for first, count in ((0, 1), (3, 5), (10, 6)):
        alone = distributions.sample(
            POLICIES[name](16)[first : first + count], keys[first : first + count]
        )
        np.testing.assert_allclose(together[first : first + count], alone, rtol=1e-6)
    other = distributions.sample(
        POLICIES[name](16), random.members(random.stream(2, "policy"), 16)
    ).numpy()
    assert np.any(other != together)


def test_under_xla_samples_follow_the_seed_where_stock_sampling_does_not():
    policy = tfd.Categorical(logits=tf.zeros([64, 5]))
    compiled = tf.function(
        lambda keys: distributions.sample(policy, keys), jit_compile=True, autograph=False
    )

    def ours(seed):
        return compiled(random.members(random.stream(seed, "policy"), 64)).numpy()

    def stock(seed):  # TF-Agents' policies sample like this
        tf.random.set_seed(seed)
        return tf.function(lambda: policy.sample(), jit_compile=True, autograph=False)().numpy()

    def follows_the_seed(draw):
        return np.array_equal(draw(0), draw(0)) and not np.array_equal(draw(0), draw(1))

    assert follows_the_seed(ours)
    assert not follows_the_seed(stock)


def test_a_distribution_of_your_own_is_sampled_from_the_first_key():
    def draw(seed):
        policy = tfd.Independent(tfd.Laplace(tf.zeros([4, 2]), tf.ones([4, 2])), 1)
        return distributions.sample(
            policy, random.members(random.stream(seed, "policy"), 4)
        ).numpy()

    np.testing.assert_array_equal(draw(0), draw(0))
    assert np.all(draw(0) != draw(1))
    assert len(np.unique(draw(0))) == 8


@pytest.mark.parametrize(
    ("space", "kind", "event"),
    [
        (spaces.Discrete(4), tfd.Categorical, ()),
        (spaces.MultiDiscrete([2, 3]), tfd.Independent, (2,)),
        (spaces.Box(-1, 1, (3,)), tfd.MultivariateNormalDiag, (3,)),
    ],
)
def test_every_action_space_has_its_head(space, kind, event):
    head, policy = made(space)
    assert isinstance(policy, kind)
    assert (policy.batch_shape, policy.event_shape) == ((2,), event)
    kernel = next(v for v in head.trainable_weights if v.shape.rank == 2).numpy()
    # orthogonal with gain 0.01: W^T W = 0.0001 I, or W W^T where that is the smaller
    gram = kernel.T @ kernel if kernel.shape[1] <= kernel.shape[0] else kernel @ kernel.T
    np.testing.assert_allclose(gram, 1e-4 * np.eye(len(gram)), atol=1e-9)


def test_the_initial_spread_is_the_one_asked_for():
    policy = distributions.head(spaces.Box(-1, 1, (2,)), log_std=-1.0)(tf.zeros([1, 1]))
    np.testing.assert_allclose(policy.stddev(), [[0.367879, 0.367879]], rtol=1e-5)


@pytest.mark.parametrize(
    "space", [spaces.Text(3), spaces.Box(-1, 1, (2, 2)), spaces.MultiDiscrete(np.array([[2, 3]]))]
)
def test_an_action_space_without_a_head_is_refused(space):
    with pytest.raises(UserError, match=r"No policy head for the action space.*offer Discrete"):
        distributions.head(space)
