"""Suites: experiments that stand for a sweep over other experiments.

An example is `sparring rl experiment=rl_classic`. Such a file has a key `suite`, which maps keys to
their values as on a command line.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from sparring.config.composer import CONF, Composer


def preset(choices: Mapping[str, Any]) -> str:
    """Return the experiment with settings for the agent and environment in `choices`, or "".

    `choices` are the options of the config groups; with an experiment among them there is nothing
    to advise. Of imitation it is the experiment of the method and the environment.
    """
    imitates = choices.get("method") is not None
    wanted = {key: choices.get(key) for key in ("method" if imitates else "agent", "env")}
    if choices.get("experiment") or choices.get("debug"):
        return ""
    for path in sorted((CONF / "experiment").glob("*.yaml")):
        overridden: dict[str, Any] = {}
        config: Any = OmegaConf.load(path)
        for entry in config.get("defaults", []):
            if OmegaConf.is_dict(entry):
                overridden |= {str(k).removeprefix("override /"): v for k, v in entry.items()}
        if imitates:  # by a penalty and a form of the reward, which the preset chooses
            overridden = {key: overridden.get(key) for key in wanted}
        if overridden == wanted:
            return path.stem
    return ""


def expanded(composer: Composer, overrides: Sequence[str]) -> tuple[list[str], bool]:
    """Return the overrides with a suite expanded, and whether there was one, which makes a sweep.

    Typed overrides take precedence over the suite's on the same key.
    """
    parsed = {o.key_or_group: o for o in composer.parse(overrides)}
    chosen = parsed.get("experiment")
    if chosen is None or chosen.is_sweep_override() or not isinstance(chosen.value(), str):
        return list(overrides), False
    suite = composer.compose([f"experiment={chosen.value()}"]).get("suite")
    if suite is None:
        return list(overrides), False
    typed = [text for text in overrides if composer.parse([text])[0].key_or_group != "experiment"]
    own = {"run.name": chosen.value(), **suite}
    return [
        *(f"{k}={v}" for k, v in own.items() if k == "experiment" or k not in parsed),
        *typed,
    ], True
