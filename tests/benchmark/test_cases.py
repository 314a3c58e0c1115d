"""`sparring benchmark`: its cases compose, its figures are medians of what was measured, its table
says them.
"""

import functools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from omegaconf import DictConfig, OmegaConf

from sparring.agents.training import time_breakdown
from sparring.benchmark import cases, measurements, scaling
from sparring.cli import benchmark, setup
from sparring.config import targets
from sparring.config.composer import CONF, Composer
from sparring.envs.compiled.throughput import random_actions, stepping
from sparring.errors import UserError
from sparring.gans import time_breakdown as gans_time_breakdown
from sparring.training import experiment
from sparring.training.experiment import build
from sparring.xla import random

pytestmark = pytest.mark.long

CASES = OmegaConf.to_container(OmegaConf.load(CONF / "benchmark.yaml"))["cases"]


@pytest.fixture(autouse=True)
def resolvers() -> None:
    setup.prepare()


@pytest.mark.parametrize("name", CASES)
def test_a_case_composes_and_its_measure_takes_what_it_is_given(name: str) -> None:
    case = CASES[name]
    cfg = Composer(case["config"]).compose([*case["overrides"], "run.steps=1000", "run.name=b"])
    targets.check_arguments({"measure": {**case["measure"], "_partial_": True}})
    targets.check_arguments(
        OmegaConf.to_container(OmegaConf.masked_copy(cfg, [k for k in cfg if k != "hydra"]))
    )
    for peer in case.get("peers", {}).values():
        assert (cases.PEERS / peer["script"]).is_file()


@pytest.mark.parametrize(
    ("name", "peer"),
    [(name, peer) for name, case in CASES.items() for peer in case.get("peers", {})],
)
def test_a_peer_is_given_the_same_work(name: str, peer: str) -> None:
    case = CASES[name]
    cfg = Composer(case["config"]).compose([*case["overrides"], "run.steps=1000", "run.name=b"])
    given = case["peers"][peer]["settings"]
    same = _gan_work(cfg) if case["config"] == "gan" else _rl_work(cfg, case["peers"][peer]["kind"])
    told = given | ({"activation": given["activation"].lower()} if "activation" in given else {})
    assert {
        key: (value, same[key]) for key, value in told.items() if key in same and value != same[key]
    } == {}
    assert told.keys() - same.keys() <= {"env", "filters", "stored"}


def _rl_work(cfg: DictConfig, kind: str) -> dict[str, Any]:
    trainer = cfg.trainer
    same = {
        "num_envs": trainer.num_envs,
        "units": cfg.network.units,
        "activation": cfg.network.activation,
    }
    same |= {"rollout_steps": trainer.rollout_steps, "learning_rate": cfg.optimizer.learning_rate}
    if kind not in ("ppo", "pqn", "gail"):
        return same | {"batch_size": trainer.batch_size, "capacity": trainer.capacity}
    batch = trainer.num_envs * trainer.rollout_steps // trainer.minibatches
    same |= {"epochs": trainer.epochs, "batch_size": batch, "minibatches": trainer.minibatches}
    if kind == "gail":
        return same | _gail_work(cfg)
    if kind == "pqn":  # and what jax_pqn.py assumes
        assert (cfg.agent.discount, cfg.agent.trace, cfg.agent.epsilon) == (0.99, 0.65, 0.1)
        assert cfg.optimizer.optimizer.global_clipnorm == 10.0
        return same | {"layer_norm": cfg.network.layer_norm}
    return same | {"entropy": cfg.agent.entropy_coefficient}


def _gail_work(cfg: DictConfig) -> dict[str, Any]:
    """Arguments of imitation_gail.py beyond those of PPO; it has no penalty either."""
    assert cfg.penalty == {}
    assert cfg.loss._target_ == "sparring.gans.losses.NonSaturating"
    return {
        "demonstrations": cfg.demonstrations.episodes,
        "discriminator_batch": cfg.reward_source.batch_size,
        "discriminator_updates": cfg.reward_source.updates,
        "discriminator_units": cfg.discriminator.units,
    }


