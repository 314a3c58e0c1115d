"""Evaluating an agent: whole episodes on fresh environments, and a video of one."""

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from sparring.agents.networks import recurrent
from sparring.errors import UserError
from sparring.tensorboard import gif
from sparring.training.trainer import Evaluation
from sparring.xla import compilation, random
from sparring.xla.compilation import CachedCall

_log = logging.getLogger("sparring")
LONGEST = 100_000  # steps: an episode that is longer has no end

Act = Callable[
    [np.ndarray, int], np.ndarray
]  # (observations [B, ...], vector step) -> actions [B, ...]


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of the evaluation of an agent.

    `episodes` whole episodes greedily and, if `sampled`, as many with the actions sampled as in
    training. Every `video_every`-th evaluation and the one at the run's end films one episode of up
    to `video_steps` steps (0: never).
    """

    episodes: int = 20
    sampled: bool = True
    video_every: int = 5
    video_steps: int = 500


class Evaluator:
    """Looks at an agent: returns of whole episodes, played greedily and with the actions sampled,
    and a film of one.

    Episodes are of environments that no training environment has been, new at every step of the
    training.

    Args:
      agent: what acts (see sparring.agents.training.base).
      environment: in which; on the host or compiled.
      mode: of compilation, as `sparring.xla.compilation.resolve` gives it.
      seed: of the run.
      settings: how much.
    """

    def __init__(
        self,
        agent: Any,
        environment: Any,
        mode: str,
        seed: int,
        settings: EvaluationSettings | None = None,
    ) -> None:
        self.agent = agent
        self.environment = environment
        self.mode = mode
        self.seed = seed
        self.settings = settings or EvaluationSettings()

    def __call__(
        self,
        step: int,
        progress: tf.Tensor,
        episodes: int | None = None,
        media: bool = True,
        number: int = 0,
    ) -> Evaluation:
        """Evaluate the agent as it is at `step`, the share `progress` [] of its run.

        `episodes`: other than set. `number` of the evaluation decides whether it is filmed.
        """
        seed = _evaluation_seed(self.seed, step)
        count = episodes or self.settings.episodes
        returns, lengths = self.greedy(count, seed)
        result = Evaluation(
            {
                "eval/episode_return": float(returns.mean()),
                "eval/episode_return_std": float(returns.std()),
                "eval/episode_length": float(lengths.mean()),
            },
            histograms={"eval/episode_returns": returns},
        )
        if self.settings.sampled:
            key = random.fold(random.stream(self.seed, "evaluation"), step)
            returns, _ = self.sampled(count, seed, key, progress)
            result.scalars["eval/episode_return_sampled"] = float(returns.mean())
        every = self.settings.video_every
        if media and every and (number % every == 0 or float(progress) >= 1.0):
            frames = video(
                self.environment, Player(self._step, self._start), seed, self.settings.video_steps
            )
            if frames is not None:
                result.videos["eval/episode"] = frames
        return result

    @functools.cached_property
    def greedy(self) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
        """(episodes, seed) -> returns and lengths of episodes played greedily."""
        return self._playing(self._act_greedily)

    @functools.cached_property
    def sampled(self) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
        """(episodes, seed, key, progress) -> the same with actions sampled as in training at
        `progress`.
        """

        def act(seen: tf.Tensor, t: tf.Tensor, key: tf.Tensor, progress: tf.Tensor) -> tf.Tensor:
            keys = random.members(random.fold(key, t), seen.shape[0])
            return self.agent.act_sampled(seen, keys, progress)

        return self._playing(act)

    @functools.cached_property
    def _step(self) -> CachedCall:
        """One greedy step, for a film."""
        return CachedCall(self._remembering(self._act_greedily), self.mode)

    def _act_greedily(self, seen: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        del t
        return self.agent.act_greedy(seen)

    def _start(self, batch: int) -> recurrent.State:
        return recurrent.start(self.agent, batch)

    def _remembering(
        self, act: Callable[..., tf.Tensor]
    ) -> Callable[..., tuple[tf.Tensor, recurrent.State]]:
        """`act(seen, t, ...) -> action` as (observation, known, t, ...) -> (action, known)."""

        def remembering(
            observation: tf.Tensor, known: recurrent.State, *arguments: Any
        ) -> tuple[tf.Tensor, recurrent.State]:
            seen, known = recurrent.see(self.agent, observation, known)
            return act(seen, *arguments), known

        return remembering

    def _playing(
        self, act: Callable[..., tf.Tensor]
    ) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
        step = self._remembering(act)
        if self.environment.compiled:
            return CompiledEvaluation(self.environment, step, self.mode, start=self._start)
        return functools.partial(self._play_on_host, CachedCall(step, self.mode))

    def _play_on_host(
        self, step: CachedCall, count: int, seed: int, *arguments: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        player = Player(lambda *given: step(*given, *arguments), self._start)
        return episodes(self.environment, player, count, seed, forget=player.forget)


class Player:
    """An `Act` that remembers, from the start of an episode on, for as many environments as it is
    first shown.

    `act(observation, known, t) -> (actions, known)`; `start(B)` is what is known at first (see
    sparring.agents.networks.recurrent).
    """

    def __init__(self, act: Callable[..., Any], start: Callable[[int], recurrent.State]) -> None:
        self._act = act
        self._start = start
        self._known = None

    def __call__(self, observation: np.ndarray, t: int) -> np.ndarray:
        known = self._start(len(observation)) if self._known is None else self._known
        action, self._known = self._act(observation, known, np.int64(t))
        return np.asarray(action)

    def forget(self, first: np.ndarray) -> None:
        """Be at the start again in the environments in `first` [B]."""
        self._known = recurrent.restarted(self._known, first)


def episodes(
    environment: Any,
    act: Act,
    count: int,
    seed: int,
    at_once: int = 16,
    longest: int = LONGEST,
    forget: Callable[[np.ndarray], None] = lambda first: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns and lengths, both [count], of whole episodes, each environment playing the same
    number of them.

    Counting the first `count` to finish would favour short episodes; here environment i plays
    episodes i, i + B, ... `forget` is told after every step which environments it opened an episode
    in, [B]. Raises UserError for an environment whose episodes do not end within `longest` steps.
    """
    batch = min(count, at_once)
    vector = environment.vector(batch, seed)
    quota = np.array([len(range(i, count, batch)) for i in range(batch)])
    returns: list[list[float]] = [[] for _ in range(batch)]
    lengths: list[list[int]] = [[] for _ in range(batch)]
    running_return = np.zeros(batch)
    running_length = np.zeros(batch, np.int64)
    try:
        observation = vector.reset()
        t = 0
        while any(len(r) < q for r, q in zip(returns, quota, strict=True)):
            step = vector.step(act(observation, t))
            running_return += step.reward
            running_length += ~step.first
            for i in np.flatnonzero(step.terminated | step.truncated):
                returns[i].append(float(running_return[i]))
                lengths[i].append(int(running_length[i]))
                running_return[i] = 0.0
                running_length[i] = 0
            if running_length.max() >= longest:
                raise UserError(
                    f"An evaluation episode did not end within {longest} steps: set "
                    "env.max_episode_steps."
                )
            forget(step.first)
            observation = step.observation
            t = t + 1
    finally:
        vector.close()
    order = [(i, k) for k in range(int(quota.max())) for i in range(batch) if k < quota[i]]
    return np.array([returns[i][k] for i, k in order]), np.array([lengths[i][k] for i, k in order])


