"""Requirements of agents that are checked before TensorFlow is imported, which takes seconds.

A config names one under `check_fit`; agents check the same again when they are built.
"""

from collections.abc import Mapping
from typing import Any

import gymnasium

from sparring.errors import UserError


def dqn(config: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Raise UserError if DQN cannot act in `parts["env"]`, or is given a memory."""
    refuse_memory(config["agent"].get("memory"))
    require_discrete(parts["env"].action_space)


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
