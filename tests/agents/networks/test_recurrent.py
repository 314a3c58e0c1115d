"""Agents that remember: sequences by hand, the ratio of the first update, resets, resumption, both
paths.
"""

import functools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from sparring.agents.advantages import Minibatch
from sparring.agents.networks.recurrent import Memories, Memory, restarted
from sparring.agents.ppo import PPO
from sparring.agents.training import episodes
from sparring.agents.training.base import AgentTrainer
from sparring.agents.training.evaluation import EvaluationSettings
from sparring.agents.training.on_policy import OnPolicyTrainer
from sparring.agents.training.rollout import Rollout
from sparring.envs.compiled.toys import Memory as Recall
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.errors import UserError
from sparring.networks.mlp import MLP
from sparring.optim.optimizer import Scheduled
from sparring.training.conformance import check_trainer
from sparring.xla import compilation

pytestmark = pytest.mark.long

T = 6
B = 2


# ---- sequences -----------------------------------------------------------------------------------


def halving(count: int = 1) -> Memories:
    """GRU cells of one unit with h' = h / 2 + tanh(x) / 2: both gates are a half, and the candidate
    ignores h.
    """
    memories = Memories(functools.partial(Memory, "gru", (1,)), count, tf.TensorSpec([1]))
    for each in memories.each:
        kernel, recurrent, bias = each.cells.cells[0].weights
        kernel.assign([[0.0, 0.0, 1.0]])
        recurrent.assign(tf.zeros_like(recurrent))
        bias.assign(tf.zeros_like(bias))
    return memories


