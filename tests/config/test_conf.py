"""Every YAML in conf/ is composed, every number in it has its limits, and every experiment runs."""

import functools
import importlib.util
import json
import math
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from omegaconf import DictConfig, OmegaConf

from sparring.cli import setup
from sparring.config import suites, targets
from sparring.config.bounds import is_limit
from sparring.config.composer import CONF, Composer
from sparring.config.validation import Command
from sparring.errors import UserError
from sparring.storage import run_folder
from sparring.training.experiment import train
from tests.helpers import demonstrations

pytestmark = pytest.mark.long

PRIMARIES = {
    "rl": ["env=gymnasium", "env.id=CartPole-v1"],
    "gan": [],
    "imitation": [f"expert={demonstrations.file('cartpole')}"],
    "supervised": [],
}  # and one way to compose each
# Experiments of each kind of network, environment and data; `make test-slow` runs all the others
OFTEN = re.compile(
    r"ppo_(cartpole|memory|diayn_\w+)|gym_\w+_cartpole|dqn_(breakout|frozen_lake_maps)"
    r"|gan_(ring|digits|stacked_digits|seqgan|frozen_lake_maps)"
    r"|supervised_\w+|transfer_shapes|imitation_(gail|dagger)_cartpole"
)
PARTS = {"base", "limits", "benchmark"}  # files beside the primary configs that are none
GROUPS = sorted(p.name for p in CONF.iterdir() if p.is_dir() and any(p.glob("*.yaml")))
SEARCH = "search"  # the spaces of `sparring search`: no part of a run, see tests/cli/test_search.py
OPTIONS = [
    (group, path.stem)
    for group in GROUPS
    if group != SEARCH
    for path in sorted((CONF / group).glob("*.yaml"))
]
EXPERIMENTS = [name for group, name in OPTIONS if group == "experiment"]
SUITES = [
    name for name in EXPERIMENTS if "\nsuite:" in (CONF / "experiment" / f"{name}.yaml").read_text()
]
GANS = ("augmentation", "data", "loss", "metric", "penalty", "trainer")  # of sparring gan
IMITATION = ("discriminator", "imitator", "method", "reward")  # groups of sparring imitation
SUPERVISED = ("model", "stages", "task")  # groups of sparring supervised
# Folder of a run that composing does not read
REWARD_FROM = {
    name: ["reward_from=runs/mine"] for name in ("transfer", "imitation_transfer_pointmass")
}
# What an option needs beside it: values that it leaves open, and others it goes with.
NEEDED = {
    "gymnasium": ["env.id=CartPole-v1"],
    "atari": ["env.id=ALE/Breakout-v5"],
    "mujoco": ["env.id=Hopper-v5"],
    "envpool": ["env.id=Pong-v5"],
    "npz": ["data.path=mine.npz"],
    "folder": ["data.path=mine"],
    "table": ["data.path=mine.csv", "data.targets=[y]"],
    "text": ["data.path=mine.tsv"],
    "projected": ["network.discriminator.features.weights=null"],
    **{name: ["env=pendulum"] for name in ("crossq", "droq", "sac", "td3")},
    "fid_trained": ["metrics.fid_classifier.extractor.run=runs/mine"],
    "beta": ["env=pendulum"],
    "squashed": ["env=pendulum"],
    "state_dependent_noise": ["env=pendulum"],
    "state_normal": ["env=pendulum"],
    **{
        name: [f"expert={demonstrations.of_experiment(name)}", *REWARD_FROM.get(name, [])]
        for group, name in OPTIONS
        if (group in IMITATION and group != "imitator") or name.startswith("imitation_")
    },
    **{
        name: [f"expert={demonstrations.run()}"] for name in ("dagger", "imitation_dagger_cartpole")
    },
    "fid": ["metrics.fid.extractor.path=mine.pb", "metrics.fid.extractor.sha256=mine"],
}
# Options of env that need a package which may be absent
PACKAGES = {
    "atari": "ale_py",
    "box2d": "Box2D",
    "envpool": "envpool",
    "minigrid": "minigrid",
    "mujoco": "mujoco",
}
# Whose numbers their own classes check
JUDGED_ELSEWHERE = (
    "data",
    "env",
    "hydra",
    "limits",
    "metrics",
    "model",
    "network",
    "prune",
    "stages",
    "suite",  # of the runs that it expands to
    "task",
    "trainer.evaluation.environment",
)


