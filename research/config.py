"""Composing a config and finding its mistakes before anything is built. TensorFlow is not imported here.

Hydra composes; this module adds what Hydra leaves out: types kept from the defaults, ranges (`limits` in the config),
values left open, groups that don't exist, targets outside the packages a config may name, and one line per mistake
that names the mend.
"""

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from research import targets
from research.errors import UserError

CONF = Path(__file__).resolve().parents[1] / "conf"


class Composer:
    """Composes one primary config with overrides; `folders` are further places for config files."""

    def __init__(self, name: str, folders: Sequence[str] = ()) -> None:
        self.name, self.folders = name, list(folders)
        path = create_config_search_path(str(CONF))
        for folder in folders:
            path.append("command-line", folder if "://" in folder else f"file://{Path(folder).resolve()}")
        GlobalHydra.instance().clear()
        self.hydra = Hydra.create_main_hydra2(task_name="sparring", config_search_path=path)
        self.loader = self.hydra.config_loader

    def parse(self, overrides: Sequence[str]) -> list[Override]:
        """The overrides as Hydra reads them; UserError if it can't."""
        try:
            return OverridesParser.create(self.loader).parse_overrides(list(overrides))
        except HydraException as error:
            raise UserError(_first_line(error)) from error

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The composed config, with its `hydra` node; UserError in one line for what Hydra refuses."""
        try:
            return self.hydra.compose_config(self.name, list(overrides), RunMode.RUN, from_shell=False)
        except (ConfigCompositionException, HydraException, OmegaConfBaseException) as error:
            raise UserError(self._explain(error, overrides)) from error

    def is_group(self, key: str) -> bool:
        """Whether `key` names a config group."""
        return bool(self.loader.get_group_options(key.split("@")[0]))

    def _explain(self, error: Exception, overrides: Sequence[str]) -> str:
        cause = error.__cause__ or error
        key = re.search(r"full_key: (\S+)", str(cause)) or re.search(r"Key '(\S+)' is not in struct", str(cause))
        if key and "not in struct" in str(cause):
            return self._unknown_key(key[1], overrides)
        text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
        group = re.search(r"Could not find '(\S+)/(\S+)'", text) or re.search(
            r"In '\S+': Could not find '(\S+)/(\S+)'", text
        )
        if group:
            options = self.loader.get_group_options(group[1])
            return f"{group[1]}={group[2]}: no such option. {_near(group[2], options)}There are: {', '.join(options)}."
        return text

    def _unknown_key(self, key: str, overrides: Sequence[str]) -> str:
        choices = [o for o in overrides if self.is_group(o.lstrip("+~").split("=")[0])]
        known = list(_leaves(self.compose(choices))) if choices != list(overrides) else []
        return f"{key}: no such key. {_near(key, known)}`--cfg job` lists them all."


def check(composer: Composer, overrides: Sequence[str]) -> list[str]:
    """Find mistakes in the overrides, sweeps included; returns them with whole floats made ints (`1e5` -> `100000`).

    Raises UserError with the first mistake.
    """
    parsed = composer.parse(overrides)
    for override in parsed:
        _check_addition(composer, override)
    groups = [o for o in parsed if composer.is_group(o.key_or_group)]
    result = list(overrides)
    for chosen in _combinations(composer, parsed):
        defaults = composer.compose([o for p, o in zip(parsed, chosen, strict=True) if p in groups])
        for index, (override, text) in enumerate(zip(parsed, chosen, strict=True)):
            if override in groups or override.is_delete() or override.is_add():
                continue
            mended = _check_type(defaults, composer.parse([text])[0], text)
            if not override.is_sweep_override():
                result[index] = mended
        _check_composed(composer, composer.compose(chosen))
    return result


def _combinations(composer: Composer, parsed: list[Override]) -> Iterator[list[str]]:
    """Every value of every sweep at least once, the other sweeps at their first value; without sweeps, one."""
    values = []
    for o in parsed:
        if not o.is_sweep_override():
            values.append([o.input_line or ""])
            continue
        try:
            swept = [f"{o.get_key_element()}={v}" for v in o.sweep_string_iterator()]
        except (HydraException, ValueError):  # intervals and the like are the sweeper's to draw from
            swept = []
        if not swept and o.is_range_sweep():
            raise UserError(f"{o.input_line}: an empty range, there is nothing to run.")
        values.append(swept)
    first = [v[0] for v in values if v]
    if len(first) < len(values):
        parsed[:] = [p for p, v in zip(parsed, values, strict=True) if v]
        values = [v for v in values if v]
    yield first
    for i, options in enumerate(values):
        for option in options[1:] if len(options) <= 8 else [options[-1]]:
            yield [*first[:i], option, *first[i + 1 :]]


def _check_addition(composer: Composer, override: Override) -> None:
    key = override.key_or_group
    if override.is_add() and "." not in key and "/" not in key and "@" not in key and not composer.is_group(key):
        groups = composer.loader.get_group_options("", None) or []
        raise UserError(
            f"+{key}: no config group of that name. {_near(key, groups)}There are: {', '.join(sorted(groups))}."
        )


def _check_type(defaults: DictConfig, override: Override, text: str) -> str:
    """`text`, whole floats for ints made whole; UserError if the value is not of its default's type."""
    key, value = override.key_or_group, override.value()
    try:
        default = OmegaConf.select(defaults, key, throw_on_missing=False)
    except OmegaConfBaseException:
        return text
    value = getattr(value, "text", value)  # a quoted string
    if isinstance(default, bool):
        wanted, fits = "true or false", isinstance(value, bool)
    elif isinstance(default, int):
        if isinstance(value, float) and value.is_integer():
            return f"{key}={int(value)}"
        wanted, fits = "a whole number", isinstance(value, int) and not isinstance(value, bool)
    elif isinstance(default, float):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        wanted, fits = "a number", number or value is None or isinstance(value, dict)
    elif OmegaConf.is_list(default):
        wanted, fits = "a list, such as [64,64]", isinstance(value, list)
    elif OmegaConf.is_dict(default):
        wanted, fits = "a mapping or a number", not isinstance(value, str | list | bool)
    else:
        return text
    if not fits:
        raise UserError(f"{text}: {key} is {wanted} (its default is {_short(default)}).")
    return text


