"""Validation of a config before anything is built and before TensorFlow is imported.

It finds mistakes that Hydra accepts: values of another type than their default's, numbers out of
range, values left open, keys that nothing reads, groups that do not exist, targets that may not be
named or do not exist, runs to continue that do not exist, environments that cannot be built. The
first mistake is a UserError, one line that names the remedy.
"""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sparring.config import hints, targets
from sparring.config.bounds import check_limits, is_limit
from sparring.config.composer import CONF, Composer, is_offered
from sparring.errors import UserError, listed, near
from sparring.storage.run_folder import RunFolder

# Sweeps of up to this many jobs are checked in every combination
_EVERY_COMBINATION = 24
_READ = (
    "run",
    "strategy",
    "device",
    "limits",
    "seed",
    "compile",
    "check_first",
    "check_fit",
    "hparams",
    "tasks",
    "packages",
    "offers",
    "callbacks",
    "trainer",
    "suite",
)


class Command:
    """Command to run, validated.

    Attributes:
        overrides: as given, with whole floats made ints (`run.steps=1e5` -> `run.steps=100000`).
        multirun: whether it is a sweep.
        cfg: the composed config of the run, or of a sweep's first job.
        by_spaces: those of the overrides that the environment's spaces chose.
        swept: the keys that a sweep varies.
        jobs: the number of a sweep's jobs; 0 if its sweeper draws them.
    """

    def __init__(self, composer: Composer, overrides: Sequence[str], multirun: bool) -> None:
        self.composer = composer
        self.overrides = list(overrides)
        self._composed: dict[tuple[str, ...], DictConfig] = {}
        parsed = composer.parse(overrides)
        for override in parsed:
            self._check_addition(override)
        master = self._compose(self._for_all_jobs(parsed))
        self.multirun = multirun or master.hydra.mode == RunMode.MULTIRUN
        parsed += self._sweep_in_config(master, parsed) if self.multirun else []
        self.swept = [o.get_key_element() for o in parsed if o.is_sweep_override()]
        if self.swept and not self.multirun:
            text = next(o.input_line for o in parsed if o.is_sweep_override())
            raise UserError(
                f"{text}: several values are a sweep: add -m (or brackets, if it is one list)."
            )
        listed_out = str(master.hydra.sweeper._target_).endswith("BasicSweeper")
        values = [_values(o, listed_out) for o in parsed]
        self.jobs = math.prod(map(len, values)) if listed_out else 0
        self._mended: dict[str, str] = {}
        jobs = [self._check_job(parsed, chosen) for chosen in _looked_at(parsed, values)]
        built = _build_first(jobs)
        self.by_spaces = self._fitted(parsed, jobs, built)
        self._mend(values)
        if self.by_spaces:
            jobs = self._with_fitted(parsed, values)
        for cfg, parts in zip(jobs, built, strict=True):
            if cfg.get("check_fit") is not None:
                targets.instantiate(cfg.check_fit)(cfg, parts)
        self.cfg = jobs[0]
        if self.multirun and any(map(composer.is_group, self.swept)):
            self._leave_to_jobs(parsed[: len(self.overrides)])

    def _fitted(
        self, parsed: list[Override], jobs: list[DictConfig], built: list[dict[str, Any]]
    ) -> list[str]:
        """Return overrides that fit all jobs to the spaces of their environments."""
        # Here, as it imports gymnasium, which a command that asks for help has no need of
        from sparring.config import space_settings

        typed = [o.key_or_group for o in parsed]
        found = [
            space_settings.chosen(self.composer, cfg, parts["env"], typed)
            for cfg, parts in zip(jobs, built, strict=True)
            if "env" in parts
        ]
        return space_settings.common(found) if found else []

    def _with_fitted(self, parsed: list[Override], values: list[list[str]]) -> list[DictConfig]:
        """Add what the spaces chose to the overrides; return the jobs' configs with it."""
        end = len(self.overrides)  # a sweep's own, in its config, come after
        self.overrides += self.by_spaces
        parsed[end:end] = self.composer.parse(self.by_spaces)
        values[end:end] = [[text] for text in self.by_spaces]
        return [self._check_job(parsed, chosen) for chosen in _looked_at(parsed, values)]

    def _mend(self, values: list[list[str]]) -> None:
        """Write the integers that were typed as floats as integers."""
        for i, several in enumerate(values[: len(self.overrides)]):
            if any(text in self._mended for text in several):
                key = several[0].partition("=")[0]
                wanted = [self._mended.get(t, t) for t in several]
                self.overrides[i] = f"{key}={','.join(t.partition('=')[2] for t in wanted)}"

    def _for_all_jobs(self, parsed: list[Override]) -> list[str]:
        """Return the overrides of a config that stands for all jobs of a sweep.

        They are those that are not swept, and of swept groups the first option each: a key may be
        one that the swept options have and the default option has not.
        """
        texts = []
        for override in parsed:
            if not override.is_sweep_override():
                texts.append(override.input_line or "")
            elif self.composer.is_group(override.key_or_group) and not override.is_interval_sweep():
                option = next(iter(override.sweep_string_iterator()))
                texts.append(f"{override.get_key_element()}={option}")
        return texts

    def _leave_to_jobs(self, parsed: list[Override]) -> None:
        """Have Hydra set keys in the jobs alone that its own config of the sweep has not.

        Hydra composes that config with the groups' default options. A sweep over one value is not
        part of it.
        """
        fixed = [o for o in parsed if not o.is_sweep_override()]
        groups = [o.input_line or "" for o in fixed if self.composer.is_group(o.key_or_group)]
        for index, override in enumerate(parsed):
            text = self.overrides[index]
            if override not in fixed or text in groups or "=" not in text or override.is_delete():
                continue
            try:
                self._compose([*groups, text])
            except UserError:
                key, _, value = text.partition("=")
                self.overrides[index] = f"{key}=choice({value})"

    def _sweep_in_config(self, master: DictConfig, parsed: list[Override]) -> list[Override]:
        """Return the sweep that a config defines itself, in `hydra.sweeper.params`.

        Keys that the command line sets are left out.
        """
        given = {o.get_key_element() for o in parsed}
        params = master.hydra.sweeper.get("params") or {}
        return [
            o
            for o in self.composer.parse([f"{k}={v}" for k, v in params.items()])
            if o.key_or_group not in given
        ]

    def _check_addition(self, override: Override) -> None:
        key = override.key_or_group
        if override.is_add() and not set("./@") & set(key) and not self.composer.is_group(key):
            groups = self.composer.groups()
            raise UserError(
                f"+{key}: no config group of that name. {near(key, groups)}{listed(groups)}"
            )

    def _check_job(self, parsed: list[Override], chosen: list[str]) -> DictConfig:
        """Check one job's config; note in `_mended` the floats that are meant to be integers."""
        groups = [
            text
            for o, text in zip(parsed, chosen, strict=True)
            if self.composer.is_group(o.key_or_group)
        ]
        defaults = self._compose(groups)
        # Of another class than the default, whose arguments may be of other types
        others = tuple(
            o.key_or_group.removesuffix("_target_")
            for o in parsed
            if o.key_or_group.endswith("._target_")
        )
        for i, (override, text) in enumerate(zip(parsed, chosen, strict=True)):
            if text in groups or override.is_delete() or override.is_add() or "=" not in text:
                continue
            if override.key_or_group.startswith(others):
                continue
            chosen[i] = _check_type(defaults, self.composer.parse([text])[0], text)
            if chosen[i] != text:
                self._mended[text] = chosen[i]
        cfg = self._compose(chosen)
        _check_run(cfg.run)
        _check_offers(cfg)
        check_composed(cfg, self.composer.places)
        if cfg.run.resume not in ("auto", "never"):
            RunFolder.named_in_config(str(cfg.run.resume), "run.resume")
        if cfg.run.warm_start is not None:
            RunFolder.named_in_config(str(cfg.run.warm_start), "run.warm_start")
        return cfg

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        key = tuple(overrides)
        if key not in self._composed:
            self._composed[key] = self.composer.compose(overrides)
        return self._composed[key]


