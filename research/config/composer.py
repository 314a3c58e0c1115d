"""Composition of a config by Hydra, with its errors as one line that says how to mend them.

TensorFlow is not imported here. `research/config/validation.py` looks for mistakes that Hydra
accepts.
"""

import fnmatch
import importlib.util
import re
import shlex
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import sparring.conf
from sparring.config import hints, old_spellings
from sparring.config.overrides import quoted
from sparring.errors import UserError, listed, near

_COMMANDS = ("rl", "gan", "imitation", "supervised")  # kinds of runs that a command names
# Groups whose options differ in their keys, and are not collections of values for them
_HAVE_KEYS = (
    "actors",
    "agent",
    "data",
    "env",
    "head",
    "intrinsic",
    "memory",
    "model",
    "network",
    "task",
)
_PARTS = ("base", "limits", "benchmark")  # files beside the primary configs, not configs themselves
CONF = Path(next(iter(sparring.conf.__path__)))


class Composer:
    """Composer of one primary config with overrides.

    Args:
        name: the primary config, such as "rl" for conf/rl.yaml.
        config_dir: a further folder of config files, or None.
        overrides: those of the command line, for its `hydra.searchpath`.

    Attributes:
        places: further folders and packages (`pkg://my_lab.conf`) of config files.

    Raises:
        UserError: no such config, folder or package, or a file in them is hidden by one of
          Sparring's.
    """

    def __init__(
        self, name: str, config_dir: str | None = None, overrides: Sequence[str] = ()
    ) -> None:
        self.name = name
        if config_dir is not None and not Path(config_dir).is_dir():
            raise UserError(f"--config-dir {config_dir}: there is no such folder.")
        self.places = [f"file://{Path(config_dir).resolve()}"] if config_dir is not None else []
        self._open()
        searched: list[Any] = [
            o.value() for o in self.parse(overrides) if o.key_or_group == "hydra.searchpath"
        ]
        self.places += [
            str(place) for place in (searched[-1] if searched else self._own_search_path())
        ]
        self._open()
        self._look_at_places()

    def _open(self) -> None:
        path = create_config_search_path(str(CONF))
        for place in self.places:
            # After Sparring's own configs
            path.prepend("command-line", place, anchor=SearchPathQuery(provider="schema"))
        GlobalHydra.instance().clear()
        self.hydra = Hydra.create_main_hydra2(task_name="sparring", config_search_path=path)
        # This instance is private: the next composition, by Hydra itself too, starts afresh
        GlobalHydra.instance().clear()
        self.loader: Any = self.hydra.config_loader

    def _own_search_path(self) -> list[str]:
        """Return the `hydra.searchpath` that the primary config itself names."""
        try:
            primary = self.loader.repository.load_config(self.name)
        except (yaml.YAMLError, HydraException, OmegaConfBaseException) as error:
            raise UserError(self._explain(error, ())) from error
        if primary is None:
            names = sorted(
                n for n in set(self.options("")) if n not in _PARTS and not n.startswith("_")
            )
            raise UserError(
                f"There is no config {self.name}. {near(self.name, names)}{listed(names)}"
            )
        return OmegaConf.select(primary.config, "hydra.searchpath") or []

    def _look_at_places(self) -> None:
        for place in self.places:
            folder = _folder(place)
            if folder is None:
                raise UserError(f"{place}: there are no configs there to add.")
            for ours in CONF.rglob("*.yaml") if not folder.samefile(CONF) else ():
                if (folder / ours.relative_to(CONF)).is_file():
                    raise UserError(
                        f"{folder / ours.relative_to(CONF)} would be passed over, since Sparring "
                        "has a config of that "
                        "name: give yours another."
                    )

    def parse(self, overrides: Sequence[str]) -> list[Override]:
        """Return the overrides as Hydra reads them.

        Raises:
            UserError: Hydra cannot read one.
        """
        parser = OverridesParser.create(self.loader)
        parsed = []
        for text in overrides:
            try:
                parsed += parser.parse_overrides([text])
            except HydraException as error:
                raise UserError(_unreadable(text, error)) from error
        return parsed

    def compose(self, overrides: Sequence[str], mode: RunMode = RunMode.RUN) -> DictConfig:
        """Return the composed config, with its `hydra` node.

        Raises:
            UserError: Hydra refuses the config; the message is one line.
        """
        try:
            with warnings.catch_warnings():
                # Hydra warns of config folders without an __init__.py
                warnings.simplefilter("ignore", UserWarning)
                return self.hydra.compose_config(self.name, list(overrides), mode, from_shell=False)
        except (
            yaml.YAMLError,
            ConfigCompositionException,
            HydraException,
            OmegaConfBaseException,
        ) as error:
            raise UserError(self._explain(error, overrides)) from error
        except ValueError as error:  # raised by Hydra for an option that is null or a number
            raise UserError(self._no_option(overrides) or str(error)) from error

    def help(self, overrides: Sequence[str]) -> str:
        """Return the text of `--help`: `hydra.help` of the config, filled in.

        Only groups that the config consists of are listed.
        """
        cfg = self.compose(overrides)
        HydraConfig.instance().set_config(cfg)
        text = str(
            self.hydra.get_help(
                cfg.hydra.help, OmegaConf.create(), get_args_parser(), resolve=False
            )
        )
        chosen = {str(group).partition("@")[0] for group in cfg.hydra.runtime.choices}
        others = set(self.groups()) - chosen
        offers = cfg.get("offers") or {}
        lines = []
        for line in text.splitlines():
            group, colon, options = line.partition(": ")
            if colon and group in offers:
                line = f"{group}: {', '.join(_offered(group, options.split(', '), offers))}"
            is_inner = bool(colon) and re.fullmatch(r"\w+/[\w/]+", group) is not None
            if group not in others and not is_inner:
                lines.append(line)
        return "\n".join(lines)

    def options(self, group: str) -> list[str]:
        """Return the options of a config group."""
        return list(self.loader.get_group_options(group))

    def is_group(self, key: str) -> bool:
        """Return whether `key` names a config group."""
        return bool(self.options(key.split("@")[0]))

    def groups(self) -> list[str]:
        """Return the top-level config groups."""
        found = self.loader.get_group_options("", ObjectType.GROUP)
        return sorted(g for g in found if g != "hydra" and self.options(g))

    def _explain(self, error: Exception, overrides: Sequence[str]) -> str:
        if isinstance(error, yaml.YAMLError):
            return _bad_yaml(error)
        cause = str(error.__cause__ or error)
        key = re.search(r"full_key: (\S+)", cause) or re.search(
            r"Key '(\S+)' is not in struct", cause
        )
        if key and "not in struct" in cause:
            return self._unknown_key(key[1], overrides)
        text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
        group = re.search(r"Could not (?:find|load) '(\S+)/([^'/]+)'", text)
        if group:
            if self.options(group[1]):
                return self._unknown_option(group[1], group[2])
            # A slash in what was typed for an option: env=ALE/Pong-v5
            return self._unknown_option(*f"{group[1]}/{group[2]}".split("/", 1))
        lost = re.search(r"Could not override '(\S+)'", text)
        if lost:
            return self._unknown_key(lost[1], overrides)
        return text

    def _unknown_option(self, group: str, option: str) -> str:
        options = _offered(group, self.options(group), self._primary().get("offers") or {})
        if not options:
            return f"{group}={option}: there is no config group {group}. {listed(self.groups())}"
        hint = old_spellings.hint(group, option) or near(option, options)
        if group == "env":
            hint += hints.environment(option)
        if group == "data":
            hint += hints.data(option)
        return f"{group}={option}: no such option. {hint}{listed(options)}"

    def _primary(self) -> DictConfig:
        """Return the config without overrides, or an empty one if that cannot be composed."""
        try:
            return self.compose([])
        except UserError:
            return OmegaConf.create()

    def _no_option(self, overrides: Sequence[str]) -> str | None:
        for override in self.parse(overrides):
            group = override.key_or_group
            if self.is_group(group) and not isinstance(override.value(), str | list | dict):
                return (
                    f"{override.input_line}: {group} is the name of an option. "
                    f"{listed(self.options(group))}"
                )
        return None

    def _unknown_key(self, key: str, overrides: Sequence[str]) -> str:
        choices = [o for o in overrides if self.is_group(o.lstrip("+~").split("=")[0])]
        cfg = self.compose(choices) if choices != list(overrides) else OmegaConf.create()
        # Groups from which nothing is chosen are keys too
        known = [*leaves(cfg), *(group for group in self.groups() if group != key)]
        known = [name for name in known if not key.startswith(f"{name}.")]
        hint = hints.synonym(key, known) or self._elsewhere(key, cfg) or near(key, known)
        text = f"{key}: no such key. {hint}`--cfg job` lists them all"
        return f"{text}; +{key}=... adds one." if _takes_any_key(cfg, key) else f"{text}."

    def _elsewhere(self, key: str, cfg: DictConfig) -> str:
        """Return which options of the config's groups, or which command, would have a key."""
        if self.is_group(key):
            for name in _COMMANDS:
                if name != self.name and key in Composer(name).compose([]).hydra.runtime.choices:
                    return f"`sparring {name}` has it. "
            return ""
        if "hydra" not in cfg:  # no options were composed
            return ""
        offers = cfg.get("offers") or {}
        first = key.partition(".")[0]
        groups = [str(group) for group in cfg.hydra.runtime.choices if group in _HAVE_KEYS]
        for group in sorted(groups, key=lambda group: group != first):
            options = _offered(group, self.options(group), offers)
            having = [option for option in options if self._has_key(group, option, key)]
            # A preset of many settings is no answer where a part alone has the key
            found = [option for option in having if not self._is_global(group, option)] or having
            if found:
                return f"{' or '.join(f'{group}={option}' for option in found[:3])} has it. "
        return ""

    def _is_global(self, group: str, option: str) -> bool:
        loaded = self.loader.repository.load_config(f"{group}/{option}")
        return loaded.header.get("package") == "_global_"

    def _has_key(self, group: str, option: str, key: str) -> bool:
        """Return whether the file of an option has a key itself."""
        loaded = self.loader.repository.load_config(f"{group}/{option}")
        package = loaded.header.get("package") or group
        if package != "_global_":
            if not key.startswith(f"{package}."):
                return False
            key = key.removeprefix(f"{package}.")
        return bool(key in leaves(loaded.config))


