"""Evaluation of an agent: the returns of whole episodes, and a film of one."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from sparring import nested
from sparring.agents.networks import recurrent
from sparring.agents.training import episodes as whole
from sparring.agents.training import film
from sparring.agents.training.episodes import CompiledEpisodes, Episodes, Player
from sparring.errors import UserError, warn_once
from sparring.processes import activity
from sparring.training.trainer import Evaluation
from sparring.xla import random
from sparring.xla.compilation import CachedCall

LONGEST = 10_000  # steps of an evaluation episode where the environment has no limit of its own


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


class Evaluator:
    """Evaluator of an agent: returns of whole episodes, played greedily and with the actions
    sampled, and a film of one.

    Episodes are of environments that no training environment has been, with seeds that are new at
    every step of the training. Those on the host are built at the first evaluation and reset at
    each.

    Args:
      agent: a `sparring.agents.agent.Agent`.
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
        returns, lengths, cut, info = self.greedy(count, seed)
        result = Evaluation(
            {
                "eval/episode_return": float(returns.mean()),
                "eval/episode_return_std": float(returns.std()),
                "eval/episode_length": float(lengths.mean()),
            },
            histograms={"eval/episode_returns": returns},
        )
        result.scalars |= self._of_info(info)
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
            frames = film.video(
                self.environment,
                Player(self._step, self.agent.start),
                seed,
                self.settings.video_steps,
            )
            if frames is not None:
                result.videos["eval/episode"] = frames
        return result

    def _of_info(self, info: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return the means over the episodes that said a number under a name."""
        means = {}
        for name, values in info.items():
            numbers = values[np.isfinite(values)]
            if len(numbers):
                means[f"eval/{name}"] = float(numbers.mean())
            else:
                warn_once(
                    f"env.info: none of {len(values)} evaluation episodes ended with a number "
                    f"under {name} in its info: there is no eval/{name}."
                )
        return means

    def player(self, sampled: bool) -> Player:
        """Return the agent as it plays whole episodes, greedily or `sampled` as at a run's end."""
        if not sampled:
            return Player(self._step, self.agent.start)
        key = random.stream(self.seed, "demonstrations")
        act = CachedCall(self._remembering(self._act_sampled), self.mode)
        ended = tf.constant(1.0)  # the share of the run
        return Player(lambda *given: act(*given, key, ended), self.agent.start)

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
        return self._playing(self._act_sampled)

    @functools.cached_property
    def _step(self) -> CachedCall:
        """One greedy step, for a film."""
        return CachedCall(self._remembering(self._act_greedily), self.mode)

    def _act_greedily(self, seen: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        del t
        return self.agent.act_greedy(seen)

    def _act_sampled(
        self, seen: tf.Tensor, t: tf.Tensor, key: tf.Tensor, progress: tf.Tensor
    ) -> tf.Tensor:
        keys = random.members(random.fold(key, t), nested.batch_size(seen))
        return self.agent.act_sampled(seen, keys, progress)

    def _remembering(
        self, act: Callable[..., tf.Tensor]
    ) -> Callable[..., tuple[tf.Tensor, recurrent.State]]:
        """`act(seen, t, ...) -> action` as (observation, known, t, ...) -> (action, known)."""

        def remembering(
            observation: tf.Tensor, known: recurrent.State, *arguments: Any
        ) -> tuple[tf.Tensor, recurrent.State]:
            seen, known = self.agent.see(observation, known)
            return act(seen, *arguments), known

        return remembering

    def _playing(self, act: Callable[..., tf.Tensor]) -> Callable[..., Episodes]:
        step = self._remembering(act)
        if self.environment.compiled:
            return CompiledEpisodes(self.environment, step, self.mode, self.limit, self.agent.start)
        return functools.partial(self._play_on_host, CachedCall(step, self.mode))

    def _play_on_host(self, step: CachedCall, count: int, seed: int, *arguments: Any) -> Episodes:
        player = Player(lambda *given: step(*given, *arguments), self.agent.start)
        batch = min(count, whole.AT_ONCE)
        if batch not in self._vectors:
            self._vectors[batch] = self.environment.vector(batch, seed)
        try:
            return whole.play_in(
                self._vectors[batch], player, count, seed, self.limit, player.forget
            )
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


def _evaluation_seed(seed: int, step: int) -> int:
    """A seed for evaluation environments that no training environment has, new at every step."""
    return int(np.random.SeedSequence([seed, step, 0x5EED]).generate_state(1)[0] >> 1)


DESCRIPTIONS = {
    "eval/episode_return": "Undiscounted return of evaluation episodes played greedily, mean.",
    "eval/episode_return_std": "Standard deviation of the greedy evaluation returns.",
    "eval/episode_length": "Length in steps of the greedy evaluation episodes, mean.",
    "eval/episode_return_sampled": "Return of evaluation episodes with actions sampled as "
    "in training, mean.",
    "eval/episode": "One greedy evaluation episode, filmed.",
}
