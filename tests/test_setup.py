"""Setting up: the locks, the wheel, and what make does first, again, and when something
is wrong.
"""

import os
import re
import shutil
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]
PACKAGES = {  # folder -> where its files are in the wheel
    "agents": "sparring/agents",
    "conf": "sparring/conf",
    "envs": "sparring/envs",
    "gans": "sparring/gans",
    "research": "sparring",
}
LOCKS = ["requirements.lock", "requirements-tf221.lock"]

# Stands in for Python 3.11, so that the order of a set-up is tested without its downloads: it
# writes down how it was called, makes an "environment" that holds nothing but itself, and fails at
# the lock while a file "offline" exists.
FAKE_PYTHON = """#!/bin/sh
echo "$@" >> calls
case "$*" in
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    *"-r requirements.lock") test ! -e offline ;;
esac
"""


def make(folder: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess:
    """Run make in a folder as from a shell: free of what an outer make, which may be running this
    test, passes on.
    """
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    env = {name: value for name, value in env.items() if name not in ("STACK", "ARGS", "PYTHON")}
    env["PATH"] = path or env["PATH"]
    command = [shutil.which("make") or "make", *arguments]
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=60
    )


def write_script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def clone(tmp_path) -> Path:
    """A folder with what set-up needs, and a stand-in for Python 3.11."""
    folder = tmp_path / "a clone"
    (folder / ".ci").mkdir(parents=True)
    for name in ["Makefile", "pyproject.toml", ".ci/venv", ".ci/run", ".ci/parts", *LOCKS]:
        shutil.copy(ROOT / name, folder / name)
    write_script(folder / "python", FAKE_PYTHON)
    return folder


def calls_of(clone: Path) -> str:
    """Calls of Python since the last time this was called."""
    log = clone / "calls"
    text = log.read_text() if log.exists() else ""
    log.unlink(missing_ok=True)
    return text


def requirements(lock: str) -> dict[str, list[str]]:
    """Each pinned requirement of a lock, "name==version", with the lines that follow it."""
    entries: dict[str, list[str]] = {}
    for line in (ROOT / lock).read_text().splitlines():
        if line.startswith("#"):
            continue
        if not line.startswith(" "):
            name = line.removesuffix(" \\")
            entries[name] = []
        else:
            entries[name].append(line.strip().removesuffix(" \\"))
    return entries


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_is_pinned_with_hashes_and_nothing_else_is_said(lock):
    for requirement, lines in requirements(lock).items():
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", requirement)
        assert lines
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", line) for line in lines)
    assert "://" not in (ROOT / lock).read_text()


@pytest.mark.parametrize(
    ("lock", "expected"),
    [
        ("requirements.lock", {"tensorflow": (2, 15, 1), "keras": (2, 15), "tensorboard": (2, 15)}),
        (
            "requirements-tf221.lock",
            {"tensorflow": (2, 21), "tf-keras": (2, 21), "tensorboard": (2, 21)},
        ),
    ],
)
def test_each_lock_holds_its_stack(lock, expected):
    pins = dict(requirement.split("==") for requirement in requirements(lock))
    version = {
        name: tuple(int(part) for part in re.findall(r"\d+", pin)) for name, pin in pins.items()
    }
    for name, start in expected.items():
        assert version[name][: len(start)] == start
    assert version["setuptools"] < (81,)
    assert version["numpy"] < (2, 4)
    assert version["tf-agents"] == (0, 19, 0)
    assert {"pytest", "ruff", "mypy", "playwright", "gymnasium", "hydra-core"} <= set(pins)


def test_what_is_installed_fits_together():
    done = subprocess.run(
        [sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_a_warning_fails_a_test():
    with pytest.raises(UserWarning, match="of ours"):
        warnings.warn("one of ours", stacklevel=1)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this tree and of two folders more, which nobody has named anywhere."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    for name in [*PACKAGES, "tests"]:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for path in [
        "research/later/deeper/__init__.py",
        "research/later/__init__.py",
        "conf/later/deeper/one.yaml",
        "docs/made.py",
    ]:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).touch()
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-qq",
        "--no-deps",
        "--no-build-isolation",
        "--no-cache-dir",
    ]
    subprocess.run([*build, "--wheel-dir", str(folder), str(tree)], check=True, timeout=120)
    return next(folder.glob("sparring-*.whl"))


