import io

import numpy as np
import pytest
from PIL import Image, ImageSequence

from sparring.tensorboard import gif


def gradient(count: int, height: int = 4, width: int = 6) -> np.ndarray:
    """[T, H, W, 3]: every frame in a grey of its own, as far as 256 greys go."""
    frames = np.empty((count, height, width, 3), np.uint8)
    frames[:] = (np.arange(count) * 255 // max(count - 1, 1)).astype(np.uint8)[:, None, None, None]
    return frames


def decoded(file: bytes) -> list[tuple[np.ndarray, int]]:
    """Each frame and the milliseconds it is shown."""
    with Image.open(io.BytesIO(file)) as image:
        frames = ImageSequence.Iterator(image)
        return [(np.asarray(frame.convert("RGB")), frame.info["duration"]) for frame in frames]


def test_short_video_keeps_every_frame() -> None:
    frames = gradient(60)
    kept, counts = gif.thinned(frames)
    np.testing.assert_array_equal(kept, frames)
    assert counts.tolist() == [1] * 60


@pytest.mark.parametrize(
    ("length", "expected"), [(1, 1), (2, 2), (100, 100), (101, 51), (500, 85), (10_000, 100)]
)
def test_long_video_is_thinned_to_its_last_frame(length: int, expected: int) -> None:
    # 101: stride ceil(100 / 99) = 2, so 0, 2, ..., 98 and 100. 500: stride ceil(499 / 99) = 6, so
    # 0, ..., 498 and 499.
    frames = np.arange(length)[:, None, None, None] * np.ones((1, 1, 1, 3), int)
    kept, counts = gif.thinned(frames)
    assert len(kept) == expected
    assert kept[0, 0, 0, 0] == 0
    assert kept[-1, 0, 0, 0] == length - 1
    assert counts.sum() == length


def test_kept_frames_are_a_copy() -> None:
    frames = gradient(3)
    kept, _ = gif.thinned(frames)
    frames[:] = 7
    assert kept[-1, 0, 0, 0] == 255


def test_gif_shows_the_frames() -> None:
    frames = gradient(5)
    file, width, height = gif.encode(frames, np.ones(5, int), 10)
    assert (width, height) == (6, 4)
    shown = decoded(file)
    assert len(shown) == 5
    for frame, (picture, _) in zip(frames, shown, strict=True):
        assert np.abs(picture.astype(int) - frame).max() <= 2  # 256 colours a frame
    with Image.open(io.BytesIO(file)) as image:
        assert image.info["loop"] == 0  # endless


def test_gif_plays_as_fast_as_the_source() -> None:
    frames = gradient(60)
    file, _, _ = gif.encode(frames, np.ones(60, int), 30)
    durations = [duration for _, duration in decoded(file)]
    # Frames end at 3.33, 6.67, 10, ... hundredths of a second: 3, 7, 10, ... so 30, 40, 30 ms, and
    # 2 s in all.
    assert durations[:4] == [30, 40, 30, 30]
    assert sum(durations) == 2000


def test_thinned_frames_stand_longer() -> None:
    kept, counts = gif.thinned(gradient(250))  # stride ceil(249 / 99) = 3: 0, 3, ..., 246 and 249
    file, _, _ = gif.encode(kept, counts, 50)
    durations = [duration for _, duration in decoded(file)]
    assert durations[0] == 60
    assert sum(durations) == 5000  # 250 frames of 20 ms


def test_a_picture_is_shown_20_ms_at_least() -> None:
    file, _, _ = gif.encode(gradient(4), np.ones(4, int), 1000)
    assert [duration for _, duration in decoded(file)] == [20] * 4


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((320, 320), (320, 320)),
        ((400, 600), (200, 300)),
        ((321, 8), (161, 4)),
        ((700, 1400), (88, 175)),
    ],
)
def test_large_frames_are_halved(size: tuple[int, int], expected: tuple[int, int]) -> None:
    # 1400 >> 3 = 175 pixels, the first to fit into 320; a rest of a pixel keeps its own: ceil(700 /
    # 8) = 88.
    file, width, height = gif.encode(gradient(2, *size), np.ones(2, int), 10)
    assert (height, width) == expected
    assert decoded(file)[0][0].shape[:2] == expected


def test_halving_averages() -> None:
    frames = np.zeros((1, 400, 400, 3), np.uint8)
    frames[:, ::2, ::2] = 200  # one pixel of four
    (picture, _), *_ = decoded(gif.encode(frames, np.ones(1, int), 10)[0] or b"")
    np.testing.assert_array_equal(picture, 50)
