"""docs/extending.md, done: a package outside the repository brings environment, network and agent
by YAML alone.
"""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from omegaconf import OmegaConf

from sparring.agents.networks import specs
from sparring.optim.optimizer import Scheduled
from tests.helpers import runs
from tests.helpers.commands import ended

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [match.groups() for match in BLOCK.finditer((ROOT / "docs/extending.md").read_text())]
FILES = {name: text for _, name, text in BLOCKS if name}
COMMANDS = [text.strip() for language, _, text in BLOCKS if language == "sh"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    """A folder outside the repository that holds the page's files."""
    folder = tmp_path_factory.mktemp("elsewhere")
    assert not folder.is_relative_to(ROOT)
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "my_lab/__init__.py").touch()
    (folder / "bin").mkdir()
    (folder / "bin/sparring").write_text(f'#!/bin/sh\nexec {sys.executable} -m sparring "$@"\n')
    (folder / "bin/sparring").chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def trained(lab) -> list[subprocess.CompletedProcess]:
    """The page's commands, run one after another."""
    environment = {
        **os.environ,
        "PATH": f"{lab / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    return [
        subprocess.run(
            ["sh", "-c", c],
            cwd=lab,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        for c in COMMANDS
    ]


def test_the_page_shows_what_it_speaks_of():
    assert set(FILES) == {
        "my_lab/environments.py",
        "my_lab/networks.py",
        "my_lab/agents.py",
        "my_lab/conf/env/corridor.yaml",
        "my_lab/conf/network/fourier.yaml",
        "my_lab/conf/agent/soft_dqn.yaml",
        "my_lab/conf/mine.yaml",
        "my_lab/hooks.py",
        "my_lab/conf/watched.yaml",
    }
    assert [
        re.search(r"searchpath|--config-name|--config-dir|evaluate", c)[0] for c in COMMANDS
    ] == ["searchpath", "--config-dir", "--config-dir", "evaluate", "--config-dir"]


def test_every_command_of_the_page_works(trained):
    for command, done in zip(COMMANDS, trained, strict=True):
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize(
    ("run", "network"),
    [
        ("first", "my_lab.networks.Fourier"),
        ("second", "sparring.networks.mlp.MLP"),
        ("third", "my_lab.networks.Fourier"),
    ],
)
def test_what_was_trained_is_the_labs(trained, lab, run, network):
    cfg = OmegaConf.load(lab / "runs" / run / "config.yaml")
    assert cfg.env.id == "my_lab.environments:Corridor"
    assert (cfg.agent._target_, cfg.network._target_) == ("my_lab.agents.SoftDQN", network)
    assert cfg.agent.temperature == (0.1 if run == "second" else 0.02)
    assert cfg.trainer._target_ == "sparring.agents.training.off_policy.OffPolicyTrainer"
    assert runs.result(lab / "runs" / run)["status"] == "finished"


def test_it_learns_to_walk_to_the_end(trained, lab):
    result = runs.result(lab / "runs" / "third")
    assert result["objective"] == {"name": "eval/episode_return", "value": 1.0}
    assert result["final"]["eval/episode_length"] == 8
    (evaluation,) = result["evaluations"]
    assert (evaluation["episodes"], evaluation["scalars"]["eval/episode_return"]) == (10, 1.0)


def test_the_callback_was_called_and_its_scalar_logged(trained, lab):
    run = lab / "runs" / "watched"
    # evaluate_every is 2000, the run's length
    steps = [line.split()[0] for line in (run / "returns.txt").read_text().splitlines()]
    assert steps == ["2000"]
    logged = runs.scalars(run)
    assert logged["host/memory"].keys() == logged["loss/td"].keys()
    assert all(0.1 < value < 100.0 for value in logged["host/memory"].values())


class Ones(tf.keras.layers.Layer):
    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.ones_like(x)


def test_the_hook_is_what_learns(lab, monkeypatch):
    monkeypatch.syspath_prepend(lab)
    space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
    actions = gymnasium.spaces.Discrete(2)
    adam = Scheduled(tf.keras.optimizers.Adam(), 0.1)
    agent = importlib.import_module("my_lab.agents").SoftDQN(
        space, actions, network=Ones, optimizer=adam, temperature=2.0
    )
    kernel, bias = agent._target_q_network.variables
    kernel.assign([[1.0, 3.0]])  # so these are the values of the two actions
    bias.assign([0.0, 0.0])
    # The soft maximum of 1 and 3 at temperature 2 is 2 * log((e^0.5 + e^1.5) / 2) = 2.240229; DQN's
    # would be 3.
    values = agent._compute_next_q_values(specs.zero_time_steps(tf.zeros([2, 1])), ())
    np.testing.assert_allclose(values, [2.240229, 2.240229], atol=1e-5)


def test_mistakes_in_ones_own_package_are_lines_too(lab):
    mine = ["rl", "--config-dir", "my_lab/conf", "env=corridor", "agent=soft_dqn"]
    wrong = {
        "agent.temperature=-1": r"agent.temperature=-1: .* above 0",
        "+agent.temprature=1": r"SoftDQN takes no temprature. Did you mean temperature\?",
        "+agent.discont=1": r"agent.discont: .*SoftDQN takes no discont. Did you mean discount\?",
        "agent._target_=my_lab.agents.SoftDQM": r"has no SoftDQM. Did you mean SoftDQN\?",
        "~agent.temperature": "agent: my_lab.agents.SoftDQN needs temperature",
        "+env.kwargs.lenght=3": "lenght",
    }
    found = ended(lab, [[*mine, text] for text in wrong])
    for done, expected in zip(found, wrong.values(), strict=True):
        assert re.fullmatch(rf"sparring: .*{expected}.*\n", done.error), done.error
        assert (done.code, done.left) == (2, [])


def test_without_its_folder_the_package_is_refused(lab):
    (done,) = ended(
        lab, [["rl", "env=gymnasium", "env.id=CartPole-v1", "agent._target_=my_lab.agents.SoftDQN"]]
    )
    assert re.fullmatch(r"sparring: agent._target_=my_lab.*add packages=\[my_lab\]\.\n", done.error)
