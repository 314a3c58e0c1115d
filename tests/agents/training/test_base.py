"""Agents' trainers keep the contract, evaluate afresh, count whole iterations, and neither retrace
nor grow.
"""

import gc
import itertools
import resource
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hydra.utils import instantiate

from sparring.agents.training.base import AgentTrainer
from sparring.config.composer import Composer
from sparring.envs.gymnasium_bridge.bridge import EnvironmentFault
from sparring.training.conformance import check_trainer
from tests.helpers.toy_envs import Chain

pytestmark = pytest.mark.long

BASE = (
    "run.name=x",
    "run.steps=3000",
    "trainer.num_envs=2",
    "trainer.evaluation.video_steps=4",
    "network.units=[16]",
)
PPO = (*BASE, "agent=ppo", "trainer.rollout_steps=16", "trainer.minibatches=4", "trainer.epochs=2")
DQN = (
    *BASE,
    "agent=dqn",
    "trainer.learning_starts=40",
    "trainer.capacity=200",
    "agent.target_period=5",
)
NORMALIZED = ("agent.normalize_observations=true", "trainer.normalize_rewards=true")


def env(id: str) -> tuple[str, ...]:
    return ("env=gymnasium", f"env.id={id}")


def maker(*overrides: str) -> Callable[[], AgentTrainer]:
    cfg = Composer("rl").compose(list(overrides))

    def make() -> AgentTrainer:
        tf.keras.utils.set_random_seed(0)
        return instantiate(cfg.trainer)

    return make


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(
            (*PPO, *env("CartPole-v1"), *NORMALIZED, "compile=graph"), id="ppo-normalized"
        ),
        pytest.param(
            (*PPO, *env("Pendulum-v1"), *NORMALIZED, "compile=xla"), id="ppo-pendulum-xla"
        ),
        pytest.param(
            (*DQN, *env("CartPole-v1"), "trainer.n_step=3", "compile=xla"), id="dqn-n-step-xla"
        ),
        pytest.param(
            (*PPO, "env=pendulum", *NORMALIZED, "compile=xla"),
            id="ppo-on-device",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (*DQN, "env=cartpole", "compile=xla"), id="dqn-on-device", marks=pytest.mark.slow
        ),
    ],
)
def test_the_contract_is_kept(overrides: tuple[str, ...]) -> None:
    check_trainer(maker(*overrides), steps=100)


# ---- evaluation ----------------------------------------------------------------------------------


class Seeds(Chain):
    """Its return is the seed of its first reset, and its first action."""

    seeds: list[int] = []  # noqa: RUF012

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        if seed is not None:
            Seeds.seeds.append(seed)
        return super().reset(seed=seed, options=options)


@pytest.fixture(scope="module")
def chain() -> AgentTrainer:
    overrides = (
        "env.max_episode_steps=5",
        "trainer.evaluation.episodes=3",
        "trainer.evaluation.video_every=0",
    )
    return maker(*DQN, *env("tests.agents.training.test_base:Seeds"), *overrides, "compile=graph")()


def seeds_of(trainer: AgentTrainer, step: int) -> list[int]:
    Seeds.seeds.clear()
    trainer.evaluate(step=step)
    return list(Seeds.seeds)


def test_evaluation_environments_are_seeded_by_seed_and_step(chain: AgentTrainer) -> None:
    first = seeds_of(chain, 100)
    again = seeds_of(chain, 100)
    later = seeds_of(chain, 102)
    assert len(first) == 6  # three environments, greedy and sampled
    assert first[:3] == first[3:]  # the same ones: what differs is how the agent acts
    assert first == again
    assert not set(first) & set(later)
    assert not set(first) & {0, 1}  # the training environments' seeds
    chain.evaluator.seed = 1
    assert not set(seeds_of(chain, 100)) & set(first)
    chain.evaluator.seed = 0


def test_greedy_and_sampled_episodes_are_played_as_they_say(chain: AgentTrainer) -> None:
    network = chain.agent._q_network
    for weight in network.trainable_weights:
        weight.assign(tf.zeros_like(weight))
    # Q = 0 for standing still, 1 for going right, whatever is seen
    network.trainable_weights[-1].assign([0.0, 1.0])
    found = chain.evaluate(episodes=200, step=0)  # epsilon is 1: every sampled action is random
    # greedy goes right: 1 + 11 + 21 = 33 in three steps
    assert found.scalars["eval/episode_return"] == 33.0
    assert found.scalars["eval/episode_return_std"] == 0.0
    assert found.scalars["eval/episode_length"] == 3.0
    np.testing.assert_array_equal(found.histograms["eval/episode_returns"], [33.0] * 200)
    returns = [
        random_return(row) for row in itertools.product((0, 1), repeat=5)
    ]  # all rows of five actions
    spread = np.std(returns) / np.sqrt(200)
    assert found.scalars["eval/episode_return_sampled"] == pytest.approx(
        np.mean(returns), abs=4 * spread
    )
    network.trainable_weights[-1].assign([1.0, 0.0])
    late = chain.evaluate(episodes=200, step=3000).scalars  # epsilon has fallen to 0.05
    assert late["eval/episode_return"] == 0.0
    assert 0.0 < late["eval/episode_return_sampled"] < 0.2 * np.mean(returns)
    assert found.videos == {}


