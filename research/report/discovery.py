"""Discovery of runs under a folder, whatever state they are in.

They may be finished, stopped, failed, killed, damaged or planned.
"""

import dataclasses
import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparring.errors import UserError
from sparring.storage import provenance, run_folder
from sparring.storage import settings as storage_settings
from sparring.storage.run_folder import RunFolder
from sparring.sweep.job import ENDED_WELL as ENDED
from sparring.tensorboard.hparams import DECLARATION
from sparring.training import tensorboard_page

OWN_EVENTS = ".events.json"  # in a report's folder: what it consists of
FOLDER = tensorboard_page.SHARED  # folder of a report, not searched for runs
_INNER = {"checkpoints", "best", FOLDER}  # folders of a run that hold no runs
_NOT_SETTINGS = ("run", "seed", "strategy", "device", *storage_settings.ABOUT)


@dataclass(frozen=True)
class Run:
    """Run found in a folder.

    `score` is the objective's last value; `settings` its config, flat, without keys that only name
    it. `status` is result.json's, or `running`, `killed` (it began and left no outcome), `planned`
    (a sweep's job that has not begun), `twin` (a repetition of another run of its sweep) or
    `damaged`. `problem` says why it does not count.
    """

    folder: Path
    sweep: str
    status: str
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, str] = field(default_factory=dict)
    tasks: Sequence[str] = ()
    objective: str = ""
    maximize: bool | None = None
    score: float | None = None
    final: Mapping[str, Any] = field(default_factory=dict)
    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    problem: str = ""

    @property
    def counts(self) -> bool:
        """Whether it was completed and has a score."""
        return self.status in ENDED and self.score is not None


@dataclass
class Found:
    """Result of a search: runs, and files that only look like a run's, each with the reason."""

    runs: list[Run] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


def find(folders: Sequence[Path]) -> Found:
    """Return every run in the folders and below.

    Raises:
        UserError: a folder does not exist, or there is no run in any.
    """
    found = Found()
    for named in folders:
        if not named.is_dir():
            raise UserError(f"{named}: there is no such folder.")
        folder = named.resolve()
        for place in _places(folder):
            _look(place, folder, found)
        found.runs += _planned(folder, found.runs)
    found.runs = _without_twins(found.runs)
    if not found.runs:
        beside = f" What is there: {'; '.join(found.foreign[:3])}." if found.foreign else ""
        raise UserError(f"{', '.join(map(str, folders))}: there are no runs to report.{beside}")
    return found


def _without_twins(runs: Sequence[Run]) -> list[Run]:
    """Return the runs, with repetitions of another one (`sparring rerun`) marked.

    A seed counts once.
    """
    seen: dict[str, Run] = {}
    marked = []
    for run in runs:
        same = json.dumps(
            [run.sweep, run.seed, run.settings, dict(run.choices)], sort_keys=True, default=str
        )
        first = seen.setdefault(same, run) if run.counts else run
        problem = f"{first.folder.name} over again: counted once"
        marked.append(
            run if first is run else dataclasses.replace(run, status="twin", problem=problem)
        )
    return marked


def _places(folder: Path) -> Iterator[Path]:
    """Yield the folders that look like runs; links are followed, as TensorBoard does."""
    seen = set()
    for place, inner, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        is_report = OWN_EVENTS in files and Path(place) != folder
        if real in seen or is_report:
            inner.clear()
            continue
        seen.add(real)
        inner[:] = sorted(name for name in inner if name not in _INNER and not name.startswith("."))
        events = [name for name in files if name.startswith("events.out.") and name != DECLARATION]
        if events or run_folder.CONFIG in files or run_folder.RESULT in files:
            yield Path(place)


def _look(place: Path, root: Path, found: Found) -> None:
    if not (place / run_folder.CONFIG).is_file():
        found.foreign.append(f"{place}: no {run_folder.CONFIG}")
        return
    try:
        config = run_folder.read_yaml(place / run_folder.CONFIG)
        if not (
            isinstance(config, dict) and isinstance(config.get("run"), dict) and "trainer" in config
        ):
            found.foreign.append(f"{place / run_folder.CONFIG}: not a run's")
            return
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())
        found.runs.append(
            Run(place, _sweep(place, root), "damaged", problem=f"{run_folder.CONFIG}: {said}"[:200])
        )
        return
    found.runs.append(_run(place, _sweep(place, root), config))


def _sweep(place: Path, root: Path) -> str:
    """Return the name of a run's sweep: its parent folder, relative to the given one's parent."""
    return str(place.parent.relative_to(root.parent)) if place != root else root.name


def _run(place: Path, sweep: str, config: dict[str, Any]) -> Run:
    result, problem = _result(place)
    objective = result.get("objective") or {}
    score = objective.get("value")
    status = _status(place, result, problem)
    origin = provenance.read(place)
    return Run(
        folder=place,
        sweep=sweep,
        status=status,
        seed=int(config.get("seed", 0)),
        settings={
            k: v
            for k, v in storage_settings.flat(config).items()
            if k.split(".")[0] not in _NOT_SETTINGS
        },
        choices=origin.get("choices", {}),
        tasks=config.get("tasks") or config.get("check_first") or (),
        objective=str(objective.get("name", "")),
        maximize=result.get("maximize"),
        score=number(score),
        final=result.get("final") or {},
        step=int(result.get("step") or 0),
        steps=int(config["run"].get("steps") or 0),
        seconds=sum((result.get("seconds") or {}).values()),
        problem=problem or _first_line(result.get("message")),
    )


def _result(place: Path) -> tuple[dict[str, Any], str]:
    try:
        return RunFolder(place).read_result(), ""
    except UserError as error:
        return {}, str(error)


def _status(place: Path, result: Mapping[str, Any], problem: str) -> str:
    if _locked(place):
        return "running"
    return "damaged" if problem else str(result.get("status") or "killed")


def _locked(place: Path) -> bool:
    """Return whether a process is training there (`run_folder.logged` holds a lock)."""
    try:
        descriptor = os.open(place, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)


def _planned(folder: Path, runs: Sequence[Run]) -> list[Run]:
    """Return the jobs of sweeps in the folder that left no run."""
    begun = {run.folder for run in runs}
    plans = [folder / run_folder.SWEEP, *folder.glob(f"*/{run_folder.SWEEP}")]
    found = []
    for plan in plans:
        try:
            jobs = json.loads(plan.read_text())["jobs"]
            names = [str(name) for name in jobs]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        absent = [plan.parent / name for name in names if plan.parent / name not in begun]
        found += [
            Run(job, _sweep(job, folder), "planned", problem="has not begun") for job in absent
        ]
    return found


def number(value: Any) -> float | None:
    """Return a finite number, or None: result.json has NaN and infinities as text."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _first_line(text: Any) -> str:
    return next(iter(str(text or "").strip().splitlines()), "")
