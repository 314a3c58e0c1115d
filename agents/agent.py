"""Protocols of agents: all that trainers, evaluation and export ask of one.

An agent is shown observations [B, ...], of one part or several (see sparring.nested), by
`see`, which adds what it remembers of the episode; what `see` returns is called `seen`, and is the
input of its other methods. Actions are drawn from `keys`
uint32 [B, 2], one for each member of the batch, so that member i's action depends on its own key
alone. Everything is traced into compiled programs: nothing may depend on values in Python.

`sparring.agents.conformance.check_agent` holds an agent against these protocols.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import gymnasium
import tensorflow as tf

from sparring.agents.networks.recurrent import State
from sparring.agents.replay import Sequences, Transitions
from sparring.agents.training.rollout import Rollout
from sparring.errors import UserError
from sparring.optim import optimizer as optim_optimizer
from sparring.optim.optimizer import Scheduled

# By their tags, each []; or a sum and its weight, a pair, of what is not measured at every update
Scalars = dict[str, tf.Tensor]


class Estimate(NamedTuple):
    """Estimate that an agent makes of observations beside its action: exported as a signature.

    `call(seen)` returns tensors [B, ...] by name. With `with_action`, the greedy action is given
    along with them.
    """

    call: Callable[[Any], dict[str, tf.Tensor]]
    about: str
    with_action: bool = False


class Agent(Protocol):
    """Protocol of every agent.

    `Memoryless` implements `start` and `see` of one without a memory, `OneOptimizer` the optimizers
    of one that calls its own `scheduled`.
    """

    trainable: list[tf.Variable]  # all weights that are learned
    optimizers: Mapping[str, Scheduled]  # by name; one alone is called "optimizer"
    discount: float
    descriptions: Mapping[str, str]  # tag -> what it measures, of every scalar that it returns
    # What is kept of each step beside its action, by name: numbers that the environment gives under
    # a name of its `info`, or what an off-policy agent's `keep` returns
    extra: Mapping[str, gymnasium.spaces.Box]

    def parts(self) -> dict[str, tf.Module]:
        """Return the modules that were learned: enough to act, and to go on learning from."""

    def start(self, batch: int) -> State:
        """Return the state before the first step of `batch` episodes."""

    def see(self, observation: Any, state: State) -> tuple[Any, State]:
        """Return what is seen of observations [B, ...], and the state after the step."""

    def act_greedy(self, seen: Any) -> tf.Tensor:
        """Return the actions [B, ...] that are best as far as the agent knows."""

    def act_sampled(self, seen: Any, keys: tf.Tensor, progress: tf.Tensor) -> tf.Tensor:
        """Return actions [B, ...] as in training at the share `progress` [] of the run."""

    def estimates(self) -> Mapping[str, Estimate]:
        """Return what else can be asked of the agent, by the name of its signature."""


class OnPolicyAgent(Agent, Protocol):
    """Protocol of an agent that learns from rollouts of its own, once, in minibatches."""

    noise_steps: int  # steps in a row for which an environment's actions are drawn from one key

    def act(
        self, seen: Any, keys: tf.Tensor, progress: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Return actions [B, ...] sampled at the share `progress` [] of the run, and what to keep
        of them by name, each [B, ...].
        """

    def examples(self, rollout: Rollout, reward: tf.Tensor) -> Any:
        """Return what is learned from a rollout: a NamedTuple of tensors [T, B, ...].

        `reward` [T, B] are the rollout's rewards as they are to be learned. The field `state` is
        the agent's before the first step, [B, S], or (); minibatches hold whole sequences of an
        agent that has one.
        """

    def gradients(
        self, batch: Any, key: tf.Tensor, progress: tf.Tensor
    ) -> tuple[list[tf.Tensor], Scalars]:
        """Return the gradients of a minibatch [M, ...] of `examples`, and what was measured of it,
        with random numbers from `key` [2].

        Of several replicas, each gives its share of the minibatch and of the gradients; the scalars
        are those of the whole.
        """

    def goes_on(self, scalars: Scalars) -> tf.Tensor:
        """Return whether the step of the gradients that came with `scalars` is to be taken, bool
        [].

        Where it is not, the iteration's updates end before it.
        """

    def step(self, gradients: Sequence[tf.Tensor], progress: tf.Tensor) -> Scalars:
        """Take the step of `gradients`; return scalars of it."""

    def finish(self, batch: Any, progress: tf.Tensor) -> Scalars:
        """End an iteration: take up statistics of all its steps [T * B, ...], return scalars."""


