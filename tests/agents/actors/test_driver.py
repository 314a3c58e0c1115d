"""A learner and its actors on a cluster of Ray's, nodes and all, on this machine."""

import contextlib
import functools
import importlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from omegaconf import open_dict

from sparring.agents.actors import driver as actors_driver
from sparring.agents.actors.settings import Ray
from sparring.cli import setup
from sparring.config import targets
from sparring.config.composer import Composer
from sparring.errors import UserError
from sparring.processes import signals
from sparring.storage import manifest, variable_names

pytestmark = pytest.mark.long

SIZES = [
    "env=gymnasium",
    "packages=[tests]",
    "run.name=x",
    "run.steps=100000",
    "trainer.num_envs=4",
    "trainer.rollout_steps=8",
]
CHAIN = ["env.id=tests.helpers.toy_envs:Counted", "env.info=[position]"]
PPO = ["agent=ppo", "trainer.minibatches=2", "trainer.epochs=2", "trainer.normalize_rewards=true"]
AGENTS = {  # PPO without a memory is in test_processes.py
    "dqn": ["agent=dqn", "trainer.learning_starts=16", "env.id=CartPole-v1", "compile=graph"],
    "memory": [*PPO, *CHAIN, "memory=gru", "compile=graph"],
}


def make(overrides: Sequence[str], actors: Ray | None = None) -> Any:
    """A trainer; an actor calls this too."""
    setup.prepare()
    cfg = Composer("rl").compose([*SIZES, *overrides])
    tf.keras.utils.set_random_seed(cfg.seed)
    with open_dict(cfg):
        cfg.trainer._partial_ = True
        del cfg.trainer.actors
    return targets.instantiate(cfg.trainer)(actors=actors)


@contextlib.contextmanager
def made(overrides: Sequence[str], **settings: Any) -> Iterator[Any]:
    """A trainer with actors, if there are settings of them, that is closed in the end."""
    build = functools.partial(make, overrides)
    trainer = make(overrides, Ray(build=build, **settings) if settings else None)
    try:
        yield trainer
    finally:
        trainer.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster with two nodes: a head, and one that has what is called far, for two actors."""
    pytest.importorskip("ray")
    cluster_utils = importlib.import_module("ray.cluster_utils")
    before = os.environ.copy()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = str(Path.cwd())
    terminated = signal.getsignal(signal.SIGTERM)
    made = cluster_utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 8, "include_dashboard": False}
    )
    ray = importlib.import_module("ray")
    ray.init(made.address, log_to_driver=False, configure_logging=False)
    yield made
    ray.shutdown()
    made.shutdown()
    signal.signal(signal.SIGTERM, terminated)
    os.environ.clear()
    os.environ.update(before)


def variables(trainer: Any) -> dict[str, np.ndarray]:
    found = variable_names.named_variables(trainer.checkpoint)
    return {name: variable.numpy() for name, variable in found.items()}


def assert_same(one: Any, other: Any) -> None:
    ours = variables(one)
    theirs = variables(other)
    assert ours.keys() == theirs.keys()
    assert [n for n in ours if not np.array_equal(ours[n], theirs[n], equal_nan=True)] == []


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    return manifest.decode_host(*manifest.encode_host(state))


@pytest.mark.parametrize("agent", AGENTS)
def test_actors_compute_what_one_process_does_to_the_last_bit(agent: str, cluster: Any) -> None:
    """With a memory the numbers of episodes' infos are told too."""
    with made(AGENTS[agent]) as alone, made(AGENTS[agent], count=2) as shared:
        for trainer in (alone, shared):
            trainer.train(3 * 32)
        assert_same(alone, shared)
        ours = shared.host_state()
        theirs = alone.host_state()
        np.testing.assert_equal(ours["environments"], theirs["environments"])
        noted = dict(shared.peek())
        assert noted.pop("actors/staleness") == 0.0
        assert noted.pop("actors/lost") == 0.0
        assert noted == alone.peek()
        if agent == "memory":
            assert noted["rollout/position"] == 3.0


def copied(trainer: Any) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in variables(trainer).items()}


