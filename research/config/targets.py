"""Checks of `_target_`s in a config: permitted, existing, and called with arguments that fit.

A config builds what it names, so not everything may be named. Allowed are Sparring's own packages,
Keras, TF-Agents and Gymnasium, those listed under the config's `packages` key, and those whose
config folder the user put on the command line. `check` imports nothing: it reads source files.
`check_arguments` and `instantiate` import the targets.
"""

import ast
import importlib.util
import inspect
import pkgutil
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate as hydra_instantiate
from omegaconf import OmegaConf

from sparring.errors import UserError, in_own_code, listed, near
from sparring.storage import moved_names

OURS = ("sparring",)
ALLOWED = (*OURS, "gymnasium", "tensorflow.keras", "tf_agents")
_SPECIAL = {"_target_", "_partial_", "_args_", "_convert_", "_recursive_"}
# Libraries that refuse arguments from deep inside
_LIBRARIES = ("tensorflow", "keras", "tf_keras", "tf_agents", "gymnasium")


# ---- permitted and existing targets --------------------------------------------------------------


def check(config: Mapping[str, Any], packages: Sequence[str]) -> None:
    """Raise UserError for the first `_target_` that may not be named or does not exist.

    Permitted are ALLOWED and `packages`.
    """
    allowed = (*ALLOWED, *packages)
    for key, node in nodes(moved_names.update(config)):
        target = str(node["_target_"])
        package = str(node["_target_"]).split(".")[0]
        if not any(target == name or target.startswith(f"{name}.") for name in allowed):
            names = ", ".join(sorted(set(allowed)))
            raise UserError(
                f"{key}._target_={target}: a config may name {names} only. If you trust it, add "
                f"packages=[{package}]."
            )
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"{key}._target_={target}: there is no package {package}; install it, or run from "
                "its folder."
            )
        if missing := _missing(target):
            raise UserError(f"{key}._target_={target}: {missing}")


def named_by(places: Sequence[str]) -> list[str]:
    """Return the packages behind places of configs.

    `pkg://my_lab.conf` and `my_lab/conf` stand for my_lab.
    """
    found: list[str] = []
    for place in places:
        if place.startswith("pkg://"):
            found.append(place.removeprefix("pkg://").split(".")[0])
            continue
        path = Path(place.removeprefix("file://")).resolve()
        package = path
        while (package.parent / "__init__.py").is_file():
            package = package.parent
        if package != path or (path / "__init__.py").is_file():
            found.append(package.name)
        else:  # a plain folder stands for the modules and packages beside it
            found += [
                p.stem
                for p in path.parent.iterdir()
                if p.suffix == ".py" or (p / "__init__.py").is_file()
            ]
    return sorted(set(found))