class OffPolicyAgent(Agent, Protocol):
    """Protocol of an agent that learns from transitions, whoever made them."""

    # Transitions of the sequences that it learns from, whose first state is `state` of `extra`;
    # 0: it learns from single ones
    sequence: int

    def act_random(self, seen: Any, keys: tf.Tensor) -> tf.Tensor:
        """Return actions [B, ...] of the first steps, before anything is learned."""

    def keep(self, seen: Any, action: tf.Tensor, progress: tf.Tensor) -> Scalars:
        """Return what of `extra` is the agent's own to say of a step, each [B, ...]."""

    def update(
        self, batch: Transitions | Sequences, key: tf.Tensor, progress: tf.Tensor
    ) -> tuple[Scalars, tf.Tensor]:
        """Take a gradient step on M transitions, or sequences, with random numbers from `key` [2].

        Returns scalars, and how far the value of each was off, float32 [M], never negative.
        Of several replicas, each gives its share of the batch; the scalars are those of the whole,
        the errors those of its share.
        """


class Likelihood(Protocol):
    """Protocol of an agent whose policy has a density, as imitation asks of one besides."""

    def log_probability(self, seen: Any, action: tf.Tensor) -> tf.Tensor:
        """Return the log probabilities [B] of actions [B, ...] at what is seen [B, ...]."""

    def take_up(self, observation: Any, mask: tf.Tensor) -> None:
        """Update statistics of observations by those [B, ...] where mask [B] is one."""


class Memoryless:
    """Mixin of agents that remember nothing, and keep nothing of a step beside its action."""

    extra: Mapping[str, gymnasium.spaces.Box] = {}
    sequence = 0
    noise_steps = 1

    def start(self, batch: int) -> State:
        """Return the state before the first step: there is none."""
        del batch
        return ()

    def see(self, observation: Any, state: State) -> tuple[Any, State]:
        """Return the observation as it is."""
        return observation, state

    def keep(self, seen: Any, action: tf.Tensor, progress: tf.Tensor) -> Scalars:
        """Return what is kept of a step: nothing."""
        del seen, action, progress
        return {}


class OneOptimizer:
    """Mixin of agents with one optimizer for all that they learn."""

    scheduled: Scheduled

    @property
    def optimizers(self) -> dict[str, Scheduled]:
        """The optimizer, by the name of one alone."""
        return {"optimizer": self.scheduled}

    def step(self, gradients: Sequence[tf.Tensor], progress: tf.Tensor) -> Scalars:
        """Take the step of `gradients`; return the norms of gradient and change."""
        return self.scheduled.step(gradients, progress)


def learning_rates(agent: Agent, progress: tf.Tensor) -> Scalars:
    """Return the learning rate of each optimizer at a share `progress` [] of a run, by its tag."""
    return {
        optim_optimizer.tag("schedule/learning_rate", name): each.learning_rate(progress)
        for name, each in agent.optimizers.items()
    }


def require(agent: Any, protocol: type) -> None:
    """Raise UserError that names the members of `protocol` that an agent lacks."""
    kinds = [kind for kind in protocol.__mro__ if kind.__module__ == __name__]
    members = {name for kind in kinds for name in [*kind.__annotations__, *vars(kind)]}
    lacking = sorted(n for n in members if not n.startswith("_") and not _has(agent, n))
    if lacking:
        kind = type(agent)
        more = "; sparring.agents.agent.Memoryless has start and see." if "see" in lacking else "."
        raise UserError(
            f"agent: {kind.__module__}.{kind.__qualname__} lacks {', '.join(lacking)}, which "
            f"sparring.agents.agent.{protocol.__name__} describes{more}"
        )


def _has(agent: Any, name: str) -> bool:
    return getattr(agent, name, None) is not None
