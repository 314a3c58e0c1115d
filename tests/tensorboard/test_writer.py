import io
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.util import tensor_util

from sparring.tensorboard.writer import Writer
from tests.helpers.board import loaded, points


@pytest.fixture
def writer(tmp_path: Path):
    opened = Writer(
        tmp_path,
        descriptions={"loss": "Mean squared error, reward²", "video": "One greedy episode"},
    )
    yield opened
    opened.close()


def strings(folder: Path, tag: str) -> list[bytes]:
    (event,) = loaded(folder).Tensors(tag)
    return list(tensor_util.make_ndarray(event.tensor_proto).ravel())


def test_scalars_arrive_with_their_steps(writer: Writer, tmp_path: Path) -> None:
    writer.scalars({"loss": 0.5, "count": np.int64(3)}, 10)
    writer.scalars({"loss": np.float32(0.25)}, 20)
    writer.close()
    assert points(tmp_path, "loss") == [(10, 0.5), (20, 0.25)]
    assert points(tmp_path, "count") == [(10, 3.0)]


def test_values_that_are_not_finite_or_too_large_arrive(writer: Writer, tmp_path: Path) -> None:
    writer.scalars({"nan": math.nan, "inf": -math.inf, "huge": 1e300}, 1)
    writer.close()
    assert math.isnan(points(tmp_path, "nan")[0][1])
    assert points(tmp_path, "inf") == [(1, -math.inf)]
    assert points(tmp_path, "huge") == [(1, math.inf)]  # a curve is float32


def test_what_is_not_a_number_is_refused_at_once(writer: Writer) -> None:
    with pytest.raises(ValueError, match="five"):
        writer.scalars({"loss": "five"}, 1)  # type: ignore[dict-item]


def test_description_goes_with_its_tag_and_once_into_a_file(writer: Writer, tmp_path: Path) -> None:
    for step in range(3):
        writer.scalars({"loss": 1.0, "other": 2.0}, step)
    writer.videos({"video": np.zeros((2, 4, 4, 3), np.uint8)}, 2)
    writer.close()
    assert (
        loaded(tmp_path).SummaryMetadata("loss").summary_description
        == "Mean squared error, reward²"
    )
    assert loaded(tmp_path).SummaryMetadata("video").summary_description == "One greedy episode"
    assert loaded(tmp_path).SummaryMetadata("other").summary_description == ""
    (file,) = tmp_path.iterdir()
    assert file.read_bytes().count("reward²".encode()) == 1


def test_histogram(writer: Writer, tmp_path: Path) -> None:
    writer.histograms(
        {"weights": np.array([[0.0, 0.0], [1.05, 3.0], [math.nan, math.inf]], np.float32)}, 5
    )
    writer.close()
    ((step, table),) = points(tmp_path, "weights")
    assert step == 5
    # 30 bins of 0.1 from 0 to 3
    np.testing.assert_allclose(table[[0, 29], :2], [[0.0, 0.1], [2.9, 3.0]])
    assert {bin_: count for bin_, count in enumerate(table[:, 2]) if count} == {0: 2, 10: 1, 29: 1}


def test_histogram_of_one_value_and_of_none(writer: Writer, tmp_path: Path) -> None:
    writer.histograms({"one": np.full(7, 2.0), "none": np.array([math.nan])}, 0)
    writer.close()
    one = points(tmp_path, "one")[0][1]
    assert (one[0, 0], one[-1, 1], one[:, 2].sum()) == (1.5, 2.5, 7)
    assert points(tmp_path, "none")[0][1][:, 2].sum() == 0


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_are_exact(writer: Writer, tmp_path: Path, channels: int) -> None:
    batch = np.random.default_rng(0).integers(0, 256, (2, 5, 7, channels), dtype=np.uint8)
    sent = batch.copy()
    writer.images({"samples": sent}, 3)
    sent[:] = 0  # the caller may reuse its buffer
    writer.close()
    width, height, *pictures = strings(tmp_path, "samples")
    assert (width, height, len(pictures)) == (b"7", b"5", 2)
    for picture, expected in zip(pictures, batch, strict=True):
        with Image.open(io.BytesIO(picture)) as image:
            assert image.format == "PNG"
            np.testing.assert_array_equal(np.asarray(image).reshape(expected.shape), expected)


def test_one_picture_needs_no_batch(writer: Writer, tmp_path: Path) -> None:
    writer.images({"one": np.zeros((4, 6, 3), np.uint8)}, 0)
    writer.close()
    assert len(strings(tmp_path, "one")) == 3


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 2), np.uint8)]
)
def test_what_is_no_picture_is_refused_by_name(writer: Writer, wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"samples/x: a picture here is uint8"):
        writer.images({"samples/x": wrong}, 0)