def _short(value: Any) -> str:
    return str(OmegaConf.to_container(value)) if OmegaConf.is_config(value) else str(value)


def _check_composed(composer: Composer, cfg: DictConfig) -> None:
    HydraConfig.instance().set_config(cfg)
    job = OmegaConf.masked_copy(cfg, [k for k in cfg if k != "hydra"])
    missing = sorted(OmegaConf.missing_keys(job))
    if missing:
        raise UserError(f"{missing[0]} is left open: give it a value, {missing[0]}=...")
    try:
        plain = OmegaConf.to_container(job, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(_first_line(error)) from error
    assert isinstance(plain, dict)
    check_limits(plain, plain.get("limits", {}))
    searched = [*composer.folders, *(cfg.hydra.get("searchpath") or [])]
    targets.check(plain, [*plain.get("packages", []), *targets.named_by(searched)])


def check_limits(config: Mapping[str, Any], limits: Mapping[str, Any], prefix: str = "") -> None:
    """Hold numbers against their limits; a schedule's `start` and `end` too. UserError names key, value and limit."""
    for key, limit in limits.items():
        if not isinstance(config, Mapping) or config.get(key) is None:
            continue
        value, name = config[key], f"{prefix}{key}"
        if not set(limit) <= {"min", "max", "above", "below"}:
            check_limits(value, limit, f"{name}.")
        elif isinstance(value, Mapping):
            inner = {"min" if k == "above" else k: v for k, v in limit.items()}  # a schedule may end at the bound
            check_limits(value, {"start": inner, "end": inner}, f"{name}.")
        elif not _within(value, limit):
            raise UserError(f"{name}={value}: {name} must be {_said(limit)}.")


def _within(value: Any, limit: Mapping[str, float]) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return (
        value >= limit.get("min", -math.inf)
        and value <= limit.get("max", math.inf)
        and value > limit.get("above", -math.inf)
        and value < limit.get("below", math.inf)
    )


def _said(limit: Mapping[str, float]) -> str:
    words = {"min": "at least", "max": "at most", "above": "above", "below": "below"}
    return "a number " + " and ".join(f"{words[k]} {v:g}" for k, v in limit.items())


def _leaves(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in cfg:
        name = f"{prefix}{key}"
        node = cfg._get_node(key)
        inner = isinstance(node, DictConfig) and not node._is_none() and not node._is_interpolation()
        if inner and name != "hydra":
            yield from _leaves(node, f"{name}.")
        yield name


def _near(name: str, known: Sequence[str]) -> str:
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {found[0]}? " if found else ""


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
