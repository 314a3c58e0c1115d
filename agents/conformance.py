"""Conformance test of the agent protocols, for agents of Sparring and of its users."""

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf

from sparring import nested
from sparring.agents.agent import Agent, OffPolicyAgent, OnPolicyAgent, require
from sparring.agents.networks.recurrent import restarted
from sparring.agents.replay import Ring
from sparring.agents.training.rollout import Rollout
from sparring.storage import variable_names
from sparring.xla import random

_STEPS = 6
_ENVS = 4
_TRANSITIONS = 16
_HALF = tf.constant(0.5)  # of the run


def check_agent(
    make: Callable[..., Any], observation_space: gymnasium.Space, action_space: gymnasium.Space
) -> None:
    """Hold an agent against `sparring.agents.agent`: on-policy if it has `examples`, else
    off-policy.

    `make(observation_space, action_space)` builds a new one. It is made to act and to learn from
    random steps, in eager mode and compiled by XLA, with the same scalars.

    Raises AssertionError with what is wrong. Your own agent's test is one line:
    `check_agent(MyAgent, Box(-1.0, 1.0, (3,)), Discrete(2))`.
    """
    found = {}
    for mode in ("eager", "xla"):
        tf.keras.utils.set_random_seed(0)
        agent = make(observation_space, action_space)
        on_policy = "examples" in dir(agent)
        require(agent, OnPolicyAgent if on_policy else OffPolicyAgent)
        trial = _Trial(agent, observation_space, action_space, mode)
        trial.act()
        found[mode] = trial.learn_from_rollout() if on_policy else trial.learn_from_transitions()
        _check_parts(agent)
        _check_optimizers(agent)
    for name, value in found["eager"].items():
        compiled = found["xla"][name]
        assert np.allclose(value, compiled, rtol=1e-3, atol=1e-4), (
            f"{name} is {value} in eager mode and {compiled} compiled by XLA"
        )


class _Trial:
    """An agent, and random steps of its environment, [T, B]."""

    def __init__(
        self,
        agent: Any,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        mode: str,
    ) -> None:
        self.agent = agent
        self.spaces = observation_space, action_space
        self.mode = mode
        self.keys = random.members(random.stream(0, "policy"), _ENVS)  # [B, 2]
        rng = np.random.default_rng(0)
        self.observation = nested.map_parts(
            lambda box: tf.constant(_drawn(box, (_STEPS + 1, _ENVS), rng)), observation_space
        )
        if (mask := nested.mask_of(self.observation)) is not None:
            allowed = tf.concat([tf.ones_like(mask[..., :1]), mask[..., 1:]], axis=-1)
            self.observation[nested.MASK] = allowed
        self.reward = rng.normal(size=(_STEPS, _ENVS)).astype(np.float32)
        ended = rng.random((_STEPS, _ENVS)) < 0.3
        self.terminated = ended & (rng.random(ended.shape) < 0.5)
        self.truncated = ended & ~self.terminated
        self.first = np.concatenate([np.zeros_like(ended[:1]), ended[:-1]])

    def observed(self, t: int) -> Any:
        """Observations [B, ...] at step `t`."""
        return nested.map_parts(lambda x: x[t], self.observation)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of tensors in the mode on trial."""
        if self.mode == "eager":
            return function(*arguments)
        return tf.function(function, jit_compile=True, autograph=False)(*arguments)

    def act(self) -> None:
        """Actions have the space's shape, and follow from each member's own key."""
        agent = self.agent
        state = agent.start(_ENVS)
        seen, after = self.run(agent.see, self.observed(0), state)
        tf.nest.assert_same_structure(state, after)
        self._check_action("act_greedy", self.run(agent.act_greedy, seen))
        sampled = self.run(agent.act_sampled, seen, self.keys, _HALF)
        self._check_action("act_sampled", sampled)
        again = self.run(agent.act_sampled, seen, self.keys, _HALF)
        assert np.array_equal(sampled, again), "act_sampled: the same keys give other actions"
        one = tf.nest.map_structure(lambda x: x[1:2], seen)
        alone = self.run(agent.act_sampled, one, self.keys[1:2], _HALF)
        assert np.allclose(alone[0], sampled[1], atol=1e-4), (
            "act_sampled: a member's action depends on more than its observation and key"
        )
        for name, estimate in agent.estimates().items():
            for part, value in self.run(estimate.call, seen).items():
                assert value.shape[0] == _ENVS, f"estimates: {name}/{part} is {value.shape}"

    def learn_from_rollout(self) -> dict[str, np.ndarray]:
        """The scalars of an update on a rollout, and of the iteration's end."""
        agent = self.agent
        steps = self.run(agent.examples, self._rollout(), tf.constant(self.reward))
        columns = steps._replace(state=())
        for column in tf.nest.flatten(columns):
            assert column.shape[:2] == (_STEPS, _ENVS), f"examples: a column is {column.shape}"
        batch = tf.nest.map_structure(lambda x: tf.reshape(x, [-1, *x.shape[2:]]), columns)
        batch = batch._replace(state=steps.state)
        with _Learning(agent):
            gradients, scalars = self.run(agent.gradients, batch, self.keys[0], _HALF)
            assert tf.as_dtype(agent.goes_on(scalars).dtype) == tf.bool, "goes_on returns no bool"
            scalars |= self.run(agent.step, gradients, _HALF)
        return _checked({**scalars, **self.run(agent.finish, batch, _HALF)}, agent.descriptions)

    def _rollout(self) -> Rollout:
        agent = self.agent
        start = agent.start(_ENVS)
        state = start
        actions = []
        kept = []
        for t in range(_STEPS):
            seen, state = agent.see(self.observed(t), state)
            action, extras = self.run(agent.act, seen, random.fold(self.keys, t), _HALF)
            self._check_action("act", action)
            state = restarted(state, tf.constant(self.first[t]))
            actions.append(action)
            kept.append(extras)
        return Rollout(
            self.observation,
            tf.stack(actions),
            tf.constant(self.reward),
            tf.constant(self.terminated),
            tf.constant(self.truncated),
            tf.constant(self.first),
            tf.nest.map_structure(lambda *values: tf.stack(values), *kept),
            tf.nest.map_structure(lambda *states: tf.stack(states), start, state),
        )

    def learn_from_transitions(self) -> dict[str, np.ndarray]:
        """The scalars of an update on transitions, and its errors."""
        agent = self.agent
        seen, _ = agent.see(self.observed(0), agent.start(_ENVS))
        keys = [random.fold(self.keys, t) for t in range(_STEPS)]
        actions = [self.run(agent.act_random, seen, key) for key in keys]
        self._check_action("act_random", actions[0])
        self._check_kept(seen, actions[0])
        ring = Ring(_STEPS * _ENVS, _ENVS, *self.spaces, agent.extra)
        flags = self.terminated, self.truncated, self.first
        rng = np.random.default_rng(1)
        extra = {n: tf.constant(_drawn(b, (_STEPS, _ENVS), rng)) for n, b in agent.extra.items()}
        ring.write(self.observation, tf.stack(actions), self.reward, *flags, extra)
        batch: Any = ring.sample(self.keys[0], _TRANSITIONS, 2, agent.discount)
        if agent.sequence:
            rows = ring.choose(self.keys[0], _TRANSITIONS, agent.sequence + 1)
            batch = ring.sequences(rows, agent.sequence, 2, agent.discount)
        with _Learning(agent):
            scalars, errors = self.run(agent.update, batch, self.keys[0], _HALF)
        assert errors.shape == (_TRANSITIONS,), (
            f"update returns errors {errors.shape} of {_TRANSITIONS} transitions"
        )
        assert np.all(np.asarray(errors) >= 0.0), "update returns errors that are not above zero"
        return _checked(scalars, agent.descriptions) | {"errors": np.asarray(errors)}

    def _check_kept(self, seen: Any, action: tf.Tensor) -> None:
        for name, value in self.run(self.agent.keep, seen, action, _HALF).items():
            wanted = self.agent.extra.get(name)
            shape = None if wanted is None else (_ENVS, *wanted.shape)
            assert value.shape == shape, f"keep: {name} is {value.shape}, and extra says {shape}"

    def _check_action(self, name: str, action: tf.Tensor) -> None:
        shape = (_ENVS, *(self.spaces[1].shape or ()))
        assert action.shape == shape, f"{name} returns {action.shape} for actions {shape}"