def test_video_is_an_animated_gif(writer: Writer, tmp_path: Path) -> None:
    frames = np.zeros((30, 400, 600, 3), np.uint8)
    frames[:, :, :, 0] = np.arange(30)[:, None, None] * 8
    writer.videos({"video": frames}, 7, frames_per_second=10)
    frames[:] = 0
    writer.close()
    width, height, gif = strings(tmp_path, "video")
    assert (width, height) == (b"300", b"200")
    with Image.open(io.BytesIO(gif)) as image:
        assert (image.format, image.size, image.info["duration"]) == ("GIF", (300, 200), 100)
        reds = [
            np.asarray(frame.convert("RGB"))[0, 0, 0] for frame in ImageSequence.Iterator(image)
        ]
    np.testing.assert_allclose(reds, np.arange(30) * 8, atol=2)


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (4, 4, 3), (2, 4, 4, 1)])
def test_what_is_no_video_is_refused_by_name(writer: Writer, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="eval/video: "):
        writer.videos({"eval/video": np.zeros(shape, np.uint8)}, 0)


def test_text(writer: Writer, tmp_path: Path) -> None:
    writer.text("config", "```yaml\nname: ψ\n```")
    writer.close()
    assert strings(tmp_path, "config") == ["```yaml\nname: ψ\n```".encode()]


def test_layout(writer: Writer, tmp_path: Path) -> None:
    writer.layout(
        {"Learning": {"Return": ["eval/.*", "rollout/.*"], "Length": [".*/length"]}, "Update": {}}
    )
    writer.close()
    layout = layout_pb2.Layout.FromString(strings(tmp_path, "custom_scalars__config__")[0])
    assert [category.title for category in layout.category] == ["Learning", "Update"]
    charts = {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}
    assert charts == {"Return": ["eval/.*", "rollout/.*"], "Length": [".*/length"]}


def test_hparams_start_without_metrics_and_end_with_them(writer: Writer, tmp_path: Path) -> None:
    writer.hparams({"agent": {"gamma": 0.5}, "clip": None}, {})
    writer.scalars({"loss": 1.0}, 40)
    writer.flush()
    run = loaded(tmp_path)
    content = run.SummaryMetadata(hparams_metadata.SESSION_START_INFO_TAG).plugin_data.content
    start = hparams_metadata.parse_session_start_info_plugin_data(content)
    assert start.hparams["agent.gamma"].number_value == 0.5
    assert start.hparams["clip"].string_value == "none"
    assert hparams_metadata.SESSION_END_INFO_TAG not in run.Tags()["tensors"]
    writer.hparams({"agent": {"gamma": 0.5}, "clip": None}, {"final/return": 9.0})
    writer.close()
    assert points(tmp_path, "final/return") == [
        (40, 9.0)
    ]  # at the newest step: no curve runs backward
    assert hparams_metadata.SESSION_END_INFO_TAG in loaded(tmp_path).Tags()["tensors"]


def train(folder: Path, steps: tuple[int, ...], resume_step: int | None = None) -> list[int]:
    """Log at these steps, and give back the steps that TensorBoard shows afterwards."""
    writer = Writer(folder, resume_step=resume_step)
    for step in steps:
        writer.scalars({"loss": float(step)}, step)
    writer.hparams({}, {"final/return": 1.0})
    writer.close()
    return [step for step, _ in points(folder, "loss")]


def test_resume_purges_what_came_after(tmp_path: Path) -> None:
    assert train(tmp_path, (0, 10, 20, 30, 40)) == [0, 10, 20, 30, 40]
    assert train(tmp_path, (25, 35), resume_step=20) == [
        0,
        10,
        20,
        25,
        35,
    ]  # a point at the very step stays
    assert train(tmp_path, (27,), resume_step=25) == [0, 10, 20, 25, 27]
    assert [step for step, _ in points(tmp_path, "final/return")] == [27]


def test_adding_to_a_run_purges_nothing(tmp_path: Path) -> None:
    for step in (10, 5):
        writer = Writer(tmp_path)
        writer.scalars({f"at/{step}": 1.0}, step)
        writer.close()
    assert set(loaded(tmp_path).Tags()["tensors"]) == {"at/10", "at/5"}
    assert points(tmp_path, "at/10") == [(10, 1.0)]


def test_tensorflow_is_not_imported() -> None:
    script = (
        "import sys, sparring.tensorboard.writer; sys.exit(any(name.split('.')[0] == 'tensorflow' "
        "for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