def check_composed(cfg: DictConfig, places: Sequence[str] = ()) -> None:
    """Find mistakes in a composed config, whatever the origin of its values."""
    if "hydra" in cfg:
        HydraConfig.instance().set_config(cfg)
    job = OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k != "hydra"])
    raw = OmegaConf.to_container(job)
    for key in _left_open(raw):
        raise UserError(f"{key} is left open: give it a value, {key}=...")
    plain = _resolved(job)
    _check_read(raw)
    _check_left_over(raw)
    check_limits(plain, plain.get("limits", {}))
    targets.check(plain, [*plain.get("packages", []), *targets.named_by(places)])


def _left_open(node: Any, prefix: str = "") -> Iterator[str]:
    if node == "???":
        yield prefix.removesuffix(".")
    elif isinstance(node, dict | list):
        for key, child in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _left_open(child, f"{prefix}{key}.")


def _resolved(job: DictConfig) -> dict[str, Any]:
    try:
        plain: Any = OmegaConf.to_container(job, resolve=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        said = str(error).splitlines()[0]
        value: Any = OmegaConf.to_container(job)
        for part in str(key).split("."):
            value = value.get(part, "") if isinstance(value, dict) else ""
        raise UserError(f"{key}={value}: {said}. Mend it or what it refers to.") from error
    return dict(plain)


def _check_read(raw: Any) -> None:
    """Refuse top-level keys that nothing refers to, as they are misspelt.

    A key whose value is null is accepted.
    """
    text = str(raw)
    for key in raw:
        if (
            raw[key] is not None
            and key not in _READ
            and not re.search(rf"\$\{{{re.escape(str(key))}[.}}\[]", text)
        ):
            raise UserError(
                f"{key}: nothing reads this key. "
                f"{near(str(key), [*_READ, *(k for k in raw if k != key)])}".strip()
            )


def _check_left_over(raw: Any) -> None:
    """Refuse settings of parts that are not chosen.

    An example is an experiment's settings for a penalty that the command line leaves out.
    """
    for key, things in raw.items():
        chosen_here = key == "callbacks" or key not in _READ
        if not chosen_here or not isinstance(things, dict) or "_target_" in things:
            continue
        for name, thing in things.items():
            if isinstance(thing, dict) and "_target_" not in thing:
                settings = ", ".join(map(str, thing))
                raise UserError(
                    f"{key}.{name} has settings ({settings}), but nothing of that name is chosen. "
                    "Choose it, or take "
                    f"its settings out with '~{key}.{name}'."
                )


def _check_offers(cfg: DictConfig) -> None:
    """Refuse options that another kind of run shares a group with, such as a GAN's networks."""
    for group, offered in (cfg.get("offers") or {}).items():
        option = cfg.hydra.runtime.choices.get(group)
        if option is None or is_offered(option, offered):
            continue
        if (CONF / str(group) / f"{option}.yaml").is_file():  # else it is the user's own
            raise UserError(
                f"{group}={option} is for another kind of run. "
                f"{near(str(option), list(offered))}{listed(list(offered))}"
            )


def _check_run(run: DictConfig) -> None:
    known = [str(k) for k in OmegaConf.load(CONF / "run" / "default.yaml")]
    for key in map(str, run):
        if key not in known:
            close = near(key, known).replace("mean ", "mean run.")
            raise UserError(f"run.{key}: no such key. {close}{listed(known)}")
    for key in known:
        if key not in run:
            raise UserError(
                f"run.{key} is missing: build on ours, with `defaults: [default, _self_]`."
            )


def _build_first(configs: Sequence[DictConfig]) -> list[dict[str, Any]]:
    """Build what `check_first` names, once for each different config of it.

    Returns what was built of each config, by its key.
    """
    built: list[tuple[Any, Any]] = []
    of_each = []
    for cfg in configs:
        parts: dict[str, Any] = {}
        for key in cfg.check_first:
            node = OmegaConf.select(cfg, key)
            if node is None:
                continue
            found = [part for other, part in built if other == node]
            if not found:
                targets.check_arguments({key: OmegaConf.to_container(node, resolve=True)})
                found = [targets.instantiate(node)]
                built.append((node, found[0]))
            parts[key] = found[0]
        of_each.append(parts)
    return of_each


def _looked_at(parsed: list[Override], values: list[list[str]]) -> Iterator[list[str]]:
    """Yield the overrides of the jobs to check.

    These are all jobs of a small sweep, else every value with the first ones of the others. Limits
    are bounds, so of a range of numbers its ends are enough.
    """
    ranges = [o.is_sweep_override() and o.value_type is ValueType.RANGE_SWEEP for o in parsed]
    values = [
        sorted({v[0], v[-1]}, key=v.index) if r else v for r, v in zip(ranges, values, strict=True)
    ]
    if math.prod(map(len, values)) <= _EVERY_COMBINATION:
        yield from map(list, itertools.product(*values))
        return
    first = [several[0] for several in values]
    yield first
    for i, several in enumerate(values):
        yield from ([*first[:i], value, *first[i + 1 :]] for value in several[1:])


def _values(override: Override, listed_out: bool) -> list[str]:
    """Return the values an override stands for, as overrides.

    For a range that a sweeper draws from, these are its two ends.
    """
    text = override.input_line or ""
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [text]
    if override.is_interval_sweep():
        if listed_out:
            raise UserError(
                f"{text}: a sweep without steps. List values, or choose a hydra/sweeper that draws "
                "some."
            )
        bounds: Any = override.value()
        return [f"{key}={bounds.start}", f"{key}={bounds.end}"]
    try:
        values = [f"{key}={value}" for value in override.sweep_string_iterator()]
    except (HydraException, ValueError) as error:
        raise UserError(f"{text}: not a sweep ({error}).") from error
    if not values:
        raise UserError(f"{text}: nothing to run, it is empty.")
    return values


def _check_type(defaults: DictConfig, override: Override, text: str) -> str:
    """Return `text`, with a whole float made an integer where the default is one.

    Raises:
        UserError: the value is not of its default's type.
    """
    key = override.key_or_group
    value = override.value()
    try:
        default, limit = (
            OmegaConf.select(defaults, k, throw_on_missing=False) for k in (key, f"limits.{key}")
        )
    except OmegaConfBaseException:
        return text
    value = getattr(value, "text", value)  # a quoted string
    if isinstance(value, str) and "${" in value:
        return text  # its type is known once it is resolved
    whole = isinstance(default, int) and not isinstance(default, bool)
    if whole and isinstance(value, float) and value.is_integer():
        return f"{text.partition('=')[0]}={int(value)}"
    wanted, fits = _wanted(value, default, is_limit(limit))
    if not fits:
        hint = hints.whole_number(value) if whole else ""
        raise UserError(
            f"{text}: {key} is {wanted} (its default is {_short(default)}). {hint}".strip()
        )
    return text


def _wanted(value: Any, default: Any, limited: bool) -> tuple[str, bool]:
    """Return the type that a default asks for, in words, and whether `value` is of it."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, bool):
        return "true or false", isinstance(value, bool)
    if isinstance(default, int):
        return "a whole number", isinstance(value, int) and number
    if isinstance(default, float) or limited:
        return "a number", number or value is None or isinstance(value, dict)
    if OmegaConf.is_list(default):
        return "a list, such as [64,64]", _like(value, default)
    if OmegaConf.is_dict(default):
        return "a mapping, such as {a:1}", isinstance(value, dict)
    if isinstance(default, str):
        return "text", not isinstance(value, list | dict | None)
    return "anything", True


def _like(value: Any, default: Any) -> bool:
    """Return whether `value` is a list, of whole numbers if the default is."""
    if not isinstance(value, list):
        return False
    whole = len(default) > 0 and all(isinstance(x, int) for x in default)
    return not whole or all(isinstance(x, int) and not isinstance(x, bool) for x in value)


def _short(value: Any) -> str:
    return str(OmegaConf.to_container(value)) if OmegaConf.is_config(value) else str(value)
