"""Base of MinAtar's games: six actions, sticky actions, a board of 10 x 10 cells, its image."""

import abc
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from gymnasium import spaces

from sparring.envs.compiled.base import CompiledEnvironment
from sparring.envs.compiled.canvas import tiles
from sparring.errors import UserError
from sparring.xla import random

SIZE = 10  # rows and columns
NOTHING, LEFT, UP, RIGHT, DOWN, FIRE = range(6)
EMPTY = (40, 40, 40)
COLOURS = (  # of the channels; where several are set in a cell, the last one shows
    (90, 160, 240),
    (230, 80, 70),
    (150, 150, 150),
    (240, 190, 60),
    (120, 200, 110),
    (200, 120, 220),
    (250, 140, 60),
    (70, 200, 200),
    (240, 240, 120),
    (250, 170, 190),
)

Outcome = tuple[Any, tf.Tensor, tf.Tensor]  # state, reward float32 [B], terminated bool [B]


class MinAtarState(NamedTuple):
    """State of the game proper, and the last action, int32 [B], which the next step may repeat."""

    game: Any
    last_action: tf.Tensor


class MinAtarGame(CompiledEnvironment):
    """Base of the games.

    Observed as uint8 [10, 10, channels], 0 or 1; actions: nothing, left, up, right, down, fire.

    A step repeats the last action instead of the chosen one with probability `sticky_action_prob`.
    `minimal_actions` leaves only the actions that have an effect. One difference from the original
    is deliberate: an episode opens with "nothing" as its last action, whereas the original keeps
    the last action of the previous episode.

    A game sets `channels`, `minimal` and `draws`, and defines `opening`, `channel_boards` and
    `play`.
    """

    channels: tuple[str, ...]
    minimal: tuple[int, ...]  # actions that have an effect
    opening_draws = 0  # uniform numbers that an opening takes
    draws = 0  # uniform numbers that a step takes

    def __init__(
        self,
        sticky_action_prob: float = 0.1,
        minimal_actions: bool = False,
        max_episode_steps: int | None = None,
    ) -> None:
        super().__init__(max_episode_steps)
        if not 0.0 <= sticky_action_prob <= 1.0:
            raise UserError(
                f"env.sticky_action_prob={sticky_action_prob}: a probability, from 0 to 1."
            )
        self.sticky_action_prob = sticky_action_prob
        self.actions = self.minimal if minimal_actions else tuple(range(6))
        self.action_space = spaces.Discrete(len(self.actions))
        self.observation_space = spaces.Box(0, 1, (SIZE, SIZE, len(self.channels)), np.uint8)

    @abc.abstractmethod
    def opening(self, draws: tf.Tensor) -> Any:
        """Return states that open a game, from uniform numbers float32 [B, opening_draws]."""

    @abc.abstractmethod
    def play(self, state: Any, action: tf.Tensor, draws: tf.Tensor) -> Outcome:
        """Take one step from actions [B], as numbered above, and uniform numbers [B, draws]."""

    @abc.abstractmethod
    def channel_boards(self, state: Any) -> list[tf.Tensor]:
        """Return the cells of each channel, bool [B, 10, 10], by row and column."""

    def initial(self, keys: tf.Tensor) -> MinAtarState:
        opening = self.opening(random.uniform(keys, self.opening_draws))
        return MinAtarState(opening, tf.fill(keys.shape[:1], NOTHING))

    def transition(self, state: MinAtarState, action: tf.Tensor, keys: tf.Tensor) -> Outcome:
        draws = random.uniform(keys, 1 + self.draws)  # [B, 1 + draws]
        asked = action if len(self.actions) == 6 else tf.gather(tf.constant(self.actions), action)
        taken = tf.where(draws[:, 0] < self.sticky_action_prob, state.last_action, asked)
        game, reward, terminated = self.play(state.game, taken, draws[:, 1:])
        return MinAtarState(game, taken), reward, terminated

    def observe(self, state: MinAtarState) -> tf.Tensor:
        # [B, 10, 10, C]
        return tf.cast(tf.stack(self.channel_boards(state.game), axis=-1), tf.uint8)

    def render(self, state: MinAtarState) -> np.ndarray:
        seen = self.observe(
            tf.nest.map_structure(lambda part: tf.constant(part[np.newaxis]), state)
        )[0].numpy()
        # [10, 10]: 0, or the channel's index from 1
        shown = (seen * np.arange(1, seen.shape[-1] + 1)).max(axis=-1)
        return tiles(np.array([EMPTY, *COLOURS], np.uint8)[shown])


class RampingGame(MinAtarGame):
    """Game that grows harder as it is played, unless `difficulty_ramping` is false."""

    def __init__(
        self,
        sticky_action_prob: float = 0.1,
        difficulty_ramping: bool = True,
        minimal_actions: bool = False,
        max_episode_steps: int | None = None,
    ) -> None:
        super().__init__(sticky_action_prob, minimal_actions, max_episode_steps)
        self.difficulty_ramping = difficulty_ramping


def moved(
    place: tf.Tensor, action: tf.Tensor, back: int, forth: int, low: int, high: int
) -> tf.Tensor:
    """Return `place` [B] a cell on by the actions `back` and `forth`, within [low, high]."""
    step = tf.cast(action == forth, tf.int32) - tf.cast(action == back, tf.int32)
    return tf.clip_by_value(place + step, low, high)


def choice(draw: tf.Tensor, count: tf.Tensor | int) -> tf.Tensor:
    """Return integers below `count`, int32, from uniform numbers of the same shape."""
    return tf.cast(draw * tf.cast(count, tf.float32), tf.int32)


def one_cell(y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Return boards [B, 10, 10] with one cell set, at row y [B] and column x [B].

    A cell outside the board sets none.
    """
    cells = tf.range(SIZE)
    return (cells == y[:, tf.newaxis])[:, :, tf.newaxis] & (cells == x[:, tf.newaxis])[
        :, tf.newaxis, :
    ]


def lanes(x: tf.Tensor) -> tf.Tensor:
    """Return boards [B, 10, 10] of one thing in each of the rows 1 to 8, at columns x [B, 8].

    A column outside the board sets no cell.
    """
    cells = x[:, :, tf.newaxis] == tf.range(SIZE)  # [B, 8, 10]
    return tf.pad(cells, [[0, 0], [1, 1], [0, 0]])


def filled(num_envs: int, value: int) -> tf.Tensor:
    """Return int32 [num_envs], all equal to `value`."""
    return tf.fill([num_envs], value)


def reward_of(count: tf.Tensor) -> tf.Tensor:
    """Return integers or booleans as rewards, float32."""
    return tf.cast(count, tf.float32)