def test_actors_that_are_ahead_go_on_from_what_was_saved_as_if_nothing_had_been(
    cluster: Any,
) -> None:
    """Rollouts are of the weights from two iterations ago, whoever is faster, and are saved."""
    with (
        made(AGENTS["memory"], count=2, ahead=2) as first,
        made(AGENTS["memory"], count=1, ahead=2) as second,
    ):
        first.train(3 * 32)
        assert first.peek()["actors/staleness"] == pytest.approx((0 + 1 + 2) / 3)
        state = through_a_file(first.host_state())
        assert len(state["environments"]["pending"]) == 2
        saved = copied(first)
        for name, variable in variable_names.named_variables(second.checkpoint).items():
            variable.assign(saved[name])
        assert second.load_host_state(state) == []
        for trainer in (first, second):
            trainer.train(3 * 32)
        assert_same(first, second)
        assert second.peek() == first.peek()
        assert second.peek()["actors/staleness"] == pytest.approx((0 + 1 + 2 * 4) / 6)


def pid(trainer: Any, number: int) -> int:
    ray = importlib.import_module("ray")
    return ray.get(trainer.driver._actors[number].__ray_call__.remote(lambda self: os.getpid()))


def test_the_death_of_an_actor_and_of_a_node_is_survived_and_every_step_learned_from_once(
    cluster: Any,
) -> None:
    node = cluster.add_node(num_cpus=2, resources={"far": 2})
    far = {"count": 2, "ahead": 1, "options": {"resources": {"far": 1}}}
    with made(AGENTS["dqn"], **far) as trainer:
        trainer.train(2 * 32)
        os.kill(pid(trainer, 1), signal.SIGKILL)
        trainer.train(2 * 32)
        assert trainer.peek()["actors/lost"] == pytest.approx(1 / 4)
        saved = through_a_file(trainer.host_state())["environments"]
        assert all(one["generator"] for one in saved["environments"][:2])
        cluster.add_node(num_cpus=2, resources={"far": 2})
        cluster.remove_node(node)
        trainer.train(3 * 32)
        values = trainer.peek()
        assert values["actors/lost"] == pytest.approx(3 / 7)  # both of the node's
        assert values["actors/staleness"] == pytest.approx(6 / 7)
        written = variables(trainer)
        count = next(v for name, v in written.items() if name.endswith("replay/written"))
        assert int(count) * 4 == trainer.step == 7 * 32


def test_an_environment_that_raises_ends_the_run_with_its_words_and_the_state_can_be_saved(
    cluster: Any,
) -> None:
    jams = [*AGENTS["dqn"][:-2], "env.id=tests.helpers.toy_envs:Jams", "+env.kwargs.at=12"]
    with made(jams, count=1) as trainer:
        trainer.train(32)
        with pytest.raises(
            UserError, match=r"^Actor 0: environment \d \(Jams\) at step \d+ failed"
        ):
            trainer.train(32)
        assert trainer.step == 32
        state = through_a_file(trainer.host_state())
    with made(jams) as alone:
        alone._done = 1
        complaints = alone.load_host_state(state)
        assert complaints == [
            "All 4 environments (Jams) start new episodes: it was saved without a record."
        ]


def test_a_run_that_is_to_stop_waits_for_no_actor_that_is_not_there(
    cluster: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors_driver, "_TELL_SECONDS", 1.0)
    nowhere = {"count": 2, "options": {"resources": {"nowhere": 1}}}
    stop = signals.Interrupt()
    with made(AGENTS["dqn"], **nowhere) as trainer, stop.listening():
        signal.signal(signal.SIGALRM, lambda *_: setattr(stop, "asked", True))
        signal.alarm(3)
        started = time.monotonic()
        with pytest.raises(signals.StoppedError):
            trainer.train(32)
        assert time.monotonic() - started < 10.0
        assert "Waiting for actors 0, 1, more than 1 s." in caplog.text


def test_an_actor_that_is_lost_again_and_again_ends_the_run(cluster: Any) -> None:
    dies = [*AGENTS["dqn"][:-2], "env.id=tests.helpers.toy_envs:Dies", "+env.kwargs.at=12"]
    once = {"max_restarts": 0, "max_task_retries": 0}
    with made(dies, count=1, options=once) as trainer:
        trainer.train(32)
        with pytest.raises(UserError, match="Actor 0 was lost, as was each in its place: The act"):
            trainer.train(32)
        assert trainer.driver.snapshot()["environments"] is None  # nobody is waited for
