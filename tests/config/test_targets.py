"""Names that configs may hold: inside which packages, existing, with arguments they take."""

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sparring.config import targets
from sparring.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


class Plain:
    """Without a constructor."""


class Base:
    def __init__(self, size: int, name: str = "base") -> None:
        self.size = size
        self.name = name


class Handing(Base):
    """Hands what it does not know on to its base."""

    def __init__(self, colour: str, **settings) -> None:
        super().__init__(**settings)
        self.colour = colour


def anything(**settings):
    return settings


def failing(value: int) -> int:
    raise UserError(f"{value} is too many")


def faulty(value: int) -> int:
    return value + None


@pytest.fixture
def lab(tmp_path, monkeypatch) -> Path:
    """A package `lab`, importable, whose modules say when they are imported."""
    files = {
        "lab/__init__.py": "",
        "lab/plain.py": "print('imported')\nclass Thing: pass\nif 1:\n    def helper(): "
        "pass\nelse:\n    other = 1\n",
        "lab/star.py": "from os.path import *\n",
        "lab/made.py": "globals()['Made'] = int\n",
        "lab/lazy.py": "def __getattr__(name):\n    if name == 'Late': return int\n    raise "
        "AttributeError(name)\n",
        "lab/broken.py": "from os.path import *\n1 / 0\n",
        "lab/inner/__init__.py": "from lab.plain import Thing as Renamed\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "lab"]:
        del sys.modules[name]


def check(target: str, packages=("lab",)) -> None:
    targets.check({"agent": {"_target_": target}}, packages)


@pytest.mark.parametrize(
    "target",
    [
        "lab.plain.Thing",
        "lab.plain.helper",
        "lab.plain.other",
        "lab.inner.Renamed",
        "lab.plain.Thing.method",
    ],
)
def test_what_source_says_is_believed_without_importing_it(lab, target, capsys):
    check(target)
    assert "lab.plain" not in sys.modules
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("target", ["lab.star.join", "lab.made.Made", "lab.lazy.Late"])
def test_what_source_does_not_say_is_looked_for_by_importing(lab, target):
    check(target)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (
            "lab.plain.Thign",
            r"^agent._target_=lab.plain.Thign: lab.plain has no Thign. Did you mean Thing\?$",
        ),
        ("lab.star.jion", "lab.star has no jion"),
        ("lab.lazy.Early", "lab.lazy has no Early"),
        ("lab.plane.Thing", "lab has no plane"),
        ("lab.inner", "names a module; add the name of a class"),
        ("lab.broken.Thing", r"importing it failed: ZeroDivisionError: .*broken.py, line 2\)"),
        ("lap.plain.Thing", "a config may name .*If you trust it, add packages=.lap"),
        ("labs.plain.Thing", "a config may name"),
        ("tensorflow.io.gfile.remove", "a config may name"),
        ("os.system", "a config may name"),
    ],
)
def test_what_is_not_there_or_not_allowed_is_one_line(lab, target, said):
    with pytest.raises(UserError, match=said) as error:
        check(target)
    assert "\n" not in str(error.value)
    assert "lab.plain" not in sys.modules  # whose source says all


def test_ours_and_libraries_are_allowed_and_found():
    for target in (
        "sparring.agents.dqn.DQN",
        "sparring.networks.mlp.MLP",
        "gymnasium.wrappers.TimeAwareObservation",
        "tensorflow.keras.optimizers.Adam",
        "tf_agents.agents.dqn.dqn_agent.DqnAgent",
    ):
        check(target, ())


def test_checking_agents_imports_no_tensorflow():
    program = (
        "import sys; from sparring.config import targets; targets.check({'a': {'_target_': "
        "'sparring.agents.dqn.DQN'}}, ())"
    )
    program += "; print('tensorflow' in sys.modules, 'agents' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False False\n"