def _takes_any_key(cfg: DictConfig, key: str) -> bool:
    """Return whether a key that is added beside those of `cfg` would be read.

    Only mappings of arguments such as env.kwargs, and of an environment's parameters, take any key.
    """
    parent, _, _ = key.rpartition(".")
    is_arguments = parent.rpartition(".")[2] in ("kwargs", "curriculum")
    return is_arguments and isinstance(OmegaConf.select(cfg, parent), DictConfig)


def _folder(place: str) -> Path | None:
    """Return the folder behind a place of configs, or None if there is none.

    A place is a path or `pkg://package.inner`.
    """
    if not place.startswith("pkg://"):
        folder = Path(place.removeprefix("file://"))
        return folder if folder.is_dir() else None
    try:
        spec = importlib.util.find_spec(place.removeprefix("pkg://"))
    except ModuleNotFoundError:
        return None
    return (
        Path(next(iter(spec.submodule_search_locations)))
        if spec and spec.submodule_search_locations
        else None
    )


def _offered(group: str, options: Sequence[str], offers: Mapping[str, Sequence[str]]) -> list[str]:
    """Return those of a group's options that are for this kind of run, and the user's own."""
    if group not in offers:
        return list(options)
    return [
        option
        for option in options
        if is_offered(option, offers[group]) or not (CONF / group / f"{option}.yaml").is_file()
    ]


