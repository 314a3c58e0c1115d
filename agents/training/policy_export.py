"""Export of an agent's policy, greedy and sampled, and of its values."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf

from sparring import nested
from sparring.agents.networks import recurrent
from sparring.agents.training import episodes
from sparring.export.signatures import Export, Function, Signature, seed_spec
from sparring.xla import random
from sparring.xla.compilation import CachedCall

_ENVIRONMENTS = 16
_EPISODES = 20
_SAMPLES_SEED = 0x5A3D1E5


def policy(trainer: Any) -> Export:
    """The signatures of an `sparring.agents.training.base.AgentTrainer`.

    `greedy` and `sampled` give the action [B, ...], in the space the agent acts in: choices count
    from 0, and vectors are clipped to the environment's bounds. The agent's `estimates` follow,
    such as `scores`, what the action was chosen by, and `value`, V(s). Bytes are scaled and
    observations normalised inside. Of an agent that remembers, all take its `state` [B, S] and give
    the next, and `initial_state` gives that of an episode's beginning. The parts of an observation
    of several are inputs of their own: see `inputs_of`.
    """
    acting = _Acting(trainer)
    space = trainer.environment.observation_space
    notes = {"action_space": str(trainer.environment.action_space), "observation_space": str(space)}
    specs = nested.map_parts(lambda box: tf.TensorSpec(box.shape, tf.as_dtype(box.dtype)), space)
    signatures = acting.signatures(inputs_of(specs))
    edge = "scores" if "scores" in signatures else "greedy"
    return Export(signatures, edge, acting.samples, acting.judge, notes)


def inputs_of(observation: Any) -> dict[str, Any]:
    """Return the inputs of a signature by name: `observation`, or `observation_NAME` of each part.

    Characters that an input's name cannot have are underscores.
    """
    if not isinstance(observation, Mapping):
        return {"observation": observation}
    return {_input_name(name): part for name, part in observation.items()}


def _input_name(part: str) -> str:
    return "observation_" + re.sub(r"\W", "_", part)


class _Acting:
    """A trainer's agent as functions of named tensors."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.agent = trainer.agent
        self.environment = trainer.environment
        self._stream = random.stream(trainer.seed, "export")
        self._progress = tf.constant(1.0)  # schedules of exploration at the end of the run

    def signatures(self, seen: Mapping[str, tf.TensorSpec]) -> dict[str, Signature]:
        """Return the outputs by name; `seen` is the observation."""
        known = tf.nest.flatten(self.agent.start(1))
        given = {
            **seen,
            **({"state": tf.TensorSpec(known[0].shape[1:], tf.float32)} if known else {}),
        }
        seeded = {**given, "seed": seed_spec()}
        found = {
            "greedy": Signature(
                self.remembering(self.greedy), given, "The likeliest, or highest valued, action."
            ),
            "sampled": Signature(
                self.remembering(self.sampled),
                seeded,
                "An action as in training, drawn from the member's seed.",
            ),
        }
        for name, estimate in self.agent.estimates().items():
            call = self.with_action(estimate.call) if estimate.with_action else estimate.call
            found[name] = Signature(self.remembering(call), given, estimate.about)
        if known:
            about = "The state before the first step of an episode, that of any observation: zeros."
            found["initial_state"] = Signature(self.initial_state, seen, about)
        return found

    def remembering(
        self, act: Callable[..., dict[str, tf.Tensor]]
    ) -> Callable[..., dict[str, tf.Tensor]]:
        """`act` as a function of the observation itself, and with a state to take and to give, if
        there is one.
        """

        def call(state: recurrent.State = (), **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            observation, more = self.observation_in(inputs)
            seen, state = self.agent.see(observation, state)
            return act(seen, **more) | ({} if isinstance(state, tuple) else {"state": state})

        return call

    def observation_in(self, inputs: Mapping[str, tf.Tensor]) -> tuple[Any, dict[str, tf.Tensor]]:
        """Return the observation in the inputs of a signature, and the others."""
        space = self.environment.observation_space
        if not isinstance(space, gymnasium.spaces.Dict):
            others = dict(inputs)
            return others.pop("observation"), others
        names = {part: _input_name(part) for part in space.spaces}
        others = {key: value for key, value in inputs.items() if key not in names.values()}
        return {part: inputs[name] for part, name in names.items()}, others

    def initial_state(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        first = next(iter(inputs.values()))
        return {"state": self.agent.start(tf.shape(first)[0])}

    def _clipped(self, action: tf.Tensor) -> tf.Tensor:
        space = self.environment.action_space
        if isinstance(space, gymnasium.spaces.Box):
            return tf.clip_by_value(action, space.low, space.high)
        return action

    def greedy(self, seen: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"action": self._clipped(self.agent.act_greedy(seen))}

    def sampled(self, seen: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        keys = random.fold(self._stream[tf.newaxis], seed)  # [B, 2]
        return {"action": self._clipped(self.agent.act_sampled(seen, keys, self._progress))}

    def with_action(
        self, estimate: Callable[[Any], dict[str, tf.Tensor]]
    ) -> Callable[[Any], dict[str, tf.Tensor]]:
        """`estimate`, after the greedy action."""
        return lambda seen: self.greedy(seen) | estimate(seen)

    def samples(self, count: int) -> dict[str, np.ndarray]:
        """Observations [count, ...] met by the sampled policy, from episodes that no training
        environment has seen, and the states [count, S] in which it met them.
        """
        act = CachedCall(self._sampled_step, self.trainer.mode)
        vector = self.environment.vector(_ENVIRONMENTS, _SAMPLES_SEED)
        observation = vector.reset()
        known = self.agent.start(_ENVIRONMENTS)
        met = []
        try:
            for t in range(-(-count // _ENVIRONMENTS)):
                row = inputs_of(nested.map_parts(np.array, observation))
                met.append(row | self._state_input(known))
                seeds = np.arange(_ENVIRONMENTS, dtype=np.int64) + t * _ENVIRONMENTS
                action, known = act(observation, known, seeds)
                step = vector.step(np.asarray(action))
                observation = step.observation
                known = recurrent.restarted(known, step.first)
        finally:
            vector.close()
        return {name: np.concatenate([row[name] for row in met])[:count] for name in met[0]}

    def _state_input(self, known: recurrent.State) -> dict[str, np.ndarray]:
        return {} if isinstance(known, tuple) else {"state": np.asarray(known)}

    def _sampled_step(self, observation: Any, known: recurrent.State, seed: tf.Tensor) -> Any:
        seen, known = self.agent.see(observation, known)
        return self.sampled(seen, seed)["action"], known

    def judge(self, function: Function, seed: int) -> dict[str, float]:
        """The return of episodes that `function` plays."""

        def act(
            observation: np.ndarray, known: recurrent.State, t: int
        ) -> tuple[np.ndarray, recurrent.State]:
            inputs = inputs_of(nested.map_parts(np.asarray, observation))
            outputs = function(inputs | self._state_input(known))
            return outputs["action"], outputs.get("state", ())

        player = episodes.Player(act, self.agent.start)
        found = episodes.play(self.environment, player, _EPISODES, seed, forget=player.forget)
        return {"episode_return": float(found.returns.mean())}
