"""Searches: what a space may be, a study on disk that is shared and survives, and trials of light
jobs.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sparring.cli import search
from sparring.config.composer import CONF, Composer
from sparring.errors import UserError
from sparring.processes import spawn
from sparring.sweep.job import Job
from sparring.sweep.search_space import Space, override
from sparring.sweep.study import Study
from tests.helpers import runs

pytestmark = pytest.mark.long

SPACE = {
    "optimizer": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True, "points": 3}},
    "seed": {"choices": [1, 2]},
}
FIXED = {"command": "rl", "overrides": ["agent=ppo"], "seeds": 1}

# In place of training: five evaluations of a score that is better the nearer the learning rate is
# to 0.001.
LIGHT = """
import json, math, os, sys, time
from pathlib import Path
sys.path.append({root!r})
from sparring.tensorboard.writer import Writer
given = dict(a.split("=", 1) for a in sys.argv[3:] if "=" in a)
folder = Path(given["hydra.run.dir"].strip("'"))
rate = float(given["optimizer.learning_rate"])
score = -abs(math.log10(rate) + 3) * 100 + 0.01 * int(given["seed"])
(folder / "trainer.json").write_text(json.dumps(dict(objective="score", maximize=True)))
writer = Writer(folder)
for step in range(1, 6):
    writer.scalars(dict(score=score + step), step)
    writer.flush()
    time.sleep({pause})
