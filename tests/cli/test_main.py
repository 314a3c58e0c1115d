"""The command line answers at once, without TensorFlow, and says what there is."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sparring.cli import main
from sparring.config.composer import CONF

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
# Options of agent
AGENTS = tuple(sorted(path.stem for path in (ROOT / "conf/agent").glob("*.yaml")))
PRIMARIES = ("rl", "gan", "imitation", "supervised")
HEAVY = {
    "tensorflow",
    "keras",
    "tf_keras",
    "numpy",
    "gymnasium",
    "tf_agents",
    "tensorboard",
    "rich",
}
MODULES = """
import sys
from sparring.cli import main
sys.argv = ["sparring", *sys.argv[1:]]
try:
    main.main()
finally:
    print("modules:", *sys.modules, file=sys.stderr)
"""


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def ask(*arguments: str, folder: Path | None = None, **more: str) -> tuple[str, set[str]]:
    """Output of a command, and the modules it has imported by then."""
    done = subprocess.run(
        [sys.executable, "-c", MODULES, *arguments],
        env=environment(**more),
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    said, _, modules = done.stderr.rpartition("modules:")
    assert said == ""
    return done.stdout, set(modules.split())


@pytest.fixture(scope="module")
def sparring(tmp_path_factory) -> Path:
    """A folder with the console script in it, to put on PATH."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "sparring").write_text(f'#!/bin/sh\nexec {sys.executable} -m sparring "$@"\n')
    (folder / "sparring").chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("arguments", "most"),
    [
        (["--help"], 200),
        (["--version"], 200),
        (["--shell-completion", "bash"], 200),
        (["rl", "--help"], 420),
        (["train", "--help"], 420),
        (["evaluate", "--help"], 420),
        (["rl", "agent=dqn", "--cfg", "job"], 420),
        (["rl", "--info", "searchpath"], 420),
        (["--shell-completion", "query", "rl"], 420),
    ],
)
def test_asking_imports_little(arguments, most, tmp_path, record_property):
    started = time.perf_counter()
    _, modules = ask(*arguments, folder=tmp_path, COMP_LINE="sparring agent=")
    # Under one on a quiet machine
    record_property("seconds", round(time.perf_counter() - started, 2))
    assert not HEAVY & modules
    assert len(modules) < most  # 0.1 s and 0.4 s' worth
    assert not list(tmp_path.iterdir())


def test_help_names_every_command():
    said, _ = ask("--help")
    for name, command in main.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.summary)}$", said, re.MULTILINE)
    assert ask()[0] == said


def test_help_of_a_command_names_groups_with_options_keys_with_comments_and_examples():
    said = ask("rl", "--help")[0]
    assert "sparring rl -m agent=dqn,ppo seed=0,1,2" in said
    shown = said + "".join(ask(kind, "--help")[0] for kind in PRIMARIES[1:])
    for group in (p for p in CONF.iterdir() if p.is_dir() and any(p.glob("*.yaml"))):
        lines = re.findall(rf"^{group.name}: (.+)$", shown, re.MULTILINE)
        listed = {option for line in lines for option in line.split(", ")}
        assert listed == {path.stem for path in group.glob("*.yaml")}
    for key in OmegaConf.load(CONF / "run" / "default.yaml"):
        assert re.search(rf"^  run\.{key}=\S+ +\w", said, re.MULTILINE), f"run.{key} has no comment"
    assert re.search(r"^  seed=0 +all randomness", said, re.MULTILINE)


def test_help_shows_the_values_that_a_run_of_its_kind_will_have():
    # conf/run/default.yaml says 100 000 steps, conf/gan.yaml 1 000 000
    assert "  run.steps=1000000 " in ask("gan", "--help")[0]
    assert "  run.steps=100000 " in ask("rl", "--help")[0]
    said = ask("gan", "debug=smoke_gan", "run.target=0.5", "run.resume=never", "--help")[0]
    for shown in ("run.steps=256 ", "run.target=0.5 ", "run.resume=never ", "run.keep=2 "):
        assert f"  {shown}" in said


