"""Optuna study on disk, shared by any number of processes that may be killed at any moment.

Optuna 5 is driven by ask and tell. Its journal is a file to which every process appends. A trial is
held by the process that runs it through a lock on a file, which the kernel releases when the
process ends, however that happens: a trial that is running in the journal while no process holds it
is taken up by the next one that asks, and its runs resume.

Scores are always maximised: an objective to minimise is stored with its sign changed.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparring.errors import UserError
from sparring.sweep.search_space import Space

JOURNAL = "study.journal"
_LOCKS = ".trials"
_SAMPLERS = ("tpe", "random", "grid")
_PRUNERS = ("median", "halving", "none")


class Study:
    """Study in a folder.

    Args:
        root: the folder.
        space: the search space.
        fixed: further settings common to its trials, compared with those the study was begun with.
        sampler: "tpe", "random" or "grid".
        pruner: "median" (below the median of the trials before it at the same step), "halving" or
          "none".
        seed: of the sampler.

    Raises:
        UserError: Optuna is not installed; the study there has another space, other settings or
          another sampler.
    """

    def __init__(
        self,
        root: Path,
        space: Space,
        fixed: Mapping[str, Any],
        sampler: str,
        pruner: str,
        seed: int,
    ) -> None:
        optuna = _optuna()
        self.root = root
        self.space = space
        self.grid = sampler == "grid"
        root.mkdir(parents=True, exist_ok=True)
        (root / _LOCKS).mkdir(exist_ok=True)
        backend = optuna.storages.journal.JournalFileBackend(
            str(root / JOURNAL),
            lock_obj=optuna.storages.journal.JournalFileOpenLock(str(root / JOURNAL)),
        )
        storage = optuna.storages.JournalStorage(backend)
        with _Lock(root / _LOCKS / "study", wait=True):
            self.study = optuna.create_study(
                storage=storage,
                study_name="study",
                direction="maximize",
                load_if_exists=True,
                pruner=_pruner(pruner),
            )
            self._agree({"space": space.dimensions, "sampler": sampler, **fixed})
        self.study.sampler = _sampler(sampler, seed + len(self.study.trials))
        self._held: dict[int, _Lock] = {}

    def _agree(self, wanted: Mapping[str, Any]) -> None:
        """Begin the study with these settings, or compare them with those it was begun with."""
        plain = json.loads(json.dumps(wanted))
        before = self.study.user_attrs.get("settings")
        if before is None:
            self.study.set_user_attr("settings", plain)
            for point in self.space.grid() if self.grid else []:
                self.study.enqueue_trial(point)
            return
        changed = sorted(_differences(before, plain))
        if changed:
            lines = "".join(f"\n  {key}: {old} -> {new}" for key, old, new in changed)
            raise UserError(
                f"{self.root} holds a study of something else:{lines}\n"
                "Search with the old values to go on with it, or give this one a run.name of its "
                "own."
            )

    def next(self, limit: int) -> Any | None:
        """Return a trial to run, now held by this process, or None if there is none.

        It is one that no process runs any more, else a new one. There is none if `limit` trials
        exist already, or a grid has no more points.
        """
        with _Lock(self.root / _LOCKS / "study", wait=True):
            trials = self.study.get_trials(deepcopy=False)
            for trial in trials:
                if (
                    trial.state.name == "RUNNING"
                    and trial.number not in self._held
                    and self._hold(trial.number)
                ):
                    return _optuna().trial.Trial(self.study, trial._trial_id)
            begun = sum(trial.state.name != "WAITING" for trial in trials)
            if begun >= limit or (self.grid and begun == len(trials)):
                return None
            trial = self.study.ask(self.space.distributions())
            self._hold(trial.number)
            return trial

    def _hold(self, number: int) -> bool:
        lock = _Lock(self.root / _LOCKS / f"{number:05d}")
        if lock.taken:
            self._held[number] = lock
        return lock.taken

    def tell(self, trial: Any, score: float | None, state: str = "COMPLETE") -> None:
        """Record the end of a trial: with a score, or in the state PRUNED or FAIL."""
        states = _optuna().trial.TrialState
        self.study.tell(trial.number, score, state=states[state])
        self.release(trial.number)

    def release(self, number: int) -> None:
        """Release a trial that has not ended, for another process to take up."""
        self._held.pop(number).free()

    def best(self) -> Any | None:
        """Return the best complete trial; None before there is one."""
        try:
            return self.study.best_trial
        except ValueError:
            return None


class _Lock:
    """Lock on a file, held while this process lives. `taken`: whether it was acquired."""

    def __init__(self, path: Path, wait: bool = False) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            self.taken = True
        except BlockingIOError:
            os.close(self._descriptor)
            self.taken = False

    def free(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> "_Lock":
        return self

    def __exit__(self, *error: object) -> None:
        self.free()


def _differences(old: Any, new: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict) and "low" not in old and "low" not in new:
        keys = sorted({*old, *new})
        found = []
        for k in keys:
            before = old.get(k, "absent")
            found += _differences(before, new.get(k, "absent"), f"{prefix}{k}.")
        return found
    return [] if old == new else [(prefix[:-1], old, new)]


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise UserError("sparring search needs Optuna: pip install 'sparring[search]'.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _sampler(name: str, seed: int) -> Any:
    samplers = _optuna().samplers
    # With constant_liar, running trials count as bad ones, so that processes spread out
    if name == "tpe":
        return samplers.TPESampler(seed=seed, constant_liar=True)
    if name in ("random", "grid"):
        return samplers.RandomSampler(seed=seed)
    raise UserError(f"--sampler {name}: there are {', '.join(_SAMPLERS)}.")


def _pruner(name: str) -> Any:
    pruners = _optuna().pruners
    if name == "median":
        return pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=0)
    if name == "halving":
        return pruners.SuccessiveHalvingPruner()
    if name == "none":
        return pruners.NopPruner()
    raise UserError(f"--pruner {name}: there are {', '.join(_PRUNERS)}.")
