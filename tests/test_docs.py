"""Things that pages name exist: files, modules and their members, links, commands, settings."""

import ast
import functools
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sparring.cli import setup
from sparring.cli.main import COMMANDS
from sparring.config.composer import Composer
from sparring.config.validation import Command
from tests.helpers import demonstrations

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/api/*.md")],
    key=lambda path: path.relative_to(ROOT).as_posix(),
)
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
# Folders of this project, not those of the reader's own package
FILE = re.compile(
    r"(?<![\w/.])(?:research|agents|envs|gans|conf|tests|docs|examples|\.ci)/[\w./-]*[\w/]"
)
# What is placed there by whoever follows the page
PLACEHOLDER = re.compile(r"NAME|my_|runs/")
DOTTED = re.compile(r"(?<![\w./-])sparring(?:\.\w+)+")
OLD_PACKAGES = re.compile(r"(?<![\w./-])(?:import|from) (?:research|agents|envs|gans|conf)\b")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```python[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KINDS = ("rl", "gan", "imitation", "supervised")
# Values, runs and packages that only the reader has
OPEN = re.compile(r"NAME|CASE|\.\.\.|FOLDER|--config-dir|--cfg|hydra[/.]|\$|=runs/|LunarLander")


# Demonstrations that the reader has recorded
EXPERTS = re.compile(r"expert=(cartpole|acrobot)\.npz")


def _made_up(found: re.Match[str]) -> str:
    return f"expert={demonstrations.file(found[1])}"


@functools.cache
def text(name: str) -> str:
    return (ROOT / name).read_text()


def resolve(name: str) -> Any:
    """Return the object of a dotted name; AttributeError or ImportError if there is none."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError as error:
            if not ".".join(parts).startswith(str(error.name)):
                raise
            continue
        for part in parts[count:]:
            found = getattr(found, part)
        return found
    raise ImportError(name)


def commands(name: str) -> Iterator[str]:
    """Yield the `sparring ...` commands of a page's indented and fenced blocks."""
    for line in re.sub(r"\\\n *", " ", text(name)).splitlines():
        found = re.match(r"(?:    )?(sparring (?:rl|gan|imitation|supervised|search) .*)", line)
        if found and not OPEN.search(found[1]):
            yield found[1]


@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_named_exist(name: str) -> None:
    named = {m for m in FILE.findall(text(name)) if not PLACEHOLDER.search(m)}
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


@pytest.mark.parametrize("name", NAMES)
def test_dotted_names_resolve(name: str) -> None:
    lacking = []
    for dotted in sorted(set(DOTTED.findall(text(name)))):
        try:
            resolve(dotted)
        except (ImportError, AttributeError):
            lacking.append(dotted)
    assert lacking == []


@pytest.mark.parametrize("name", [name for name in NAMES if name != "CHANGELOG.md"])
def test_no_page_imports_a_package_by_its_old_name(name: str) -> None:
    assert OLD_PACKAGES.findall(text(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_relative_links_resolve(name: str) -> None:
    folder = (ROOT / name).parent
    local = [link for link in LINK.findall(text(name)) if "://" not in link]
    broken = [link for link in local if not (folder / link.partition("#")[0]).exists()]
    assert broken == []
    outside = [link for link in local if name.startswith("docs/") and "../../" in link]
    assert outside == []  # the site holds docs/ alone


@pytest.mark.parametrize("name", NAMES)
def test_python_on_a_page_is_python(name: str) -> None:
    for block in CODE.findall(text(name)):
        ast.parse(block)


@pytest.mark.parametrize("name", [name for name in NAMES if any(commands(name))])
def test_commands_compose(name: str) -> None:
    setup.prepare()
    for line in commands(name):
        _, kind, *words = shlex.split(line, comments=True)
        if kind == "search":
            kind, *words = words
            words = [w for w in words if w not in ("--trials", "40")]
        multirun = "-m" in words
        overrides = [EXPERTS.sub(_made_up, word) for word in words if word != "-m"]
        assert not any(word.startswith("-") for word in overrides), line
        found = Command(Composer(kind), overrides, multirun=multirun)
        assert found.cfg is not None, line


@pytest.mark.parametrize("name", NAMES)
def test_commands_exist(name: str) -> None:
    # In code only: in prose `sparring` is the project
    code = re.findall(r"^    sparring ([a-z]+)|`sparring ([a-z]+)", text(name), re.MULTILINE)
    assert {a or b for a, b in code} <= {*COMMANDS, "tensorboard"}


def test_every_page_is_in_the_site() -> None:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    site = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)
    found: set[str] = set()

    def visit(node: Any) -> None:
        for child in node.values() if isinstance(node, dict) else node:
            found.add(child) if isinstance(child, str) else visit(child)

    visit(site["nav"])
    assert {f"docs/{page}" for page in found} == {n for n in NAMES if n.startswith("docs/")}


def test_a_name_that_is_not_there_is_seen() -> None:
    for wrong in ("sparring.agents.pppo", "sparring.agents.ppo.PPPO", "sparring.nowhere"):
        with pytest.raises((ImportError, AttributeError)):
            resolve(wrong)
    assert FILE.findall("see `agents/nowhere.py` and my_lab/conf/env/x.yaml") == [
        "agents/nowhere.py"
    ]
    assert DOTTED.findall("`sparring.agents.ppo.PPO`, sparring-0.1.0") == [
        "sparring.agents.ppo.PPO"
    ]
