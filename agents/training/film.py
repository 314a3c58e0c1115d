"""Film of an episode: frames of one environment, at the size in which TensorBoard shows them."""

from typing import Any

import numpy as np
from PIL import Image

from sparring.agents.training.episodes import Act, check_signals
from sparring.errors import UserError, warn_once
from sparring.processes import signals
from sparring.tensorboard import gif

_GAP = 8  # pixels between two films


def video(environment: Any, act: Act, seed: int, longest: int) -> np.ndarray | None:
    """Frames uint8 [T, H, W, 3] of one episode of up to `longest` steps, at the size a GIF of ours
    has.

    None if the environment draws nothing. One that should and can't is told of once and costs no
    training.

    Raises:
      StoppedError: a signal has asked for the end of the run.
    """
    if not environment.renders:
        return None
    try:
        return _filmed(environment, act, seed, longest)
    except signals.StoppedError:
        raise
    except UserError as error:
        warn_once(f"No videos: {error}")
    except Exception as error:
        warn_once(f"No videos of {environment.name}: {type(error).__name__}: {error}")
    return None


def beside(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return two films uint8 [T, H, W, 3] side by side; the shorter stands still at its end."""
    length = max(len(left), len(right))
    height = max(left.shape[1], right.shape[1])
    gap = np.full([length, height, _GAP, 3], 255, np.uint8)
    return np.concatenate([_filled(left, length, height), gap, _filled(right, length, height)], 2)


def _filled(frames: np.ndarray, length: int, height: int) -> np.ndarray:
    """Return a film with its last frame repeated, and white below it."""
    lasting = np.concatenate([frames, frames[-1:].repeat(length - len(frames), axis=0)])
    below = height - frames.shape[1]
    return np.pad(lasting, [(0, 0), (0, below), (0, 0), (0, 0)], constant_values=255)


def _filmed(environment: Any, act: Act, seed: int, longest: int) -> np.ndarray:
    vector = environment.vector(1, seed, render=True)
    try:
        observation = vector.reset()
        first = _small(vector.render())
        frames = np.empty((longest + 1, *first.shape), np.uint8)  # pages never written cost nothing
        frames[0] = first
        for t in range(longest):
            check_signals()
            step = vector.step(act(observation, t))
            frames[t + 1] = _sized(_small(vector.render()), first.shape)
            if step.terminated[0] or step.truncated[0]:
                return frames[: t + 2]
            observation = step.observation
        return frames
    finally:
        vector.close()


def _small(frame: np.ndarray) -> np.ndarray:
    """A frame as small as it will be shown: an episode of large ones would fill the memory."""
    return np.asarray(Image.fromarray(frame).reduce(gif.reduction(frame)))


def _sized(frame: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a frame at the size of the film's first, which some environments change."""
    if frame.shape == shape:
        return frame
    warn_once("Frames of an episode differ in size: the film shows them at the first one's.")
    return np.asarray(Image.fromarray(frame).resize((shape[1], shape[0])))
