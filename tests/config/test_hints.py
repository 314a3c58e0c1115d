"""Hints for what people type out of habit: each that is printed is typed, and accepted."""

import re
import shlex
from pathlib import Path

import pytest

from sparring.cli import setup
from sparring.config import hints
from sparring.config.composer import Composer, leaves
from sparring.config.validation import Command
from sparring.errors import UserError


@pytest.fixture(autouse=True)
def resolvers() -> None:
    setup.prepare()


def refused(kind: str, *typed: str) -> str:
    with pytest.raises(UserError) as error:
        Command(Composer(kind), typed, multirun=False)
    return str(error.value)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("mountaincar", "MountainCar-v0"),
        ("MountainCar-v0", "MountainCar-v0"),
        ("Acrobot", "Acrobot-v1"),
        ("black_jack", "Blackjack-v1"),
    ],
)
def test_a_gymnasium_environment_as_an_option_is_told_how_to_be_chosen(
    typed: str, meant: str
) -> None:
    said = refused("rl", f"env={typed}")
    assert said.startswith(f"env={typed}: no such option. ")
    assert "A Gymnasium environment is env=gymnasium" in said
    advised = re.search(r"(env=gymnasium) (env\.id=\S+)\. ", said)
    assert advised is not None
    assert Command(Composer("rl"), advised.groups(), multirun=False).cfg.env.id == meant


def test_names_of_packages_and_modules_are_environments_too() -> None:
    assert "env=gymnasium env.id=ALE/Pong-v5. " in refused("rl", "env=ALE/Pong-v5")
    assert "env=gymnasium env.id=mine:Maze. " in refused("rl", "env=mine:Maze")
    assert "env=gymnasium env.id=LunarLander-v3. " in refused("rl", "env=lunarlander")
    assert hints.environment("mycartpole") == ""


def test_files_and_folders_are_told_their_reader(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "a.csv").touch()
    assert hints.data(str(tmp_path / "a.csv")).startswith("Data of yours is data=table data.path=")
    folder = tmp_path / "pictures"
    assert f"data=folder data.path={folder}. " in refused("gan", f"data={folder}")
    assert hints.data("nowhere.csv") == ""


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("optimizer.lr", "optimizer.learning_rate"),
        ("lr", "optimizer.learning_rate"),
        ("agent.gamma", "agent.discount"),
        ("trainer.n_steps", "trainer.rollout_steps"),
        ("total_timesteps", "run.steps"),
        ("max_grad_norm", "optimizer.optimizer.global_clipnorm"),
    ],
)
def test_names_of_other_libraries_are_understood(typed: str, meant: str) -> None:
    assert f"{typed}: no such key. Did you mean {meant}? " in refused("rl", f"{typed}=1")


def test_every_synonym_is_of_a_key_that_some_agent_has() -> None:
    composer = Composer("rl")
    keys = {key for agent in ("dqn", "ppo") for key in leaves(composer.compose([f"agent={agent}"]))}
    assert set(hints.SYNONYMS.values()) <= {key.rpartition(".")[2] for key in keys}


@pytest.mark.parametrize(
    ("typed", "has"),
    [
        ("env.id=CartPole-v1", "env=gymnasium"),
        ("env.kwargs.gravity=1", "env=gymnasium"),
        ("agent.target_period=10", "agent=dqn"),
        ("network.cell=3", ""),
    ],
)
def test_a_key_of_an_option_that_is_not_chosen_names_the_option(typed: str, has: str) -> None:
    said = refused("rl", typed)
    assert (f"no such key. {has} has it. " in said) == bool(has)
    assert "+env" not in said
    if has:
        assert "no such key" not in str(_composed(has, typed))


def _composed(*typed: str) -> str:
    try:
        return str(Composer("rl").compose(typed))
    except UserError as error:
        return str(error) if "kwargs" not in str(error) else ""


@pytest.mark.parametrize(
    ("kind", "typed", "has"), [("gan", "env=cartpole", "rl"), ("rl", "loss=hinge", "gan")]
)
def test_a_group_of_another_kind_of_run_names_its_command(kind: str, typed: str, has: str) -> None:
    assert f"no such key. `sparring {has}` has it. " in refused(kind, typed)


@pytest.mark.parametrize(
    ("typed", "meant"), [("1M", "1000000"), ("10k", "10000"), ("1.5k", "1500"), ("2e6", None)]
)
def test_whole_numbers_in_short_form_are_written_out(typed: str, meant: str | None) -> None:
    if meant is None:
        assert Command(Composer("rl"), [f"run.steps={typed}"], multirun=False).cfg.run.steps == 2e6
        return
    said = refused("rl", f"run.steps={typed}")
    assert said.endswith(f"Write {meant}.")
    Command(Composer("rl"), [f"run.steps={meant}"], multirun=False)
    assert hints.whole_number("1.0001k") == ""


@pytest.mark.parametrize("kind", ["rl", "gan", "imitation", "supervised"])
def test_help_and_errors_list_the_options_of_this_kind_of_run(kind: str) -> None:
    lines = Composer(kind).help([]).splitlines()
    names = next(line for line in lines if line.startswith("experiment: ")).partition(": ")[2]
    files = {name: Path(f"conf/experiment/{name}.yaml") for name in names.split(", ")}
    assert files
    for path in files.values():
        assert f"# sparring {kind} " in path.read_text().splitlines()[1]
    assert not any(line.startswith("experiment/") for line in lines)
    assert refused(kind, "experiment=none_of_these").endswith(f"There are: {names}.")


def test_every_experiment_is_offered_by_one_kind_of_run() -> None:
    offered = [
        line.partition(": ")[2].split(", ")
        for kind in ("rl", "gan", "imitation", "supervised")
        for line in Composer(kind).help([]).splitlines()
        if line.startswith("experiment: ")
    ]
    names = sorted(name for several in offered for name in several)
    assert names == sorted(path.stem for path in Path("conf/experiment").glob("*.yaml"))


def test_help_lists_the_networks_of_a_gan() -> None:
    line = next(x for x in Composer("gan").help([]).splitlines() if x.startswith("network: "))
    assert line == "network: dcgan, gan_categorical, gan_mlp, projected, residual, sequences"


@pytest.mark.parametrize("value", ["~nobody/x.h5", "it's me (1)", 'a "b" (c', "$x (", "a)"])
def test_text_that_cannot_be_read_is_quoted_as_advised(value: str) -> None:
    said = refused("rl", f"run.name={value}")
    advised = re.fullmatch(r".*signs is quoted: (.*)\.", said)
    assert advised is not None
    typed = shlex.split(advised[1])  # as a shell does
    assert Command(Composer("rl"), typed, multirun=False).cfg.run.name == value
    assert "Exception" not in said
