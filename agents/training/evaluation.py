"""Evaluating an agent: whole episodes on fresh environments, and a video of one."""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from sparring.agents.networks import recurrent
from sparring.errors import UserError, warn_once
from sparring.processes import activity, signals
from sparring.tensorboard import gif
from sparring.training.trainer import Evaluation
from sparring.xla import compilation, random
from sparring.xla.compilation import CachedCall

LONGEST = 10_000  # steps of an evaluation episode where the environment has no limit of its own
AT_ONCE = 16  # environments on the host, at most
FIRST_CALL = 1000  # steps of each environment that the first program plays
CALL_SECONDS = 1.0  # that each further call should take

Act = Callable[
    [np.ndarray, int], np.ndarray
]  # (observations [B, ...], vector step) -> actions [B, ...]


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of the evaluation of an agent.

    `episodes` whole episodes greedily and, if `sampled`, as many with the actions sampled as in
    training; 0: the run is not evaluated. Every `video_every`-th evaluation and the one at the
    run's end films one episode of up to `video_steps` steps (0: never). Episodes are cut at
    `max_episode_steps` (None: at the environment's own limit, or, where it has none, at 10 000) and
    played in `environment` (None: that of training, with its wrappers).
    """

    episodes: int = 20
    sampled: bool = True
    video_every: int = 5
    video_steps: int = 500
    max_episode_steps: int | None = None
    environment: Any = None


class Episodes(NamedTuple):
    """Returns, lengths and whether the limit cut them, each [count], of evaluation episodes."""

    returns: np.ndarray  # float64
    lengths: np.ndarray  # int64
    cut: np.ndarray  # bool


class Evaluator:
    """Evaluator of an agent: returns of whole episodes, played greedily and with the actions
    sampled, and a film of one.

    Episodes are of environments that no training environment has been, with seeds that are new at
    every step of the training. Those on the host are built at the first evaluation and reset at
    each.

    Args:
      agent: the agent (see sparring.agents.training.base).
      environment: that of training, on the host or compiled.
      mode: of compilation, as `sparring.xla.compilation.resolve` gives it.
      seed: of the run.
      settings: the extent, and another environment.
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
        self.mode = mode
        self.seed = seed
        self.settings = settings or EvaluationSettings()
        self.environment, self.limit = _limited(environment, self.settings)
        self._vectors: dict[int, Any] = {}  # on the host, by their number of environments

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

        Raises:
          StoppedError: a signal has asked for the end of the run.
        """
        seed = _evaluation_seed(self.seed, step)
        count = self.settings.episodes if episodes is None else episodes
        if count == 0:
            return Evaluation()
        returns, lengths, cut = self.greedy(count, seed)
        result = Evaluation(
            {
                "eval/episode_return": float(returns.mean()),
                "eval/episode_return_std": float(returns.std()),
                "eval/episode_length": float(lengths.mean()),
            },
            histograms={"eval/episode_returns": returns},
        )
        if cut.any():
            result.notes["episodes_cut"] = {"steps": self.limit, "share": float(cut.mean())}
            warn_once(
                f"Evaluation: {cut.sum()} of {count} episodes had no end within {self.limit} steps "
                "and were cut there: env.max_episode_steps, or "
                "trainer.evaluation.max_episode_steps, sets another limit."
            )
        if self.settings.sampled:
            key = random.fold(random.stream(self.seed, "evaluation"), step)
            returns = self.sampled(count, seed, key, progress).returns
            result.scalars["eval/episode_return_sampled"] = float(returns.mean())
        every = self.settings.video_every
        if media and every and (number % every == 0 or float(progress) >= 1.0):
            activity.say("filming an episode")
            frames = video(
                self.environment, Player(self._step, self._start), seed, self.settings.video_steps
            )
            if frames is not None:
                result.videos["eval/episode"] = frames
        return result

    def close(self) -> None:
        """Close the environments on the host."""
        for vector in self._vectors.values():
            vector.close()
        self._vectors.clear()

    @functools.cached_property
    def greedy(self) -> Callable[..., Episodes]:
        """(episodes, seed) -> episodes played greedily."""
        return self._playing(self._act_greedily)

    @functools.cached_property
    def sampled(self) -> Callable[..., Episodes]:
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

    def _playing(self, act: Callable[..., tf.Tensor]) -> Callable[..., Episodes]:
        step = self._remembering(act)
        if self.environment.compiled:
            return CompiledEvaluation(self.environment, step, self.mode, self.limit, self._start)
        return functools.partial(self._play_on_host, CachedCall(step, self.mode))

    def _play_on_host(self, step: CachedCall, count: int, seed: int, *arguments: Any) -> Episodes:
        player = Player(lambda *given: step(*given, *arguments), self._start)
        batch = min(count, AT_ONCE)
        if batch not in self._vectors:
            self._vectors[batch] = self.environment.vector(batch, seed)
        try:
            return played(self._vectors[batch], player, count, seed, self.limit, player.forget)
        except BaseException:  # in the middle of a step, they may be of no more use
            self.close()
            raise


def _limited(environment: Any, settings: EvaluationSettings) -> tuple[Any, int | None]:
    """Return the environment of the evaluation, with an end to each of its episodes, and the limit.

    The limit is None where it is the environment's own.

    Raises:
      UserError: it has other spaces than that of training.
    """
    chosen = settings.environment or environment
    if settings.environment is None and environment.reward_wrappers:
        warn_once(
            f"env.wrappers: {', '.join(environment.reward_wrappers)} changes the rewards, also of "
            "evaluations: eval/episode_return is of changed rewards. Evaluate without it: "
            "+env@trainer.evaluation.environment=gymnasium "
            f"trainer.evaluation.environment.id={environment.id}."
        )
    for name in ("observation_space", "action_space"):
        here = getattr(chosen, name)
        there = getattr(environment, name)
        if here != there:
            raise UserError(
                f"trainer.evaluation.environment: its {name.replace('_', ' ')} is {here}, and that "
                f"of training is {there}: an agent acts in both, so they must be the same."
            )
    own = chosen.max_episode_steps
    limit = settings.max_episode_steps or own or LONGEST
    if own is not None and own <= limit:
        return chosen, None
    return chosen.limited(limit), limit


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
    at_once: int = AT_ONCE,
    forget: Callable[[np.ndarray], None] = lambda first: None,
) -> Episodes:
    """Play whole episodes in environments made for it; see `played`."""
    vector = environment.vector(min(count, at_once), seed)
    try:
        return played(vector, act, count, seed, forget=forget)
    finally:
        vector.close()


def played(
    vector: Any,
    act: Act,
    count: int,
    seed: int,
    limit: int | None = None,
    forget: Callable[[np.ndarray], None] = lambda first: None,
) -> Episodes:
    """Play whole episodes in a vector of environments, which is reset first with `seed`.

    Counting the first `count` to finish would favour short episodes; here each environment plays
    the same number: environment i episodes i, i + B, ... `forget` is told after every step which
    environments it opened an episode in, [B]. `limit` is the number of steps at which episodes are
    cut, if they are.

    Raises:
      StoppedError: a signal has asked for the end of the run.
    """
    batch = vector.num_envs
    quota = np.array([len(range(i, count, batch)) for i in range(batch)])
    returns: list[list[float]] = [[] for _ in range(batch)]
    lengths: list[list[int]] = [[] for _ in range(batch)]
    running_return = np.zeros(batch)
    running_length = np.zeros(batch, np.int64)
    observation = vector.reset(seed)
    t = 0
    while any(len(r) < q for r, q in zip(returns, quota, strict=True)):
        _go_on()
        step = vector.step(act(observation, t))
        running_return += step.reward
        running_length += ~step.first
        ended = np.flatnonzero(step.terminated | step.truncated)
        for i in ended:
            returns[i].append(float(running_return[i]))
            lengths[i].append(int(running_length[i]))
            running_return[i] = 0.0
            running_length[i] = 0
        if len(ended):
            done = sum(min(len(r), q) for r, q in zip(returns, quota, strict=True))
            activity.say(f"evaluating, {done} of {count} episodes")
        forget(step.first)
        observation = step.observation
        t = t + 1
    order = [(i, k) for k in range(int(quota.max())) for i in range(batch) if k < quota[i]]
    return _episodes(
        np.array([returns[i][k] for i, k in order]),
        np.array([lengths[i][k] for i, k in order]),
        limit,
    )


def _episodes(returns: np.ndarray, lengths: np.ndarray, limit: int | None) -> Episodes:
    cut = np.zeros(len(lengths), bool) if limit is None else lengths >= limit
    return Episodes(returns.astype(np.float64), lengths.astype(np.int64), cut)


def _go_on() -> None:
    if signals.asked():
        raise signals.StoppedError


class CompiledEvaluation:
    """Plays whole episodes, all at once and one each, in one program.

    `act(observation, known, t, *arguments) -> (action, known)`, where `known` is `start(episodes)`
    at first. The environment limits its episodes. A call of the program takes about a second, so
    that a signal is heard between two.
    """

    def __init__(
        self,
        environment: Any,
        act: Callable[..., Any],
        mode: str,
        limit: int | None = None,
        start: Callable[[int], recurrent.State] = lambda episodes: (),
    ) -> None:
        self.environment = environment
        self.act = act
        self.limit = limit
        self.start = start
        self._begin = functools.cache(
            lambda count: compilation.function(functools.partial(self._opened, count), mode)
        )
        self._continue = functools.cache(
            lambda count: compilation.function(functools.partial(self._advanced, count), mode)
        )

    def __call__(self, count: int, seed: int, *arguments: Any) -> Episodes:
        """Play `count` episodes; `arguments` are handed on to `act`.

        Raises:
          StoppedError: a signal has asked for the end of the run.
        """
        number = tf.constant(seed, tf.int64)
        until = FIRST_CALL
        carry = self._begin(count)(number, tf.constant(until, tf.int64), *arguments)
        pace = FIRST_CALL / 1.0  # steps a second, carefully: the first call compiles
        while (playing := carry.playing.numpy()).any():
            _go_on()
            activity.say(f"evaluating, {count - playing.sum()} of {count} episodes")
            started = time.perf_counter()
            steps = max(1, int(pace * CALL_SECONDS))
            until += steps
            carry = self._continue(count)(number, tf.constant(until, tf.int64), carry, *arguments)
            carry.playing.numpy()  # waits for the program
            # The first of these calls compiles, too, and is followed by a short one for that
            pace = min(steps / (time.perf_counter() - started), 10.0 * pace)
        returns, lengths = carry.sums.numpy()
        return _episodes(returns, lengths, self.limit)

    def _opened(self, count: int, seed: tf.Tensor, until: tf.Tensor, *arguments: Any) -> "_Playing":
        state = self.environment.open(seed, count)
        carry = _Playing(
            tf.constant(0, tf.int64),
            state,
            self.start(count),
            self.environment.observe(state.state),
            tf.ones([count], tf.bool),
            tf.zeros([2, count]),
        )
        return self._advanced(count, seed, until, carry, *arguments)

    def _advanced(
        self, count: int, seed: tf.Tensor, until: tf.Tensor, carry: "_Playing", *arguments: Any
    ) -> "_Playing":
        """Play on up to vector step `until`, or until all episodes have ended."""
        environment = self.environment
        stream = environment.stream(seed)

        def body(*values: Any) -> tuple[Any, ...]:
            t, state, known, observation, playing, sums = values
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

        return _Playing(
            *tf.while_loop(
                lambda t, s, k, o, playing, _: tf.reduce_any(playing) & (t < until),
                body,
                tuple(carry),
            )
        )


class _Playing(NamedTuple):
    """Episodes in the middle of being played, `count` of them."""

    t: tf.Tensor  # vector steps done, int64 []
    state: Any  # of the environments
    known: recurrent.State  # of the agent
    observation: tf.Tensor  # [count, ...]
    playing: tf.Tensor  # [count] bool
    sums: tf.Tensor  # [2, count] float32: returns and lengths so far


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


def _filmed(environment: Any, act: Act, seed: int, longest: int) -> np.ndarray:
    vector = environment.vector(1, seed, render=True)
    try:
        observation = vector.reset()
        first = _small(vector.render())
        frames = np.empty((longest + 1, *first.shape), np.uint8)  # pages never written cost nothing
        frames[0] = first
        for t in range(longest):
            _go_on()
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


def _evaluation_seed(seed: int, step: int) -> int:
    """A seed for evaluation environments that no training environment has, new at every step."""
    return int(np.random.SeedSequence([seed, step, 0x5EED]).generate_state(1)[0] >> 1)