def _gan_work(cfg: DictConfig) -> dict[str, Any]:
    """Arguments of torch_dcgan.py; its assumptions are held here: its images, rates, loss
    and shared step.
    """
    assert (cfg.data.size, cfg.network.latent, cfg.game.n_critic) == (32, 100, 1)
    assert (cfg.network.generator.normalization, cfg.network.discriminator.normalization) == (
        "batch",
        "none",
    )
    assert cfg.loss._target_ == "sparring.gans.losses.NonSaturating"
    assert {cfg.generator_optimizer.learning_rate, cfg.discriminator_optimizer.learning_rate} == {
        2e-4
    }
    width = {cfg.network.generator.width, cfg.network.discriminator.width}.pop()
    assert cfg.network.discriminator.width == width
    return {
        "width": width,
        "batch_size": cfg.game.batch_size,
        "penalty": next(iter(cfg.penalty), None),
    }


def test_the_median_counts_and_each_peer_is_taken_at_its_better_number_of_threads(
    monkeypatch, tmp_path, capsys
) -> None:
    ours = iter([10.0, 1000.0, 50.0, 20.0])
    asked = []
    rates = {
        ("sb3.py", 1): 4.0,
        ("sb3.py", 2): 5.0,
        ("jax_ppo.py", 1): 70.0,
        ("jax_ppo.py", 2): 60.0,
    }

    def answer(command: list[str]) -> dict[str, float]:
        if command[0] == "/bin/true":
            script = Path(command[1]).name
            threads = int(command[-1])
            asked.append((script, threads))
            return {
                "steps_per_second": rates[script, threads],
                "threads": threads,
                "compile_seconds": threads,
            }
        asked.append("ours")
        where = {
            "device": "CPU",
            "precision": "float32",
            "strategy": "one_device",
            "compile": "xla",
        }
        return {
            "steps_per_second": next(ours),
            "share_collect": 0.25,
            "compile_seconds": 1.25,
            "where": where,
        }

    monkeypatch.setattr(cases, "_json_of", answer)
    code = benchmark.main(
        ["ppo_cartpole", "--repeats", "4", "--peer-python", "/bin/true", "--out", str(tmp_path)]
    )
    found = json.loads((tmp_path / "benchmark.json").read_text())["cases"]["ppo_cartpole"]
    assert code == 0
    turns = [["ours", ("sb3.py", t), ("jax_ppo.py", t)] for t in (1, 2)]
    assert asked == [*turns[0], *turns[1]] * 2
    assert found["steps_per_second"] == 35.0  # of 10, 20, 50 and 1000
    assert found["all"] == [10.0, 1000.0, 50.0, 20.0]
    assert [(p["steps_per_second"], p["ratio"]) for p in found["peers"].values()] == [
        (5.0, 7.0),
        (70.0, 0.5),
    ]
    assert found["peers"]["jax"]["by_threads"] == {"1": [70.0, 70.0], "2": [60.0, 60.0]}
    assert found["peers"]["jax"]["compile_seconds"] == 1.5  # of 1, 2, 1 and 2
    table = (tmp_path / "benchmark.md").read_text()
    assert "| case | steps/s or seconds | sb3 | ratio | jax | ratio |" in table
    assert (
        f"| ppo_cartpole: {CASES['ppo_cartpole']['about']} | 35 | 5 | 7.00 | 70 | 0.50 |" in table
    )
    assert found["where"] == {
        "device": "CPU",
        "precision": "float32",
        "strategy": "one_device",
        "compile": "xla",
    }
    place = "device CPU, precision float32, strategy one_device, compile xla"
    assert f"- ppo_cartpole: share collect 25%, compile seconds 1.2; {place}\n" in table
    assert table in capsys.readouterr().out


