"""TensorBoard, started for real on a small sweep, serves and shows what `Writer` wrote."""

from pathlib import Path

import numpy as np
import pytest

from sparring.tensorboard.projector import Embedding
from sparring.tensorboard.writer import Writer, declare_hparams
from tests.helpers.board import (
    Expected,
    browser_page,
    check_served,
    check_shown,
    fetch,
    get,
    session_groups,
    tensorboard,
)

pytestmark = pytest.mark.long

RATES = (0.25, 0.5)
SEEDS = (0, 1, 2)
RESUMED = "ppo__0.25__0"
EXPECTED = Expected(
    runs=[f"ppo__{rate}__{seed}" for rate in RATES for seed in SEEDS],
    scalars=["eval/episode_return", "loss/policy"],
    videos=["eval/video"],
    texts=["config"],
    charts=["Return", "Losses"],
    settings=["agent.name", "optimizer.learning_rate"],
    metric="final/episode_return",
    rows=2,
)


def train(
    folder: Path, rate: float, seed: int, steps: range, resume_step: int | None = None
) -> None:
    writer = Writer(
        folder,
        descriptions={"eval/episode_return": "Mean return, *reward*"},
        resume_step=resume_step,
    )
    settings = {"agent": {"name": "ppo"}, "optimizer": {"learning_rate": rate}}
    writer.hparams(settings, {})
    writer.layout(
        {"Learning": {"Return": [".*/episode_return"]}, "Update": {"Losses": ["loss/.*"]}}
    )
    writer.text("config", f"```yaml\nlearning_rate: {rate}\n```")
    for step in steps:
        writer.scalars({"eval/episode_return": rate * step, "loss/policy": 1 / (1 + step)}, step)
    video = np.full((40, 80, 120, 3), 255, np.uint8)  # a dark square crosses a white ground
    for time, frame in enumerate(video):
        frame[30:50, 2 * time : 2 * time + 20] = (40, 40, 160)
    writer.videos({"eval/video": video}, steps[-1])
    if folder.name == RESUMED:
        writer.embeddings(
            {"samples/features": Embedding(np.eye(5), {"kind": list("abcde")}, video[:5, ::4, ::4])}
        )
    writer.hparams(settings, {"final/episode_return": 100 * rate + seed})
    writer.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("sweep")
    values = {"agent.name": ["ppo"], "optimizer.learning_rate": RATES}
    declare_hparams(root, values, {"final/episode_return": "Mean return of the last evaluation"})
    for rate in RATES:
        for seed in SEEDS:
            train(root / f"ppo__{rate}__{seed}", rate, seed, range(0, 100, 10))
    # One run continues from step 45: what it had written at 50 to 90 goes, and it now logs every 25
    # steps.
    train(root / RESUMED, 0.25, 0, range(50, 200, 25), resume_step=45)
    with tensorboard(root) as address:
        yield address


def test_everything_is_served(url: str) -> None:
    check_served(url, EXPECTED)


def test_seeds_are_averaged(url: str) -> None:
    rows = session_groups(url, "final/episode_return")
    results = {
        row["hparams"]["optimizer.learning_rate"]: row["metricValues"][0]["value"] for row in rows
    }
    assert results == {0.25: 26.0, 0.5: 51.0}  # 25 + (0 + 1 + 2) / 3 and 50 + (0 + 1 + 2) / 3
    assert {session["status"] for row in rows for session in row["sessions"]} == {"STATUS_SUCCESS"}


def test_description_is_beside_the_chart(url: str) -> None:
    tags = get(url, "plugin/scalars/tags")
    assert (
        tags[RESUMED]["eval/episode_return"]["description"] == "<p>Mean return, <em>reward</em></p>"
    )


def test_resumed_curve_continues(url: str) -> None:
    curve = get(url, "plugin/scalars/scalars", run=RESUMED, tag="eval/episode_return")
    # 0 to 40 from before; 50 to 175 in steps of 25 from after.
    assert [step for _, step, _ in curve] == [0, 10, 20, 30, 40, 50, 75, 100, 125, 150, 175]


def test_the_projector_has_its_points(url: str) -> None:
    asked = {"run": RESUMED, "name": "samples/features"}
    (entry,) = get(url, "plugin/projector/info", run=RESUMED)["embeddings"]
    assert entry["tensorShape"] == [5, 5]
    assert fetch(url, "plugin/projector/metadata", **asked).decode() == "a\nb\nc\nd\ne"
    vectors = np.frombuffer(fetch(url, "plugin/projector/tensor", **asked), np.float32)
    np.testing.assert_array_equal(vectors.reshape(5, 5), np.eye(5))
    assert fetch(url, "plugin/projector/sprite_image", **asked).startswith(b"\x89PNG")


def test_dashboards_show_the_sweep(url: str, tmp_path: Path) -> None:
    with browser_page() as page:
        check_shown(page, url, EXPECTED, tmp_path)
    pictures = {path.stem: path.stat().st_size for path in tmp_path.glob("*.png")}
    assert set(pictures) == {"scalars", "images", "text", "custom_scalars", "hparams"}
