"""docs/variants.md, done: each variant as the page shows it, in a package outside of the tree."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from sparring.agents.conformance import check_agent
from sparring.agents.ppo import PPO
from sparring.agents.replay import Rows, Transitions
from sparring.networks.mlp import MLP
from sparring.xla import random
from tests.helpers import runs

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/variants.md").read_text()
BLOCK = re.compile(r"^```(?:python|yaml) (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILES = dict(BLOCK.findall(PAGE))
SEEN = spaces.Box(-1.0, 1.0, (3,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder outside of the repository that holds the page's files."""
    place = tmp_path_factory.mktemp("elsewhere")
    for name, text in FILES.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    (place / "my_lab/__init__.py").touch()
    return place


@pytest.fixture
def load(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(folder)

    def imported(name: str) -> ModuleType:
        return importlib.import_module(f"my_lab.{name}")

    return imported


def test_the_table_counts_the_lines_of_the_page() -> None:
    """Lines of code and comment, without empty ones."""
    counted = {
        Path(name).stem: sum(bool(line.strip()) for line in text.splitlines())
        for name, text in FILES.items()
        if name.endswith(".py")
    }
    told = [int(number) for number in re.findall(r"^\|.*\| (\d+) \|$", PAGE, re.MULTILINE)]
    assert told == list(counted.values()), counted


@pytest.mark.parametrize(
    ("name", "kind"), [("munchausen", "MunchausenDQN"), ("quantiles", "QuantileDQN")]
)
def test_variants_of_dqn_keep_the_contract(load, name: str, kind: str) -> None:
    check_agent(getattr(load(name), kind), SEEN, spaces.Discrete(3))


def test_sac_keeps_the_contract(load) -> None:
    network = lambda: MLP([8], "relu")  # noqa: E731
    sac = load("sac").SAC
    box = spaces.Box(-2.0, 2.0, (2,))
    check_agent(lambda *given: sac(*given, network=network), SEEN, box)


def test_the_encoder_of_parts_keeps_the_contract(load) -> None:
    gated = load("gated").Gated
    network = lambda: gated(picture=lambda: MLP([4]), vector=lambda: MLP([4]))  # noqa: E731
    parts = spaces.Dict(camera=spaces.Box(0, 255, (4, 4, 1), np.uint8), joints=SEEN)
    check_agent(lambda *given: PPO(*given, network=network), parts, spaces.Discrete(2))


class Values(tf.keras.layers.Layer):
    """Values 0 and 0.5 log 3 of the two actions, whatever is seen."""

    def build(self, shape: tf.TensorShape) -> None:
        first = tf.constant_initializer([0.0, 0.5 * np.log(3.0)])
        self.values = self.add_weight("values", [2], initializer=first)

    def call(self, features: tf.Tensor) -> tf.Tensor:
        return tf.zeros([tf.shape(features)[0], 1]) + self.values


def test_munchausen_rewards_likely_actions_by_hand(load) -> None:
    """Of values 0 and t log 3 the policy at temperature t is 1/4 and 3/4: t log(1/4) is added."""
    kind = load("munchausen").MunchausenDQN
    two = spaces.Discrete(2)
    agent = kind(SEEN, two, temperature=0.5, discount=0.0, head=lambda count: Values())
    seen = tf.zeros([1, 3])
    batch = Transitions(seen, tf.constant([0]), tf.ones([1]), tf.ones([1]), seen, tf.ones([1]))
    _, errors = agent.update(batch, random.stream(0, "updates"), tf.constant(0.0))
    # 1 + 0.9 * 0.5 * log(1/4) - 0: what is added is above the lowest, 0.9 * -1
    np.testing.assert_allclose(errors, [0.37616], rtol=1e-4)


def test_prioritised_rows_come_in_proportion_to_their_errors(load) -> None:
    """Of errors 1 and 3 and alpha 1, the second row is drawn three times as often, and weighs a
    third: 3^-1 against 1^-1.
    """
    ring = load("prioritised").Prioritised(8, 1, SEEN, spaces.Discrete(2), alpha=1.0, beta=1.0)
    steps = 2
    no = tf.zeros([steps, 1], tf.bool)
    seen = tf.reshape(tf.range(9, dtype=tf.float32), [3, 1, 3])
    ring.write(seen, tf.zeros([steps, 1], tf.int32), tf.zeros([steps, 1]), no, no, no)
    both = Rows(tf.constant([0, 1], tf.int64), tf.zeros([2], tf.int64))
    ring.learned(both, tf.constant([1.0, 3.0]), tf.constant(0.0))
    rows = ring.choose(random.stream(0, "replay"), 4000, 1)
    # Stratified: each quarter of the draws is a quarter of the mass
    assert abs(int(tf.reduce_sum(rows.slot)) - 3000) <= 1
    np.testing.assert_allclose(ring.gather(both).mask, [1.0, 1.0 / 3.0], rtol=1e-5)


def test_they_train_by_their_configs(folder: Path) -> None:
    """SAC by its YAML, and DQN on the prioritised replay, named on the command line."""
    given = ("run.steps=300", "trainer.learning_starts=200", "debug=smoke")
    sac = ("rl", "--config-dir", "my_lab/conf", "agent=sac", "env=pendulum", "run.name=sac")
    done = runs.sparring(folder, *sac, *given)
    assert done.returncode == 0, done.stdout + done.stderr
    replay = ("packages=[my_lab]", "trainer.replay._target_=my_lab.prioritised.Prioritised")
    done = runs.sparring(folder, "rl", "agent=dqn", *replay, "run.name=dqn", *given)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("sac", "dqn"):
        assert runs.result(folder / "runs" / name)["status"] == "finished"
