"""Settings of a run as plain and as flat dictionaries."""

from typing import Any

from omegaconf import DictConfig, OmegaConf


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """A nested config as `{"agent.clip": 0.2}`."""
    if isinstance(node, dict) and node:
        return {
            k: v for key, child in node.items() for k, v in flat(child, f"{prefix}{key}.").items()
        }
    return {prefix[:-1]: node}


def plain(cfg: DictConfig) -> Any:
    """A composed config as plain, resolved values, without Hydra's own."""
    return OmegaConf.to_container(
        OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k != "hydra"]), resolve=True
    )
