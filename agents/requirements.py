"""Requirements of agents that are checked before TensorFlow is imported, which takes seconds.

A config names one under `check_fit`; agents check the same again when they are built.
"""

from collections.abc import Mapping
from typing import Any

import gymnasium

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