def test_a_case_without_a_peer_that_others_have_leaves_its_columns_empty() -> None:
    found = {
        "ppo_cartpole": {
            "steps_per_second": 9.0,
            "peers": {"jax": {"steps_per_second": 6.0, "ratio": 1.5}},
        },
        "step_catch": {"steps_per_second": 8.0},
    }
    rows = cases.table(found, CASES).splitlines()
    # No column for sb3: nothing was measured of it
    assert rows[0] == "| case | steps/s or seconds | jax | ratio |"
    assert rows[1].count("---") == 4
    assert rows[2].endswith("| 9 | 6 | 1.50 |")
    assert rows[3].endswith("| 8 | - | - |")


def test_another_interpreter_is_a_column_and_overrides_reach_every_measurement(
    monkeypatch, tmp_path
) -> None:
    asked = []

    def answer(command: list[str]) -> dict[str, float]:
        asked.append(command)
        return {"seconds": 3.0 if command[0] == "/bin/true" else 2.0, "steps": 7}

    monkeypatch.setattr(cases, "_json_of", answer)
    words = [
        "cold_ppo_cartpole",
        "--repeats",
        "1",
        "--also",
        "/bin/true",
        "--override",
        "seed=3",
        "--out",
    ]
    benchmark.main([*words, str(tmp_path)])
    assert all(command[-2:] == ["--override", "seed=3"] for command in asked)
    assert "| 2.0 s | 3.0 s |\n" in (tmp_path / "benchmark.md").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dqn_cartpol"], "no benchmark named dqn_cartpol"),
        (["--repeats", "0"], "--repeats 0: at least one"),
        (["--peer-python", "nowhere/python"], "nowhere/python is no interpreter here"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        benchmark.main(words)


def _measuring(pid: int) -> Path | None:
    """The child of this process that measures."""
    children = map(
        Path("/proc").joinpath, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    )
    return next(
        (child for child in children if b"--measure" in (child / "cmdline").read_bytes()), None
    )


def test_sigterm_leaves_no_process_that_goes_on_measuring(tmp_path) -> None:
    command = [
        sys.executable,
        "-m",
        "sparring",
        "benchmark",
        "ppo_cartpole",
        "--out",
        str(tmp_path),
    ]
    process = subprocess.Popen(
        command, cwd=CONF.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    started = time.monotonic()
    try:
        while not (child := _measuring(process.pid)):
            assert time.monotonic() - started < 120
            time.sleep(0.1)
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
        assert not child.exists()
    finally:
        process.kill()


def _briefly(shares, trainer, parts, seconds):
    assert seconds == 1.0
    return shares(trainer, parts, 0.01)


def test_training_is_measured_with_shares_that_add_up(monkeypatch) -> None:
    overrides = [
        "trainer.num_envs=2",
        "trainer.rollout_steps=8",
        "trainer.minibatches=2",
        "trainer.epochs=2",
    ]
    cfg = Composer("rl").compose(
        ["env=cartpole", "compile=graph", *overrides, "run.steps=100000", "run.name=b"]
    )
    monkeypatch.setattr(
        time_breakdown, "shares", functools.partial(_briefly, time_breakdown.shares)
    )
    found = measurements.training(cfg, 64)
    assert found["steps_per_second"] > 0
    shares = {key: value for key, value in found.items() if key.startswith("share_")}
    assert set(shares) == {"share_collect", "share_shuffle", "share_optimizer", "share_rest"}
    assert sum(shares.values()) == pytest.approx(1.0)


def test_a_gans_shares_add_up_and_its_parts_run_as_often_as_it_runs_them(monkeypatch) -> None:
    overrides = [
        "data=ring",
        "penalty=r1",
        "compile=graph",
        "game.n_critic=2",
        "run.steps=100000",
        "run.name=b",
    ]
    trainer = build(Composer("gan").compose(overrides))
    taken: dict[str, tuple[int, int]] = {}

    def watched(whole, parts, mode, seconds):
        whole(3)
        assert trainer.step == 3 * 2 * 64
        for name, part in parts.items():
            before = _steps_of(trainer)
            part(tf.constant(4, tf.int64), tf.constant(0.0))
            taken[name] = tuple(b - a for a, b in zip(before, _steps_of(trainer), strict=True))
        return shares(whole, parts, mode, 0.01)

    shares = gans_time_breakdown.time_breakdown.shares
    monkeypatch.setattr(gans_time_breakdown.time_breakdown, "shares", watched)
    found = trainer.time_breakdown()
    assert set(found) == {"data", "generate", "optimizers", "average", "penalty", "rest"}
    assert sum(found.values()) == pytest.approx(1.0)
    assert taken.pop("optimizers") == (2, 1)  # two steps of the discriminator, one of the generator
    assert set(taken.values()) == {(0, 0)}


def _steps_of(trainer: Any) -> tuple[int, ...]:
    players = (trainer.game.discriminator, trainer.game.generator)
    return tuple(int(player.optimizer.keras.iterations.numpy()) for player in players)


def test_the_parts_of_an_iteration_are_run_as_often_as_it_runs_them() -> None:
    overrides = [
        "trainer.rollout_steps=4",
        "trainer.updates=3",
        "trainer.learning_starts=1",
        "trainer.batch_size=4",
    ]
    cfg = Composer("rl").compose(
        ["agent=dqn", "env=cartpole", "compile=graph", *overrides, "run.steps=1000", "run.name=b"]
    )
    trainer = build(cfg)
    trainer.train(4)
    before = int(trainer.agent.scheduled.keras.iterations.numpy())
    assert before == 3
    time_breakdown.optimizing(trainer, 3)(tf.constant(0, tf.int64), tf.constant(0.0))
    assert int(trainer.agent.scheduled.keras.iterations.numpy()) == before + 3
    (state, _), _ = trainer.driver.carry.read()
    time_breakdown.collecting(trainer)(tf.constant(1, tf.int64), tf.constant(0.0))
    (after, _), _ = trainer.driver.carry.read()
    # No episode of CartPole ends so soon
    np.testing.assert_array_equal(after.elapsed, state.elapsed + 4)


def test_a_run_that_does_not_reach_its_target_took_for_ever(monkeypatch) -> None:
    def run(command: list[str], **_: object) -> None:
        folder = next(word.partition("=")[2] for word in command if word.startswith("run.dir="))
        (Path(folder) / "cold").mkdir()
        result = {"status": statuses.pop(), "step": 7, "seconds": {"imports": 1.0}}
        (Path(folder) / "cold" / "result.json").write_text(json.dumps(result))

    statuses = ["finished", "target"]
    monkeypatch.setattr(measurements.subprocess, "run", run)
    reached = measurements.cold_start(OmegaConf.create(), ["rl"], target=475)
    assert 0.0 < reached["seconds"] < 60.0
    assert (reached["steps"], reached["imports_seconds"]) == (7, 1.0)
    assert measurements.cold_start(OmegaConf.create(), ["rl"], target=475)["seconds"] == float(
        "inf"
    )


def test_stepping_counts_every_member() -> None:
    cfg = OmegaConf.create(
        {"env": {"_target_": "sparring.envs.compiled.toys.Catch"}, "compile": "graph"}
    )
    found = stepping(cfg, batches=[1, 64], seconds=0.05)
    assert set(found) == {"steps_per_second", "batch_1", "batch_64"}
    assert found["steps_per_second"] == max(found["batch_1"], found["batch_64"])


@pytest.mark.parametrize(
    ("space", "means", "least", "most"),
    [
        (spaces.Discrete(4), 1.5, 0, 3),
        (spaces.MultiDiscrete([2, 5]), [0.5, 2.0], [0, 0], [1, 4]),
        (spaces.Box(np.float32([-1, 0]), np.float32([1, 10])), [0.0, 5.0], [-1, 0], [1, 10]),
    ],
)
def test_random_actions_are_uniform(space, means, least, most) -> None:
    keys = random.members(random.stream(0, "t"), 4000)
    actions = random_actions(space, keys).numpy()
    assert actions.dtype == (np.float32 if isinstance(space, spaces.Box) else np.int32)
    # Five standard errors of the widest
    np.testing.assert_allclose(actions.mean(axis=0), means, atol=0.2)
    np.testing.assert_allclose(actions.min(axis=0), least, atol=0.02)
    np.testing.assert_allclose(actions.max(axis=0), most, atol=0.02)


@pytest.mark.parametrize(
    ("num_envs", "steps"),
    [(1, 512), (3, 171), (4, 128), (5, 128), (128, 128), (512, 32), (8192, 2), (20000, 1)],
)
def test_a_rollout_keeps_its_size_over_numbers_of_environments(num_envs: int, steps: int) -> None:
    assert scaling.rollout_steps(num_envs, 128) == steps


def test_every_size_is_a_config_of_its_own(monkeypatch) -> None:
    asked = []

    def alone(work, config, seconds) -> float:
        assert (work, seconds) == (scaling.rate, 0.1)
        trainer = config["trainer"]
        network = config["trainer"]["network"]
        asked.append((trainer["num_envs"], trainer["rollout_steps"], network["units"]))
        return 10.0 * len(asked)

    monkeypatch.setattr(scaling, "alone", alone)
    overrides = ["env=cartpole", "trainer.num_envs=4", "trainer.rollout_steps=128"]
    cfg = Composer("rl").compose([*overrides, "run.steps=1000", "run.name=b"])
    found = scaling.scaling(cfg, num_envs=[1, 512], units=[16], seconds=0.1)
    assert asked == [(1, 512, [64, 64]), (512, 32, [64, 64]), (4, 128, [16, 16])]
    assert found == {
        "steps_per_second": 30.0,
        "num_envs_1": 10.0,
        "num_envs_512": 20.0,
        "units_16": 30.0,
    }
    assert scaling.curves(found) == {"num_envs": [(1, 10.0), (512, 20.0)], "units": [(16, 30.0)]}


def test_a_rate_is_steps_over_the_time_they_took(monkeypatch) -> None:
    clock = Clock()
    monkeypatch.setattr(experiment, "build", lambda cfg: clock)
    monkeypatch.setattr(scaling.time, "perf_counter", lambda: clock.now)
    # Not slowed by the 9 s of the first iteration
    assert scaling.rate({}, seconds=2.0) == pytest.approx(1000.0)
    assert 1.0 < clock.now - 9.0 < 10.0


class Clock:
    """A trainer of 100 steps an iteration and a thousand a second, after 9 seconds of compiling."""

    def __init__(self) -> None:
        self.step = 0
        self.now = 0.0

    def train(self, steps: int) -> None:
        iterations = -(-steps // 100)
        self.now += 0.1 * iterations if self.step else 9.0
        self.step += 100 * iterations

    def close(self) -> None:
        pass


def test_sizes_are_drawn_where_there_are_some(tmp_path, monkeypatch) -> None:
    file = tmp_path / "scaling.png"
    assert scaling.draw({"step_catch": {"steps_per_second": 8.0, "batch_1": 8.0}}, file) == ""
    found = {
        "ppo": {"num_envs_64": 20.0, "num_envs_8": 10.0},
        "dqn": {"num_envs_8": 3.0, "units_16": 4.0},
    }
    assert scaling.draw(found, file) == f"drawn: {file}"
    assert file.read_bytes().startswith(b"\x89PNG")
    assert scaling.curves(found["ppo"]) == {"num_envs": [(8, 10.0), (64, 20.0)]}
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert scaling.draw(found, file) == f"{file} is not drawn: pip install matplotlib."
