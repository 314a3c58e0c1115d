"""Lookup of env.id: a Gymnasium environment specification, or an error that helps."""

import difflib
import importlib
import importlib.util
import traceback

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from sparring.errors import UserError

# Packages that register their environments only once they are imported: (first part of an id, what
# to install, module)
_ELSEWHERE = (
    ("ALE/", "sparring[atari]", "ale_py"),
    ("MinAtar/", "minatar", "minatar.gym"),
    ("MiniGrid-", "sparring[minigrid]", "minigrid"),
    ("BabyAI-", "sparring[minigrid]", "minigrid"),
)
# Families of environments: (module of the entry point, the package, with its extra, that it needs)
_EXTRAS = (
    ("gymnasium.envs.box2d", "sparring[box2d]"),
    ("gymnasium.envs.mujoco", "sparring[mujoco]"),
    ("gymnasium.envs.phys2d", "gymnasium[jax]"),
    ("gymnasium.envs.tabular", "gymnasium[jax]"),
    ("gymnasium.envs.toy_text", "gymnasium[toy-text]"),
    ("gymnasium.envs.classic_control", "gymnasium[classic-control]"),
    ("sparring.envs.gymnasium_bridge.envpool", "sparring[envpool]"),
)


def find(env_id: str) -> tuple[str | None, EnvSpec]:
    """Return the module to import first (None: nothing) and the specification of `env_id`.

    `module:Name-v0` imports the module, which registers the name; `module:ClassName` names a class
    that is not registered. Packages that are known to register their environments only when
    imported, such as ale_py, are imported. Without a version, the newest one is taken.

    Raises:
        UserError: no such module, or no such environment; the message names the nearest ones.
    """
    module, _, name = str(env_id).rpartition(":")
    module = module or _registering(name)
    if module:
        loaded = _import(module, env_id)
        if name not in gym.registry and callable(getattr(loaded, name, None)):
            return module, EnvSpec(id=name, entry_point=f"{module}:{name}")
    name = _newest(name)
    if name not in gym.registry:
        raise UserError(_unknown(name, module))
    return module or None, gym.registry[name]


def _registering(name: str) -> str:
    """Return the installed module that registers environments of such a name, or ""."""
    modules = [registers for prefix, _, registers in _ELSEWHERE if name.startswith(prefix)]
    installed = modules and importlib.util.find_spec(modules[0].partition(".")[0])
    return modules[0] if installed and name not in gym.registry else ""


def _import(module: str, env_id: str) -> object:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        raise UserError(
            f"env.id={env_id}: there is no module {missing.name!r} to import here. Install the "
            "package that has it, "
            "or put its folder on PYTHONPATH."
        ) from missing
    except Exception as fault:
        raise UserError(
            f"env.id={env_id}: importing {module!r} failed:\n{traceback.format_exc().rstrip()}"
        ) from fault


def _newest(name: str) -> str:
    """Return `name` with its newest version, if it names an environment that has versions."""
    versions = [
        spec
        for spec in gym.registry.values()
        if spec.version is not None and name == spec.id.rpartition("-v")[0]
    ]
    return max(versions, key=lambda spec: spec.version or 0).id if versions else name


def _unknown(name: str, module: str) -> str:
    for prefix, package, _ in _ELSEWHERE:
        if name.startswith(prefix) and not module:
            return f"env.id={name} needs a package that is not installed: pip install '{package}'."
    near = nearest(name)
    text = (
        f"env.id={name} is not a registered Gymnasium "
        f"environment{' after importing ' + module if module else ''}. "
    )
    text += f"Did you mean {' or '.join(near)}? " if near else ""
    return (
        text
        + "One of your own: env.id=your_module:YourEnv-v0 imports your_module, which registers it."
    )


def nearest(name: str, count: int = 3) -> list[str]:
    """Return registered environments with names like `name`, in their newest versions.

    The closest match comes first; there are at most `count`.
    """
    newest: dict[str, EnvSpec] = {}
    for spec in gym.registry.values():
        base = spec.id.rpartition("-v")[0] if spec.version is not None else spec.id
        if base not in newest or (spec.version or 0) > (newest[base].version or 0):
            newest[base] = spec
    bases = {base.lower(): spec.id for base, spec in newest.items()}
    typed, _, version = name.lower().rpartition("-v")
    close = difflib.get_close_matches(
        typed if typed and version.isdigit() else name.lower(), bases, n=count, cutoff=0.7
    )
    return [bases[base] for base in close]


def missing_package(
    spec: EnvSpec, error: ImportError | gym.error.DependencyNotInstalled
) -> UserError:
    """Return the error that says what to install for an environment that failed to import."""
    entry = str(spec.entry_point or spec.vector_entry_point)
    extra = next((extra for module, extra in _EXTRAS if entry.startswith(module)), None)
    fix = f"pip install '{extra}'" if extra else "install it"
    reason = str(error).rstrip(".")
    return UserError(
        f"env.id={spec.id} needs a package that is not installed: {fix}. It says: {reason}."
    )
