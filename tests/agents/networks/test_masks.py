"""Masks of actions: probability zero where one is not allowed, by hand and in training."""

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from tensorflow_probability import distributions as tfd

from sparring.agents.dqn import DQN
from sparring.agents.networks import distributions, masks
from sparring.agents.networks.recurrent import Memory, restarted
from sparring.agents.ppo import PPO
from sparring.agents.replay import Transitions
from sparring.errors import UserError
from sparring.optim import optimizer as optim_optimizer
from sparring.xla import random

SEEN = spaces.Box(-1.0, 1.0, (3,))
MASKED = spaces.Dict(observation=SEEN, action_mask=spaces.Box(0, 1, (4,), np.uint8))


def shown(rows: list[list[int]]) -> dict[str, tf.Tensor]:
    """Observations with these masks [B, 4]."""
    seen = tf.constant(np.linspace(-1.0, 1.0, 3 * len(rows)).reshape(-1, 3), tf.float32)
    return {"observation": seen, "action_mask": tf.constant(rows, tf.uint8)}


def test_probabilities_are_those_of_the_allowed_actions_alone() -> None:
    """Softmax of 0, log 3 and log 5 without the third: 1/4 and 3/4, and their entropy."""
    policy = tfd.Categorical(logits=tf.math.log([[1.0, 3.0, 5.0]]))
    mask = tf.constant([[1, 1, 0]], tf.uint8)
    found = masks.masked(policy, mask, spaces.Discrete(3))
    np.testing.assert_allclose(found.probs_parameter(), [[0.25, 0.75, 0.0]], atol=1e-7)
    # -(1/4) log(1/4) - (3/4) log(3/4)
    np.testing.assert_allclose(found.entropy(), [0.5623351], rtol=1e-6)


def test_choices_of_a_multi_discrete_action_have_a_slice_of_the_mask_each() -> None:
    """Of 2 and 3 values; the second choice of the first is not allowed, nor the third's first."""
    space = spaces.MultiDiscrete([2, 3])
    head = distributions.MultiCategoricalHead(space.nvec)
    policy = head(tf.zeros([1, 5]))
    mask = tf.constant([[1, 0, 0, 1, 1]], tf.uint8)
    found = masks.masked(policy, mask, space)
    probabilities = found.distribution.probs_parameter()
    np.testing.assert_allclose(probabilities, [[[1, 0, 0], [0, 0.5, 0.5]]], atol=1e-7)
    keys = random.members(random.stream(0, "policy"), 1)
    assert distributions.sample(found, keys).numpy()[0, 0] == 0


def test_where_nothing_is_allowed_everything_is() -> None:
    policy = tfd.Categorical(logits=[[1.0, 2.0]])
    found = masks.masked(policy, tf.zeros([1, 2], tf.uint8), spaces.Discrete(2))
    np.testing.assert_array_equal(found.logits, [[1.0, 2.0]])


@pytest.mark.parametrize("memory", [None, Memory])
def test_ppo_never_chooses_what_is_not_allowed(memory: type | None) -> None:
    agent = PPO(MASKED, spaces.Discrete(4), memory=memory)
    seen, _ = agent.see(shown([[0, 0, 1, 0], [1, 0, 0, 1]] * 200), agent.start(400))
    keys = random.members(random.stream(0, "policy"), 400)
    action, kept = agent.act(seen, keys, tf.constant(0.0))
    assert set(action.numpy()[::2]) == {2}
    assert set(action.numpy()[1::2]) == {0, 3}
    np.testing.assert_allclose(kept["log_prob"][::2], 0.0, atol=1e-6)  # the only one
    assert set(agent.act_greedy(seen).numpy()[::2]) == {2}


def test_dqn_explores_and_exploits_what_is_allowed() -> None:
    agent = DQN(MASKED, spaces.Discrete(4), epsilon=1.0)
    seen = shown([[0, 0, 1, 0], [1, 0, 0, 1]] * 200)
    keys = random.members(random.stream(0, "policy"), 400)
    random_action = agent.act_random(seen, keys).numpy()
    assert set(random_action[::2]) == {2}
    # Each of two with probability 1/2: 200 draws give 100 with a standard deviation of 7.07
    assert abs((random_action[1::2] == 3).sum() - 100) < 30
    assert set(agent.act_greedy(seen).numpy()[::2]) == {2}
    explored = agent.act_sampled(seen, keys, tf.constant(0.0)).numpy()
    assert set(explored[1::2]) == {0, 3}