def test_help_names_the_groups_of_its_own_kind_of_run():
    groups = {
        command: re.findall(r"^(\w+): ", ask(command, "--help")[0], re.MULTILINE)
        for command in PRIMARIES
    }
    shared = {"debug", "experiment", "network", "optimizer", "run", "search", "strategy"}
    assert set(groups["rl"]) == shared | {
        "actors",
        "agent",
        "env",
        "head",
        "intrinsic",
        "memory",
        "prune",
    }
    gan = {"augmentation", "data", "loss", "metric", "penalty", "trainer"}
    assert set(groups["gan"]) == shared | gan
    assert set(groups["imitation"]) == shared - {"search"} | {
        "agent",
        "discriminator",
        "imitator",
        "env",
        "head",
        "loss",
        "method",
        "penalty",
        "prune",
        "reward",
    }
    assert set(groups["supervised"]) == shared | {
        "data",
        "metric",
        "model",
        "prune",
        "stages",
        "task",
    }


def test_examples_in_help_are_commands_without_mistakes():
    from sparring.cli import setup
    from sparring.config.composer import Composer

    setup.prepare()
    said = "".join(ask(command, "--help")[0] for command in PRIMARIES)
    examples = [
        line.split()
        for line in said.splitlines()
        if re.match(f"  sparring ({'|'.join(PRIMARIES)}) ", line)
    ]
    assert len(examples) >= 8
    for _, name, *arguments in examples:
        Composer(name).compose(
            [a for a in arguments if a != "-m" and not re.search(r",(?![^\[]*\])", a)]
        )


def test_the_config_is_shown_as_it_is_composed():
    cfg = OmegaConf.create(ask("rl", "agent=dqn", "run.steps=5", "--cfg", "job")[0])
    assert cfg.agent._target_ == "sparring.agents.dqn.DQN"
    assert cfg.run.steps == 5
    # The agent's own, over the optimizer's
    assert (cfg.optimizer.learning_rate.start, cfg.optimizer.learning_rate.end) == (7.5e-4, 0.0)


COMPLETION = """
eval "$(sparring --shell-completion bash)"
COMP_LINE="$1"; COMP_POINT=${#COMP_LINE}; COMP_WORDS=($COMP_LINE)
[ "${COMP_LINE: -1}" = " " ] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_sparring
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("sparring ", {"rl", "train", "evaluate"}),
        ("sparring ev", {"evaluate"}),
        ("sparring rl agent=", {f"agent={name}" for name in AGENTS}),
        ("sparring rl agent=du", {"agent=dueling_dqn"}),
        ("sparring rl agent=dqn agent.ta", {"agent.target_period=", "agent.target_tau="}),
        ("sparring rl -m seed=1,2 optimizer=adam_l", {"optimizer=adam_linear"}),
        ("sparring train --config-dir conf --config-name mine agent=my", {"agent=my_own"}),
        ("sparring evaluate ru", set()),  # the shell's own: files
    ],
)
def test_bash_completes(line, expected, sparring, tmp_path):
    (tmp_path / "conf/agent").mkdir(parents=True)
    (tmp_path / "conf/mine.yaml").write_text("defaults: [rl, _self_]\n")
    (tmp_path / "conf/agent/my_own.yaml").write_text("# @package _global_\ndefaults: [dqn]\n")
    done = subprocess.run(
        ["bash", "-c", COMPLETION, "bash", line],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env=environment(PATH=f"{sparring}:{os.environ['PATH']}"),
    )
    assert done.stderr == ""
    found = set(done.stdout.split())
    assert found >= expected if line == "sparring " else found == expected


def test_a_reader_that_has_had_enough_is_no_error(sparring):
    script = "sparring rl --help | head -1; sparring rl --cfg job | head -1; sparring --help | true"
    done = subprocess.run(
        ["bash", "-c", script],
        env=environment(PATH=f"{sparring}:{os.environ['PATH']}"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""


def test_a_users_packages_may_have_the_names_of_our_folders(tmp_path):
    """Installed, Sparring is one import name: agents/, envs/ and conf/ are free for others."""
    for name in ("agents", "envs", "conf", "gans", "research"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("WHOSE = 'theirs'\n")
    (tmp_path / "conf/rl.yaml").write_text("not: ours\n")
    program = (
        "import agents, envs, conf, gans, research; "
        "import sparring.agents, sparring.envs, sparring.conf, sparring.gans; "
        "print(agents.WHOSE, hasattr(sparring.agents, 'WHOSE'), sparring.conf.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(tmp_path)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["theirs", "False", str(ROOT / "conf/__init__.py")]
    job = subprocess.run(
        [sys.executable, "-m", "sparring", "rl", "--cfg", "job"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(tmp_path)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "not: ours" not in job.stdout
    assert not (tmp_path / "runs").exists()
