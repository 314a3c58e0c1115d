"""A trained policy as a function of one observation or a batch, for loops that others drive."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from sparring import frame_stacks, nested
from sparring.agents.training.policy_export import inputs_of
from sparring.export.signatures import Function, on_arrays
from sparring.training.trained_model import restore_model, restored


class Policy:
    """An agent's policy, for observations as an environment gives them.

    Observations and actions are those of the original Gymnasium environment: what the bridge
    translates for agents is translated here too. With `env.frame_stack` it is given one observation
    at a time, and stacks them itself.

    Args:
      trainer: an `sparring.agents.training.base.AgentTrainer`, whose weights are used as they are.
      seed: of the actions that are sampled.
    """

    def __init__(self, trainer: Any, seed: int = 0) -> None:
        self._trainer = trainer  # owns the weights
        self.environment = trainer.environment
        self._signatures = trainer.export().signatures
        self._functions: dict[str, Function] = {}
        self._next_seed = seed

    def predict(
        self, observation: Any, state: Any = None, deterministic: bool = True
    ) -> tuple[Any, Any]:
        """Return the action for an observation, or the actions for a batch, and the next state.

        The state is None at the beginning of an episode. It is that of a recurrent policy, and the
        stack of one that sees several frames; of both it is a pair, and of other policies None.
        `deterministic=False` samples as in training.
        """
        memory, stack = self._parts_of(state)
        space = self.environment.original_observation_space
        batched = _is_batch(space, observation)
        if not batched:
            observation = _as_batch(space, observation)
        seen = self._stacked(self.environment.to_agent(observation), stack)
        inputs: dict[str, np.ndarray] = inputs_of(seen)
        if "initial_state" in self._signatures:
            inputs["state"] = self._call("initial_state", inputs)["state"]
            if memory is not None:
                inputs["state"] = memory
        if deterministic:
            outputs = self._call("greedy", inputs)
        else:
            outputs = self._call(
                "sampled", {**inputs, "seed": self._seeds(nested.batch_size(seen))}
            )
        actions = self.environment.to_environment(outputs["action"])
        after: Any = outputs.get("state")
        if self._stacks:
            after = seen if after is None else (after, seen)
        return actions if batched else actions[0], after

    @property
    def _stacks(self) -> bool:
        parts = nested.leaves(self.environment.observation_space)
        return any(isinstance(part, frame_stacks.FrameStack) for part in parts)

    def _parts_of(self, state: Any) -> tuple[Any, Any]:
        """Return the memory and the stack in a state; None for each that it has not."""
        if not self._stacks:
            return state, None
        if "initial_state" not in self._signatures:
            return None, state
        return (None, None) if state is None else state

    def _stacked(self, frame: Any, stack: Any) -> Any:
        """Return what an agent sees at a frame [B, ...], after a stack or at the beginning."""
        space = self.environment.observation_space
        if stack is None:
            return frame_stacks.opened(space, frame)
        return frame_stacks.pushed(space, stack, frame, np.zeros(nested.batch_size(frame), bool))

    def _call(self, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if name not in self._functions:
            self._functions[name] = on_arrays(self._signatures[name].trace())
        return self._functions[name](inputs)

    def _seeds(self, count: int) -> np.ndarray:
        first = self._next_seed
        self._next_seed = first + count
        return np.arange(first, first + count, dtype=np.int64)


def load_policy(
    folder: str | Path, trainer: Any = None, checkpoint: str = "best", seed: int = 0
) -> Policy:
    """Return the policy of a run's "best" or "latest" checkpoint.

    A run that was started from the command line says in its `config.yaml` how to build its trainer.
    One that was started by `sparring.training.fit.fit` does not: make the same `trainer` again and
    hand it over.
    """
    if trainer is not None:
        restore_model(trainer, Path(folder), checkpoint)
        return Policy(trainer, seed)

    from sparring.storage.run_folder import RunFolder

    cfg = RunFolder(Path(folder)).read_config()
    with restored(Path(folder), cfg, checkpoint) as (found, _):
        return Policy(found, seed)


def _as_batch(space: gymnasium.Space, observation: Any) -> Any:
    """Return one observation as a batch of one."""
    if isinstance(space, gymnasium.spaces.Dict):
        return {k: _as_batch(child, observation[k]) for k, child in space.spaces.items()}
    if isinstance(space, gymnasium.spaces.Tuple):
        return tuple(map(_as_batch, space.spaces, observation))
    return np.asarray(observation)[np.newaxis]


def _is_batch(space: gymnasium.Space, observation: Any) -> bool:
    """Whether an observation has a batch dimension in front of what its space says."""
    while isinstance(space, gymnasium.spaces.Dict | gymnasium.spaces.Tuple):
        key: Any = next(iter(space.spaces)) if isinstance(space, gymnasium.spaces.Dict) else 0
        space = space.spaces[key]
        observation = observation[key]
    return np.ndim(observation) > len(space.shape or ())
