"""Jobs that crash, leave, are killed, take too much or are stopped: each ends alone, and its end is
written down.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sparring.errors import UserError
from sparring.processes import resources, spawn
from sparring.sweep import job as sweep_job
from sparring.sweep.job import Job
from sparring.sweep.live_table import LiveTable
from sparring.sweep.scheduler import Pool, Settings
from tests.helpers import runs

pytestmark = pytest.mark.long

RESULT = """
import json, os, pathlib, sys, time, signal
def result(status="finished", **more):
    objective = {"name": "score", "value": 1.5}
    said = {"status": status, "objective": objective, **more}
    pathlib.Path("result.json").write_text(json.dumps(said))
"""


@pytest.fixture(autouse=True)
def light(monkeypatch):
    """A job here is a few lines of Python, run in its folder, in place of a command of ours."""
    monkeypatch.setattr(
        spawn, "_PROGRAM", f"import os, sys; os.chdir(sys.argv[2]); exec({RESULT!r} + sys.argv[3])"
    )


def made(folder: Path, name: str, code: str, **more) -> Job:
    return Job(folder / name, str(folder / name), [code], **more)


def run(folder: Path, codes: dict[str, str], **settings) -> dict[str, Job]:
    ended = Pool(Settings(**settings), LiveTable(len(codes))).run(
        made(folder, name, code) for name, code in codes.items()
    )
    return {job.name: job for job in ended}


def test_whatever_a_job_does_the_others_finish(tmp_path, capsys):
    ended = run(
        tmp_path,
        {
            "good": "result()",
            "raises": "print('first'); raise RuntimeError('the wheel came off')",
            "leaves": "sys.exit(0)",
            "leaves at once": "os._exit(3)",
            "killed": "os.kill(os.getpid(), signal.SIGKILL)",
            "crashes": "os.abort()",
            "nan": "result('nan', message='Not finite: loss\\nTry less'); sys.exit(1)",
            "mistaken": "result('failed', message='no such key'); sys.exit(2)",
            "stopped": "result('stopped')",
            "also good": "result('target')",
        },
        jobs=3,
    )
    assert {name: job.status for name, job in ended.items()} == {
        "good": "finished",
        "raises": "failed",
        "leaves": "failed",
        "leaves at once": "failed",
        "killed": "failed",
        "crashes": "failed",
        "nan": "nan",
        "mistaken": "failed",
        "stopped": "stopped",
        "also good": "target",
    }
    reasons = {name: job.reason for name, job in ended.items()}
    assert (
        reasons["leaves"]
        == "exit code 0, but it never came to its end: did something in it call sys.exit?"
    )
    assert (reasons["killed"], reasons["crashes"]) == ("signal 9, SIGKILL", "signal 6, SIGABRT")
    assert (reasons["nan"], ended["nan"].lines) == ("exit code 1: Not finite: loss", ["Try less"])
    assert ended["raises"].lines[-1] == "RuntimeError: the wheel came off"
    assert (ended["good"].objective(), ended["nan"].objective()) == (1.5, None)
    note = json.loads((tmp_path / "raises/job.json").read_text())
    assert (note["status"], note["code"], note["attempts"], note["lines"]) == (
        "failed",
        1,
        1,
        ended["raises"].lines,
    )
    said = capsys.readouterr().out
    # At once
    assert said.index("    RuntimeError: the wheel came off") < said.index("also good: target")
    assert "[10/10] also good: target in 0 s, score 1.5" in said


def test_so_many_run_at_a_time_each_on_cores_of_its_own(tmp_path):
    code = (
        "t = time.time(); time.sleep(0.5); result(final=[t, time.time(), "
        "sorted(os.sched_getaffinity(0))])"
    )
    ended = run(tmp_path, {str(i): code for i in range(4)}, jobs=2)
    spans = sorted(job.result()["final"] for job in ended.values())
    together = [(a, b) for a in spans for b in spans if a[0] < b[0] < a[1]]
    assert together
    at_once = max(sum(begun <= t < end for begun, end, _ in spans) for t, _, _ in spans)
    assert at_once == 2
    if len(resources.cores()) >= 2:
        assert all(not set(a[2]) & set(b[2]) for a, b in together)
        assert all(len(cores) == len(resources.cores()) // 2 for *_, cores in spans)


def test_cores_are_shared_out():
    assert resources.shares(1, None) == [resources.cores()]
    assert resources.shares(1, 10**6) == [resources.cores()]
    several = resources.shares(2 * len(resources.cores()), None)
    assert sorted(core for share in several for core in share) == sorted(resources.cores() * 2)


def test_a_job_that_takes_too_much_memory_is_ended_with_a_word(tmp_path):
    ended = run(
        tmp_path,
        {
            "large": "x = bytearray(400 * 2**20)\nfor i in range(0, len(x), 4096): x[i] = "
            "1\ntime.sleep(30)",
            "small": "time.sleep(2); result()",
        },
        jobs=2,
        memory=200,
    )
    assert (ended["large"].status, ended["small"].status) == ("failed", "finished")
    said = re.match(
        r"out of memory: it took (\d+) of its 200 MB; hydra.launcher.memory=MB",
        ended["large"].reason,
    )
    assert said
    assert 200 < int(said[1]) < 450


def test_memory_is_counted_of_groups_that_what_a_job_started_leads():
    """Workers of one run, and environments' processes, lead groups of their own: 200 MB there are
    the job's.
    """
    held = (
        "x = bytearray(200 * 2**20); x[::4096] = b'1' * len(x[::4096]); print(1, flush=True); "
        "input()"
    )
    code = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {held!r}], process_group=0)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as parent:
        assert parent.stdout.readline() == b"1\n"
        taken = resources.taken(parent.pid)
        parent.stdin.close()
    assert 200 < taken < 300


def test_a_job_that_cannot_be_started_fails_alone(tmp_path, capsys):
    (tmp_path / "a").write_text("a file, where its folder should be")
    ended = run(tmp_path, {"a": "result()", "b": "result()"}, jobs=1)
    assert {name: job.status for name, job in ended.items()} == {"a": "failed", "b": "finished"}
    assert ended["a"].reason.startswith("it could not be started: ")


def test_what_a_killed_job_started_ends_with_it(tmp_path):
    code = (
        "import subprocess; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); "
        "os._exit(1)"
    )
    (job,) = run(tmp_path, {"a": code}).values()
    (pid,) = (int(line) for line in (job.folder / sweep_job.OUTPUT).read_text().splitlines())
    deadline = time.monotonic() + 5
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)


HELD = """
import fcntl
lock = os.open(".", os.O_RDONLY)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    result("failed", message="another process is training there"); sys.exit(2)
if os.path.exists("tried"):
    result(); sys.exit()
