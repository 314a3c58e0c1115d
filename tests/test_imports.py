"""Imports run one way: agents, gans and envs may import research; they meet each other only in conf/, as `_target_`."""

import ast
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("agents", "gans", "envs")
MAY = {"research": {"research"}, "conf": {"conf"}} | {part: {part, "research"} for part in PARTS}


def imported(path: Path, package: str) -> set[str]:
    """The top-level packages that a file imports, anywhere in it; `import_module("name")` counts."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(package if node.level else (node.module or "").split(".")[0])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__", "resolve_name"):
                found.add(str(node.args[0].value).split(".")[0])
    return found


def trespasses(root: Path) -> list[str]:
    """Every file of a first-party package that imports one it may not, with what it imports."""
    return [
        f"{path.relative_to(root)} imports {name}"
        for package, allowed in MAY.items()
        for path in sorted((root / package).rglob("*.py"))
        for name in sorted(imported(path, package) & MAY.keys() - allowed)
    ]


def test_imports_run_one_way() -> None:
    assert trespasses(ROOT) == []


def test_what_is_shipped_imports_no_tests() -> None:
    files = [path for package in MAY for path in (ROOT / package).rglob("*.py")]
    assert len(files) > 30
    assert [path for path in files if "tests" in imported(path, "")] == []


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("research/fit.py", "import agents", "research/fit.py imports agents"),
        ("research/networks/mlp.py", "from envs.bridge import Gymnasium", "research/networks/mlp.py imports envs"),
        ("research/fit.py", "def f():\n    from gans import losses", "research/fit.py imports gans"),
        ("research/cli.py", "importlib.import_module('agents.dqn')", "research/cli.py imports agents"),
        ("agents/dqn.py", "import envs.bridge as bridge", "agents/dqn.py imports envs"),
        ("envs/spaces.py", "from agents import specs", "envs/spaces.py imports agents"),
        ("gans/__init__.py", "import agents", "gans/__init__.py imports agents"),
        ("agents/new/part.py", "import gans", "agents/new/part.py imports gans"),
    ],
)
def test_a_wrong_import_is_seen(tmp_path: Path, file: str, line: str, said: str) -> None:
    for package in MAY:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / file).parent.mkdir(exist_ok=True)
    with (tmp_path / file).open("a") as source:
        source.write(f"\n{line}\n")
    assert trespasses(tmp_path) == [said]
