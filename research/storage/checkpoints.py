"""Checkpoints that are complete or absent: written aside and renamed, verified before reading.

One folder per checkpoint, `step_000000012345/`: TensorFlow's files (weights, optimizer slots,
replay, counters), the host's state and a manifest (`research/storage/manifest.py`). TensorFlow's
own CheckpointManager is not used: it leaves the remains of a killed save for ever, does not check
whether files are sound, and takes a missing index for a fresh start.

Checkpoints written on TensorFlow 2.15 with its Keras can be read on 2.21 with tf-keras, and the
other way round: the variables are identical bit for bit, optimizer slots included. Training goes on
from there, but not to the same last bit as on the TensorFlow that wrote them, whose kernels round
differently.

Build Keras optimizers (`optimizer.build(variables)`) before saving and before restoring: slots that
appear only at the first step do not exist yet for the restore, which refuses them.
"""

import contextlib
import errno
import fcntl
import functools
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from sparring.errors import UserError
from sparring.storage import manifest, variable_names
from sparring.storage.variable_names import Leaf

_log = logging.getLogger("sparring")
_SCRATCH = ".scratch-"  # a checkpoint being written or thrown away: worth nothing after a kill
# A checkpoint whose successor of the same step is about to take its place: put back after a kill
_ASIDE = ".aside-"


class SaveFailed(UserError):  # noqa: N818 - named for what happened; training may go on after it
    """Raised when a checkpoint could not be written, usually because the disk is full.

    Earlier checkpoints are untouched.
    """


class Restored(NamedTuple):
    """Result of a restore: the step, the host's state, and the checkpoint's folder."""

    step: int
    host: dict[str, Any]
    folder: Path