open("tried", "w"); os.close(lock)
worker = "import fcntl, os, signal, time; signal.signal(15, signal.SIG_IGN); "
worker += "fcntl.flock(os.open('.', os.O_RDONLY), fcntl.LOCK_EX); print('saving', flush=True); "
worker += "time.sleep(60)"
import subprocess
child = [sys.executable, "-c", worker]
subprocess.Popen(child, stdout=subprocess.PIPE, process_group=0).stdout.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_retry_finds_none_of_the_first_try_s_workers_still_saving(tmp_path):
    """A worker leads a process group, outlives the job that was killed, and holds the folder's lock
    while it saves.
    """
    (job,) = run(tmp_path, {"a": HELD}, retries=1).values()
    assert (job.status, job.attempts, job.reason) == ("finished", 2, "")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


FLAKY = (
    "n = len(list(pathlib.Path().glob('try*'))); open(f'try{n}', 'w'); n >= 2 or os._exit(1); "
    "result()"
)


@pytest.mark.parametrize(
    ("retries", "status", "attempts"), [(0, "failed", 1), (1, "failed", 2), (5, "finished", 3)]
)
def test_a_crash_is_tried_again(tmp_path, retries, status, attempts):
    (job,) = run(tmp_path, {"a": FLAKY}, retries=retries).values()
    assert (job.status, job.attempts) == (status, attempts)


def test_what_would_come_again_is_not_tried_again(tmp_path):
    codes = {"nan": "result('nan'); sys.exit(1)", "mistaken": "result('failed'); sys.exit(2)"}
    assert [job.attempts for job in run(tmp_path, codes, retries=3).values()] == [1, 1]


LONG = (
    "signal.signal(15, lambda *_: (result('stopped'), sys.exit(0))); open('up', 'w'); "
    "time.sleep(60); result()"
)