def test_targets_are_found_wherever_they_lie_the_outer_first():
    config = {
        "trainer": {"_target_": "a.A", "agent": {"_target_": "b.B"}},
        "env": {"wrappers": [{"_target_": "c.C"}, {"x": {"_target_": "d.D"}}]},
        "agent": {"_target_": "b.B"},
    }
    assert [key for key, _ in targets.nodes(config)] == [
        "trainer",
        "agent",
        "trainer.agent",
        "env.wrappers.0",
        "env.wrappers.1.x",
    ]


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("pkg://lab.conf", ["lab"]),
        ("lab/conf", ["lab"]),  # inside the package
        ("lab/conf/deep", ["lab"]),
        ("conf", ["lab", "script"]),  # beside packages and modules: theirs
    ],
)
def test_a_place_of_configs_stands_for_its_package(tmp_path, monkeypatch, place, found):
    for folder in ("lab/conf/deep", "conf", "data"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("lab/__init__.py", "lab/conf/__init__.py", "script.py", "notes.txt"):
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path)
    assert targets.named_by([place]) == found


HERE = "tests.config.test_targets"


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (
            {"_target_": f"{HERE}.Base", "sise": 3},
            r"^part.sise: .*Base takes no sise. Did you mean size\? It takes name, size",
        ),
        ({"_target_": f"{HERE}.Base"}, r"^part: .*Base needs size: give part.size a value\.$"),
        ({"_target_": f"{HERE}.Base", "_partial_": True, "colour": 1}, "takes no colour"),
        (
            {"_target_": f"{HERE}.Handing", "colour": "red", "size": 1, "nam": 2},
            r"takes no nam. Did you mean name\?",
        ),
        ({"_target_": f"{HERE}.Handing", "colour": "red"}, "needs size"),
        ({"_target_": f"{HERE}.Plain", "size": 1}, "takes no size. It takes nothing"),
        ({"_target_": f"{HERE}.failing", "values": 1}, r"takes no values. Did you mean value\?"),
        ({"_target_": f"{HERE}.missing"}, "tests.config.test_targets has no missing"),
    ],
)
def test_arguments_are_held_against_what_is_taken(node, said):
    with pytest.raises(UserError, match=said):
        targets.check_arguments({"part": node})


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": f"{HERE}.Base", "size": 1, "name": "x"},
        {"_target_": f"{HERE}.Base", "_partial_": True},
        {"_target_": f"{HERE}.Base", "_args_": [3]},
        {
            "_target_": f"{HERE}.Handing",
            "colour": "red",
            "size": 1,
            "name": "x",
            "_convert_": "all",
        },
        {"_target_": f"{HERE}.anything", "whatever": 1},
    ],
)
def test_arguments_that_fit_pass(node):
    targets.check_arguments({"part": node})
    targets.instantiate(OmegaConf.create({"part": node}))


def test_a_line_for_people_arrives_as_itself_and_a_fault_with_its_traceback():
    inner = {"_target_": f"{HERE}.failing", "value": 7}
    with pytest.raises(UserError, match=r"^7 is too many$"):
        targets.instantiate(OmegaConf.create({"_target_": f"{HERE}.Base", "size": inner}))
    # A fault of Sparring's own: None has no from_config
    ours = {"_target_": "sparring.networks.mlp.fresh", "initializer": None}
    with pytest.raises(AttributeError, match="from_config") as fault:
        targets.instantiate(OmegaConf.create(ours))
    assert fault.value.__notes__ == ["while building sparring.networks.mlp.fresh"]


def test_a_fault_in_the_users_own_code_is_a_line_that_names_the_place() -> None:
    with pytest.raises(
        UserError, match=f"^building {HERE}.faulty: TypeError: unsupported"
    ) as error:
        targets.instantiate(OmegaConf.create({"_target_": f"{HERE}.faulty", "value": 7}))
    place = f"{__file__}, line {faulty.__code__.co_firstlineno + 1}, in faulty"
    assert f"({place}). HYDRA_FULL_ERROR=1 shows the traceback." in str(error.value)
    assert "\n" not in str(error.value)
