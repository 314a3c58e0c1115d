"""Requirements of agents that are checked before TensorFlow is imported, which takes seconds.

A config names one under `check_fit`; agents check the same again when they are built.
"""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from sparring import nested
from sparring.errors import UserError
from sparring.storage import settings
from sparring.storage.run_folder import RunFolder

_IMITATION = "sparring.agents.imitation"
_BY_ROLLOUTS = {
    "learned_reward.LearnedReward": "method=transfer",
    "sparring.agents.skill_discovery.DIAYN": "intrinsic=diayn",
}
_NETWORKS = "sparring.agents.networks"
_BOX_HEADS = (f"{_NETWORKS}.box_heads", f"{_NETWORKS}.state_dependent_noise")


def dqn(config: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Raise UserError if DQN cannot act in `parts["env"]`, or is given a memory."""
    agent = config["agent"]
    if agent.get("memory") is not None and "minibatches" in config["trainer"]:
        raise UserError(
            "memory: its options are for agent=ppo, which learns from whole rollouts. DQN's memory "
            "learns from replayed sequences: agent=r2d2, with agent.memory.cell=gru for the other."
        )
    refuse_double_munchausen(agent.get("double"), agent.get("munchausen"))
    require_discrete(parts["env"].action_space)
    require_network(config, parts["env"].observation_space)
    require_demonstrated(config, parts, off_policy=True)


def ppo(config: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Raise UserError if the network cannot see what `parts["env"]` shows, or the policy's head is
    not for its actions.
    """
    require_network(config, parts["env"].observation_space)
    require_head(config["agent"], parts["env"].action_space)
    require_demonstrated(config, parts, off_policy=False)


def dagger(config: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Raise UserError if the imitator does not fit `parts["env"]`, or its expert is none of it."""
    ppo(config, parts)
    from sparring.config import targets  # which loads Hydra

    expert = config["trainer"]["expert"]
    if str(expert.get("_target_", "")) != f"{_IMITATION}.dagger.RunExpert":
        return
    run = str(expert["run"])
    cfg = RunFolder.named_in_config(run, "expert").read_config()
    if cfg.get("env") is None:
        raise UserError(f"expert={run}: it is no run of an agent. Choose one of sparring rl.")
    require_same_spaces(run, targets.instantiate(cfg.env), parts["env"])
    if cfg.agent.get("memory") is not None:
        raise UserError(refused_expert(run))


def require_same_spaces(run: str, theirs: Any, ours: Any) -> None:
    """Raise UserError if an expert's environment has other spaces than the imitator's."""
    for name in ("observation_space", "action_space"):
        if str(getattr(theirs, name)) != str(getattr(ours, name)):
            raise UserError(
                f"expert={run}: its {name.replace('_', ' ')} is {getattr(theirs, name)}, and the "
                f"environment's is {getattr(ours, name)}: choose a run in this environment."
            )


def refused_expert(run: str) -> str:
    """Return the words that refuse an expert with a memory."""
    return (
        f"expert={run}: it has a memory, and DAgger asks for actions at single observations: "
        "choose a run without one."
    )


def require_demonstrated(
    config: Mapping[str, Any], parts: Mapping[str, Any], off_policy: bool
) -> None:
    """Raise UserError if an imitator's demonstrations are of another environment, or its method is
    of another kind of agent.
    """
    if "demonstrations" in parts:
        cfg: Any = config
        parts["demonstrations"].check(parts["env"], settings.plain(cfg)["env"])
    source = config.get("reward_source") or {}
    kind = str(source.get("_target_", "")).rpartition(f"{_IMITATION}.")[2]
    if off_policy and kind == "adversarial.AIRL":
        raise UserError(
            "method=airl: its discriminator asks for log probabilities of the policy, which an "
            "agent that learns from replay does not keep: choose method=gail, or agent=ppo."
        )
    if off_policy and kind in _BY_ROLLOUTS:
        raise UserError(
            f"reward_source: {_BY_ROLLOUTS[kind]} pays for rollouts, and this agent learns from "
            "replay: choose agent=ppo."
        )
    if not off_policy and kind in ("sqil.SQIL", "replayed.ReplayGAIL"):
        raise UserError(
            "method=sqil: it learns from replay, and this agent from its rollouts: choose "
            "agent=dqn, or agent=sac for vectors of actions."
        )
    if source.get("absorbing"):
        refuse_absorbing(kind == "adversarial.AIRL", config["agent"].get("discount", 0.0))


def refuse_absorbing(airl: bool, discount: float) -> None:
    """Raise UserError for absorbing states of AIRL, or without a discount."""
    if airl:
        raise UserError(
            "reward_source.absorbing=true: AIRL's ends are terms of its own, in which h(s') is 0: "
            "choose method=gail."
        )
    if discount >= 1.0:
        raise UserError(
            "reward_source.absorbing=true: a reward for ever has no finite worth at "
            "agent.discount=1: choose one below 1."
        )


def a2c(config: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Raise UserError if PPO cannot act in `parts["env"]`, or takes several steps on a rollout."""
    ppo(config, parts)
    for key in ("epochs", "minibatches"):
        if config["trainer"][key] != 1:
            raise UserError(
                f"trainer.{key}={config['trainer'][key]}: A2C takes one step on each rollout, and "
                f"has trainer.{key}=1. Several steps are agent=ppo."
            )


def require_head(agent: Mapping[str, Any], action_space: gymnasium.Space) -> None:
    """Raise UserError if a head of Sparring's is not for such actions, or without
    `agent.noise_steps`' own.
    """
    target = str((agent.get("head") or {}).get("_target_", ""))
    module, _, name = target.rpartition(".")
    is_noisy = name == "StateDependentNoiseHead"
    is_vector = isinstance(action_space, gymnasium.spaces.Box) and len(action_space.shape) == 1
    if module in _BOX_HEADS and not is_vector:
        raise UserError(
            f"agent.head: {name} is of a Box of vectors, and the actions are {action_space}. Leave "
            "head= out: choices have a policy of their own."
        )
    steps = agent.get("noise_steps", 1)
    is_ours = not target or module.startswith("sparring.")
    if steps != 1 and is_ours and not is_noisy:
        raise UserError(refused_noise_steps(steps))


def refused_noise_steps(steps: int) -> str:
    """Return the words that refuse `agent.noise_steps` of a policy whose noise is of one step."""
    return (
        f"agent.noise_steps={steps}: only noise that depends on the state may stay for several "
        "steps. Choose head=state_dependent_noise, or agent.noise_steps=1."
    )


def sac(config: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Raise UserError if SAC cannot act in `parts["env"]`, or is given a memory."""
    _continuous("SAC", config, parts)


def td3(config: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Raise UserError if TD3 cannot act in `parts["env"]`, or is given a memory."""
    _continuous("TD3", config, parts)


def _continuous(agent: str, config: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    environment = parts["env"]
    spaces = environment.observation_space, environment.action_space
    require_continuous(agent, *spaces, config["agent"].get("memory"))
    require_network(config, environment.observation_space)
    require_demonstrated(config, parts, off_policy=True)


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
            "This agent chooses one of a list of actions, and the environment's action space is "
            f"{action_space}: use agent=ppo, or an environment with a Discrete action space."
        )
    return int(action_space.n)  # type: ignore[arg-type]


def pqn(config: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Raise UserError if PQN cannot act in `parts["env"]`, or is given a memory."""
    refuse_memory(config["agent"].get("memory"))
    require_discrete(parts["env"].action_space)
    require_network(config, parts["env"].observation_space)


def c51(config: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Raise UserError if C51 cannot act in `parts["env"]`, or learn what it is asked to."""
    agent = config["agent"]
    refuse_munchausen(agent.get("munchausen"))
    require_cross_entropy(agent["loss"])
    require_support(agent["lowest"], agent["highest"])
    dqn(config, parts)


def require_cross_entropy(loss: str) -> None:
    """Raise UserError for a loss that is not C51's."""
    if loss != "cross_entropy":
        raise UserError(
            f"agent.loss={loss}: C51 learns a distribution, by the cross entropy: leave it out."
        )


def require_support(lowest: float, highest: float) -> None:
    """Raise UserError unless returns may lie between two numbers."""
    if not lowest < highest:
        raise UserError(
            f"agent.lowest={lowest} agent.highest={highest}: the first must be below the second; "
            "between them lie the returns that C51 can tell apart."
        )


def refuse_munchausen(munchausen: Any) -> None:
    """Raise UserError if C51 is to have Munchausen's next value."""
    if munchausen is not None:
        raise UserError(
            "agent.munchausen: its next value moves each action's return by another number, which "
            "C51's one support cannot hold: use agent=dqn, qr_dqn or iqn."
        )


def refuse_double_munchausen(double: Any, munchausen: Any) -> None:
    """Raise UserError if the next action is to be chosen in two ways."""
    if double and munchausen is not None:
        raise UserError(
            "agent.double=true agent.munchausen=...: Munchausen's next value is a mean over its "
            "policy, of which no action is chosen: set agent.double=false."
        )


def refuse_memory(memory: Any) -> None:
    """Raise UserError if there is a memory."""
    if memory is not None:
        raise UserError(
            "agent.memory: this agent learns from single steps, out of their order, and can "
            "remember nothing: use agent=ppo or agent=r2d2, or stack observations by "
            "env.frame_stack."
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
