"""Settings of a run as plain and as flat dictionaries."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

# Keys of a config that say how it is checked, shown and sorted, and not what its run computes
ABOUT = (
    "limits",
    "packages",
    "check_first",
    "check_fit",
    "hparams",
    "tasks",
    "offers",
    "callbacks",
)


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return a nested config as `{"agent.clip": 0.2}`."""
    if isinstance(node, dict) and node:
        found: dict[str, Any] = {}
        for key, child in node.items():
            found.update(flat(child, f"{prefix}{key}."))
        return found
    return {prefix[:-1]: node}


def plain(cfg: DictConfig) -> Any:
    """Return a composed config as plain, resolved values, without Hydra's own."""
    return OmegaConf.to_container(
        OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k != "hydra"]), resolve=True
    )