@pytest.fixture(autouse=True)
def resolvers() -> None:
    setup.prepare()


@functools.cache
def composed(primary: str, *overrides: str) -> DictConfig:
    for suite, package in PACKAGES.items():
        if f"env={suite}" in overrides and importlib.util.find_spec(package) is None:
            # Its environment cannot be built, which a command does before all else
            return Composer(primary).compose([*overrides, "run.name=x"])
    return Command(Composer(primary), list(overrides), multirun=False).cfg


def primary_of(group: str, name: str) -> str:
    """The primary config that an option is for; those for any are tried with sparring rl."""
    text = (CONF / group / f"{name}.yaml").read_text()
    if group == "experiment":
        return text.splitlines()[1].split()[2]  # its command
    if group in IMITATION:
        return "imitation"
    if group in SUPERVISED or "For `sparring supervised`" in text:
        return "supervised"
    return "gan" if group in GANS or "sparring gan" in text else "rl"


def compositions(group: str, name: str) -> list[DictConfig]:
    """A config that an option is part of, from each primary where it has a place of its own."""
    if group == "optimizer":
        both = (f"optimizer@{player}_optimizer={name}" for player in ("generator", "discriminator"))
        return [composed("rl", f"optimizer={name}"), composed("gan", *both)]
    return [composed(primary_of(group, name), *chosen(group, name))]


def chosen(group: str, name: str) -> list[str]:
    """Overrides that choose an option, with those it needs."""
    if (group, name) in (("network", "pretrained"), ("model", "pretrained")):
        return [
            f"{group}={name}",
            f"{'network' if group == 'network' else 'model.torso'}.weights=null",
        ]
    beside = {"bert": ["model.torso.path=mine"], "factors": ["data=interactions"]}
    words = (
        ["data=reviews"]
        if (group, name) in (("model", "text"), ("model", "bag"))
        else beside.get(name, [])
    )
    alone = group in ("model", "loss") or (group == "network" and name == "mlp")
    if group == "imitator":  # chosen by the agent
        needed = [f"expert={demonstrations.file('cartpole')}"]
        if name in ("sac", "td3"):
            needed = [f"expert={demonstrations.file('pendulum')}", "env=pendulum"]
        return [f"agent={name}", *needed]
    return [f"{group}={name}", *words, *([] if alone else NEEDED.get(name, []))]


def option(group: str, name: str) -> DictConfig:
    return compositions(group, name)[0]


def plain(cfg: Any, resolve: bool = True) -> dict[str, Any]:
    return OmegaConf.to_container(
        OmegaConf.masked_copy(cfg, [k for k in cfg if k != "hydra"]), resolve=resolve
    )


def numbers(node: Any, prefix: str = "") -> Iterator[str]:
    """The keys of all numbers, and of what stands in a number's place; a schedule counts as one."""
    for key, child in node.items():
        name = f"{prefix}{key}"
        if isinstance(child, dict) and "schedules" in child.get("_target_", ""):
            yield name
        elif isinstance(child, dict):
            yield from numbers(child, f"{name}.")
        elif isinstance(child, int | float) and not isinstance(child, bool):
            yield name


def limited(node: Any, prefix: str = "") -> Iterator[str]:
    for key, child in node.items():
        if is_limit(child):
            yield f"{prefix}{key}"
        else:
            yield from limited(child, f"{prefix}{key}.")


def test_every_file_is_an_option_of_a_group_or_known_here() -> None:
    assert {p.stem for p in CONF.glob("*.yaml")} == PRIMARIES.keys() | PARTS
    files = {(p.parent.name, p.stem) for p in CONF.glob("*/**/*.yaml")}
    assert set(OPTIONS) == {(group, name) for group, name in files if group not in (SEARCH, "base")}
    chosen = "".join(path.read_text() for path in CONF.glob("experiment/*.yaml"))
    # What experiments share
    assert all(f"  - base/{name}\n" in chosen for group, name in files if group == "base")
    shared = {
        "actors",
        "debug",
        "experiment",
        "head",
        "intrinsic",
        "memory",
        "network",
        "optimizer",
        "prune",
        "run",
        "search",
        "strategy",
    }
    kinds = {*GANS, *IMITATION, *SUPERVISED}
    assert shared | {"agent", "env"} | kinds == set(GROUPS)


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_every_option_composes_without_a_mistake_and_its_targets_take_what_they_are_given(
    group: str, name: str
) -> None:
    for cfg in compositions(group, name):
        targets.check_arguments(plain(cfg))
        keys = {k for k in numbers(plain(cfg, resolve=False)) if not k.startswith(JUDGED_ELSEWHERE)}
        assert keys <= set(limited(plain(cfg)["limits"])), (
            "numbers without limits in conf/limits.yaml"
        )


