"""`sparring demonstrate` and `sparring imitation`: from a run to its imitator, and refusals."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from sparring.agents.imitation.demonstrations import load
from sparring.agents.imitation.recording import record
from sparring.cli import demonstrate, setup
from sparring.config.composer import Composer
from sparring.config.validation import Command
from sparring.envs.compiled.classic_control import FixedHorizonCartPole
from sparring.errors import UserError
from sparring.storage import run_folder
from sparring.training.experiment import train
from tests.helpers import demonstrations, runs

pytestmark = pytest.mark.long

SMALL = (
    "compile=eager",
    "network.units=[4]",
    "trainer.evaluation.episodes=2",
    "trainer.evaluation.sampled=false",
    "trainer.evaluation.video_every=0",
    "env.max_episode_steps=15",
)
STEPPING = ("trainer.num_envs=2", "trainer.rollout_steps=8", "trainer.epochs=1")
SHORT = ("run.steps=64", "run.log_every=32", "run.evaluate_every=32", "run.checkpoint_every=32")


@pytest.fixture(autouse=True)
def resolvers() -> None:
    setup.prepare()


def run(kind: str, folder: Path, *overrides: str) -> dict[str, Any]:
    """Run `sparring KIND` in this process; return its result."""
    typed = [*SMALL, *SHORT, *overrides, f"run.dir={folder.parent}", f"run.name={folder.name}"]
    cfg = Command(Composer(kind), typed, multirun=False).cfg
    OmegaConf.resolve(cfg.run)
    train(OmegaConf.masked_copy(cfg, [k for k in cfg if k != "hydra"]), folder, time.time())
    found: dict[str, Any] = json.loads((folder / run_folder.RESULT).read_text())
    return found


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of three episodes of a run."""
    setup.prepare()
    folder = tmp_path_factory.mktemp("runs")
    run("rl", folder / "expert", "env=cartpole", "trainer.minibatches=1", *STEPPING)
    out = folder / "mine.npz"
    assert demonstrate.main([str(folder / "expert"), "--episodes", "3", "--out", str(out)]) == 0
    return out


def test_a_run_is_recorded_with_the_environments_config(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = load(str(recorded))
    assert found.episodes == 3
    assert found.metadata["environment"]["max_episode_steps"] == 15
    assert found.metadata["checkpoint"] == "best"
    assert found.metadata["run"] == str(recorded.parent / "expert")
    again = recorded.parent / "again.npz"
    demonstrate.main(
        [str(recorded.parent / "expert"), "env.max_episode_steps=4", "--out", str(again)]
    )
    assert f"{again}: 10 episodes, 40 steps" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["gail", "airl"])
def test_a_discriminator_is_an_agents_reward(method: str, recorded: Path, tmp_path: Path) -> None:
    result = run(
        "imitation",
        tmp_path / "run",
        "env=cartpole",
        f"method={method}",
        f"expert={recorded}",
        "discriminator=mlp_spectral",
        "discriminator.units=[4]",
        "penalty=r1",
        "reward_source.batch_size=8",
        "reward_source.updates=2",
        "trainer.minibatches=1",
        *STEPPING,
    )
    assert result["objective"]["name"] == "eval/episode_return"
    curves = runs.scalars(tmp_path / "run")
    for tag in ("imitation/reward", "penalty/r1", "loss/discriminator"):
        assert list(curves[tag]) == [32, 64], tag


def test_cloning_needs_no_steps_of_the_environment(tmp_path: Path) -> None:
    expert = demonstrations.file("cartpole")
    run("imitation", tmp_path / "run", "env=cartpole", "method=bc", f"expert={expert}")
    curves = runs.scalars(tmp_path / "run")
    assert "loss/cloning" in curves
    assert "imitation/expert_share" in curves
    assert not any(tag.startswith("rollout/") for tag in curves)


def test_dagger_asks_a_run(tmp_path: Path) -> None:
    expert = demonstrations.trained_run()
    typed = ["env=cartpole", "method=dagger", f"expert={expert}", "trainer.updates=2"]
    run("imitation", tmp_path / "run", *typed, "trainer.num_envs=2", "trainer.rollout_steps=8")
    curves = runs.scalars(tmp_path / "run")
    assert list(curves["imitation/agreement"]) == [32, 64]