def nodes(node: Any, prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (key, mapping) of everything with a `_target_`, upper levels of the config first."""
    found = sorted(_nodes(node, prefix), key=lambda pair: pair[0].count("."))
    yield from found


def _nodes(node: Any, prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield prefix.removesuffix("."), node
        for key, child in node.items():
            yield from _nodes(child, f"{prefix}{key}.")
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from _nodes(child, f"{prefix}{index}.")


def _missing(target: str) -> str:
    """Return why a dotted path leads nowhere, or "".

    Source files alone are read; a module is imported only where they do not say.
    """
    parts = target.split(".")
    if parts[0] == "tensorflow":
        return ""  # defines its names during an import of several seconds
    spec, depth = _module(parts)
    rest = parts[depth:]
    if not rest:
        return "names a module; add the name of a class or function in it."
    names, sure = _names(spec)
    if rest[0] in names:
        return ""
    try:
        if not sure:
            pkgutil.resolve_name(target)
            return ""
    except (AttributeError, ModuleNotFoundError):
        pass
    except Exception as error:
        return _failed(error)
    public = [n for n in names if not n.startswith("_")]
    return f"{'.'.join(parts[:depth])} has no {rest[0]}. {near(rest[0], public)}".strip()


def _imported(key: str, target: str) -> Any:
    try:
        return pkgutil.resolve_name(target)
    except AttributeError as error:
        module, _, name = target.rpartition(".")
        known = [n for n in dir(pkgutil.resolve_name(module)) if not n.startswith("_")]
        raise UserError(
            f"{key}._target_={target}: {module} has no {name}. {near(name, known)}".strip()
        ) from error
    except Exception as error:
        raise UserError(f"{key}._target_={target}: {_failed(error)}") from error


def _failed(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"importing it failed: {type(error).__name__}: {error} ({where.filename}, line "
        f"{where.lineno})."
    )


def _module(parts: list[str]) -> tuple[ModuleSpec, int]:
    """Return the longest module a dotted path begins with, and how many parts it takes.

    Nothing is imported.
    """
    spec = importlib.util.find_spec(parts[0])
    depth = 1
    assert spec is not None
    while depth < len(parts) and spec.submodule_search_locations is not None:
        name = ".".join(parts[: depth + 1])
        inner = PathFinder.find_spec(name, spec.submodule_search_locations)
        if inner is None and depth == 1:  # a subpackage in another folder, as those of sparring
            inner = importlib.util.find_spec(name)
        if inner is None:
            break
        spec = inner
        depth = depth + 1
    return spec, depth


def _names(spec: ModuleSpec) -> tuple[set[str], bool]:
    """Return the names a module defines or imports at its top level, and whether these are all.

    They are read from its source.
    """
    try:
        source = Path(spec.origin or "").read_text()
        statements: list[ast.AST] = list(ast.parse(source).body)
    except (OSError, SyntaxError, ValueError):
        return set(), False
    names: set[str] = set()
    # The list grows while it is read: names inside an `if` or a `try` count too
    for statement in statements:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.split(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.Name):
            names.add(statement.id)
        else:
            statements += ast.iter_child_nodes(statement)
    unsaid = (
        "*" in names,
        "__getattr__" in names,
        "globals()" in source,
        "setattr(" in source,
        "exec(" in source,
    )
    return names, not any(unsaid)


# ---- arguments -----------------------------------------------------------------------------------


def check_arguments(config: Any) -> None:
    """Raise UserError for the first argument that a `_target_` does not take, or lacks.

    The targets are imported.
    """
    for key, node in nodes(moved_names.update(config)):
        if node.get("_args_"):
            continue
        try:
            names, all_known = _parameters(_imported(key, str(node["_target_"])))
        except (TypeError, ValueError):  # builtins may have no signature
            continue
        _check_names(key, node, names, all_known)


def _parameters(called: Any) -> tuple[dict[str, inspect.Parameter], bool]:
    """Return the parameters of a class or function by name, and whether it takes no others.

    A class that passes `**settings` on to its base takes its base's parameters as well.
    """
    names: dict[str, inspect.Parameter] = {}
    if (
        getattr(called, "__init__", None) is object.__init__
        and getattr(called, "__new__", None) is object.__new__
    ):
        return names, True
    makers = [
        vars(c)["__init__"] for c in getattr(called, "__mro__", ()) if "__init__" in vars(c)
    ] or [called]
    for maker in makers:
        parameters = inspect.signature(maker).parameters.values()
        named = {
            p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        }
        names = {n: p for n, p in named.items() if n != "self" or maker is called} | names
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return names, maker is not object.__init__
    return names, False


def _check_names(
    key: str, node: Mapping[str, Any], names: Mapping[str, inspect.Parameter], all_known: bool
) -> None:
    given = set(node) - _SPECIAL
    target = node["_target_"]
    for name in sorted(given - set(names)) if all_known else ():
        raise UserError(
            f"{key}.{name}: {target} takes no {name}. {near(name, list(names))}{_takes(names)}"
        )
    lacking = [n for n, p in names.items() if p.default is p.empty and n not in given]
    if lacking and not node.get("_partial_"):
        raise UserError(f"{key}: {target} needs {lacking[0]}: give {key}.{lacking[0]} a value.")


def _takes(names: Mapping[str, Any]) -> str:
    return listed(sorted(names)).replace("There are:", "It takes") if names else "It takes nothing."


def instantiate(node: Any) -> Any:
    """Build what a config names.

    An error raised on the way is passed on as itself, not wrapped in Hydra's.
    """
    moved_names.update_config(node)
    try:
        return hydra_instantiate(node)
    except InstantiationException as error:
        chain = list(_chain(error))
        for cause in chain:
            if isinstance(cause, UserError):
                raise _without_places(cause) from None
        explained = _explained(node, error, chain[-1])
        if isinstance(explained, UserError):
            raise explained from error
        fault = next((e for e in chain if not isinstance(e, InstantiationException)), error)
        target = str(error).partition("'")[2].partition("'")[0]
        theirs = in_own_code(fault, f"building {target}")
        if theirs is not None:
            raise theirs from fault
        fault.add_note(f"while building {target}")
        raise fault from fault.__cause__


def _without_places(error: UserError) -> UserError:
    """Return the error without the lines that Gin adds.

    Gin, in which TF-Agents' classes are wrapped, adds a line for each class an error passes
    through.
    """
    lines = str(error).splitlines()
    plain = [line for line in lines if not line.startswith("  In call to configurable ")]
    return error if plain == lines else UserError("\n".join(plain))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _explained(node: Any, error: InstantiationException, cause: BaseException) -> Exception:
    """Return a one-line error if the config is at fault, else the error itself.

    A fault in code needs its traceback.
    """
    plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    at = re.search(r"full_key: (\S+)", str(error))
    said = " ".join(str(cause).split())
    target = str(error).partition("'")[2].partition("'")[0]
    lacking = re.fullmatch(
        r"(?:(\w+)\.__init__|(\w+))\(\) missing \d+ required .*?: '(\w+)'.*", said
    )
    if isinstance(cause, TypeError) and lacking:
        for key, named in nodes(plain):
            if str(named["_target_"]).rpartition(".")[2] == (lacking[1] or lacking[2]):
                return UserError(
                    f"{key}: {named['_target_']} needs {lacking[3]}: give {key}.{lacking[3]} a "
                    "value."
                )
    if at and isinstance(cause, TypeError | ValueError) and target.split(".")[0] in _LIBRARIES:
        return UserError(f"{at[1]}: {target} refuses its arguments: {said}")
    return error
