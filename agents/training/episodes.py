"""Whole episodes of an agent: on the host in environments side by side, or compiled, one each."""

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from sparring import nested
from sparring.agents.networks import recurrent
from sparring.processes import activity, signals
from sparring.xla import compilation

AT_ONCE = 16  # environments on the host, at most
FIRST_CALL = 1000  # steps of each environment that the first program plays
CALL_SECONDS = 1.0  # that each further call should take

Act = Callable[
    [np.ndarray, int], np.ndarray
]  # (observations [B, ...], vector step) -> actions [B, ...]


class Episodes(NamedTuple):
    """Returns, lengths and whether the limit cut them, each [count], of evaluation episodes.

    `info` holds what their last steps said under the names that the environment was asked for.
    """

    returns: np.ndarray  # float64
    lengths: np.ndarray  # int64
    cut: np.ndarray  # bool
    info: Mapping[str, np.ndarray] = {}  # float64 by name, NaN where there is no number


class Player:
    """An `Act` that remembers, from the start of an episode on, for as many environments as it is
    first shown.

    `act(observation, known, t) -> (actions, known)`; `start(B)` is what is known at first (see
    sparring.agents.networks.recurrent).
    """

    def __init__(self, act: Callable[..., Any], start: Callable[[int], recurrent.State]) -> None:
        self._act = act
        self._start = start
        self._known: recurrent.State = None

    def __call__(self, observation: np.ndarray, t: int) -> np.ndarray:
        if self._known is None:
            self._known = self._start(nested.batch_size(observation))
        known = self._known
        action, self._known = self._act(observation, known, np.int64(t))
        return np.asarray(action)

    def forget(self, first: np.ndarray) -> None:
        """Be at the start again in the environments in `first` [B]."""
        self._known = recurrent.restarted(self._known, first)


def play(
    environment: Any,
    act: Act,
    count: int,
    seed: int,
    at_once: int = AT_ONCE,
    forget: Callable[[np.ndarray], None] = lambda first: None,
) -> Episodes:
    """Play whole episodes in environments made for it; see `play_in`."""
    vector = environment.vector(min(count, at_once), seed)
    try:
        return play_in(vector, act, count, seed, forget=forget)
    finally:
        vector.close()


def play_in(
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
    said: list[list[dict[str, float]]] = [[] for _ in range(batch)]
    running_return = np.zeros(batch)
    running_length = np.zeros(batch, np.int64)
    observation = vector.reset(seed)
    t = 0
    while any(len(r) < q for r, q in zip(returns, quota, strict=True)):
        check_signals()
        step = vector.step(act(observation, t))
        running_return += step.reward
        running_length += ~step.first
        ended = np.flatnonzero(step.terminated | step.truncated)
        for i in ended:
            returns[i].append(float(running_return[i]))
            lengths[i].append(int(running_length[i]))
            said[i].append({name: float(values[i]) for name, values in vector.info.items()})
            running_return[i] = 0.0
            running_length[i] = 0
        if len(ended):
            done = sum(min(len(r), q) for r, q in zip(returns, quota, strict=True))
            activity.say(f"evaluating, {done} of {count} episodes")
        forget(step.first)
        observation = step.observation
        t = t + 1
    order = [(i, k) for k in range(int(quota.max())) for i in range(batch) if k < quota[i]]
    found = _episodes(
        np.array([returns[i][k] for i, k in order]),
        np.array([lengths[i][k] for i, k in order]),
        limit,
    )
    info = {name: np.array([said[i][k][name] for i, k in order]) for name in vector.info}
    return found._replace(info=info)


def _episodes(returns: np.ndarray, lengths: np.ndarray, limit: int | None) -> Episodes:
    cut = np.zeros(len(lengths), bool) if limit is None else lengths >= limit
    return Episodes(returns.astype(np.float64), lengths.astype(np.int64), cut)


def check_signals() -> None:
    """Raise StoppedError if a signal has asked for the end of the run."""
    if signals.asked():
        raise signals.StoppedError


class CompiledEpisodes:
    """Player of whole episodes, all at once and one each, in one program.

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
        pace = FIRST_CALL / CALL_SECONDS  # steps a second, until it is measured
        while (playing := carry.playing.numpy()).any():
            check_signals()
            activity.say(f"evaluating, {count - playing.sum()} of {count} episodes")
            started = time.perf_counter()
            steps = max(1, int(pace * CALL_SECONDS))
            until += steps
            carry = self._continue(count)(number, tf.constant(until, tf.int64), carry, *arguments)
            carry.playing.numpy()  # waits for the program
            # The first of these calls compiles, too, and is followed by a short one for that
            pace = min(steps / (time.perf_counter() - started), 10.0 * pace)
        returns, lengths = carry.sums.numpy()
        info = {name: said.numpy().astype(np.float64) for name, said in carry.said.items()}
        return _episodes(returns, lengths, self.limit)._replace(info=info)

    def _opened(self, count: int, seed: tf.Tensor, until: tf.Tensor, *arguments: Any) -> "_Playing":
        state = self.environment.open(seed, count)
        carry = _Playing(
            tf.constant(0, tf.int64),
            state,
            self.start(count),
            self.environment.observe(state.state),
            tf.ones([count], tf.bool),
            tf.zeros([2, count]),
            self.environment.measure(state.state),
        )
        return self._advanced(count, seed, until, carry, *arguments)

    def _advanced(
        self, count: int, seed: tf.Tensor, until: tf.Tensor, carry: "_Playing", *arguments: Any
    ) -> "_Playing":
        """Play on up to vector step `until`, or until all episodes have ended."""
        environment = self.environment
        stream = environment.stream(seed)

        def body(*values: Any) -> tuple[Any, ...]:
            t, state, known, observation, playing, sums, said = values
            action, known = self.act(observation, known, t, *arguments)
            state, step = environment.step_at(state, action, stream, t)
            gained = tf.stack([step.reward, tf.ones([count])])
            playing_on = playing & ~(step.terminated | step.truncated)
            measured = environment.measure(state.state)
            return (
                t + 1,
                state,
                known,
                step.observation,
                playing_on,
                sums + gained * tf.cast(playing, tf.float32),
                {name: tf.where(playing, measured[name], said[name]) for name in said},
            )

        return _Playing(
            *tf.while_loop(
                lambda t, s, k, o, playing, *_: tf.reduce_any(playing) & (t < until),
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
    said: dict[str, tf.Tensor]  # [count] each: what was measured of the last states
