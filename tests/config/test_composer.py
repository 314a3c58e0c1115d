"""Composing: ours and a user's configs side by side, suggestions for what is mistyped, overrides as
they are meant.
"""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sparring.cli import setup
from sparring.config import validation
from sparring.config.composer import CONF, Composer, leaves
from sparring.errors import UserError, near


@pytest.fixture(autouse=True)
def resolvers() -> None:
    setup.prepare()


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    files = {
        "own/agent/mine.yaml": "# @package _global_\ndefaults: [dqn, _self_]\nagent: {discount: "
        "0.5}\n",
        "own/mine.yaml": "defaults: [rl, override agent: mine, _self_]\nrun: {steps: 7}\n",
        "far/env/maze.yaml": "defaults: [gymnasium, _self_]\nid: Maze-v0\n",
        "own/searching.yaml": "defaults: [rl, _self_]\nhydra: "
        f"{{searchpath: ['file://{tmp_path}/far']}}\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_an_option_of_ones_own_builds_on_ours(lab: Path) -> None:
    cfg = Composer("rl", str(lab / "own")).compose(["agent=mine"])
    assert (cfg.agent._target_, cfg.agent.discount, cfg.trainer.batch_size) == (
        "sparring.agents.dqn.DQN",
        0.5,
        64,
    )


def test_a_primary_of_ones_own_builds_on_ours(lab: Path) -> None:
    cfg = Composer("mine", str(lab / "own")).compose([])
    assert (cfg.run.steps, cfg.run.keep, cfg.agent.discount) == (7, 2, 0.5)


def test_places_that_a_primary_names_itself_count_as_those_on_the_command_line(lab: Path) -> None:
    searching = Composer("searching", str(lab / "own"))
    assert searching.is_group("env")
    assert "maze" in searching.options("env")
    assert searching.compose(["env=maze"]).env.id == "Maze-v0"
    named = Composer("rl", overrides=[f"hydra.searchpath=[file://{lab}/far]"])
    assert named.places == [f"file://{lab}/far"]
    assert "maze" in named.options("env")


def test_our_own_folder_may_be_named_again() -> None:
    Composer("rl", str(CONF))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("agent.discont", "agent.discount"),
        ("agent.num_envs", "trainer.num_envs"),  # its last part is right
        ("learning_rate", "optimizer.learning_rate"),
        ("traner.epochs", "trainer.epochs"),
        ("steps", "run.steps"),
        ("zzz", ""),
        ("agent.lrr", ""),  # not agent.clip, alike as they look from the front
    ],
)
def test_what_is_mistyped_suggests_what_was_meant(typed: str, meant: str) -> None:
    known = list(leaves(Composer("rl").compose([])))
    assert near(typed, known) == (f"Did you mean {meant}? " if meant else "")


def test_leaves_are_the_keys_a_person_may_set() -> None:
    cfg = OmegaConf.create(
        {"a": {"b": 1, "c": None, "d": "???"}, "e": "${a}", "f": [1], "hydra": {"x": 1}}
    )
    assert list(leaves(cfg)) == ["a.b", "a.c", "a.d", "a", "e", "f"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["run.steps=1e5"], ["run.steps=100000"]),
        (["seed=2.0", "agent.discount=1"], ["seed=2", "agent.discount=1"]),
        (["-m", "run.steps=1e3,2e3,5"], ["run.steps=1000,2000,5"]),
        (["-m", "seed=choice(1.0,2)"], ["seed=1,2"]),
        (["-m", "run.steps=1e1,1e10"], ["run.steps=10,10000000000"]),
        (
            ["optimizer.learning_rate=1e-3", "run.name='1e5'"],
            ["optimizer.learning_rate=1e-3", "run.name='1e5'"],
        ),
    ],
)
def test_whole_numbers_may_be_written_as_people_write_them(
    typed: list[str], meant: list[str]
) -> None:
    found = validation.Command(
        Composer("rl"),
        ["env=gymnasium", "env.id=CartPole-v1", *typed[typed[0] == "-m" :]],
        typed[0] == "-m",
    )
    assert found.overrides[2:] == meant


def test_a_sweep_is_counted_and_its_keys_are_known(lab: Path) -> None:
    gym = ["env=gymnasium", "env.id=CartPole-v1"]
    found = validation.Command(
        Composer("rl"), [*gym, "agent=dqn,ppo", "seed=range(0,5)", "run.steps=9"], True
    )
    assert (found.multirun, found.swept, found.jobs) == (True, ["agent", "seed"], 10)
    (lab / "own/experiment").mkdir()
    sweep = (
        "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: '1,2,3', agent: "
        "ppo}}}\n"
    )
    (lab / "own/experiment/three.yaml").write_text(sweep)
    found = validation.Command(Composer("rl", str(lab / "own")), [*gym, "experiment=three"], False)
    assert (found.multirun, found.swept, found.jobs) == (True, ["seed"], 3)


def test_a_large_sweep_is_looked_at_value_by_value() -> None:
    gym = ["env=gymnasium", "env.id=CartPole-v1"]
    lists = ["trainer.epochs=1,2,3,4,5,6", "trainer.minibatches=1,2,4,8,16,0"]
    # Which no job with the others' first would show
    with pytest.raises(UserError, match=r"^trainer.minibatches=0: "):
        validation.Command(Composer("rl"), [*gym, *lists], True)


@pytest.mark.parametrize("agent", ["dqn", "ppo"])
def test_the_atari_preset_chooses_its_network_and_evaluates_whole_games(agent: str) -> None:
    atari = ["env=atari", "env.id=ALE/Pong-v5", f"agent={agent}"]
    cfg = Composer("rl").compose(atari)
    assert list(cfg.network.filters) == [32, 64, 64]
    assert Composer("rl").compose([*atari, "network=mlp"]).network._target_.endswith("MLP")
    judged = cfg.trainer.evaluation.environment
    assert (judged.id, judged.kwargs) == ("ALE/Pong-v5", cfg.env.kwargs)
    names = [wrapper._target_.rpartition(".")[2] for wrapper in judged.wrappers]
    assert (names, judged.frame_stack) == (["AtariPreprocessing"], 4)
    assert "terminal_on_life_loss" not in judged.wrappers[0]