def random_return(actions: tuple[int, ...]) -> float:
    """Position 3 ends it, else the fifth step."""
    total = 0.0
    position = 0
    for action in actions:
        if position < 3:
            total += 10.0 * position + action
            position += action
    return total


def test_a_video_is_taken_at_every_nth_evaluation_and_the_count_is_saved() -> None:
    make = maker(
        *DQN,
        *env("tests.helpers.toy_envs:Chain"),
        "env.max_episode_steps=5",
        "trainer.evaluation.video_every=2",
        "trainer.evaluation.episodes=1",
        "trainer.evaluation.sampled=false",
        "compile=eager",
    )
    trainer = make()
    films = []
    for _ in range(3):
        found = trainer.evaluate()
        films.append("eval/episode" in found.videos)
        assert "eval/episode_return_sampled" not in found.scalars
    assert films == [True, False, True]
    resumed = make()
    assert resumed.load_host_state(trainer.host_state()) == []
    # The fourth, of a run of 3000 steps
    assert "eval/episode" not in resumed.evaluate(step=2999).videos
    assert "eval/episode" in resumed.evaluate().videos  # the fifth
    # The sixth, of what the run has come to
    assert "eval/episode" in resumed.evaluate(step=3000).videos


# ---- iterations ----------------------------------------------------------------------------------


def test_training_advances_by_whole_iterations() -> None:
    trainer = maker(*PPO, *env("CartPole-v1"), "compile=graph")()
    steps = []
    for asked in (1, 32, 33, 100):
        trainer.train(asked)
        steps.append(trainer.step)
    assert steps == [32, 64, 128, 256]  # an iteration is 2 environments x 16 steps
    assert int(trainer.iterations.numpy()) == 8
    seconds = trainer.timings()
    assert seconds["collect"] > 0.0
    assert seconds["update"] > 0.0


def test_an_environment_that_fails_leaves_whole_iterations_that_can_be_saved() -> None:
    jams = ("env.id=tests.helpers.toy_envs:Jams", "+env.kwargs.at=20", "env.max_episode_steps=5")
    trainer = maker(*DQN, "env=gymnasium", *jams, "trainer.rollout_steps=4", "compile=eager")()
    with pytest.raises(EnvironmentFault, match=r"(?s)the simulator is jammed.*"):
        # At its 20th step, in the middle of the sixth iteration or before it, resets counted
        trainer.train(400)
    assert 0 < trainer.step < 60
    assert trainer.step == 8 * int(trainer.iterations.numpy())
    assert int(trainer.replay.written.numpy()) == trainer.step // 2
    state = trainer.host_state()
    assert state["done"] == trainer.step // 8
    assert state["environments"] is not None


# ---- tracing and memory --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param((*PPO, *env("CartPole-v1"), *NORMALIZED), id="ppo"),
        pytest.param((*DQN, "env=catch"), id="dqn-compiled-environment"),
    ],
)
def test_nothing_is_traced_again_and_memory_does_not_grow(overrides: tuple[str, ...]) -> None:
    trainer = maker(
        *overrides,
        "compile=graph",
        "trainer.evaluation.episodes=3",
        "trainer.evaluation.video_every=0",
    )()
    traced: list[str] = []
    for name in ("act", "learn"):
        setattr(trainer, name, noted(traced, name, getattr(trainer, name)))
    for name in ("act_greedy", "act_sampled"):
        setattr(trainer.agent, name, noted(traced, name, getattr(trainer.agent, name)))

    def use(rounds: int, steps: int) -> None:
        for _ in range(rounds):
            trainer.train(steps)
            trainer.peek(), trainer.scalars(), trainer.timings(), trainer.host_state()
            trainer.evaluate(media=False)

    use(2, 64)
    warm = len(traced)
    before = _resident()
    assert {"act", "learn", "act_greedy", "act_sampled"} <= set(traced)
    use(6, 320)
    use(3, 32)  # other numbers of steps
    gc.collect()
    assert len(traced) == warm, traced[warm:]
    assert _resident() - before < 20_000  # kB; what one retracing of an update takes alone


def noted(into: list[str], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **settings: Any) -> Any:
        into.append(name)
        return function(*arguments, **settings)

    return call


def _resident() -> int:
    """Resident memory at its largest, in kB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
