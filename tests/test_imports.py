"""Imports run one way.

Within `research/` a package may import those below it in `LEVELS` alone. `agents`, `gans` and
`envs` may import `research`; they meet each other only in `conf/`, as `_target_`. No two modules
import each other, not even inside of functions.
"""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE_OF_FOLDER = {
    "research": "sparring",
    "agents": "sparring.agents",
    "gans": "sparring.gans",
    "envs": "sparring.envs",
    "conf": "sparring.conf",
}
APART = ("agents", "gans", "envs")
LEVELS = (  # from the lowest to the highest
    "errors",
    "nested",
    "frame_stacks",
    "xla",
    "storage",
    "tensorboard",
    "config",
    "processes",
    "distribute",
    "optim",
    "networks",
    "data",
    "export",
    "training",
    "supervised",
    "sweep",
    "report",
    "serving",
    "benchmark",
    "cli",
)


def modules(root: Path) -> dict[str, Path]:
    """Return every first-party module of a tree by its import name."""
    found = {}
    for folder, package in PACKAGE_OF_FOLDER.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root / folder).with_suffix("").parts
            found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """Return the first-party modules that a file imports, anywhere in it; strings given to
    `import_module` and the like count.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in known else str(node.module) for name in names}
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func).rpartition(".")[2]
            if called in ("import_module", "__import__", "resolve_name"):
                found.add(str(node.args[0].value))
    return {name for name in found if name.split(".")[0] == "sparring"}


def part_of(module: str) -> str:
    """Return the package below `sparring` that a module belongs to; "" for `sparring` itself."""
    return [*module.split("."), ""][1]


def trespasses(root: Path) -> list[str]:
    """Return every import that runs the wrong way."""
    known = modules(root)
    wrong = []
    for module, path in known.items():
        part = part_of(module)
        for other in sorted(imported(path, known)):
            theirs = part_of(other)
            if theirs == part or part in ("", "__main__"):
                continue
            apart = theirs in APART if part in (*APART, *LEVELS) else False
            upwards = (
                part in LEVELS and theirs in LEVELS and LEVELS.index(theirs) > LEVELS.index(part)
            )
            if apart or upwards:
                wrong.append(f"{module} imports {other}")
    return wrong


def circles(root: Path) -> list[list[str]]:
    """Return the groups of modules that import each other (Tarjan's components)."""
    known = modules(root)
    graph = {module: imported(path, known) & known.keys() for module, path in known.items()}
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(module: str) -> None:
        number[module] = len(number)
        lowest[module] = number[module]
        stack.append(module)
        for other in graph[module]:
            if other not in number:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], number[other])
        if lowest[module] == number[module]:
            group = [stack.pop()]
            while group[-1] != module:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for module in graph:
        if module not in number:
            visit(module)
    return found


def test_imports_run_one_way() -> None:
    assert trespasses(ROOT) == []


def test_no_modules_import_each_other() -> None:
    assert circles(ROOT) == []


def test_research_holds_the_known_packages_and_no_loose_modules() -> None:
    names = {path.stem for path in (ROOT / "research").iterdir() if path.name != "__pycache__"}
    assert names == {*LEVELS, "__init__", "__main__", "py"}  # py.typed


def test_what_is_shipped_imports_no_tests() -> None:
    files = list(modules(ROOT).values())
    assert len(files) > 30
    for path in files:
        assert "from tests" not in path.read_text(), path


def test_the_library_loads_neither_the_command_line_nor_hydra() -> None:
    program = (
        "import sys, sparring.agents, sparring.gans, sparring.envs; "
        "import sparring.agents.training.on_policy, sparring.agents.training.off_policy; "
        "import sparring.gans.trainer, sparring.supervised.trainer; "
        "print([m for m in sys.modules if m.split('.')[0] == 'hydra' or "
        "m.startswith(('sparring.cli', 'sparring.sweep', 'sparring.config'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        (
            "research/xla/loops.py",
            "import sparring.cli.main",
            "sparring.xla.loops imports sparring.cli.main",
        ),
        (
            "research/training/loop.py",
            "def f():\n    from sparring.supervised import tasks",
            "sparring.training.loop imports sparring.supervised.tasks",
        ),
        (
            "research/cli/main.py",
            "importlib.import_module('sparring.agents.dqn')",
            "sparring.cli.main imports sparring.agents.dqn",
        ),
        (
            "agents/dqn.py",
            "from sparring.envs.compiled import toys",
            "sparring.agents.dqn imports sparring.envs.compiled.toys",
        ),
        (
            "gans/new/part.py",
            "import sparring.agents",
            "sparring.gans.new.part imports sparring.agents",
        ),
    ],
)
def test_a_wrong_import_is_seen(tmp_path: Path, file: str, line: str, said: str) -> None:
    for folder in PACKAGE_OF_FOLDER:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    with (tmp_path / file).open("a") as source:
        source.write(f"\n{line}\n")
    assert trespasses(tmp_path) == [said]