class CompiledEvaluation:
    """Plays whole episodes, all at once and one each, in one program.

    `act(observation, known, t, *arguments) -> (action, known)`, where `known` is `start(episodes)`
    at first.
    """

    def __init__(
        self,
        environment: Any,
        act: Callable[..., Any],
        mode: str,
        longest: int = LONGEST,
        start: Callable[[int], recurrent.State] = lambda episodes: (),
    ) -> None:
        self.environment = environment
        self.act = act
        self.longest = longest
        self.start = start
        self._program = functools.cache(
            lambda count: compilation.function(functools.partial(self._play, count), mode)
        )

    def __call__(self, count: int, seed: int, *arguments: Any) -> tuple[np.ndarray, np.ndarray]:
        """Returns and lengths, both [count]; `arguments` are handed on to `act`.

        Raises UserError for an environment whose episodes do not end within `LONGEST` steps.
        """
        returns, lengths, playing = self._program(count)(tf.constant(seed, tf.int64), *arguments)
        if playing.numpy().any():
            raise UserError(
                f"An evaluation episode did not end within {self.longest} steps: set "
                "env.max_episode_steps."
            )
        return returns.numpy().astype(np.float64), lengths.numpy().astype(np.int64)

    def _play(
        self, count: int, seed: tf.Tensor, *arguments: Any
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        environment = self.environment
        stream = environment.stream(seed)

        def body(
            t: tf.Tensor,
            state: Any,
            known: Any,
            observation: tf.Tensor,
            playing: tf.Tensor,
            sums: tf.Tensor,
        ) -> tuple[Any, ...]:
            action, known = self.act(observation, known, t, *arguments)
            state, step = environment.step_at(state, action, stream, t)
            gained = tf.stack([step.reward, tf.ones([count])])
            playing_on = playing & ~(step.terminated | step.truncated)
            return (
                t + 1,
                state,
                known,
                step.observation,
                playing_on,
                sums + gained * tf.cast(playing, tf.float32),
            )

        state = environment.open(seed, count)
        opening = (state, self.start(count), environment.observe(state.state))
        *_, playing, sums = tf.while_loop(
            lambda t, s, k, o, playing, _: tf.reduce_any(playing) & (t < self.longest),
            body,
            (tf.constant(0, tf.int64), *opening, tf.ones([count], tf.bool), tf.zeros([2, count])),
        )
        return sums[0], sums[1], playing


def video(environment: Any, act: Act, seed: int, longest: int) -> np.ndarray | None:
    """Frames uint8 [T, H, W, 3] of one episode of up to `longest` steps, at the size a GIF of ours
    has.

    None if the environment draws nothing. One that should and can't is told of once and costs no
    training.
    """
    if not environment.renders:
        return None
    try:
        return _filmed(environment, act, seed, longest)
    except UserError as error:
        _tell_once(f"No videos: {error}")
        return None


def _filmed(environment: Any, act: Act, seed: int, longest: int) -> np.ndarray:
    vector = environment.vector(1, seed, render=True)
    try:
        observation = vector.reset()
        first = _small(vector.render())
        frames = np.empty((longest + 1, *first.shape), np.uint8)  # pages never written cost nothing
        frames[0] = first
        for t in range(longest):
            step = vector.step(act(observation, t))
            frames[t + 1] = _small(vector.render())
            if step.terminated[0] or step.truncated[0]:
                return frames[: t + 2]
            observation = step.observation
        return frames
    finally:
        vector.close()


def _small(frame: np.ndarray) -> np.ndarray:
    """A frame as small as it will be shown: an episode of large ones would fill the memory."""
    return np.asarray(Image.fromarray(frame).reduce(gif.reduction(frame)))


@functools.cache
def _tell_once(message: str) -> None:
    _log.warning("%s", message)


def _evaluation_seed(seed: int, step: int) -> int:
    """A seed for evaluation environments that no training environment has, new at every step."""
    return int(np.random.SeedSequence([seed, step, 0x5EED]).generate_state(1)[0] >> 1)