class _Learning:
    """Context in which an agent's weights change."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent

    def __enter__(self) -> None:
        self.before = [weight.numpy() for weight in self.agent.trainable]

    def __exit__(self, kind: Any, *error: Any) -> None:
        pairs = zip(self.before, self.agent.trainable, strict=True)
        changed = any(not np.array_equal(before, weight.numpy()) for before, weight in pairs)
        assert changed or kind, "an update changes no weight in `trainable`"


def _checked(
    scalars: Mapping[str, tf.Tensor], descriptions: Mapping[str, str]
) -> dict[str, np.ndarray]:
    unknown = sorted(set(scalars) - set(descriptions))
    assert not unknown, f"scalars without a description: {unknown}"
    values = {name: np.asarray(_sum_of(value)) for name, value in scalars.items()}
    bad = {name: v for name, v in values.items() if v.shape != () or not np.isfinite(v)}
    assert not bad, f"not finite scalars: {bad}"
    return values


def _sum_of(value: Any) -> tf.Tensor:
    """Return a scalar, or the sum of one that is a sum and its weight."""
    return value[0] if isinstance(value, tuple) else value


def _check_parts(agent: Agent) -> None:
    """Fail unless what is saved as the model holds every weight that is learned."""
    saved = variable_names.named_variables(tf.train.Checkpoint(**agent.parts()))
    held = {id(variable) for variable in saved.values()}
    lost = [weight.name for weight in agent.trainable if id(weight) not in held]
    assert not lost, f"parts() lacks weights that are learned: {lost}"


def _check_optimizers(agent: Agent) -> None:
    """Fail unless every weight that is learned is one optimizer's, and no other is."""
    built = [id(v) for each in agent.optimizers.values() for v in each.variables]
    learned = {id(weight): weight.name for weight in agent.trainable}
    lost = [name for key, name in learned.items() if built.count(key) != 1]
    assert not lost, f"weights in `trainable` that are not one optimizer's: {lost}"
    assert set(built) <= set(learned), "optimizers have weights that `trainable` lacks"


def _drawn(
    space: gymnasium.Space, leading: tuple[int, ...], rng: np.random.Generator
) -> np.ndarray:
    """Random observations [*leading, ...] of a Box or a Discrete space."""
    shape = (*leading, *(space.shape or ()))
    if isinstance(space, gymnasium.spaces.Discrete):
        return rng.integers(0, int(space.n), shape)  # type: ignore[arg-type]
    assert isinstance(space, gymnasium.spaces.Box)
    kind = np.dtype(space.dtype)
    if np.issubdtype(kind, np.integer):
        whole = rng.integers(space.low, space.high, shape, np.int64, endpoint=True)
        return whole.astype(kind)
    low = np.maximum(space.low, -3.0)
    return rng.uniform(low, np.minimum(space.high, 3.0), shape).astype(kind)