def is_offered(option: str, offered: Sequence[str]) -> bool:
    """Return whether an option is among those that a kind of run offers, such as `ppo_*`."""
    return any(fnmatch.fnmatchcase(option, pattern) for pattern in offered)


def leaves(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of every key that a user may want to set."""
    for key in cfg:
        name = f"{prefix}{key!s}"
        node = cfg._get_node(key)
        if name in ("hydra", "limits"):
            continue
        if isinstance(node, DictConfig) and not (
            node._is_none() or node._is_interpolation() or node._is_missing()
        ):
            yield from leaves(node, f"{name}.")
        yield name


def _unreadable(text: str, error: Exception) -> str:
    if "=" not in text:
        return f"{text}: what is it to be? Write {text}=VALUE."
    lines = [
        line.strip() for line in str(error).splitlines() if line.strip() and "hydra.cc" not in line
    ]
    reason = next((line for line in lines if not line.startswith("Error parsing")), "")
    reason = "" if "Exception" in reason else f" ({reason})"  # a name of the parser's own
    key, _, value = text.partition("=")
    return (
        f"{text}: cannot be read{reason}. Close what is open; text that holds spaces or signs is "
        f"quoted: {_shown(key, value)}."
    )


def _shown(key: str, value: str) -> str:
    """Return an override with any text for its value, as it is typed in a shell."""
    if set(value) & set("\"'\\$"):
        return shlex.quote(f"{key}={quoted(value)}")
    return f"'{key}=\"{value}\"'"


def _bad_yaml(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"{mark.name}, line {mark.line + 1}: " if mark is not None else ""
    said = getattr(error, "problem", None) or " ".join(str(error).split())
    return f"{place}not YAML ({said})."