@pytest.mark.parametrize("primary", PRIMARIES)
def test_a_profile_is_for_any_training(primary: str) -> None:
    found = composed(primary, *PRIMARIES[primary], "debug=profile")
    targets.check_arguments(plain(found))
    assert found.run.profile == 500


def test_every_limit_is_of_a_key_that_some_config_has() -> None:
    keys: set[str] = set()
    for cfg in (cfg for group, name in OPTIONS for cfg in compositions(group, name)):
        keys |= {
            k
            for k in limited(plain(cfg)["limits"])
            if OmegaConf.select(cfg, k, default=keys) is not keys
        }
    assert keys == set(limited(plain(cfg)["limits"]))


ANYWHERE = {
    "rl": [
        "agent",
        "env",
        "network",
        "optimizer",
        "optimizer.optimizer",
        "trainer",
        "strategy",
        "device",
    ],
    "gan": [
        "data",
        "network",
        "network.generator",
        "network.discriminator",
        "loss",
        "penalty.r1",
        "augmentation.instance_noise",
        "metrics.modes",
        "generator_optimizer",
        "discriminator_optimizer",
        "generator_optimizer.optimizer",
        "game",
        "ema",
        "trainer",
        "trainer.evaluation",
        "trainer.alarms",
        "strategy",
    ],
    "imitation": [
        "agent",
        "demonstrations",
        "discriminator",
        "discriminator_optimizer",
        "env",
        "loss",
        "penalty.r1",
        "reward",
        "reward_source",
        "reward_source.discriminator",
        "trainer",
    ],
    "supervised": [
        "data",
        "model",
        "model.torso",
        "task",
        "stages.head",
        "optimizer",
        "optimizer.optimizer",
        "trainer",
        "trainer.evaluation",
        "strategy",
    ],
}
FULL = {
    "rl": PRIMARIES["rl"],
    "gan": ["penalty=r1", "augmentation=instance_noise"],
    "imitation": [*PRIMARIES["imitation"], "penalty=r1"],
    "supervised": ["stages=head"],
}


@pytest.mark.parametrize(
    ("primary", "key"), [(p, key) for p, keys in ANYWHERE.items() for key in keys]
)
def test_a_mistyped_key_anywhere_is_refused(primary: str, key: str) -> None:
    cfg = OmegaConf.create(plain(composed(primary, *FULL[primary])))
    OmegaConf.update(cfg, f"{key}.mistyped", 1, force_add=True)
    found = plain(cfg)
    # Keras' takes anything, and refuses it when it is built
    if key.endswith("optimizer.optimizer"):
        with pytest.raises(UserError, match="mistyped"):
            targets.instantiate(found[key.partition(".")[0]])
    else:
        with pytest.raises(UserError, match=rf"^{key}.mistyped: .* takes no mistyped"):
            targets.check_arguments(found)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_opens_with_its_command(name: str) -> None:
    lines = (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    program, kind, *arguments = shlex.split(lines[1].removeprefix("# "))
    assert program == "sparring"
    assert kind in PRIMARIES
    assert f"experiment={name}" in arguments
    Composer(kind).parse(arguments)


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_is_a_sweep_of_experiments_and_what_is_typed_stands(name: str) -> None:
    composer = Composer(primary_of("experiment", name))
    overrides, is_suite = suites.expanded(
        composer, [f"experiment={name}", "seed=7", "run.steps=100"]
    )
    assert is_suite
    assert {"seed=7", "run.steps=100", f"run.name={name}"} <= set(overrides)
    found = Command(composer, overrides, multirun=True)
    several = [o for o in composer.parse(overrides) if o.is_sweep_override()]
    assert found.jobs == math.prod(len(list(o.sweep_string_iterator())) for o in several) > 1
    text = (CONF / "experiment" / f"{name}.yaml").read_text()
    whole, _ = suites.expanded(composer, [f"experiment={name}"])
    assert f": {Command(composer, whole, multirun=True).jobs} runs" in text
    assert suites.expanded(composer, ["seed=1"]) == (["seed=1"], False)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if OFTEN.fullmatch(name) else [pytest.mark.slow])
        for name in EXPERIMENTS
        if name not in SUITES
    ],
)
def test_an_experiment_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # where metrics keep what they have trained
    primary = primary_of("experiment", name)
    cfg = option("experiment", name)
    of_kind = {"rl": of_rl, "gan": of_gan, "imitation": of_imitation, "supervised": of_supervised}
    steps, short = of_kind[primary](cfg)
    short += NEEDED.get(name, []) if primary == "imitation" else []
    if name in REWARD_FROM:
        test_an_experiment_runs("imitation_airl_pointmass", tmp_path / "first", monkeypatch)
        short.append(f"reward_from={tmp_path / 'first' / 'run'}")
    if "dagger" in name:
        demonstrations.trained_run()
    short += [
        f"run.steps={steps}",
        "run.log_every=1",
        "run.evaluate_every=10000000",
        "compile=graph",
    ]
    found = composed(primary, f"experiment={name}", *short, f"run.dir={tmp_path}", "run.name=run")
    OmegaConf.resolve(found.run)
    job = OmegaConf.masked_copy(found, [str(k) for k in found if k != "hydra"])
    train(job, tmp_path / "run", 0.0)
    tf.keras.backend.clear_session()
    result = json.loads((tmp_path / "run" / run_folder.RESULT).read_text())
    assert (result["status"], result["step"]) == ("finished", steps)
    assert re.fullmatch(r"[a-z_]+/[a-z_]+", result["objective"]["name"])
    assert isinstance(result["objective"]["value"], float)