@pytest.mark.parametrize("mode", compilation.MODES[1:])
def test_a_sequence_starts_anew_after_the_step_that_opened_an_episode(mode: str) -> None:
    memories = halving()
    first = np.zeros((4, 2), bool)
    first[1, 0] = True  # of environment 0, the step from 1 to 2 was a reset
    sequence = compilation.function(
        lambda x, f, s: memories.sequence(tf.reshape(x, [8, 1]), tf.reshape(f, [8]), s), mode
    )
    seen = sequence(tf.ones([4, 2]), tf.constant(first), tf.constant([[0.2], [0.0]]))
    a = np.tanh(1.0) / 2  # 0.380797
    expected = [
        [0.1 + a, a],  # from 0.2, and from nothing
        [0.05 + 1.5 * a, 1.5 * a],
        [a, 1.75 * a],  # environment 0 knows nothing any more
        [1.5 * a, 1.875 * a],
    ]
    np.testing.assert_allclose(np.reshape(seen, [4, 2]), expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["graph", "xla"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_sequence_has_the_values_and_gradients_of_its_steps_written_out(
    cell: str, mode: str
) -> None:
    tf.keras.utils.set_random_seed(0)
    memories = Memories(functools.partial(Memory, cell, (3, 2)), 2, tf.TensorSpec([2]))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(T * B, 2)).astype(np.float32)
    first = rng.random(T * B) < 0.3
    state = rng.normal(size=(B, sum(memories.sizes))).astype(np.float32)
    weight = rng.normal(size=(T * B, 4)).astype(np.float32)

    def unrolled(x: tf.Tensor, first: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
        said = []
        for t in range(T):
            seen, state = memories.step(x[t * B : t * B + B], state)
            state = tf.where(first[t * B : t * B + B, tf.newaxis], 0.0, state)
            said.append(seen)
        return tf.concat(said, axis=0)

    def with_gradients(sequence: Any) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            seen = sequence(tf.constant(x), tf.constant(first), tf.constant(state))
            loss = tf.reduce_sum(seen * weight)
        return [seen, *tape.gradient(loss, memories.weights)]

    assert first.any()
    found = compilation.function(lambda: with_gradients(memories.sequence), mode)()
    for ours, expected in zip(found, with_gradients(unrolled), strict=True):
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_one_memory_is_before_a_network_that_is_shared() -> None:
    """A GRU of 3 units on 3 numbers has 9 + 9 rows and biases of 2 x 9; then 3 x 4 + 4."""
    counts = {}
    for shared in (True, False):
        agent = PPO(
            spaces.Box(-1.0, 1.0, (3,)),
            spaces.Discrete(2),
            functools.partial(MLP, (4,)),
            memory=functools.partial(Memory, "gru", (3,)),
            share_network=shared,
        )
        counts[shared] = sum(int(tf.size(weight)) for weight in agent.trainable)
    memory = (3 + 3) * 9 + 2 * 9
    heads = (4 * 2 + 2) + (4 + 1)
    assert counts == {True: memory + 16 + heads, False: 2 * (memory + 16) + heads}


def test_each_network_has_a_memory_of_its_own() -> None:
    memories = halving(2)
    memories.each[1].cells.cells[0].weights[0].assign([[0.0, 0.0, 2.0]])
    seen, state = memories.step(tf.ones([3, 1]), memories.start(3))
    np.testing.assert_allclose(seen, [[np.tanh(1.0) / 2, np.tanh(2.0) / 2]] * 3, rtol=1e-5)
    np.testing.assert_array_equal(state, seen)  # of a GRU


# ---- the trainer, watched from inside ------------------------------------------------------------


class Watched(PPO):
    """Keeps its minibatches, and what the policy says of them before it learns from them."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.batches: list[Minibatch] = []
        self.log_probs: list[np.ndarray] = []

    def gradients(self, batch: Minibatch, key: tf.Tensor, progress: tf.Tensor) -> Any:
        self.batches.append(tf.nest.map_structure(lambda x: x.numpy(), batch))
        self.log_probs.append(self.distribution(self._seen(batch)).log_prob(batch.action).numpy())
        return super().gradients(batch, key, progress)


class Trainer(OnPolicyTrainer):
    """Keeps its rollouts."""

    def learn(self, rollout: Rollout, iteration: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        self.__dict__.setdefault("rollouts", []).append(tf.nest.map_structure(np.asarray, rollout))
        return super().learn(rollout, iteration, total)


def make(
    environment: Any = None, agent: Any = PPO, trainer: Any = OnPolicyTrainer, **settings: Any
) -> Any:
    """PPO with an LSTM of 5 units, quick to trace."""
    tf.keras.utils.set_random_seed(0)
    of_agent = {"normalize_observations": False} | {
        key: settings.pop(key)
        for key in ("discount", "gae_lambda", "normalize_observations")
        if key in settings
    }
    return trainer(
        **{
            "agent": functools.partial(
                agent, memory=functools.partial(Memory, "lstm", (5,)), **of_agent
            ),
            "environment": environment or Recall(choices=3, delay=2),
            "network": functools.partial(MLP, (4,)),
            "optimizer": Scheduled(tf.keras.optimizers.Adam(), settings.pop("learning_rate", 1e-2)),
            "num_envs": 4,
            "rollout_steps": 7,
            "epochs": 2,
            "minibatches": 2,
            "seed": 0,
            "total_steps": 1000,
            "normalize_rewards": False,
            "compile": "graph",
            "evaluation": EvaluationSettings(episodes=3, video_every=1, video_steps=3),
            **settings,
        }
    )


def watched(**settings: Any) -> Any:
    coin = Gymnasium("tests.helpers.rollouts:toy/Coin-v0")  # ends one time in six, cut at nine
    trainer = make(coin, Watched, Trainer, **{"compile": "eager", "rollout_steps": 20, **settings})
    kernel = trainer.agent._actor_net._head.logits.kernel
    kernel.assign(100.0 * kernel)  # so that what is known shows in the odds
    return trainer


@pytest.fixture(scope="module")
def idle() -> Any:
    """Two iterations of a trainer that learns nothing. lambda is 0 and gamma 1/2: returns look one
    step ahead.
    """
    trainer = watched(learning_rate=0.0, discount=0.5, gae_lambda=0.0)
    trainer.train(160)
    return trainer


def test_the_first_minibatch_finds_the_ratio_one_across_ends_of_episodes_and_of_rollouts() -> None:
    trainer = watched(normalize_observations=True, normalize_rewards=True)
    for iteration in range(3):
        trainer.train(80)
        number = 4 * iteration  # 2 epochs of 2 minibatches; later ones have learned
        batch = trainer.agent.batches[number]
        assert batch.first.any()
        # A rollout goes on where the last one ended
        assert (np.abs(batch.state).max() > 0.0) == (iteration > 0)
        np.testing.assert_allclose(
            np.exp(trainer.agent.log_probs[number] - batch.log_prob), 1.0, atol=1e-6
        )


@pytest.mark.parametrize("wrong", [None, "never", "late", "from zero"])
def test_a_wrong_reset_finds_another_ratio(idle: Any, wrong: str | None) -> None:
    batch = idle.agent.batches[-1]
    agent = idle.agent
    first = np.reshape(batch.first, [20, 2])
    changes = {
        None: batch,
        "never": batch._replace(first=np.zeros_like(batch.first)),
        "late": batch._replace(
            first=np.concatenate([np.zeros_like(first[:1]), first[:-1]]).ravel()
        ),
        "from zero": batch._replace(state=np.zeros_like(batch.state)),
    }
    seen = agent._seen(tf.nest.map_structure(tf.constant, changes[wrong]))
    off = np.abs(
        np.exp(agent.distribution(seen).log_prob(batch.action) - batch.log_prob) - 1.0
    ).max()
    assert off < 1e-6 if wrong is None else off > 1e-3


def test_what_was_said_while_acting_is_what_each_environment_alone_would_have_heard(
    idle: Any,
) -> None:
    agent = idle.agent
    rollout = idle.rollouts[0]
    state = np.zeros((4, 20), np.float32)
    value = np.zeros((21, 4), np.float32)
    for t in range(21):
        for b in range(4):
            seen, after = agent.see(rollout.observation[t][b : b + 1], state[b : b + 1])
            value[t, b] = agent.value(seen)[0]
            if t < 20:
                log_prob = agent.distribution(seen).log_prob(rollout.action[t][b])
                np.testing.assert_allclose(log_prob, [rollout.extras["log_prob"][t][b]], atol=1e-5)
                state[b] = 0.0 if rollout.first[t][b] else after[0]
    np.testing.assert_allclose(rollout.memory, [np.zeros((4, 20)), state], atol=1e-5)
    np.testing.assert_array_equal(idle.rollouts[1].memory[0], rollout.memory[1])
    # the value ahead is that of what was known by then, also where the clock ran out, and at the
    # rollout's end
    assert rollout.truncated.any()
    assert not (rollout.terminated | rollout.truncated)[-1].all()
    expected = rollout.reward + np.where(rollout.terminated, 0.0, 0.5 * value[1:])
    for batch, environments in zip(idle.agent.batches, drawn(idle)[:2], strict=False):
        np.testing.assert_allclose(
            np.reshape(batch.returns, [20, 2]), expected[:, environments], atol=1e-4
        )


def drawn(trainer: Any) -> list[list[int]]:
    """The environments whose sequences the minibatches of the first rollout are, after looking at
    them whole.
    """
    rollout = trainer.rollouts[0]
    found = []
    for batch in trainer.agent.batches[:4]:
        sequences = np.reshape(batch.observation, [20, 2, 2])
        same = [
            b
            for n in range(2)
            for b in range(4)
            if (sequences[:, n] == rollout.observation[:-1, b]).all()
        ]
        np.testing.assert_array_equal(np.reshape(batch.first, [20, 2]), rollout.first[:, same])
        np.testing.assert_array_equal(np.reshape(batch.action, [20, 2]), rollout.action[:, same])
        np.testing.assert_array_equal(batch.mask, ~batch.first)
        found.append(same)
    return found


def test_each_epoch_has_every_environments_sequence_once(idle: Any) -> None:
    orders = drawn(idle)
    assert [sorted(a + b) for a, b in (orders[:2], orders[2:])] == [[0, 1, 2, 3]] * 2
    with pytest.raises(
        UserError, match=r"minibatches=3 does not divide the 4 environments .*: take 1, 2, 4\."
    ):
        make(minibatches=3)


# ---- the contract, both paths, both modes --------------------------------------------------------


@pytest.mark.parametrize("environment", [None, "host"])
def test_the_contract_is_kept_and_a_resumed_run_is_the_same_to_the_bit(environment: Any) -> None:
    def made() -> AgentTrainer:
        host = Gymnasium("tests.helpers.rollouts:toy/Coin-v0") if environment else None
        return make(host, normalize_observations=True, normalize_rewards=True)

    check_trainer(made, steps=100)


def test_a_program_of_xla_learns_what_a_plain_graph_does() -> None:
    xla = make(compile="xla")
    graph = make()
    for trainer in (xla, graph):
        trainer.train(5 * 28)
    for ours, theirs in zip(xla.agent.trainable, graph.agent.trainable, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_evaluation_remembers_within_an_episode_and_not_beyond() -> None:
    trainer = make(compile="graph")
    trainer.train(300)
    agent = trainer.agent

    def act(observation: tf.Tensor, known: tf.Tensor, t: tf.Tensor) -> Any:
        seen, known = agent.see(observation, known)
        return agent.act_greedy(seen), known

    host = episodes.Player(act, agent.start)
    expected = episodes.play(trainer.environment, host, 12, seed=3, forget=host.forget)
    # Each episode on a new environment
    np.testing.assert_array_equal(trainer.evaluator.greedy(12, 3)[:3], expected[:3])
    counting = episodes.Player(
        lambda o, known, t: (known[:, 0], known + 1.0), lambda n: np.zeros((n, 1), np.float32)
    )
    seen = []
    for first in ([False, False], [True, False], [False, False]):
        seen.append(counting(np.zeros((2, 3)), 0).tolist())
        counting.forget(np.array(first))
    assert seen == [[0, 0], [1, 1], [0, 2]]


def test_a_state_of_nothing_restarts_as_nothing() -> None:
    assert restarted((), np.array([True])) == ()
    np.testing.assert_array_equal(
        restarted(tf.ones([2, 1]), tf.constant([True, False])), [[0.0], [1.0]]
    )
