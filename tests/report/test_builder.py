"""`sparring report`: what is found, how it is grouped, what is written, and what no sweep
may lose.
"""

import csv
import json
import shutil
from pathlib import Path

import pytest
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG

from sparring.cli import report
from sparring.errors import UserError
from sparring.report import builder, charts, discovery
from sparring.report.analysis import Analysis
from sparring.report.groups import groups
from sparring.report.statistics import Bootstrap
from sparring.tensorboard.event_reader import read_curves
from tests.helpers import fake_runs
from tests.helpers.board import loaded, points

PPO = {"agent": "ppo", "env": "cartpole"}
DQN = {"agent": "dqn", "env": "cartpole"}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A sweep of 2 agents, 2 environments, 4 seeds, and runs in every other state."""
    root = fake_runs.sweep(
        tmp_path_factory.mktemp("runs") / "s",
        {"ppo": 10.0, "dqn": 12.0},
        ["cartpole", "acrobot"],
        4,
    )
    fake_runs.run(root / "agent=ppo,env=cartpole,seed=4", 4, [1.0, 2.0], PPO, None)
    nan = {"objective": {"name": fake_runs.TAG, "value": "nan"}, "message": "Not finite\nmore"}
    fake_runs.run(root / "agent=ppo,env=cartpole,seed=5", 5, [1.0], PPO, "nan", **nan)
    fake_runs.run(
        root / "agent=ppo,env=cartpole,seed=6",
        6,
        [1.0],
        PPO,
        "failed",
        message="the wheel came off",
    )
    (
        fake_runs.run(root / "agent=dqn,env=cartpole,seed=7", 7, [1.0], DQN) / "result.json"
    ).write_text("{")
    (
        fake_runs.run(root / "agent=dqn,env=cartpole,seed=8", 8, [1.0], DQN) / "config.yaml"
    ).write_text("a: [")
    (root / "sweep.json").write_text(
        json.dumps({"jobs": ["agent=dqn,env=cartpole,seed=3", "agent=dqn,env=cartpole,seed=9"]})
    )
    for name, content in {
        "notes/config.yaml": "- mine",
        "logs/events.out.tfevents.1.x": "mine",
        "readme.txt": "",
    }.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.fixture(scope="module")
def reported(folder) -> tuple[Path, str]:
    import argparse

    flags = {
        "folders": [folder],
        "out": None,
        "tag": None,
        "minimize": False,
        "scale": None,
        "baseline": None,
    }
    return folder / "report", builder.report(argparse.Namespace(**flags, seed=0, draws=200))


def test_every_run_is_shown_with_its_state(reported):
    out, said = reported
    found = {row["run"].partition("/")[2]: row for row in rows(out / "runs.csv")}
    assert len(found) == 22
    states = {name: row["status"] for name, row in found.items() if row["status"] != "finished"}
    assert states == {
        "agent=ppo,env=cartpole,seed=4": "killed",
        "agent=ppo,env=cartpole,seed=5": "nan",
        "agent=ppo,env=cartpole,seed=6": "failed",
        "agent=dqn,env=cartpole,seed=7": "damaged",
        "agent=dqn,env=cartpole,seed=8": "damaged",
        "agent=dqn,env=cartpole,seed=9": "planned",
    }
    planned = found["agent=dqn,env=cartpole,seed=9"]
    assert [planned[column] for column in ("seed", "step", "of", "score", "seconds")] == [
        ""
    ] * 5  # not 0: nobody knows
    assert found["agent=ppo,env=cartpole,seed=6"]["why"] == "the wheel came off"
    assert found["agent=ppo,env=cartpole,seed=5"]["why"] == "Not finite"
    for text in (said, (out / "report.md").read_text()):
        assert "6 of 22 runs do not count: 2 damaged, 1 killed, 1 nan, 1 failed, 1 planned." in text
        assert (
            "agent=ppo,env=cartpole,seed=6`: failed at step 100 of 100: the wheel came off" in text
        )
        assert "seed=9`: planned: has not begun" in text
        assert "notes/config.yaml: not a run's" in text
        assert "logs: no config.yaml" in text


def test_results_of_a_method_on_a_task(reported):
    found = {(row["task"], row["method"]): row for row in rows(reported[0] / "results.csv")}
    assert found.keys() == {(t, m) for t in ("cartpole", "acrobot") for m in ("ppo", "dqn")}
    row = found["cartpole", "ppo"]
    # Scores 10, 11, 12, 13: mean 11.5, spread sqrt(5) / 2; IQM (11 + 12) / 2; three others do not
    # count.
    assert (float(row["mean"]), float(row["IQM"]), row["left out"]) == (11.5, 11.5, "3")
    assert float(row["spread"]) == pytest.approx(5**0.5 / 2)
    assert 10 <= float(row["low"]) < 11.5 < float(row["high"]) <= 13


def test_methods_beside_each_other(reported):
    (pair,) = rows(reported[0] / "comparisons.csv")
    # 12..15 over 10..13: of 16 pairs 13 are won and 2 tie (12 and 13), (12: 10, 11 and a tie) on
    # each task.
    assert {pair["ours"], pair["theirs"]} == {"ppo", "dqn"}
    value = float(pair["probability"]) if pair["ours"] == "dqn" else 1 - float(pair["probability"])
    assert value == pytest.approx((2.5 + 3.5 + 4 + 4) / 16)
    for row in rows(reported[0] / "pairs.csv"):
        assert abs(float(row["mean difference"])) == 2.0  # equal seeds differ by 2, whichever
        assert (row["pairs"], row["low"], row["high"]) == (
            "4",
            row["mean difference"],
            row["mean difference"],
        )


def test_tensorboard_has_bands_tables_and_charts(reported):
    out, _ = reported
    board = loaded(out)
    assert {
        "report",
        "report/curves",
        "report/aggregates",
        "report/profiles",
        "report/improvement",
    } <= set(board.Tags()["tensors"])
    ((_, text),) = points(out, "report")
    assert "the wheel came off" in text.item().decode()
    assert "![" not in text.item().decode()  # TensorBoard has no files to show
    assert "![curves](curves.png)" in (out / "report.md").read_text()
    methods = {path.name: path for path in out.iterdir() if path.is_dir()}
    assert methods.keys() == {"ppo", "dqn"}
    curve, low, high = (
        dict(points(methods["ppo"], f"report/cartpole{end}")) for end in ("", "/low", "/high")
    )
    assert curve[500] == pytest.approx(11.5)
    assert curve[100] == pytest.approx(11.5 / 5)
    assert all(low[step] < curve[step] < high[step] for step in curve)
    ((_, layout),) = points(methods["ppo"], CONFIG_SUMMARY_TAG)
    (category,) = layout_pb2.Layout.FromString(layout.item()).category
    series = {chart.title: chart.margin.series[0] for chart in category.chart}
    assert (series["cartpole"].value, series["cartpole"].lower) == (
        "report/cartpole",
        "report/cartpole/low",
    )
    # Rows are the runs' alone
    assert not any(tag.startswith("_hparams_") for tag in board.Tags()["tensors"])


def test_a_chart_shows_every_seed_and_those_that_do_not_count(tmp_path):
    root = fake_runs.sweep(tmp_path, {"ppo": 10.0}, ["cartpole"], 3)
    fake_runs.run(root / "agent=ppo,env=cartpole,seed=3", 3, [1.0, 2.0], PPO, None)
    found = discovery.find([root]).runs
    analysis = Analysis(groups(found), True, Bootstrap(0, 50))
    (axes,) = charts.learning(
        analysis, {run.folder: read_curves(run.folder) for run in found}, fake_runs.TAG
    ).axes
    lines = sorted((float(line.get_ydata()[-1]), line.get_linestyle()) for line in axes.lines)
    # Seeds end at 10, 11 and 12, the mean of the middle half of three is that of all: 11; the
    # killed one at 2.
    assert lines == [(2.0, ":"), (10.0, "-"), (11.0, "-"), (11.0, "-"), (12.0, "-")]


def test_one_method_alone_is_not_normalised_by_its_own_runs(tmp_path):
    root = fake_runs.sweep(tmp_path / "s", {"ppo": 10.0}, ["cartpole"], 3)
    report.main([str(root), "--draws", "20"])
    assert {p.name for p in (root / "report").glob("*.csv")} == {"results.csv", "runs.csv"}
    (tmp_path / "scale.yaml").write_text("cartpole: [0, 20]")
    report.main([str(root), "--draws", "20", "--scale", str(tmp_path / "scale.yaml")])
    (row,) = rows(root / "report" / "aggregates.csv")
    assert float(row["mean"]) == pytest.approx(11.0 / 20)  # of 10, 11 and 12


def test_a_second_report_replaces_the_first_and_finds_no_runs_in_it(folder, reported):
    assert not [
        r for r in discovery.find([folder]).runs if "report" in r.folder.parts[len(folder.parts) :]
    ]
    before = {p.relative_to(folder) for p in reported[0].rglob("*") if "events" not in p.name}
    assert report.main([str(folder), "--draws", "50"]) == 0
    assert {
        p.relative_to(folder) for p in reported[0].rglob("*") if "events" not in p.name
    } == before
    assert len(list((reported[0] / "ppo").iterdir())) == 1
    theirs = reported[0] / "mine/events.out.tfevents.1.x"
    theirs.parent.mkdir()
    theirs.touch()
    report.main([str(folder), "--draws", "50"])
    assert theirs.exists()  # what another put there stays


def test_what_an_earlier_report_left_and_this_one_does_not_write_goes(tmp_path):
    root = fake_runs.sweep(tmp_path / "s", {"ppo": 10.0, "dqn": 12.0}, ["cartpole"], 2)
    report.main([str(root), "--draws", "20"])
    assert (root / "report" / "improvement.png").exists()
    (root / "report" / "mine.txt").touch()
    for path in root.glob("agent=dqn*"):
        shutil.rmtree(path)
    report.main([str(root), "--draws", "20"])
    left = {path.name for path in (root / "report").iterdir() if "events" not in path.name}
    assert left == {"all", "curves.png", "mine.txt", "report.md", "results.csv", "runs.csv"}


def test_several_sweeps_have_a_report_of_their_own(tmp_path):
    a = fake_runs.sweep(tmp_path / "a", {"ppo": 10.0}, ["cartpole"], 2)
    b = fake_runs.sweep(tmp_path / "b", {"dqn": 12.0}, ["cartpole"], 2)
    report.main([str(a), "--draws", "20"])
    before = (a / "report" / "report.md").read_bytes()
    report.main([str(a), str(b), "--draws", "20"])
    assert (a / "report" / "report.md").read_bytes() == before
    assert (tmp_path / "report-a-b" / "report.md").exists()
    assert len(discovery.find([tmp_path]).runs) == 4
    assert discovery.find([tmp_path]).foreign == []


def test_links_to_runs_are_followed_and_loops_end(tmp_path):
    root = fake_runs.sweep(tmp_path / "s", {"ppo": 10.0}, ["cartpole"], 2)
    links = tmp_path / "links"
    links.mkdir()
    for number, run in enumerate(sorted(root.iterdir())):
        (links / f"run{number}").symlink_to(run)
    (links / "loop").symlink_to(links)
    assert [run.folder.name for run in discovery.find([links]).runs] == ["run0", "run1"]
    assert len(discovery.find([tmp_path]).runs) == 2  # each once, by whichever name


def test_different_lengths_and_the_best_run_are_said(tmp_path, capsys):
    short = fake_runs.run(tmp_path / "s/seed=0", 0, [1.0, 2.0], PPO)
    fake_runs.run(tmp_path / "s/seed=1", 1, [1.0, 3.0, 2.5], PPO)
    report.main([str(tmp_path / "s"), "--draws", "20"])
    said = capsys.readouterr().out
    assert "cartpole: runs of different lengths are compared, in steps: 200 of all; 300" in said
    assert f"Best run:\n- cartpole: 2.5, {short.parent / 'seed=1'}" in said
    fake_runs.run(tmp_path / "t/seed=0", 0, [1.0, 2.0], PPO)
    report.main([str(tmp_path / "t"), "--draws", "20"])
    assert "different lengths" not in capsys.readouterr().out


def test_a_run_of_one_evaluation_is_seen_in_its_chart(tmp_path):
    fake_runs.run(tmp_path / "s/seed=0", 0, [5.0], PPO)
    found = discovery.find([tmp_path / "s"]).runs
    analysis = Analysis(groups(found), True, Bootstrap(0, 20))
    (axes,) = charts.learning(
        analysis, {run.folder: read_curves(run.folder) for run in found}, fake_runs.TAG
    ).axes
    assert [line.get_marker() for line in axes.lines] == ["o", "o"]


def test_the_same_seed_gives_the_same_report(folder, tmp_path):
    for name in ("a", "b"):
        report.main([str(folder), "--out", str(tmp_path / name), "--draws", "50", "--seed", "3"])
    for path in (tmp_path / "a").glob("*.csv"):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def names(found: discovery.Found) -> set[tuple[str, str]]:
    return {(group.method, group.task) for group in groups(found.runs)}


def test_two_sweeps_are_compared_by_their_names(tmp_path):
    for sweep, clip in (("base", 0.2), ("mine", 0.3)):
        for seed in range(2):
            fake_runs.run(
                tmp_path / sweep / f"seed={seed}", seed, [clip], PPO, settings={"agent.clip": clip}
            )
    assert names(discovery.find([tmp_path / "base", tmp_path / "mine"])) == {
        ("base", "cartpole"),
        ("mine", "cartpole"),
    }


def test_a_method_is_named_by_what_varied_and_nothing_that_follows_from_it(tmp_path):
    for agent, rate in (("ppo", 1), ("ppo", 2), ("dqn", 3)):
        settings = {"trainer.epochs": rate, "agent.clip": 0.1 if agent == "ppo" else None}
        settings |= {"trainer.only_dqn": 5} if agent == "dqn" else {}
        fake_runs.run(
            tmp_path / f"{agent}{rate}",
            0,
            [1.0],
            {"agent": agent, "env": "cartpole"},
            settings=settings,
        )
    assert {method for method, _ in names(discovery.find([tmp_path]))} == {
        "ppo, epochs=1",
        "ppo, epochs=2",
        "dqn, epochs=3",
    }


def test_settings_tuned_for_a_task_make_no_methods(tmp_path):
    for environment, clip in (("cartpole", 0.1), ("acrobot", 0.3)):
        choices = {"agent": "ppo", "env": environment}
        fake_runs.run(tmp_path / environment, 0, [1.0], choices, settings={"agent.clip": clip})
    assert names(discovery.find([tmp_path])) == {("all", "cartpole"), ("all", "acrobot")}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere: there is no such folder"),
        (["empty"], "empty: there are no runs to report"),
        (
            ["s", "--tag", "eval/none"],
            "--tag eval/none: no run has it. There are: eval/episode_length, eval/",
        ),
        (["s", "--baseline", "sac"], "--baseline sac: no such method. There are: all"),
        (
            ["s", "--scale", "bad.yaml"],
            r"--scale bad.yaml: it must be a YAML of task: \[worst, best\]",
        ),
        (["s", "--draws", "0"], "--draws is at least 1"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    fake_runs.run(tmp_path / "s/a", 0, [1.0], PPO)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.yaml").write_text("cartpole: [1]")
    with pytest.raises(UserError, match=said):
        report.main(arguments)


def test_a_run_over_again_counts_once_and_is_shown(tmp_path):
    for name, seed in {"seed=0": 0, "seed=0-again": 0, "seed=1": 1}.items():
        fake_runs.run(tmp_path / name, seed, [1.0 + seed], PPO)
    assert report.main([str(tmp_path)]) == 0
    (row,) = rows(tmp_path / "report/results.csv")
    assert (row["scores"], row["left out"]) == ("1, 2", "1")
    why = {row["run"].partition("/")[2]: row["why"] for row in rows(tmp_path / "report/runs.csv")}
    assert why["seed=0-again"] == "seed=0 over again: counted once"


def test_another_scalar_and_its_direction(tmp_path, capsys):
    for seed in range(2):
        fake_runs.run(tmp_path / f"a{seed}", seed, [3.0 + seed], PPO)
        fake_runs.run(tmp_path / f"b{seed}", seed, [5.0 + seed], DQN)
    report.main([str(tmp_path), "--tag", "eval/episode_length", "--minimize", "--baseline", "ppo"])
    assert "eval/episode_length: smaller is better" in capsys.readouterr().out
    (pair,) = rows(tmp_path / "report/comparisons.csv")
    assert (pair["ours"], pair["theirs"], float(pair["probability"])) == ("dqn", "ppo", 1.0)
    best = {row["method"]: float(row["best"]) for row in rows(tmp_path / "report/results.csv")}
    assert best == {"ppo": -4.0, "dqn": -6.0}
