"""Groups of runs: methods and tasks, named by what varied.

Each gets the shortest name that distinguishes it from the others. A task is what runs are compared
on (an environment, a data set): the parts of the config that its `tasks` names, called by their id,
else by the chosen option, else by their class. All else that varied, except the seed, makes a
method. A setting that follows from another's choice, such as the replay buffer's size from
agent=dqn, or a learning rate tuned for each environment from the environment, is no part of a name.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparring.report.discovery import Run

_Key = Callable[[Run], Hashable]


@dataclass(frozen=True)
class Group:
    """Runs of one method on one task, one for each seed, in the order of seeds."""

    method: str
    task: str
    runs: tuple[Run, ...]

    @property
    def counted(self) -> list[Run]:
        """Runs that count."""
        return [run for run in self.runs if run.counts]

    def scores(self) -> dict[int, float]:
        """Return seed -> score, of the runs that count."""
        return {run.seed: run.score for run in self.counted if run.score is not None}


def groups(runs: Sequence[Run]) -> list[Group]:
    """Return every method on every task, in the order of first appearance.

    Planned and damaged runs are in none.
    """
    known = [run for run in runs if run.settings]
    task_keys, method_keys = _telling(known)
    found: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in known:
        found[
            _name(run, method_keys) or "all", ", ".join([_task(run), *_words(run, task_keys)])
        ].append(run)
    return [
        Group(method, task, tuple(sorted(several, key=_order)))
        for (method, task), several in found.items()
    ]


def _order(run: Run) -> tuple[int, str]:
    return run.seed, str(run.folder)


def _telling(runs: Sequence[Run]) -> tuple[dict[str, _Key], dict[str, _Key]]:
    """Return the fewest keys that distinguish tasks, and those that distinguish methods.

    Each is label -> a function of a run that returns its value.
    """
    tasks = {part for run in runs for part in run.tasks}
    chosen = sorted({key for run in runs for key in run.choices if "/" not in key})
    settings = sorted(
        {key for run in runs for key in run.settings}, key=lambda k: (not k.endswith("_target_"), k)
    )
    candidates: list[tuple[bool, str, _Key]] = [
        *(
            (False, k, _choice(k))
            for k in chosen
            if _part(k) not in tasks and k not in ("experiment", "debug")
        ),
        *((True, k, _setting(k)) for k in settings if k.split(".")[0] in tasks),
        *(
            (False, k, _setting(k))
            for k in settings
            if k.endswith("._target_") and k.split(".")[0] not in tasks
        ),
        (False, "sweep", lambda run: run.sweep),
        *((False, k, _setting(k)) for k in settings if k.split(".")[0] not in tasks),
    ]
    candidates.sort(key=lambda c: not c[0])  # tasks first, otherwise in the same order
    kept: tuple[dict[str, _Key], dict[str, _Key]] = ({}, {})
    parts = _split(runs, _task)
    for is_task, label, key in candidates:
        refined: list[list[Run]] = []
        for part in parts:
            refined += _split(part, key)
        if len(refined) > len(parts):
            kept[0 if is_task else 1][label] = key
            parts = refined
    return kept


def _part(choice: str) -> str:
    """Return the part of the config that a choice fills.

    `optimizer@generator_optimizer` fills the latter.
    """
    return choice.rpartition("@")[2]


def _choice(key: str) -> _Key:
    return lambda run: run.choices.get(key)


def _setting(key: str) -> _Key:
    return lambda run: (
        json.dumps(run.settings[key], sort_keys=True) if key in run.settings else None
    )


def _split(runs: Iterable[Run], key: _Key) -> list[list[Run]]:
    parts: dict[Hashable, list[Run]] = defaultdict(list)
    for run in runs:
        parts[key(run)].append(run)
    return list(parts.values())


def _name(run: Run, keys: Mapping[str, _Key]) -> str:
    return ", ".join(_words(run, keys))


def _words(run: Run, keys: Mapping[str, _Key]) -> list[str]:
    last = [label.rpartition(".")[2] for label in keys]
    words = []
    for label, key in keys.items():
        value = key(run)
        short = label.rpartition(".")[2]
        if value is None:
            continue  # the run has no such part
        text = _plain(value)
        telling = "." not in label or short == "_target_"  # such as dqn in agent=dqn
        words.append(text if telling else f"{short if last.count(short) == 1 else label}={text}")
    return words


def _plain(value: Any) -> str:
    """Return a value as a user writes it; of a `_target_` the last part."""
    value = (
        json.loads(value)
        if isinstance(value, str) and value[:1] in '"[{-0123456789tfn' and _json(value)
        else value
    )
    text = value if isinstance(value, str) else json.dumps(value)
    return (
        text.rpartition(".")[2]
        if text.count(".") and text.replace(".", "").replace("_", "").isalpha()
        else text
    )


def _json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _task(run: Run) -> str:
    """Return a task's name: for each part its id, else the chosen option, else its class."""
    names = [_named(run, part) for part in run.tasks]
    return ", ".join(filter(None, names)) or "task"


def _named(run: Run, part: str) -> str:
    settings = run.settings
    return str(
        settings.get(f"{part}.id")
        or run.choices.get(part)
        or _plain(settings.get(f"{part}._target_", ""))
    )
