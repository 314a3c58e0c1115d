"""Settings chosen by the spaces of a Gymnasium environment, where nobody has chosen any.

An experiment has its settings; any other environment gets an agent's defaults, which are for
vectors. What those lack for its spaces is added to the overrides, as if it had been typed, so that
the run's config, a resumed run and a rerun all say it. What was typed, or stands in a preset of the
environment, is left alone. The settings are those of RL Zoo for environments of the kind.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from omegaconf import DictConfig, OmegaConf

from sparring import nested
from sparring.config.composer import Composer

_CELLS = 3  # sides of the smallest that network=cnn can look at
_NATURE = 36  # sides of the smallest picture that network=nature_cnn can look at
# By agent: settings that go together, for pictures of such a size, which take long to learn from
_PICTURES: dict[str, list[dict[str, Any]]] = {
    "ppo": [
        {"agent.clip": 0.1},
        {"optimizer.learning_rate": 2.5e-4},
        {"trainer.num_envs": 8, "trainer.epochs": 4, "trainer.minibatches": 4},
    ],
    "dqn": [
        {"optimizer.learning_rate": 1.0e-4},
        {"trainer.updates": 1, "trainer.rollout_steps": 4, "trainer.batch_size": 32},
    ],
}
_OF_DQN = ("c51", "iqn", "rainbow")  # of its family, whatever they are called
_WIDE = 4.0  # half of a Box's width, at which its actions are rescaled
_CHOICES = {"agent.entropy_coefficient": 0.01}  # of PPO on pictures, where actions are choices


def chosen(
    composer: Composer, cfg: DictConfig, environment: Any, typed: Sequence[str]
) -> dict[str, Any]:
    """Return overrides, key -> value, that fit a config to the spaces of its environment.

    Args:
        composer: of the config.
        cfg: the config as it is, with its `hydra` node.
        environment: that it names, built.
        typed: the keys that were set on the command line, groups included.
    """
    choices = cfg.hydra.runtime.choices
    if composer.name != "rl" or choices.get("experiment") or environment.compiled:
        return {}
    agent = str(choices.agent)
    plain = composer.compose([f"agent={agent}"])
    if cfg.agent.get("_target_") != plain.agent.get("_target_"):
        return {}
    found: dict[str, Any] = {}
    wanted = _wanted(agent, environment)
    if cfg.agent.get("memory") is not None:  # whose encoder sees the observation
        wanted = [bundle for bundle in wanted if "network" not in bundle]
    for bundle in wanted:
        if all(_is_free(key, cfg, plain, typed) for key in bundle):
            found |= bundle
    return {key: value for key, value in found.items() if OmegaConf.select(plain, key) != value}


def _wanted(agent: str, environment: Any) -> list[dict[str, Any]]:
    """Return settings for an agent in an environment, in groups that go together."""
    kind = "dqn" if agent.endswith("dqn") or agent in _OF_DQN else agent
    actions = environment.action_space
    rescaled = [{"env.rescale_actions": True}] if _is_far_from_one(actions) else []
    seen = nested.without_mask(environment.observation_space)
    if isinstance(seen, Mapping):
        return [{"network": "parts"}, *rescaled]
    side = min(seen.shape[:2]) if len(seen.shape) == 3 else 0
    if side < _NATURE:
        return [*([{"network": "cnn"}] if side >= _CELLS else []), *rescaled]
    wanted: list[dict[str, Any]] = [{"network": "nature_cnn"}, *_PICTURES.get(kind, []), *rescaled]
    if kind == "ppo" and not isinstance(actions, spaces.Box):
        wanted.append(_CHOICES)
    return wanted


def _is_far_from_one(actions: Any) -> bool:
    """Return whether a policy that begins as a standard normal misses most of a Box of actions, or
    has most of its actions clipped.
    """
    if not isinstance(actions, spaces.Box):
        return False
    span = (actions.high - actions.low) / 2.0
    centre = (actions.high + actions.low) / 2.0
    return bool(np.any((span > _WIDE) | (span < 1.0 / _WIDE) | (np.abs(centre) > span / 2.0)))


def _is_free(key: str, cfg: DictConfig, plain: DictConfig, typed: Sequence[str]) -> bool:
    """Return whether a key has its agent's default, and was not typed, nor any part of it."""
    for other in (name for name in typed if name != "agent"):
        if other == key or other.startswith(f"{key}.") or key.startswith(f"{other}."):
            return False
    if key == "env.rescale_actions":
        return OmegaConf.select(cfg, key) is False
    if key == "network":
        return bool(cfg.hydra.runtime.choices.network == plain.hydra.runtime.choices.network)
    return bool(OmegaConf.select(cfg, key) == OmegaConf.select(plain, key))


def common(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return, as overrides, the settings that the jobs of a sweep have in common."""
    first, *rest = found
    return [f"{k}={v}" for k, v in first.items() if all(other.get(k) == v for other in rest)]
