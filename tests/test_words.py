"""Docstrings open with a verb or a noun, and code is laid out one statement a line."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("research", "agents", "gans", "envs")
# Places whose docstrings do not keep to the rules yet
NOT_YET: tuple[str, ...] = ()
QUESTIONS = re.compile(r"(What|Whoever|Where|How|Who|Which|Why|When)\b")
# Pronouns and connectives, which are neither a verb nor the beginning of a noun phrase
CONNECTIVES = re.compile(
    r"(I|We|You|It|They|This|That|These|Those|Its|Their|Our|One|All|Both|Each|Everything|Everybody"
    r"|Everyone|Nothing|Nobody|Something|Somebody|Whatever|Whichever|Such|There|Here|The same"
    r"|As|So|If|Unless|Because|While|And|But|Or|Else|Then|Also|Not"
    r"|From|To|In|Of|At|By|For|On|With|Without|Under|Over|Up)\b"
)
DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
PRAGMA = re.compile(r"\s+# (type: ignore|noqa).*$")
COLUMNS = 100
STATEMENTS = 40
TUPLES = 0.02  # of assignments


def sources(*excluded: str, folders: tuple[str, ...] = FOLDERS) -> Iterator[tuple[str, str]]:
    """Yield the path, relative to the root, and the source of every first-party module."""
    for folder in folders:
        for file in sorted((ROOT / folder).rglob("*.py")):
            path = file.relative_to(ROOT)
            if not any(path.is_relative_to(place) for place in excluded):
                yield str(path), file.read_text()


def docstrings(source: str) -> Iterator[tuple[bool, int, str]]:
    """Yield whether it is public, the line and the text of every docstring in a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, *DEFINITIONS)):
            text = ast.get_docstring(node)
            if text:
                name = getattr(node, "name", "module")
                yield not name.startswith("_"), node.body[0].lineno, text


def opens_well(text: str) -> bool:
    """Return whether a docstring opens with a verb or a noun phrase, by its first words."""
    return not QUESTIONS.match(text) and not CONNECTIVES.match(text)


def test_rule_on_openings() -> None:
    for good in ("Return the keys.", "Whether it ends.", "Path of the log.", "Allocate."):
        assert opens_well(good)
    for bad in ("What a step gives.", "When it ends.", "The same again.", "As `Task.loss`."):
        assert not opens_well(bad)


def test_no_docstring_opens_with_a_question_word() -> None:
    found = []
    for path, source in sources(*NOT_YET, folders=(*FOLDERS, "tests")):
        for _, line, text in docstrings(source):
            if QUESTIONS.match(text):
                found.append(f"{path}:{line}: {text.splitlines()[0]}")
    assert found == []


def test_public_docstrings_open_with_a_verb_or_a_noun() -> None:
    count = 0
    found = []
    for path, source in sources(*NOT_YET):
        for public, line, text in docstrings(source):
            count += public
            if public and not opens_well(text):
                found.append(f"{path}:{line}: {text.splitlines()[0]}")
    assert found == [], f"{len(found)} of {count} public docstrings"


def test_places_that_are_excluded_exist() -> None:
    assert [place for place in NOT_YET if not (ROOT / place).exists()] == []


def test_assignments_bind_one_name_each() -> None:
    """Check that few assignments bind several names to a tuple display, `a, b = x, y`."""
    count = 0
    found = []
    for path, source in sources():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Assign):
                count += 1
                several = any(isinstance(target, ast.Tuple) for target in node.targets)
                if several and isinstance(node.value, ast.Tuple):
                    found.append(f"{path}:{node.lineno}: {ast.unparse(node)}")
    assert len(found) <= TUPLES * count, "\n".join(found)


def test_lines_fit_in_100_columns() -> None:
    found = []
    for path, source in sources():
        for number, line in enumerate(source.splitlines(), 1):
            if len(PRAGMA.sub("", line)) > COLUMNS:
                found.append(f"{path}:{number}: {line.strip()}")
    assert found == []


def test_functions_are_short() -> None:
    found = []
    for path, source in sources():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                count = sum(isinstance(inner, ast.stmt) for inner in ast.walk(node)) - 1
                if count > STATEMENTS:
                    found.append(f"{path}:{node.lineno}: {node.name} has {count} statements")
    assert found == []
