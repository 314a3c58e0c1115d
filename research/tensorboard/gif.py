"""Animated GIFs of bounded size from frames, through Pillow.

GIF is the only format of moving images that TensorBoard shows; no ffmpeg is needed.
"""

import io

import numpy as np
from PIL import Image

FRAMES = 100  # at most, of any video
SIDE = 320  # pixels: larger frames are halved until their longer side fits


def thinned(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return every n-th frame and always the last, FRAMES at most.

    The last frame, where an episode ended, is the most informative one.

    Args:
        frames: [T, H, W, 3] of any dtype, T >= 1.

    Returns:
        A copy of the kept frames [K, H, W, 3], and the number of source frames that each one stands
          for, [K].
    """
    last = len(frames) - 1
    stride = max(1, -(-last // (FRAMES - 1)))
    kept = np.append(np.arange(0, last, stride), last)  # [K]
    return frames[kept], np.diff(np.append(kept, last + 1))


def reduction(frame: np.ndarray) -> int:
    """Return the power of two by which the sides of a frame [H, W, 3] are divided to fit."""
    halvings = 0
    while max(frame.shape[:2]) >> halvings > SIDE:
        halvings += 1
    return 2**halvings


def encode(
    frames: np.ndarray, counts: np.ndarray, frames_per_second: float
) -> tuple[bytes, int, int]:
    """Return an endless GIF that plays as fast as the source did.

    Args:
        frames: uint8 [K, H, W, 3].
        counts: source frames that each frame stands for, [K].
        frames_per_second: of the source.

    Returns:
        The file's bytes, its width and its height in pixels.
    """
    # GIF counts in hundredths of a second. Rounding the ends, not the lengths, keeps a long video
    # on time.
    ends = np.rint(np.cumsum(counts) * 100 / frames_per_second).astype(int)
    # Browsers slow anything shorter than 20 ms to 100 ms
    milliseconds = np.maximum(np.diff(ends, prepend=0), 2) * 10
    images = [Image.fromarray(frame).reduce(reduction(frame)) for frame in frames]
    file = io.BytesIO()
    images[0].save(
        file,
        "GIF",
        save_all=True,
        append_images=images[1:],
        duration=milliseconds.tolist(),
        loop=0,
        optimize=False,
    )
    return file.getvalue(), images[0].width, images[0].height