def test_the_wheel_carries_every_module_and_every_config_and_no_more(wheel):
    tree = wheel.parent / "tree"
    expected = set()
    for folder, place in PACKAGES.items():
        for path in (tree / folder).rglob("*"):
            if path.suffix in (".py", ".yaml", ".typed"):
                expected.add(f"{place}/{path.relative_to(tree / folder)}")
    assert {"sparring/later/deeper/__init__.py", "sparring/conf/later/deeper/one.yaml"} <= expected
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        entry_points = archive.read(
            next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        )
    assert packed == expected
    assert b"sparring = sparring.cli.main:main" in entry_points


def test_the_installed_wheel_reads_its_own_configs_from_a_folder_that_has_a_conf_too(
    wheel, tmp_path
):
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-qq",
        "--no-deps",
        "--target",
        str(tmp_path / "site"),
        str(wheel),
    ]
    subprocess.run(install, check=True, timeout=120)
    mine = tmp_path / "mine"
    (mine / "conf").mkdir(parents=True)
    (mine / "conf/__init__.py").touch()
    (mine / "conf/rl.yaml").write_text("whose: mine\n")
    env = {
        **os.environ,
        "PYTHONPATH": f"{mine}{os.pathsep}{tmp_path / 'site'}",
        "PYTHONWARNINGS": "default",
    }
    command = [
        sys.executable,
        str(tmp_path / "site/bin/sparring"),
        "rl",
        "agent=ppo",
        "--cfg",
        "job",
    ]
    done = subprocess.run(
        command, cwd=mine, env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "agent:" in done.stdout
    assert "whose: mine" not in done.stdout


def test_a_python_that_is_not_3_11_gets_one_line(clone):
    pretend = "import sys; sys.version_info = (3, 12, 1); exec(sys.argv[1])"
    write_script(
        clone / "python", f"#!/bin/sh\nshift; exec '{sys.executable}' -c '{pretend}' \"$@\"\n"
    )
    done = make(clone, "setup", "PYTHON=./python")
    assert done.returncode != 0
    complaint, of_make = done.stderr.splitlines()
    assert complaint == (
        "Sparring needs Python 3.11: PYTHON=./python is not one. Name another: make "
        "PYTHON=/path/to/python3.11"
    )
    assert of_make.startswith("make: ***")


def test_no_python_at_all_gets_one_line(clone):
    tools = clone / "tools"
    tools.mkdir()
    for name in ["sh", "test", "cat", "sed", "rm", "echo"]:
        (tools / name).symlink_to(shutil.which(name))
    write_script(tools / "python3", "#!/bin/sh\nexit 1\n")  # a python3, but of another version
    done = make(clone, "test", path=str(tools))
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == (
        "Sparring needs Python 3.11: neither python3.11 nor python3 is one. "
        "Install it, or name it: make PYTHON=/path/to/python3.11"
    )


def test_set_up_runs_once_then_only_what_a_change_asks_for(clone):
    assert make(clone, "test", "PYTHON=./python").returncode == 0
    first = calls_of(clone)
    assert "-m venv .venv\n" in first
    assert "--require-hashes" in first
    assert "--editable ." in first
    assert "-m pytest" in first

    make(clone, "test", "PYTHON=./python")
    usual = "-m pytest -n 2 --dist loadfile --no-loadscope-reorder"
    assert calls_of(clone).splitlines() == [f"{usual} {part}" for part in PARTS]
    make(clone, "test", "PYTHON=./python", "ARGS=tests/test_words.py -k a")
    assert calls_of(clone).splitlines() == [f"{usual} tests/test_words.py -k a"]

    (clone / "pyproject.toml").touch()
    make(clone, "setup", "PYTHON=./python")
    again = calls_of(clone)
    assert "--editable ." in again
    assert "--require-hashes" not in again

    (clone / "requirements.lock").touch()
    make(clone, "setup", "PYTHON=./python")
    assert "-m venv .venv\n" in calls_of(clone)


def test_each_stack_has_its_own_environment_and_lock(clone):
    make(clone, "test", "STACK=tf221", "PYTHON=./python")
    calls = calls_of(clone)
    assert "-m venv .venv-tf221\n" in calls
    assert "-r requirements-tf221.lock" in calls
    assert not (clone / ".venv").exists()

    done = make(clone, "test", "STACK=tf230", "PYTHON=./python")
    assert done.returncode != 0
    assert "There is no requirements-tf230.lock" in done.stderr


def test_an_interrupted_set_up_is_done_over(clone):
    (clone / "offline").touch()
    assert make(clone, "setup", "PYTHON=./python").returncode != 0
    assert (clone / ".venv/bin/python").exists()
    (clone / ".venv/left over").touch()
    calls_of(clone)

    (clone / "offline").unlink()
    assert make(clone, "setup", "PYTHON=./python").returncode == 0
    assert "-m venv .venv\n" in calls_of(clone)
    assert not (clone / ".venv/left over").exists()


def test_a_copied_clone_makes_its_own_environment(clone, tmp_path):
    make(clone, "setup", "PYTHON=./python")
    # Keeps the times, so the stamps alone would do
    copy = shutil.copytree(clone, tmp_path / "copy")
    calls_of(copy)
    make(copy, "setup", "PYTHON=./python")
    assert "-m venv .venv\n" in calls_of(copy)


def test_train_runs_the_preset_or_what_is_asked(clone):
    make(clone, "train", "PYTHON=./python")
    assert calls_of(clone).endswith("-m sparring rl experiment=ppo_cartpole\n")
    make(clone, "train", "PYTHON=./python", "ARGS=agent=dqn env=acrobot")
    assert calls_of(clone).endswith("-m sparring rl agent=dqn env=acrobot\n")


PARTS = (
    "tests/agents",
    "tests/gans",
    "tests/config tests/training",
    "tests --ignore=tests/agents --ignore=tests/gans --ignore=tests/config --ignore=tests/training",
)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [((0, 0, 0, 0), 0), ((5, 0, 5, 5), 0), ((5, 5, 5, 5), 5), ((0, 1, 0, 5), 1), ((2, 5, 0, 1), 2)],
)
def test_parts_fail_if_one_does_or_none_has_a_test(codes, expected, tmp_path):
    for code in codes:
        with (tmp_path / "codes").open("a") as file:
            file.write(f"{code}\n")
    fake = write_script(
        tmp_path / "fake",
        '#!/bin/sh\necho "$@" >> parts\ncode=$(head -n 1 codes)\nsed -i 1d codes\nexit $code\n',
    )
    done = subprocess.run(["sh", ROOT / ".ci/parts", fake, "a b"], cwd=tmp_path, check=False)
    assert done.returncode == expected
    assert (tmp_path / "parts").read_text().splitlines() == [f"a b {part}" for part in PARTS]


CI = ["lint", "docs", "test", "test STACK=tf221 ARGS=-m 'not slow and not either'"]


@pytest.mark.parametrize("failing", [*CI, None])
def test_ci_tries_everything_and_fails_if_anything_did(clone, failing):
    tools = clone / "tools"
    tools.mkdir()
    write_script(
        tools / "make", f'#!/bin/sh\necho "$@" >> calls\necho "made $@"\ntest "$*" != "{failing}"\n'
    )
    write_script(tools / "chromium", "#!/bin/sh\n")
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    done = subprocess.run(
        [clone / ".ci/run"], env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert calls_of(clone).splitlines() == CI
    said = done.stdout.splitlines()
    assert [line for line in said if line.startswith("made")] == [f"made {one}" for one in CI]
    assert done.returncode == (0 if failing is None else 1)
    assert said[-1].startswith(
        "CI: all passed" if failing is None else f"CI: failed: make {failing}"
    )
