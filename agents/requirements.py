"""Requirements of agents that are checked before TensorFlow is imported, which takes seconds.

A config names one under `check_fit`; agents check the same again when they are built.
"""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from sparring import nested
from sparring.errors import UserError


def dqn(config: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Raise UserError if DQN cannot act in `parts["env"]`, or is given a memory."""
    refuse_memory(config["agent"].get("memory"))
    require_discrete(parts["env"].action_space)
    require_network(config, parts["env"].observation_space)


def ppo(config: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Raise UserError if the network cannot see what `parts["env"]` shows."""
    require_network(config, parts["env"].observation_space)


def sac(config: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Raise UserError if SAC cannot act in `parts["env"]`, or is given a memory."""
    _continuous("SAC", config, parts["env"])


def td3(config: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Raise UserError if TD3 cannot act in `parts["env"]`, or is given a memory."""
    _continuous("TD3", config, parts["env"])


def _continuous(agent: str, config: Mapping[str, Any], environment: Any) -> None:
    spaces = environment.observation_space, environment.action_space
    require_continuous(agent, *spaces, config["agent"].get("memory"))
    require_network(config, environment.observation_space)


def require_network(config: Mapping[str, Any], observation_space: gymnasium.Space) -> None:
    """Raise UserError if a network of Sparring's is given an observation of several parts that it
    does not join.
    """
    seen = nested.without_mask(observation_space)
    if not isinstance(seen, Mapping):
        return
    memory = config["agent"].get("memory")
    key = "network" if memory is None else "agent.memory.encoder"
    first = config["network"] if memory is None else memory.get("encoder")
    target = "sparring.none" if first is None else str(first.get("_target_", ""))
    if target.split(".")[0] not in ("sparring", "tensorflow") or target.endswith("PartEncoders"):
        return
    named = ", ".join(f"{name} {list(part.shape)}" for name, part in seen.items())
    choice = "network=parts" if memory is None else "+network@agent.memory.encoder=parts"
    raise UserError(
        f"{key}: the observations are of several parts ({named}), which this network does not "
        f"join. Choose {choice}; env.parts=flat makes them one vector."
    )


def require_discrete(action_space: gymnasium.Space) -> int:
    """Return the number of actions; raise UserError unless an action is one of a list."""
    if not isinstance(action_space, gymnasium.spaces.Discrete):
        raise UserError(
            "DQN chooses one of a list of actions, and this environment's action space is "
            f"{action_space}: use agent=ppo, or an environment with a Discrete action space."
        )
    return int(action_space.n)  # type: ignore[arg-type]


def refuse_memory(memory: Any) -> None:
    """Raise UserError if there is a memory."""
    if memory is not None:
        raise UserError(
            "agent.memory: DQN learns from single transitions, out of their order, and can "
            "remember nothing: use agent=ppo, or stack observations, as env.wrappers can."
        )


def require_continuous(
    agent: str,
    observation_space: gymnasium.Space,
    action_space: gymnasium.Space,
    memory: Any = None,
) -> int:
    """Return how many numbers an action has.

    Raises:
      UserError: actions are no vectors within finite bounds, the observations have a mask of
        actions, or there is a memory.
    """
    if memory is not None:
        raise UserError(
            f"agent.memory: {agent} learns from single transitions, out of their order, and can "
            "remember nothing: use agent=ppo, or stack observations, as env.wrappers can."
        )
    if not isinstance(action_space, gymnasium.spaces.Box) or len(action_space.shape) != 1:
        raise UserError(
            f"{agent} chooses vectors of numbers, and this environment's action space is "
            f"{action_space}: use agent=ppo, or an environment with a Box of vectors."
        )
    if nested.mask_of(observation_space) is not None:
        raise UserError(
            f"{agent} chooses numbers, of which an action_mask cannot forbid any, and the "
            "observations have one: leave it out with env.action_mask=false."
        )
    if not np.all(np.isfinite(action_space.high - action_space.low)):
        raise UserError(
            f"{agent} needs finite bounds of actions, and this environment's are {action_space}: "
            "bound them by a wrapper in env.wrappers."
        )
    return int(action_space.shape[0])