def of_rl(cfg: DictConfig) -> tuple[int, list[str]]:
    """Two iterations' steps, and what makes them short."""
    short = {"epochs": 1, "updates": 2, "learning_starts": 1}
    evaluation = [
        f"trainer.evaluation.{k}" for k in ("episodes=1", "sampled=false", "video_every=0")
    ]
    evaluation += ["env.max_episode_steps=20"]
    return 2 * cfg.trainer.num_envs * cfg.trainer.rollout_steps, [
        *(f"trainer.{k}={v}" for k, v in short.items() if k in cfg.trainer),
        *evaluation,
    ]


def of_imitation(cfg: DictConfig) -> tuple[int, list[str]]:
    """The same of imitation, whose behaviour cloning steps no environment."""
    if "num_envs" in cfg.trainer:
        steps, short = of_rl(cfg)
        updates = "updates" in cfg.get("reward_source", {})
        return steps, [*short, *(["reward_source.updates=2"] if updates else [])]
    evaluation = ["trainer.evaluation.episodes=1", "trainer.evaluation.video_every=0"]
    return 2 * cfg.trainer.batch_size, evaluation


def of_gan(cfg: DictConfig) -> tuple[int, list[str]]:
    """The same of a GAN: small batches, and metrics of few samples."""
    metrics = [f"metrics.{k}.samples=300" for k in cfg.metrics if "samples" in cfg.metrics[k]]
    metrics += [
        f"metrics.{k}.extractor.steps=2"
        for k in cfg.metrics
        if "steps" in cfg.metrics[k].get("extractor", {})
    ]
    if "pretraining" in cfg.game:  # of sequences: an iteration of likelihood, and one of the game
        few = ["data.train=300", "data.test=300", "game.discriminator_pretraining=0"]
        size = 4
        each = size * cfg.game.n_critic
        return 2 * each, [*metrics, *few, f"game.batch_size={size}", f"game.pretraining={each}"]
    size = cfg.game.accumulation * cfg.game.pack * 4
    return 2 * size * cfg.game.n_critic, [
        *metrics,
        f"game.batch_size={size}",
        "trainer.evaluation.points=100",
    ]


def of_supervised(cfg: DictConfig) -> tuple[int, list[str]]:
    """The same of a supervised run: few examples, small batches, and little to learn before it."""
    few = [f"data.{k}=300" for k in ("train", "test") if k in cfg.data]
    before = ["model.torso.steps=64"] if "steps" in cfg.model.get("torso", {}) else []
    return 16, [*few, *before, "trainer.batch_size=8", "trainer.evaluation.batch_size=50"]


@pytest.mark.parametrize("memory", ["lstm", "gru"])
def test_a_memory_divides_the_environments_by_default(memory: str) -> None:
    cfg = Composer("rl").compose(["agent=ppo", f"memory={memory}"])
    assert cfg.agent.memory.cell == memory
    assert cfg.trainer.num_envs % cfg.trainer.minibatches == 0
