"""Checkpoints under SIGKILL, at every change a save makes to the file system and at random moments;
and power cuts.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from sparring.storage.checkpoints import Checkpoints

pytestmark = pytest.mark.long

# Imports TensorFlow once, then forks a process for each line it reads: a folder, how large a
# variable, and before which of its changes to the file system the process kills itself (0: never,
# it saves until it is killed).
CHILD = """
import os, signal, sys
from pathlib import Path
import sparring
import tensorflow as tf
from sparring.storage.checkpoints import Checkpoints

CHANGES = {"os.mkdir", "os.rename", "shutil.rmtree", "os.rmdir"}

def kill_before_change(number):
    changes = 0
    def watch(event, args):
        nonlocal changes
        flags = args[2] if event == "open" and isinstance(args[2], int) else 0
        writes = flags & (os.O_WRONLY | os.O_RDWR)
        if event in CHANGES or writes:
            changes += 1
            if changes == number:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)

def saves(folder, size, kill_before):
    tensors = tf.train.Checkpoint(value=tf.Variable(tf.zeros([size])))
    checkpoints = Checkpoints(Path(folder), keep=1)
    for number in [20] if kill_before else range(1, 10**6):
        tensors.value.assign(tf.fill([size], float(number)))
        if kill_before:
            kill_before_change(kill_before)
        checkpoints.save(number, tensors, {"number": number})
        if not kill_before:
            Path(folder + ".saved").write_text(str(number))

for line in sys.stdin:
    folder, size, kill_before = line.split()
    child = os.fork()
    if child == 0:
        saves(folder, int(size), int(kill_before))
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def forker():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        yield process
        process.stdin.close()


def value_of(number, size):
    return tf.train.Checkpoint(value=tf.Variable(tf.fill([size], float(number))))


def whole_number(folder, size):
    """The number which the newest checkpoint holds everywhere; nothing but checkpoints is left in
    the folder.
    """
    tensors = value_of(-1, size)
    number = Checkpoints(folder).restore(tensors).host["number"]
    assert np.unique(tensors.value).tolist() == [number]
    assert all(path.name.startswith("step_") for path in folder.iterdir())
    return number


def test_a_kill_at_any_change_of_the_file_system_leaves_the_old_or_the_new(tmp_path, forker):
    before = Checkpoints(tmp_path / "before")
    for step in (10, 20):
        before.save(step, value_of(-step, 4), {"number": -step})
    found = []
    for kill_before in range(1, 50):  # while it replaces -20 by 20 and deletes -10
        folder = shutil.copytree(tmp_path / "before", tmp_path / str(kill_before))
        print(folder, 4, kill_before, file=forker.stdin, flush=True)
        forker.stdout.readline()
        status = int(forker.stdout.readline())
        found.append(whole_number(folder, 4))
        if found[-1] == -20:  # nothing old goes before the new one is there
            assert Checkpoints(folder).steps() == [10, 20]
        if status != -signal.SIGKILL:
            break
    assert status == 0
    assert found == sorted(found)
    assert set(found) == {-20, 20}
    # Two folders made, three files written, the old one moved aside and the new one into its place;
    # -10 moved, and two folders deleted (each counted before its files go and after); the last one
    # ran to its end.
    assert len(found) == 7 + 1 + 2 * 2 + 1


def test_kills_at_random_moments_lose_nothing_that_was_saved(tmp_path, forker):
    moments = random.Random(0)
    folder = tmp_path / "run"
    for _ in range(4):
        print(folder, 4_000_000, 0, file=forker.stdin, flush=True)
        child = int(forker.stdout.readline())
        patience = time.monotonic() + 60
        while not Path(f"{folder}.saved").exists():
            assert time.monotonic() < patience
            time.sleep(0.01)
        time.sleep(moments.uniform(0.1, 0.6))
        os.kill(child, signal.SIGKILL)
        assert int(forker.stdout.readline()) == -signal.SIGKILL
        # Empty if killed while it noted the number
        saved = int(Path(f"{folder}.saved").read_text() or 0)
        assert whole_number(folder, 4_000_000) in (saved, saved + 1) or saved == 0
        shutil.rmtree(folder)
        Path(f"{folder}.saved").unlink()


def test_the_disk_has_every_file_before_the_rename_and_the_rename_before_the_return(
    tmp_path, monkeypatch
):
    synced = []
    fsync = os.fsync
    rename = Path.rename

    def spy_fsync(descriptor):
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def spy_rename(path, target):
        synced.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "rename", spy_rename)
    folder = Checkpoints(tmp_path).save(1, value_of(1, 4), {"a": np.ones(3)})
    before = set(synced[: synced.index("rename")])
    assert len(list(folder.iterdir())) == 5
    assert {folder.stat().st_ino, *(path.stat().st_ino for path in folder.iterdir())} <= before
    assert synced[synced.index("rename") + 1 :] == [tmp_path.stat().st_ino]