def test_fail_fast_stops_the_others_and_starts_no_more(tmp_path):
    fails = "\nwhile not os.path.exists('../long/up'): time.sleep(0.05)\nos._exit(1)"
    ended = run(
        tmp_path, {"long": LONG, "fails": fails, "never": "result()"}, jobs=2, fail_fast=True
    )
    assert {name: job.status for name, job in ended.items()} == {
        "long": "stopped",
        "fails": "failed",
    }
    assert not (tmp_path / "never").exists()


def test_a_signal_is_passed_on_and_no_more_are_started(tmp_path):
    pool = Pool(Settings(jobs=1), LiveTable())

    def interrupt() -> None:
        while not (tmp_path / "a/up").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    with pool.passing_signals():
        thread = threading.Thread(target=interrupt)
        thread.start()
        ended = pool.run([made(tmp_path, "a", LONG), made(tmp_path, "b", LONG)])
        thread.join()
    assert [(job.name, job.status) for job in ended] == [("a", "stopped")]


def test_only_what_is_missing_or_changed_or_did_not_end_well_runs_again(tmp_path):
    code = "open('begun', 'a').write('.'); os.path.exists('fail') and os._exit(1); result()"

    def again(**hashes: str) -> dict[str, str]:
        Pool(Settings(), LiveTable()).run(
            made(tmp_path, name, code, hash=value) for name, value in hashes.items()
        )
        return {p.parent.name: p.read_text() for p in sorted(tmp_path.glob("*/begun"))}

    (tmp_path / "c").mkdir()
    (tmp_path / "c/fail").touch()
    assert again(a="1", b="1", c="1") == {"a": ".", "b": ".", "c": "."}
    (tmp_path / "c/fail").unlink()
    assert again(a="1", b="2", c="1", d="1") == {"a": ".", "b": "..", "c": "..", "d": "."}
    (tmp_path / "a/result.json").unlink()  # somebody tidied up
    (tmp_path / "b/job.json").write_text("{")
    assert again(a="1", b="2", c="1") == {"a": "..", "b": "...", "c": "..", "d": "."}


@pytest.mark.parametrize("wrong", [{"jobs": 0}, {"cores": -1}, {"memory": -5.0}, {"retries": -1}])
def test_settings_that_make_no_sense(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(UserError, match=f"hydra.launcher.{name}={value}: it must be at least"):
        Settings(**wrong)


def test_a_job_whose_sweep_is_killed_is_told_to_stop(tmp_path):
    program = (
        "import sys; from pathlib import Path; from sparring.processes import spawn; "
        "from sparring.sweep.job import Job;"
        "from sparring.sweep.scheduler import *; from sparring.sweep.live_table import LiveTable;"
        f"end = {RESULT!r} + 'os.chdir(sys.argv[1]); exec(sys.argv[2])';"
        "spawn._PROGRAM = spawn._PROGRAM.partition('from sparring')[0] + end;"
        f"folder = Path({str(tmp_path / 'a')!r});"
        f"Pool(Settings(), LiveTable()).run([Job(folder, str(folder), [{LONG!r}])])"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=runs.ROOT)
    deadline = time.monotonic() + 30
    while not (tmp_path / "a/up").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    while not (tmp_path / "a/result.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert json.loads((tmp_path / "a/result.json").read_text())["status"] == "stopped"


@pytest.mark.skipif(
    not Path("/proc/self/autogroup").exists(), reason="a Linux that shares time out by processes"
)
def test_jobs_of_a_sweep_that_gives_way_give_way_too(tmp_path):
    code = "time.sleep(0.5); result(final=pathlib.Path('/proc/self/autogroup').read_text())"
    program = (
        "import os; from pathlib import Path; from sparring.processes import spawn; "
        "from sparring.sweep.job import Job;"
        "from sparring.sweep.scheduler import *; from sparring.sweep.live_table import LiveTable; "
        "os.nice(7);"
        "spawn._PROGRAM = "
        f"{f'import os, sys; os.chdir(sys.argv[2]); exec({RESULT!r} + sys.argv[3])'!r};"
        f"folder = Path({str(tmp_path / 'a')!r});"
        f"Pool(Settings(), LiveTable()).run([Job(folder, str(folder), [{code!r}])])"
    )
    subprocess.run([sys.executable, "-c", program], cwd=runs.ROOT, check=True, timeout=60)
    assert json.loads((tmp_path / "a/result.json").read_text())["final"].split()[1:] == [
        "nice",
        "7",
    ]