class Checkpoints:
    """Checkpoints of one run, in one folder.

    Args:
        folder: their folder; created at the first save. The remains of a killed save there are
            cleaned up here, unless another process is saving there at this moment (so a running
            experiment can be evaluated).
        keep: how many to keep. Older ones are deleted once a newer one is in place.
    """

    def __init__(self, folder: Path, keep: int = 3):
        if keep < 1:
            raise UserError(f"{keep} checkpoints to keep: at least one has to be.")
        self._folder = Path(folder)
        self._keep = keep
        self._damaged: set[int] = set()
        if self._folder.is_dir():
            with _locked(self._folder, wait=False) as alone:
                if alone:
                    _tidy(self._folder)

    def steps(self) -> list[int]:
        """Return the steps of all checkpoints, damaged ones too, in ascending order."""
        try:
            found = [
                re.fullmatch(r"step_(\d{12,})", path.name)
                for path in self._folder.iterdir()
                if path.is_dir()
            ]
        except FileNotFoundError:
            return []
        except OSError as error:  # not "no checkpoints": that would start the run afresh
            raise UserError(
                f"The checkpoints in {self._folder} cannot be listed: {error.strerror}."
            ) from error
        return sorted(int(name[1]) for name in found if name)

    def save(self, step: int, tensors: tf.train.Checkpoint, host: Mapping[str, Any]) -> Path:
        """Write one checkpoint, and delete those past `keep`.

        A checkpoint of the same step is replaced. `tensors` holds every variable, `host` what
        `manifest.encode_host` accepts. Returns the checkpoint's folder, once the disk has it. A
        kill at any moment before leaves the earlier checkpoints as they were.

        Raises:
            SaveFailed: it could not be written; the earlier checkpoints are untouched.
        """
        host_json, host_npz = manifest.encode_host(host)
        folder = self._path(step)
        scratch = self._folder / f"{_SCRATCH}{folder.name}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with _workshop(self._folder):
                scratch.mkdir()
                manifest.write(scratch / manifest.HOST, host_json)
                manifest.write(scratch / manifest.ARRAYS, host_npz)
                tensors.write(str(scratch / manifest.TENSORS))
                manifest.seal(scratch, int(step), {"tensorflow": tf.__version__})
                if folder.exists():
                    folder.rename(self._folder / f"{_ASIDE}{folder.name}")
                scratch.rename(folder)
                manifest.fsync(self._folder)
                self._retire(int(step))
        except (OSError, tf.errors.OpError) as error:
            raise SaveFailed(
                f"No checkpoint of step {step} in {self._folder}: {_why(error)}. The earlier ones "
                "are untouched "
                f"({len(self.steps())} there). Make room, or choose another run folder."
            ) from error
        return folder

    def newest_host(self) -> dict[str, Any]:
        """Return the host's state of the newest checkpoint, unverified; empty if it has none."""
        steps = self.steps()
        if not steps:
            return {}
        try:
            return _read_host(self._path(steps[-1]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # it is damaged
            return {}

    def restore(
        self,
        tensors: tf.train.Checkpoint | None,
        *,
        step: int | None = None,
        accept: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> Restored | None:
        """Load the newest sound checkpoint, or the one of `step`, into `tensors`.

        Only the host's state is read if `tensors` is None. `accept` is given that state before
        anything is assigned, and may raise. Returns None only when there is no checkpoint at
        all. A damaged one is named in a warning and the next older sound one taken; the next save
        then removes it.

        Raises:
            UserError: none is sound, `step` does not exist or is damaged, or the checkpoint and
                `tensors` do not hold the same variables with the same shapes and dtypes; nothing
                has been assigned then.
        """
        steps = self.steps()
        if step is not None and step not in steps:
            raise UserError(
                f"No checkpoint of step {step} in {self._folder}; there are: {steps or 'none'}."
            )
        if not steps:
            return None
        candidates = steps[::-1] if step is None else [step]
        faults: dict[int, str] = {}
        for candidate in candidates:
            folder = self._path(candidate)
            try:
                manifest.verify(folder, candidate)
            except manifest.DamagedError as error:
                faults[candidate] = str(error)
                continue
            for damaged, fault in faults.items():
                _log.warning(
                    "Checkpoint %s is damaged: %s. Taking %s.",
                    self._path(damaged),
                    fault,
                    folder.name,
                )
            self._damaged |= faults.keys()
            host = _read_host(folder)
            if accept is not None:
                accept(host)
            if tensors is not None:
                _read(tensors, folder)
            return Restored(candidate, host, folder)
        listed = "".join(
            f"\n  {self._path(damaged).name}: {fault}" for damaged, fault in faults.items()
        )
        raise UserError(
            f"No sound checkpoint to resume from in {self._folder}:{listed}\n"
            "Delete that folder to train from the start, or start a new run."
        )

    def _path(self, step: int) -> Path:
        return self._folder / f"step_{step:012d}"

    def _retire(self, saved: int) -> None:
        """Delete all but `saved` and the newest others; damaged ones do not count as kept."""
        self._damaged.discard(saved)
        others = [step for step in self.steps() if step != saved]
        sound = [step for step in others if step not in self._damaged]
        kept = sound[max(0, len(sound) - self._keep + 1) :]
        for step in set(others) - set(kept):
            # Renamed first: a kill in the middle must not leave half a checkpoint under a
            # checkpoint's name
            try:
                shutil.rmtree(
                    self._path(step).rename(self._folder / f"{_SCRATCH}{self._path(step).name}")
                )
            except OSError as error:
                _log.warning(
                    "Old checkpoint %s could not be deleted: %s.", self._path(step), error.strerror
                )


def restore_into(tensors: tf.train.Checkpoint, folder: Path) -> int:
    """Load part of the checkpoint in `folder`, for a warm start or an evaluation.

    `folder` is one `step_...` folder. Every variable in `tensors` must be in the checkpoint, under
    the same names, with the same shape and dtype; the checkpoint's other content is ignored.
    Returns its step.

    Raises:
        UserError: a variable does not fit, the checkpoint is damaged, or `folder` is not one;
            nothing has been assigned then.
    """
    step = _verified(folder)
    _read(tensors, folder, partly=True)
    return step


def _verified(folder: Path) -> int:
    """Return the step of the checkpoint in a folder.

    Raises:
        UserError: the folder is no checkpoint, or it is damaged.
    """
    name = re.fullmatch(r"step_(\d{12,})", folder.name)
    if name is None or not folder.is_dir():
        raise UserError(f"{folder} is not a checkpoint: give one of the step_... folders of a run.")
    try:
        manifest.verify(folder, int(name[1]))
    except manifest.DamagedError as fault:
        raise UserError(
            f"Checkpoint {folder} is damaged: {fault}. Choose another one of that run."
        ) from fault
    return int(name[1])


def contents(folder: Path) -> dict[str, tuple[Leaf, Callable[[], Any]]]:
    """Return the variables in the checkpoint in `folder`, each with a function that reads it.

    `folder` is one `step_...` folder. Names are those of
    `sparring.storage.variable_names.named_variables`.
    """
    _verified(folder)
    reader = tf.train.load_checkpoint(str(folder / manifest.TENSORS))
    found = variable_names.named(str(folder / manifest.TENSORS))
    return {
        name: (leaf, functools.partial(reader.get_tensor, leaf.key)) for name, leaf in found.items()
    }


def _read_host(folder: Path) -> dict[str, Any]:
    return manifest.decode_host(
        (folder / manifest.HOST).read_bytes(), (folder / manifest.ARRAYS).read_bytes()
    )


def _read(tensors: tf.train.Checkpoint, folder: Path, partly: bool = False) -> None:
    """Assign the values of a verified checkpoint to the variables of `tensors`.

    Both must hold the same variables; with `partly` the checkpoint may hold others besides.
    """
    prefix = str(folder / manifest.TENSORS)
    faults = variable_names.differences(tensors, prefix, partly)
    if not faults:
        status = tensors.read(prefix)
        status.expect_partial()  # silences the warnings at exit, not the assertions
        try:
            status.assert_existing_objects_matched()
            if not partly:
                status.assert_consumed()
        except AssertionError as error:
            # Neither variables nor children, such as slots of tf.compat.v1 optimizers
            faults = [str(error)]
    if faults:
        shown = "".join(f"\n  {fault}" for fault in faults[:20])
        more = f"\n  and {len(faults) - 20} more" if len(faults) > 20 else ""
        raise UserError(
            f"Checkpoint {folder} does not fit what these settings build:{shown}{more}\n"
            "Use the settings that wrote it, or start a new run."
        )


@contextlib.contextmanager
def _workshop(folder: Path) -> Iterator[None]:
    """Work on a folder of checkpoints exclusively, and leave nothing half done whatever happens."""
    with _locked(folder, wait=True):
        _tidy(folder)
        try:
            yield
        finally:
            _tidy(folder)


@contextlib.contextmanager
def _locked(folder: Path, wait: bool) -> Iterator[bool]:
    """Hold a folder's lock, which dies with the process.

    Yields False if `wait` is false and another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    alone = True
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            alone = False
        except OSError:
            # A file system without locks: the user must run one process per run folder
            _log.debug("No file locks in %s.", folder)
        yield alone
    finally:
        os.close(descriptor)


def _tidy(folder: Path) -> None:
    """Delete what a killed or failed save left, and put back what it was about to replace."""
    for path in list(folder.iterdir()):
        replaced = folder / path.name.removeprefix(_ASIDE)
        try:
            if path.name.startswith(_ASIDE) and not replaced.exists():
                path.rename(replaced)
            elif path.name.startswith((_ASIDE, _SCRATCH)):
                shutil.rmtree(path)
        except OSError as error:
            _log.warning(
                "%s, left by an earlier save, could not be cleaned up: %s.", path, error.strerror
            )


def _why(error: Exception) -> str:
    # TensorFlow wraps the system's message in names of graph functions and ops
    if isinstance(error, tf.errors.OpError):
        detail = re.sub(r"^{{.*?}} | \[Op:\w+\]$", "", error.message)
        return (
            f"the disk is full ({detail})"
            if isinstance(error, tf.errors.ResourceExhaustedError)
            else detail
        )
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"the disk is full ({error})" if full else str(error)
