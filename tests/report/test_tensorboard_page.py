"""A real sweep of six, from the command line to TensorBoard, which serves and shows it."""

from pathlib import Path

import pytest

from tests.helpers import runs
from tests.helpers.board import (
    Expected,
    browser_page,
    check_served,
    check_shown,
    session_groups,
    tensorboard,
)

pytestmark = pytest.mark.long

SWEEP = (
    "rl",
    "-m",
    "agent=dqn,ppo",
    "seed=0,1,2",
    "env=cartpole",
    "debug=smoke",
    "compile=graph",
    "run.name=six",
    "trainer.num_envs=2",
    "trainer.rollout_steps=16",
    "optimizer.learning_rate=1e-3",  # DQN's own is a schedule, in columns of its own
)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    done = runs.sparring(folder, *SWEEP, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "runs" / "six"


def expected(sweep: Path) -> Expected:
    return Expected(
        runs=sorted(path.parent.name for path in sweep.glob("*/result.json")),
        scalars=["eval/episode_return", "eval/episode_return_sampled", "eval/episode_length"],
        videos=["eval/episode"],
        texts=["config"],
        charts=["evaluation and training", "length", "losses", "norms"],
        settings=["agent", "optimizer.learning_rate", "agent.discount", "env"],
        metric="final/episode_return",
        rows=2,  # an agent each: seeds are averaged
    )


def test_six_jobs_end_well_and_tensorboard_serves_them(sweep: Path) -> None:
    wanted = expected(sweep)
    assert len(wanted.runs) == 6
    assert {runs.result(sweep / run)["status"] for run in wanted.runs} == {"finished"}
    with tensorboard(sweep) as url:
        check_served(url, wanted)
        rows = session_groups(url, wanted.metric)
    objectives = [runs.result(sweep / run)["objective"]["value"] for run in wanted.runs]
    means = sorted(row["metricValues"][0]["value"] for row in rows)
    by_agent = [objectives[:3], objectives[3:]]  # the runs' names begin with the agent's
    assert means == pytest.approx(sorted(sum(group) / 3 for group in by_agent))


def test_a_browser_shows_the_sweep(sweep: Path, tmp_path: Path) -> None:
    with tensorboard(sweep) as url, browser_page() as page:
        check_shown(page, url, expected(sweep), tmp_path)
    assert len(list(tmp_path.glob("*.png"))) == 5
