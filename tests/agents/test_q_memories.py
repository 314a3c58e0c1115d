"""DQN with a memory: what it sees of replayed sequences, and what it learns from them."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from sparring.agents.conformance import check_agent
from sparring.agents.dqn import DQN
from sparring.agents.networks.recurrent import Memory, restarted
from sparring.agents.prioritized_replay import PrioritizedRing
from sparring.agents.replay import Ring, Rows, Sequences
from sparring.errors import UserError
from sparring.networks.mlp import MLP
from sparring.optim.optimizer import Scheduled

pytestmark = pytest.mark.long

SEEN = spaces.Box(-1.0, 1.0, (3,))
ACTIONS = spaces.Discrete(2)
KEY = tf.constant([1, 2], tf.uint32)
HALF = tf.constant(0.5)
WIDTH = 5
ENVS = 3
STEPS = 12


def make(**settings) -> DQN:
    tf.keras.utils.set_random_seed(0)
    return DQN(
        SEEN,
        ACTIONS,
        functools.partial(MLP, (4,)),
        Scheduled(tf.keras.optimizers.SGD(), 0.1),
        memory=functools.partial(Memory, "lstm", (WIDTH,)),
        **{"burn_in": 0, "unroll": 4} | settings,
    )


def played(agent: DQN, kind=Ring) -> tuple[Ring, np.ndarray, np.ndarray]:
    """A ring of an agent's steps, with what it saw of each slot, and the slots' ends."""
    rng = np.random.default_rng(0)
    observation = rng.uniform(-1, 1, (STEPS + 1, ENVS, 3)).astype(np.float32)
    ended = rng.random((STEPS, ENVS)) < 0.25
    terminated = ended & (rng.random(ended.shape) < 0.5)
    first = np.concatenate([np.zeros_like(ended[:1]), ended[:-1]])
    ring = kind(STEPS * ENVS, ENVS, SEEN, ACTIONS, agent.extra, 4 + 2 - 1)
    state = agent.start(ENVS)
    seen = []
    kept = []
    for t in range(STEPS):
        what, after = agent.see(tf.constant(observation[t]), state)
        seen.append(what.numpy())
        kept.append(agent.keep(what, tf.zeros([ENVS], tf.int32), HALF)["state"])
        state = restarted(after, tf.constant(first[t]))
    actions = tf.constant(rng.integers(0, 2, (STEPS, ENVS)), tf.int32)
    rewards = tf.constant(rng.normal(size=(STEPS, ENVS)), tf.float32)
    flags = (tf.constant(x) for x in (terminated, ended & ~terminated, first))
    ring.write(tf.constant(observation), actions, rewards, *flags, {"state": tf.stack(kept)})
    return ring, np.stack(seen), np.concatenate([first, ended[-1:]])


ROWS = Rows(tf.constant([2, 6, 5], tf.int64), tf.constant([0, 2, 1], tf.int64))


def test_a_replayed_sequence_is_seen_as_it_was_when_it_was_played() -> None:
    agent = make()
    ring, seen, last = played(agent)
    batch = ring.sequences(ROWS, 4, 2, 0.9)
    found = agent.memories.transitions(batch, 0)
    assert set(batch.length.numpy().ravel().tolist()) == {1, 2}  # episodes end in what is drawn
    for t in range(4):
        for m, (slot, env) in enumerate(zip(ROWS.slot.numpy(), ROWS.env.numpy(), strict=True)):
            i = t * 3 + m
            np.testing.assert_allclose(
                found.observation[i, : 2 * WIDTH], seen[slot + t, env, : 2 * WIDTH], atol=1e-6
            )
            # One step on if an episode ended there, else two
            on = 1 if last[slot + t + 1, env] else 2
            assert int(batch.length[t, m]) == on
            np.testing.assert_allclose(
                found.next_observation[i, : 2 * WIDTH],
                seen[slot + t + on, env, : 2 * WIDTH],
                atol=1e-6,
            )
            assert float(found.mask[i]) == 1.0 - last[slot + t, env]
    single = ring.gather(ROWS, 2, 0.9)  # of the first slots
    np.testing.assert_array_equal(found.reward[:3], single.reward)
    np.testing.assert_array_equal(found.discount[:3], single.discount)


def test_burning_in_brings_a_stale_state_up_to_date_and_is_not_learned_through() -> None:
    agent = make(burn_in=2, unroll=2)
    ring, seen, _ = played(agent)
    batch = ring.sequences(ROWS, 4, 2, 0.9)
    found = agent.memories.transitions(batch, 2)
    assert found.observation.shape[0] == 2 * 3
    at = [seen[s + 2, e, : 2 * WIDTH] for s, e in zip(ROWS.slot.numpy(), ROWS.env.numpy())]  # noqa: B905
    np.testing.assert_allclose(found.observation[:3, : 2 * WIDTH], at, atol=1e-6)
    # The same as from the state that was stored two steps later
    later = Rows(ROWS.slot + 2, ROWS.env)
    ungoverned = make(burn_in=0, unroll=2)
    for mine, other in zip(agent.trainable, ungoverned.trainable, strict=True):
        np.testing.assert_array_equal(mine, other)
    gradients = [
        one._gradients(each, KEY)[0]
        for one, each in ((agent, batch), (ungoverned, ring.sequences(later, 2, 2, 0.9)))
    ]
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_error_of_a_sequence_is_mostly_its_largest() -> None:
    agent = make()
    ring, _, _ = played(agent)
    batch = ring.sequences(ROWS, 4, 2, 0.9)
    steps = agent.memories.transitions(batch, 0)
    after = tf.reduce_max(agent.target_q_values(steps.next_observation), axis=1)
    taken = tf.gather(agent.q_values(steps.observation), steps.action, batch_dims=1)
    error = np.abs(steps.reward + 0.99 * steps.discount * after - taken) * steps.mask
    each = np.reshape(error, [4, 3])
    expected = 0.9 * each.max(axis=0) + 0.1 * each.mean(axis=0)
    np.testing.assert_allclose(agent.update(batch, KEY, HALF)[1], expected, rtol=1e-5)


def test_the_targets_memory_lags() -> None:
    agent = make(target_period=2)
    ring, _, _ = played(agent)
    batch = ring.sequences(ROWS, 4, 2, 0.9)
    pair = agent.memories.online[0], agent.memories.target[0]
    np.testing.assert_array_equal(*pair)
    agent.update(batch, KEY, HALF)
    assert not np.array_equal(*pair)
    agent.update(batch, KEY, HALF)
    np.testing.assert_array_equal(*pair)


def test_layers_that_the_target_would_share_are_refused() -> None:
    same = tf.keras.layers.Dense(4)
    memory = functools.partial(Memory, "gru", (WIDTH,))
    with pytest.raises(UserError, match="the target network would be the online one"):
        DQN(SEEN, ACTIONS, lambda: same, memory=memory)


def test_sequences_are_drawn_by_their_priorities() -> None:
    ring, _, _ = played(make(), PrioritizedRing)
    rows = ring.choose(KEY, 50, 5, 0.0)
    batch = ring.sequences(rows, 4, 2, 0.9)
    assert isinstance(batch, Sequences)
    # Twelve steps: the last slot from which five more were made is number 7
    assert set(rows.slot.numpy().tolist()) <= set(range(8))
    ring.learned(rows, tf.ones([50]), HALF)
    assert not np.isnan(ring.priorities.total())


@pytest.mark.parametrize("masked", [False, True])
def test_it_keeps_the_contract(masked: bool) -> None:
    mask = spaces.Box(0, 1, (2,), np.uint8)
    space = spaces.Dict(observation=SEEN, action_mask=mask) if masked else SEEN

    def made(observation_space: spaces.Space, action_space: spaces.Space) -> DQN:
        return DQN(
            observation_space,
            action_space,
            functools.partial(MLP, (4,)),
            memory=functools.partial(Memory, "gru", (WIDTH,)),
            burn_in=1,
            unroll=2,
            double=True,
            normalize_observations=True,
        )

    check_agent(made, space, ACTIONS)
