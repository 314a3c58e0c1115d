"""Picture of a learned reward over two numbers of the observation, drawn with Pillow."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw

from sparring.agents.imitation.encoding import Encoder, Rows
from sparring.agents.imitation.expert import Expert
from sparring.training.trainer import Evaluation

NAME = "imitation/reward_surface"
DESCRIPTION = (
    "Learned reward of the agent's greedy action over two numbers of the observation, the others "
    "at the expert's median: low blue, high orange; dots are the expert's observations."
)
_CELLS = 48  # on a side
_PIXELS = 7  # of a cell's side
_MARGIN = 0.1  # of the expert's range, beyond it on each side
_DOTS = 400
_LOW = np.array([60, 110, 200])
_MIDDLE = np.array([245, 245, 245])
_HIGH = np.array([215, 70, 20])
_INK = (20, 20, 20)


def add(found: Evaluation, *arguments: Any) -> None:
    """Add to an evaluation what `draw` returns, if it is a picture."""
    picture = draw(*arguments)
    if picture is not None:
        found.images[NAME] = picture


def draw(
    agent: Any, expert: Expert, encoder: Encoder, learned: Callable[[Rows], tf.Tensor]
) -> np.ndarray | None:
    """Return the surface over the first two numbers, uint8 [1, H, W, 3].

    `learned` gives the reward [N] of steps. None unless observations are vectors of two numbers or
    more.
    """
    seen = expert.observation
    if not isinstance(seen, tf.Tensor) or seen.shape.rank != 2 or seen.shape[1] < 2:
        return None
    shown = seen.numpy()
    low = shown[:, :2].min(axis=0)
    high = shown[:, :2].max(axis=0)
    margin = np.maximum(_MARGIN * (high - low), 1e-6)
    low = low - margin
    high = high + margin
    grid = np.tile(np.median(shown, axis=0), [_CELLS * _CELLS, 1])  # [N, O]
    down, right = np.mgrid[_CELLS - 1 : -1 : -1, :_CELLS]  # the second number grows upwards
    share = (np.stack([right.ravel(), down.ravel()], axis=1) + 0.5) / _CELLS
    grid[:, :2] = low + share * (high - low)
    reward = _rewards(agent, encoder, learned, tf.constant(grid, seen.dtype))
    picture = _shaded(reward.reshape(_CELLS, _CELLS))
    places = (shown[:: max(1, len(shown) // _DOTS), :2] - low) / (high - low)  # [D, 2]
    return _labelled(picture, places, (low, high), reward)[np.newaxis]


def _rewards(
    agent: Any, encoder: Encoder, learned: Callable[[Rows], tf.Tensor], observation: tf.Tensor
) -> np.ndarray:
    seen, _ = agent.see(observation, ())
    flat = encoder.observation(observation)
    zero = tf.zeros([flat.shape[0], 1])
    action = encoder.action(agent.act_greedy(seen))
    return np.asarray(learned(Rows(flat, action, flat, zero, zero)))


def _shaded(reward: np.ndarray) -> np.ndarray:
    """Return rewards [S, S] as colours uint8 [S, S, 3]; the middle of their range is grey."""
    spread = max(float(np.ptp(reward)), 1e-12)
    level = (2.0 * (reward - reward.min()) / spread - 1.0)[..., np.newaxis]  # in [-1, 1]
    end = np.where(level < 0.0, _LOW, _HIGH)
    return np.rint(_MIDDLE + np.abs(level) * (end - _MIDDLE)).astype(np.uint8)


def _labelled(
    picture: np.ndarray,
    places: np.ndarray,
    bounds: tuple[Sequence[float], Sequence[float]],
    reward: np.ndarray,
) -> np.ndarray:
    side = _CELLS * _PIXELS
    image = Image.new("RGB", (side, side + 44), (255, 255, 255))
    image.paste(Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST))
    pen = ImageDraw.Draw(image)
    for x, y in places:
        middle = (x * side, (1.0 - y) * side)
        pen.ellipse([middle[0] - 1, middle[1] - 1, middle[0] + 1, middle[1] + 1], fill=_INK)
    (left, bottom), (right, top) = bounds
    lines = [
        f"right: number 0, {left:.3g} to {right:.3g}; up: number 1, {bottom:.3g} to {top:.3g}",
        f"reward {reward.min():.3g} (blue) to {reward.max():.3g} (orange)",
    ]
    pen.text((4, side + 4), "\n".join(lines), fill=_INK)
    return np.asarray(image)
