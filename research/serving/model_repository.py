"""Repository of models: the versions in memory, and the one that a request names.

    models/cart/1/  models/cart/2/  the newest sound version is the default
    models/cart/serving.json    {"default": 1, "labels": {"stable": 1, "canary": 2}, "keep": 2}

`serving.json` is optional, and read anew whenever it changes: `default` serves an older version (a
rollback), `labels` give versions names, `keep` is how many of the newest are in memory. A version
that is damaged is reported and passed over; versions in memory keep serving.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparring.export.model_versions import NAME, versions
from sparring.serving.errors import Refusal
from sparring.serving.model import Servable, Unfit, load

_log = logging.getLogger("sparring.serve")
SETTINGS = "serving.json"


@dataclass(frozen=True)
class Settings:
    """Content of a model's `serving.json`."""

    default: int | None = None
    labels: dict[str, int] = field(default_factory=dict)
    keep: int = 1


@dataclass
class Model:
    """Versions of a model: those in memory, and why others are not."""

    loaded: dict[int, Servable] = field(default_factory=dict)
    # Version -> (mark of its folder, reason)
    unfit: dict[int, tuple[Any, str]] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    settings_mark: Any = None


class Shelf:
    """Models in memory, which follow the folder.

    `scan` is called from one thread at a time, `find` from any.

    Args:
        folder: of models.
        keep: how many of a model's newest versions are in memory, unless its serving.json sets it.
        unverified: also serve models without a manifest, such as those that other programs
          exported.
        loading: called with (model, version, "OK" or the reason, seconds to load, seconds to warm
          up) for every attempt.
    """

    def __init__(
        self,
        folder: Path,
        keep: int = 1,
        unverified: bool = False,
        loading: Callable[[str, int, str, float, float], None] = lambda *_: None,
    ) -> None:
        self.folder = folder
        self.keep = keep
        self.unverified = unverified
        self._loading = loading
        self.models: dict[str, Model] = {}
        self.scanned = False

    def scan(self) -> None:
        """Load and drop versions as in the folder. A folder that cannot be read changes nothing."""
        try:
            names = sorted(
                p.name for p in self.folder.iterdir() if p.is_dir() and NAME.fullmatch(p.name)
            )
            found = {name: there for name in names if (there := versions(self.folder / name))}
        except OSError as error:
            _log.error("models unreadable", extra={"folder": str(self.folder), "error": str(error)})
            return
        for name, there in found.items():
            model = self.models.get(name) or Model()
            self._read_settings(name, model)
            self._update(name, model, there)
            self.models[name] = model
        for name in self.models.keys() - found.keys():
            _log.info("model gone", extra={"model": name})
            del self.models[name]
        self.scanned = True

    @property
    def ready(self) -> bool:
        """Whether the folder has been scanned and there is a model to serve."""
        return self.scanned and any(m.loaded for m in list(self.models.values()))

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Servable:
        """Return the version that a request names.

        Raises:
            Refusal: there is none, in TensorFlow Serving's words.
        """
        model = self.models.get(name)
        if label is not None:
            version = None if model is None else model.settings.labels.get(label)
            if model is not None and version is None:
                raise Refusal("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")
        loaded = {} if model is None else model.loaded
        if version is not None and version not in loaded:
            raise Refusal(
                "NOT_FOUND", f"Servable not found for request: Specific({name}, {version})"
            )
        if model is None or not loaded:
            raise Refusal("NOT_FOUND", f"Servable not found for request: Latest({name})")
        if version is None:
            version = model.settings.default if model.settings.default in loaded else max(loaded)
        return loaded[version]

    def status(
        self, name: str, version: int | None = None, label: str | None = None
    ) -> dict[str, Any]:
        """Return the state of a model's versions, the newest first, as the reply to a request.

        Raises:
            Refusal: there is no such model or version.
        """
        model = self.models.get(name)
        if model is None:
            raise Refusal("NOT_FOUND", f"Could not find any versions of model {name}")
        if label is not None:
            version = self.find(name, label=label).version
        states = dict.fromkeys(model.loaded, ("AVAILABLE", "OK", ""))
        states |= {v: ("END", "DATA_LOSS", reason) for v, (_, reason) in model.unfit.items()}
        chosen = [v for v in sorted(states, reverse=True) if version in (None, v)]
        if not chosen:
            raise Refusal("NOT_FOUND", f"Could not find version {version} of model {name}")
        return {"model_version_status": [_state(v, *states[v]) for v in chosen]}

    # ---- loading ---------------------------------------------------------------------------------

    def _update(self, name: str, model: Model, there: list[int]) -> None:
        """Load the wanted versions, the newest first, then drop the others.

        In this order there is always a version to serve.
        """
        named = {*model.settings.labels.values(), model.settings.default} & set(there)
        wanted: list[int] = []
        for version in sorted(there, reverse=True):
            if (len(wanted) < model.settings.keep or version in named) and self._have(
                name, model, version
            ):
                wanted.append(version)
        for version in model.loaded.keys() - set(wanted):
            _log.info("version dropped", extra={"model": name, "version": version})
        model.loaded = {v: s for v, s in model.loaded.items() if v in wanted}
        model.unfit = {v: reason for v, reason in model.unfit.items() if v in there}

    def _have(self, name: str, model: Model, version: int) -> bool:
        """Return whether a version is in memory, after an attempt to load it.

        There is one attempt for each state of its folder.
        """
        if version in model.loaded:
            return True
        folder = self.folder / name / str(version)
        mark = _mark(folder)
        if model.unfit.get(version, (None,))[0] == mark:
            return False
        try:
            servable = load(folder, name, version, self.unverified)
        except Unfit as error:
            model.unfit[version] = (mark, str(error))
            _log.error(
                "version unfit", extra={"model": name, "version": version, "error": str(error)}
            )
            self._loading(name, version, str(error), 0.0, 0.0)
            return False
        model.unfit.pop(version, None)
        model.loaded = {**model.loaded, version: servable}
        load_s, warm_s = servable.seconds
        said = {
            "model": name,
            "version": version,
            "load_ms": round(1e3 * load_s),
            "warm_up_ms": round(1e3 * warm_s),
        }
        _log.info("version loaded", extra=said)
        self._loading(name, version, "OK", load_s, warm_s)
        return True

    def _read_settings(self, name: str, model: Model) -> None:
        path = self.folder / name / SETTINGS
        mark = _mark(path)
        if mark == model.settings_mark:
            if mark is None:
                model.settings = Settings(keep=self.keep)
            return
        model.settings_mark = mark
        try:
            model.settings = (
                Settings(keep=self.keep) if mark is None else _settings(path, self.keep)
            )
        except (OSError, ValueError, RecursionError) as error:  # the last settings stay in force
            _log.error("settings unreadable", extra={"model": name, "error": f"{path}: {error}"})


def _settings(path: Path, keep: int) -> Settings:
    content = json.loads(path.read_text())
    if not isinstance(content, dict) or content.keys() - {"default", "labels", "keep"}:
        raise ValueError("give an object with default, labels or keep")
    default = content.get("default")
    labels = content.get("labels", {})
    keep = content.get("keep", keep)
    numbers = [default, keep, *labels.values()] if isinstance(labels, dict) else ["labels"]
    if any(not (n is None or (type(n) is int and n >= 1)) for n in numbers) or None in numbers[1:]:
        raise ValueError("default, keep and every label are numbers of versions, from 1")
    return Settings(default, labels, keep)


def _mark(path: Path) -> Any:
    """Return a value that changes with a file, or the newest file of a folder; None if absent."""
    try:
        stat = path.stat()
        newest = (
            max((p.stat().st_mtime_ns for p in path.rglob("*")), default=0) if path.is_dir() else 0
        )
        return stat.st_mtime_ns, stat.st_ino, stat.st_size, newest
    except OSError:
        return None


def _state(version: int, state: str, code: str, message: str) -> dict[str, Any]:
    return {
        "version": str(version),
        "state": state,
        "status": {"error_code": code, "error_message": message},
    }
