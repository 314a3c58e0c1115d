"""Environments that fail, and processes that die: the run hears of it in seconds, with the
environment's own words.
"""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from sparring.envs.gymnasium_bridge import workers
from sparring.envs.gymnasium_bridge.bridge import EnvironmentFault, Gymnasium
from sparring.errors import UserError
from tests.envs.gymnasium_bridge.test_vector import play

pytestmark = pytest.mark.long


def pids(vector) -> list[int]:
    return [process.pid for process in vector._vector.processes]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_an_environments_exception_comes_with_its_own_traceback_even_if_it_cannot_be_pickled(
    vectorization,
):
    vector = Gymnasium("tests.helpers.toy_envs:Jams", vectorization=vectorization).vector(2, seed=0)
    vector.reset()
    play(vector, np.array([[1, 0], [0, 0]]))
    before = vector.snapshot()
    with pytest.raises(EnvironmentFault) as fault:
        vector.step(np.array([0, 0]))
    text = str(fault.value)
    assert text.startswith("environment 0 (Jams) at step 3 failed:\nTraceback")
    assert "toy_envs.py" in text
    assert text.endswith("LockError: the simulator is jammed")
    assert isinstance(fault.value, UserError)
    np.testing.assert_equal(vector.snapshot(), before)  # a checkpoint now holds the last whole step
    with pytest.raises(EnvironmentFault, match="jammed"):
        vector.step(np.array([0, 0]))
    vector.close()


def test_a_worker_killed_between_steps_is_named_at_once_and_its_environment_can_still_be_restored():
    env = Gymnasium("CartPole-v1", vectorization="async")
    vector = env.vector(3, seed=0)
    straight = Gymnasium("CartPole-v1").vector(3, seed=0)
    vector.reset()
    straight.reset()
    actions = np.array([[0, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1]])
    play(vector, actions[:2])
    play(straight, actions[:2])
    processes = pids(vector)
    os.kill(processes[1], signal.SIGKILL)
    with pytest.raises(EnvironmentFault, match=r"CartPole-v1: worker 1 died \(signal 9, SIGKILL\)"):
        play(vector, actions[2:])
    assert all(map(gone, processes))
    vector.close()
    resumed = Gymnasium("CartPole-v1").vector(3, seed=0)
    assert resumed.restore(vector.snapshot()) == []
    np.testing.assert_equal([*resumed.step(actions[2])], [*straight.step(actions[2])])


def test_a_worker_killed_within_a_step_is_named_too():
    env = Gymnasium("tests.helpers.toy_envs:Dies", {"at": 3}, vectorization="async")
    vector = env.vector(2, seed=0)
    vector.reset()
    play(vector, np.array([[1, 0], [0, 0]]))
    before = vector.snapshot()
    with pytest.raises(EnvironmentFault, match=r"worker [01] died \(signal 9, SIGKILL\)"):
        vector.step(np.array([0, 0]))
    np.testing.assert_equal(vector.snapshot(), before)


def test_a_worker_that_cannot_build_its_environment_is_named(tmp_path):
    """It is built once here first, by the check and for Gymnasium's sake; this one fails from the
    third time on.
    """
    counter = tmp_path / "built"
    env = Gymnasium(
        "tests.helpers.toy_envs:FailsLater",
        {"counter": str(counter), "good": 2},
        vectorization="async",
    )
    with pytest.raises(
        EnvironmentFault,
        match=r"worker [01].* died \(exit code 1\).* while it built its environment",
    ):
        env.vector(2, seed=0)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_closing_closes_the_environments(tmp_path, vectorization):
    env = Gymnasium(
        "tests.helpers.toy_envs:Closes", {"folder": str(tmp_path)}, vectorization=vectorization
    )
    vector = env.vector(3, seed=0)
    vector.reset()
    before = len(list(tmp_path.iterdir()))  # those that were built to ask for their spaces
    vector.close()
    vector.close()
    assert len(list(tmp_path.iterdir())) == before + 3


def test_a_worker_that_does_not_answer_is_killed_at_the_end(monkeypatch):
    monkeypatch.setattr(workers, "CLOSING_SECONDS", 0.3)
    vector = Gymnasium("CartPole-v1", vectorization="async").vector(2, seed=0)
    vector.reset()
    processes = pids(vector)
    os.kill(processes[0], signal.SIGSTOP)
    vector.close()
    assert all(map(gone, processes))


def test_signals_to_the_whole_group_leave_the_workers_to_their_parent():
    vector = Gymnasium("CartPole-v1", vectorization="async").vector(2, seed=0)
    vector.reset()
    assert os.getpgrp() not in {os.getpgid(pid) for pid in pids(vector)}
    vector.close()


def test_environments_at_hand_leave_this_process_as_it_is():
    group, (_, numbers, *_) = os.getpgrp(), np.random.get_state()
    Gymnasium("tests.helpers.toy_envs:Chain").vector(2, seed=0)
    assert os.getpgrp() == group
    np.testing.assert_array_equal(np.random.get_state()[1], numbers)


def test_a_worker_knows_what_the_named_module_registers(tmp_path, monkeypatch):
    """The entry point lies in another module, and makes a second environment that only the named
    one registers.
    """
    (tmp_path / "lab_names.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('lab/Outer-v0', 'lab_code:outer')\n"
        "gymnasium.register('lab/Inner-v0', 'tests.helpers.toy_envs:Chain')\n"
    )
    (tmp_path / "lab_code.py").write_text(
        "import gymnasium\nouter = lambda: gymnasium.make('lab/Inner-v0')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    vector = Gymnasium("lab_names:lab/Outer-v0", vectorization="async").vector(1, seed=0)
    np.testing.assert_array_equal(vector.reset(), [[0]])
    vector.close()


def test_each_worker_has_a_global_numpy_generator_of_its_own_that_repeats():
    """They are forked from one server, and would all draw the same."""
    env = Gymnasium("tests.helpers.toy_envs:OwnDraw", vectorization="async")
    draws = []
    for _ in range(2):
        vector = env.vector(3, seed=8)
        draws.append(vector.reset().ravel())
        vector.close()
    assert len(set(draws[0])) == 3
    np.testing.assert_array_equal(*draws)


def test_workers_outlive_neither_their_parent_nor_import_tensorflow(tmp_path):
    """A parent that has TensorFlow loaded starts two workers, says what they have loaded, and is
    killed.
    """
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, signal\n"
        "from sparring.envs.gymnasium_bridge.bridge import Gymnasium\n"
        "if __name__ == '__main__':\n"
        "    import tensorflow\n"
        "    vector = Gymnasium('CartPole-v1', vectorization='async').vector(2, seed=0)\n"
        "    vector.reset()\n"
        "    for process in vector._vector.processes:\n"
        "        maps = open(f'/proc/{process.pid}/maps').read()\n"
        "        print(process.pid, 'numpy' in maps, 'tensorflow' in maps, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = os.pathsep.join(p for p in sys.path if p)
    run = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = [line.split() for line in run.stdout.splitlines()]
    assert [line[1:] for line in lines] == [["True", "False"]] * 2, run.stderr
    deadline = time.monotonic() + 10
    while not all(gone(int(line[0])) for line in lines) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(gone(int(line[0])) for line in lines)