REFUSED = {
    "no demonstrations": ([], "expert is left open: give it a value"),
    "no file": (["expert=none.npz"], "expert=none.npz: there is no such file. Record one"),
    "another environment": (
        ["env=acrobot", f"expert={demonstrations.file('cartpole')}"],
        r"its observations are float32 \[4\], which do not fit",
    ),
    "too few episodes": (
        [f"expert={demonstrations.file('cartpole')}", "demonstrations.episodes=6"],
        "demonstrations.episodes=6: expert=.* has 5",
    ),
    "a memory": (
        [f"expert={demonstrations.file('cartpole')}", "memory=lstm"],
        "memory: no such key. `sparring rl` has it",
    ),
    "an agent with a memory": (
        [f"expert={demonstrations.file('cartpole')}", "agent=r2d2"],
        "imitator=r2d2: no such option. There are: a2c, double_dqn, dqn",
    ),
    "AIRL of an agent off policy": (
        [f"expert={demonstrations.file('cartpole')}", "agent=dqn", "method=airl"],
        "method=airl: its discriminator asks for log probabilities",
    ),
    "a learned reward of an agent off policy": (
        [
            f"expert={demonstrations.file('cartpole')}",
            "agent=dqn",
            "method=transfer",
            "reward_from=runs/mine",
        ],
        "reward_source: method=transfer pays for rollouts",
    ),
    "SQIL of an agent on policy": (
        [f"expert={demonstrations.file('cartpole')}", "method=sqil", "agent=ppo"],
        "method=sqil: it learns from replay, and this agent from its rollouts",
    ),
    "DQN where SAC is asked for": (
        [f"expert={demonstrations.file('cartpole')}", "method=sqil", "agent=sac"],
        "SAC chooses vectors of numbers",
    ),
    "absorbing states without a discount": (
        [
            f"expert={demonstrations.file('cartpole')}",
            "agent.discount=1",
            "reward_source.absorbing=true",
        ],
        "a reward for ever has no finite worth at agent.discount=1",
    ),
    "absorbing states of AIRL": (
        [
            f"expert={demonstrations.file('cartpole')}",
            "method=airl",
            "reward_source.absorbing=true",
        ],
        "reward_source.absorbing=true: AIRL's ends are terms of its own",
    ),
    "an expert of DAgger that is no run": (
        [f"expert={demonstrations.file('cartpole')}", "method=dagger"],
        "expert=.*cartpole.npz: no run's folder",
    ),
    "an expert of DAgger elsewhere": (
        [f"expert={demonstrations.run()}", "method=dagger", "env=acrobot"],
        "expert=.*: its observation space is Box",
    ),
    "cloning by a loss": (
        [f"expert={demonstrations.file('cartpole')}", "method=bc", "loss=hinge"],
        "loss: nothing reads this key",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_mistakes_are_refused_before_anything_is_built(name: str) -> None:
    overrides, said = REFUSED[name]
    with pytest.raises(UserError, match=said):
        Command(Composer("imitation"), [*overrides, "run.name=x"], multirun=False)


def test_other_settings_are_refused_unless_they_are_meant(recorded: Path) -> None:
    typed = ["env=cartpole", f"expert={recorded}", "run.name=x"]
    with pytest.raises(UserError, match=r"env\.max_episode_steps was 15 where it was recorded"):
        Command(Composer("imitation"), typed, multirun=False)
    Command(Composer("imitation"), [*typed, "demonstrations.other_settings=true"], multirun=False)


def test_mistakes_of_demonstrate_are_lines(tmp_path: Path, recorded: Path) -> None:
    expert = str(recorded.parent / "expert")
    for arguments, said in (
        ([expert, "--episodes", "0"], "--episodes 0: at least one"),
        ([expert, "--out", "x.csv"], "--out x.csv: demonstrations are a file that ends in .npz"),
        ([expert, "--seed", "-1"], "--seed -1: from 0 to"),
        ([str(tmp_path)], "is not a run's folder"),
    ):
        with pytest.raises(UserError, match=said):
            demonstrate.main(arguments)


@pytest.mark.slow
def test_an_expert_that_always_goes_left_teaches_nobody_to_balance(tmp_path: Path) -> None:
    """Check the control of survival bias: on a fixed horizon the imitator falls as the expert."""
    environment = FixedHorizonCartPole()

    def left(observation: np.ndarray, t: int) -> np.ndarray:
        return np.zeros(len(observation), np.int64)

    expert = record(environment, left, 60, seed=0)
    assert expert.returns.mean() < 12.0
    expert.save(tmp_path / "left.npz")
    typed = [
        "experiment=imitation_gail_cartpole",
        f"expert={tmp_path}/left.npz",
        "trainer.evaluation.video_every=0",
        "run.steps=100000",
        f"run.dir={tmp_path}",
        "run.name=run",
    ]
    cfg = Command(Composer("imitation"), typed, multirun=False).cfg
    OmegaConf.resolve(cfg.run)
    found = train(
        OmegaConf.masked_copy(cfg, [k for k in cfg if k != "hydra"]), tmp_path / "run", time.time()
    )
    assert found is not None
    assert found < 25.0