class Table(tf.keras.layers.Layer):
    """Q-values that do not depend on what is seen: 1, 2, 3, 4."""

    def build(self, shape: tf.TensorShape) -> None:
        self.values = self.add_weight("values", [4], initializer=lambda *_, **__: [1.0, 2, 3, 4])

    def call(self, features: tf.Tensor) -> tf.Tensor:
        return tf.zeros([tf.shape(features)[0], 1]) + self.values


@pytest.mark.parametrize("double", [False, True])
def test_the_next_value_is_the_best_of_what_will_be_allowed(double: bool) -> None:
    agent = DQN(
        MASKED,
        spaces.Discrete(4),
        head=lambda count: Table(),
        discount=0.5,
        loss="squared",
        optimizer=optim_optimizer.adam(0.0),
        double=double,
    )
    now = shown([[1, 1, 1, 1], [1, 1, 1, 1]])
    batch = Transitions(
        observation=now,
        action=tf.constant([0, 0]),
        reward=tf.constant([10.0, 10.0]),
        discount=tf.constant([1.0, 0.0]),
        next_observation=shown([[1, 1, 0, 0], [1, 1, 1, 1]]),
        mask=tf.ones([2]),
    )
    _, errors = agent.update(batch, random.stream(0, "updates"), tf.constant(0.0))
    # 10 + 0.5 * 2 - 1: the best allowed next action is worth 2, not 4; and 10 - 1 at the end
    np.testing.assert_allclose(errors, [10.0, 9.0])


@pytest.mark.parametrize(
    ("mask", "actions", "said"),
    [
        ((3,), spaces.Discrete(4), r"action_mask is \[3\], and Discrete\(4\) has 4 choices"),
        ((4,), spaces.Box(-1.0, 1.0, (2,)), "masks are of Discrete and MultiDiscrete"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask: tuple, actions: spaces.Space, said: str) -> None:
    space = spaces.Dict(observation=SEEN, action_mask=spaces.Box(0, 1, mask, np.uint8))
    with pytest.raises(UserError, match=said):
        PPO(space, actions)


def test_a_policy_that_cannot_be_masked_is_refused() -> None:
    with pytest.raises(UserError, match="a Normal cannot be masked"):
        masks.masked(tfd.Normal([0.0], 1.0), tf.ones([1, 1], tf.uint8), spaces.Discrete(1))


def test_sequences_that_are_learned_from_have_the_masks_of_their_steps() -> None:
    """Every probability ratio is one before anything is learned, with a reset in between."""
    steps = 6
    agent = PPO(MASKED, spaces.Discrete(4), memory=Memory)
    rng = np.random.default_rng(0)
    allowed = np.concatenate([np.ones((steps, 2, 1)), rng.integers(2, size=(steps, 2, 3))], axis=2)
    seen = {
        "observation": tf.constant(rng.normal(size=(steps, 2, 3)), tf.float32),
        "action_mask": tf.constant(allowed, tf.uint8),
    }
    first = np.zeros((steps, 2), bool)
    first[2, 1] = True
    state = start = agent.start(2)
    actions = []
    kept = []
    for t in range(steps):
        looked, state = agent.see({name: part[t] for name, part in seen.items()}, state)
        keys = random.members(random.fold(random.stream(0, "policy"), t), 2)
        action, extras = agent.act(looked, keys, tf.constant(0.0))
        state = restarted(state, tf.constant(first[t]))
        actions.append(action)
        kept.append(extras["log_prob"])
    flat = {name: tf.reshape(part, [2 * steps, -1]) for name, part in seen.items()}
    looked = agent.see_sequences(flat, tf.constant(first.ravel()), start)
    log_prob = agent.distribution(looked).log_prob(tf.concat(actions, axis=0))
    np.testing.assert_allclose(log_prob, tf.concat(kept, axis=0), atol=1e-6)