writer.close()
said = dict(status="finished", step=5, maximize=True, objective=dict(name="score", value=score + 5))
(folder / "result.json").write_text(json.dumps(said))
"""


def light(pause: float = 0.0) -> str:
    return LIGHT.format(root=str(runs.ROOT), pause=pause)


def rows(root: Path) -> list[dict[str, str]]:
    with (root / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_space_is_a_tree_of_ranges_and_choices():
    space = Space(
        {
            **SPACE,
            "network": {"units": {"choices": [[64, 64], None]}},
            "n": {"low": 1, "high": 4, "points": 2},
        }
    )
    found = space.distributions()
    assert found["optimizer.learning_rate"].log
    assert (found["n"].low, found["n"].high, type(found["n"]).__name__) == (1, 4, "IntDistribution")
    assert found["network.units"].choices == ("[64,64]", None)
    grid = space.grid()
    assert len(grid) == 3 * 2 * 2 * 2
    assert sorted({point["optimizer.learning_rate"] for point in grid}) == pytest.approx(
        [1e-4, 1e-3, 1e-2]
    )
    assert [override(k, v) for k, v in grid[0].items()] == [
        "optimizer.learning_rate=0.0001",
        "seed=1",
        "network.units=[64,64]",
        "n=1",
    ]
    assert override("a", None) == "a=null"
    assert (override("a", True), override("a", "it's")) == ("a=true", r"a='it\'s'")


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({}, "an empty space"),
        (
            {"a": {"low": 2, "high": 1}},
            "search.a: low=2 and high=1 must be numbers, the first the smaller",
        ),
        ({"a": {"low": 0, "high": 1, "log": True}}, "search.a: with log, low=0 must be above 0"),
        ({"a": {"choices": []}}, "search.a: choices stand alone"),
        ({"a": {"choices": [1], "low": 0}}, "search.a: choices stand alone"),
        ({"a": {"b": 3}}, "search.a.b=3: write {low: ..., high: ...}"),
    ],
)
def test_spaces_that_make_no_sense(tree, said):
    with pytest.raises(UserError, match=said):
        Space(tree)
    with pytest.raises(UserError, match=r"search\.a: a grid needs to know how many points"):
        Space({"a": {"low": 0.0, "high": 1.0}}).grid()


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "search").glob("*.yaml")))
def test_every_space_of_ours_is_of_keys_that_exist_within_their_limits(name):
    from sparring.cli import setup
    from sparring.config import validation

    setup.prepare()
    head = (CONF / "search" / f"{name}.yaml").read_text().splitlines()[0]
    _, _, kind, *overrides = head.removeprefix("# ").split()
    composer = Composer(kind)
    base, space = search._space(composer, overrides)
    assert (
        space.dimensions
        == Space(
            OmegaConf.to_container(OmegaConf.load(CONF / "search" / f"{name}.yaml"))
        ).dimensions
    )
    assert space.grid()
    for end in space.ends():
        validation.Command(composer, [*base, *end], multirun=False)


def test_a_study_of_something_else_is_refused_with_what_changed(tmp_path):
    Study(tmp_path, Space(SPACE), FIXED, "tpe", "none", 0)
    # Goes on, under another seed and pruner
    Study(tmp_path, Space(SPACE), FIXED, "tpe", "median", 1)
    changed = {**SPACE, "seed": {"choices": [1, 2, 3]}}
    with pytest.raises(UserError) as error:
        Study(tmp_path, Space(changed), {**FIXED, "seeds": 3}, "tpe", "none", 0)
    lines = str(error.value).splitlines()
    assert lines[1:-1] == ["  seeds: 1 -> 3", "  space.seed.choices: [1, 2] -> [1, 2, 3]"]
    assert "a run.name of its own" in lines[-1]


def test_trials_are_held_by_who_runs_them_and_taken_up_when_nobody_does(tmp_path):
    one, other = (Study(tmp_path, Space(SPACE), FIXED, "random", "none", 0) for _ in range(2))
    first = one.next(3)
    second = other.next(3)
    assert (first.number, second.number) == (0, 1)
    one.release(0)  # as the kernel does for a process that was killed
    again = other.next(3)
    assert (again.number, again.params) == (0, first.params)
    other.tell(again, 1.0)
    assert one.next(3).number == 2
    assert one.next(3) is None  # three there are
    assert one.best().number == 0


def test_a_grid_is_gone_through_once_whoever_asks(tmp_path):
    one, other = (Study(tmp_path, Space(SPACE), FIXED, "grid", "none", 0) for _ in range(2))
    seen = []
    while (trial := (one, other)[len(seen) % 2].next(100)) is not None:
        seen.append(tuple(trial.params.values()))
    assert len(seen) == len(set(seen)) == 6


def searched(folder: Path, *flags: str) -> int:
    return search.main(["rl", "agent=ppo", "run.name=s", "run.dir=runs", *flags])


@pytest.fixture
def space(tmp_path, monkeypatch) -> Path:
    """A folder with a space of its own, and light jobs."""
    (tmp_path / "mine/search").mkdir(parents=True)
    (tmp_path / "mine/search/rate.yaml").write_text(
        OmegaConf.to_yaml({"optimizer": SPACE["optimizer"]})
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(spawn, "_PROGRAM", light())
    return tmp_path


MINE = ("--config-dir", "mine", "search=rate")


def test_a_search_finds_the_best_of_a_grid_over_seeds_and_goes_on(space, capsys):
    flags = (*MINE, "--sampler", "grid", "--seeds", "2", "--jobs", "2", "--pruner", "none")
    assert searched(space, *flags, "--trials", "2") == 0
    assert searched(space, *flags) == 0
    found = rows(space / "runs/s")
    assert [row["state"] for row in found] == ["complete"] * 3
    # Scores 5 - |log10(rate) + 3| * 100 + the mean of 0.01 * seed over seeds 0 and 1
    wanted = {1e-4: -94.995, 1e-3: 5.005, 1e-2: -94.995}
    for row in found:
        assert float(row["score"]) == pytest.approx(
            wanted[round(float(row["optimizer.learning_rate"]), 6)], abs=1e-6
        )
    assert len(list((space / "runs/s").glob("trial=*,seed=*/job.json"))) == 6
    best = OmegaConf.load(space / "runs/s/best.yaml")
    assert best.optimizer.learning_rate == pytest.approx(1e-3)
    assert "best: trial 1, score 5.005" in capsys.readouterr().out


def test_a_trial_that_is_behind_is_pruned(space, monkeypatch):
    monkeypatch.setattr(spawn, "_PROGRAM", light(pause=1.5))
    study = Study(
        space / "runs/s",
        Space({"optimizer": SPACE["optimizer"]}),
        {"command": "rl", "overrides": ["agent=ppo"], "seeds": 1},
        "random",
        "median",
        0,
    )
    for _ in range(5):  # better ones, at every step
        trial = study.next(5)
        for step in range(1, 6):
            trial.report(1000.0, step)
        study.tell(trial, 1000.0)
    assert searched(space, *MINE, "--sampler", "random", "--trials", "6") == 0
    assert rows(space / "runs/s")[5]["state"] == "pruned"
    note = json.loads(next((space / "runs/s").glob("trial=0005*/job.json")).read_text())
    assert (note["status"], note["reason"]) == ("pruned", "others were better at the same step")


def test_a_trial_that_another_seed_has_ended_is_watched_no_more(tmp_path):
    jobs_of_trial = [Job(tmp_path / f"trial=0000,seed={seed}", "rl", []) for seed in (0, 1)]
    watching = object.__new__(search.Search)
    watching._trials = {}
    watching._jobs = {0: jobs_of_trial}
    watching.watch(jobs_of_trial[0])  # seed 1 has failed, and the study knows


def test_a_search_that_is_killed_is_taken_up_by_another_process(space):
    program = (
        "from sparring.processes import spawn; from sparring.cli import search; "
        f"spawn._PROGRAM = {light(pause=1.0)!r};"
        "search.main(['rl', 'agent=ppo', 'run.name=s', 'run.dir=runs', '--config-dir', 'mine', "
        "'search=rate',"
        " '--trials', '3', '--jobs', '1', '--sampler', 'random'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(runs.ROOT)}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment)
    deadline = time.monotonic() + 120
    while (
        not list((space / "runs/s").glob("trial=0000*/trainer.json"))
        and time.monotonic() < deadline
    ):
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert searched(space, *MINE, "--sampler", "random", "--trials", "3", "--jobs", "1") == 0
    assert [row["state"] for row in rows(space / "runs/s")] == ["complete"] * 3
    assert len(list((space / "runs/s").glob("trial=*/"))) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rl", "agent=ppo", "--trials", "0"], "--trials and --seeds are at least 1"),
        (["rl", "search=sac"], "search=sac: no such option. There are: dqn, ppo"),
        (["rl", "agent=ppo", "--sampler", "cma"], "--sampler cma: there are tpe, random, grid"),
        (["rl", "agent=ppo", "--pruner", "mean"], "--pruner mean: there are median, halving, none"),
        (
            ["rl", "agent=ppo", "search.agent.clip.low=-1"],
            "agent.clip=-1: .* must be a number above 0",
        ),
        (["rl", "agent=dqn", "search=ppo"], "agent.gae_lambda: no such key"),
        (["rl", "agent=ppo", "env=none"], "env=none: no such option"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        search.main(arguments)
    assert not list(tmp_path.glob("runs/*/trial*"))
