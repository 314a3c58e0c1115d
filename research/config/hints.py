"""Hints for what people type out of habit: names of other libraries, and values in short forms.

Each returns a sentence that ends in a space, or nothing. What a sentence tells to write is taken.
"""

import re
from collections.abc import Iterable
from pathlib import Path

# Names that other libraries give a setting -> the last part of its key here
SYNONYMS = {
    "alpha": "learning_rate",
    "batch": "batch_size",
    "buffer_size": "capacity",
    "clip_range": "clip",
    "clip_ratio": "clip",
    "ent_coef": "entropy_coefficient",
    "eps": "epsilon",
    "epsilon_greedy": "epsilon",
    "gae": "gae_lambda",
    "gamma": "discount",
    "grad_clip": "global_clipnorm",
    "hidden": "units",
    "hidden_sizes": "units",
    "iterations": "steps",
    "lam": "gae_lambda",
    "lambda": "gae_lambda",
    "lr": "learning_rate",
    "max_grad_norm": "global_clipnorm",
    "max_steps": "steps",
    "memory_size": "capacity",
    "n_envs": "num_envs",
    "n_epochs": "epochs",
    "n_steps": "rollout_steps",
    "num_steps": "rollout_steps",
    "replay_size": "capacity",
    "target_update_interval": "target_period",
    "tau": "target_tau",
    "timesteps": "steps",
    "total_steps": "steps",
    "total_timesteps": "steps",
    "vf_coef": "value_coefficient",
}
_SCALES = {"k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
# Options of the group data that read a file of the user's, by its ending
_READERS = {".csv": "table", ".npz": "npz", ".tsv": "text", ".txt": "text"}


def synonym(key: str, known: Iterable[str]) -> str:
    """Return which of the `known` keys is what another library calls `key`."""
    parent, _, last = key.rpartition(".")
    meant = SYNONYMS.get(last.lower())
    if meant is None:
        return ""
    found = [name for name in known if name.rpartition(".")[2] == meant]
    found.sort(key=lambda name: (not name.startswith(f"{parent}."), name.count(".")))
    return f"Did you mean {found[0]}? " if found else ""


def whole_number(value: object) -> str:
    """Return how a whole number in a short form is written out: 1M, 10k, 1.5e6k."""
    match = re.fullmatch(r"(\d[\d_]*(?:\.\d+)?)([kmgb])", str(value).strip().lower())
    if match is None:
        return ""
    number = float(match[1].replace("_", "")) * _SCALES[match[2]]
    return f"Write {number:.0f}. " if number.is_integer() else ""


def environment(option: str) -> str:
    """Return how to choose a Gymnasium environment that was typed as if it were an option."""
    import gymnasium  # here, as it takes a while

    newest: dict[str, tuple[int, str]] = {}
    for spec in gymnasium.registry.values():
        if spec.namespace == "sparring":  # the compiled ones, which are options themselves
            continue
        candidate = (spec.version or 0, spec.id)
        plain = _plain(spec.name)
        newest[plain] = max(candidate, newest.get(plain, candidate))
    found = option if option in gymnasium.registry else None
    if found is None and _plain(option) in newest:
        found = newest[_plain(option)][1]
    if found is None and re.fullmatch(r"[\w.:/-]+-v\d+|[\w.]+:[\w/-]+", option):
        found = option
    return f"A Gymnasium environment is env=gymnasium env.id={found}. " if found else ""


def _plain(name: str) -> str:
    """Return a name without its version, capitals and punctuation: lunarlander."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"-v\d+$", "", name).lower())


def data(option: str) -> str:
    """Return how to read a file or folder that was typed as if it were an option."""
    path = Path(option)
    reader = "folder" if path.is_dir() else _READERS.get(path.suffix.lower())
    if reader is None or not path.exists():
        return ""
    return f"Data of yours is data={reader} data.path={option}. "
