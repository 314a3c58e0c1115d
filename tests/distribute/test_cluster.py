"""Rank of a process, from its environment variables; mistakes in them are told in a line."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sparring.distribute import cluster, local_workers
from sparring.distribute.cluster import Cluster
from sparring.errors import UserError

pytestmark = pytest.mark.long

THREE = {"chief": ["a:1"], "worker": ["b:2", "c:3"]}


def config(jobs: object, kind: object = "worker", index: object = 0) -> str:
    return json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(
    ("kind", "index", "number"),
    [("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2), ("worker", "1", 2)],
)
def test_the_chief_is_the_first_of_all(kind: str, index: object, number: int) -> None:
    found = cluster.of_environment({"TF_CONFIG": config(THREE, kind, index)})
    assert found is not None
    assert found.addresses == ["a:1", "b:2", "c:3"]
    assert found.number == number
    assert cluster.parse(found.text) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{'cluster': 1}", "TF_CONFIG is no JSON"),
        ("[]", "has no cluster of workers"),
        ('{"task": {"type": "worker", "index": 0}}', "has no cluster of workers"),
        (config({"worker": []}), "has no cluster of workers"),
        (
            config({"chief": ["a:1"], "worker": None}),
            "has None where the list of its worker's addresses belongs",
        ),
        (config({"worker": 3}), "has 3 where the list of its worker's addresses belongs"),
        (config({"worker": "a:1"}), "has 'a:1' where the list of its worker's addresses belongs"),
        (
            config({"worker": ["a:65536"]}),
            "has an address 'a:65536', whose port is not one of 1 to 65535",
        ),
        (config({"worker": ["a:0"]}), "has an address 'a:0', whose port is not one of 1 to 65535"),
        (
            config({"worker": ["a:1"]}, ["worker"]),
            r"says no task of its cluster \(worker\): task.type=\['worker'\]",
        ),
        (config({"worker": ["a:1"], "ps": ["b:2"]}), "has a job 'ps' in its cluster"),
        (config({"chief": ["a:1", "b:1"]}, "chief"), "has several chiefs"),
        (config({"worker": ["a:1", "b"]}), "has an address 'b', which is not HOST:PORT"),
        (config({"worker": ["a:1", "a:1"]}), "has an address twice"),
        (
            config({"worker": ["a:1"]}, "chief"),
            r"no task of its cluster \(worker\): task.type=chief",
        ),
        ('{"cluster": {"worker": ["a:1"]}}', "no task of its cluster"),
        (
            config({"worker": ["a:1", "b:1"]}, index=2),
            "says task.index=2, where its cluster has worker 0 to 1",
        ),
        (config({"worker": ["a:1", "b:1"]}, index=-1), "says task.index=-1"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        cluster.of_environment({"TF_CONFIG": text})
    assert "\n" not in str(error.value)


def test_slurm_s_tasks_are_workers_on_ports_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "scontrol"
    tool.write_text('#!/bin/sh\n[ "$3" = "n[1-3]" ] && printf "n1\\nn2\\nn3\\n"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    step = {"SLURM_STEP_NUM_TASKS": "5", "SLURM_PROCID": "3", "SLURM_STEP_NODELIST": "n[1-3]"}
    found = cluster.of_environment({**step, "SLURM_STEP_TASKS_PER_NODE": "2(x2),1"})
    assert found == Cluster(
        {"worker": ["n1:8888", "n1:8889", "n2:8888", "n2:8889", "n3:8888"]}, "worker", 3
    )
    assert cluster.of_environment({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}) is None
    with pytest.raises(UserError, match=r"SLURM_STEP_NODELIST=m: scontrol cannot say its hosts"):
        cluster.of_environment(
            {**step, "SLURM_STEP_NODELIST": "m", "SLURM_STEP_TASKS_PER_NODE": "5"}
        )


def test_who_does_not_answer_is_named_within_the_time() -> None:
    one, two, three = cluster.free_ports(3)
    addresses = [f"127.0.0.1:{port}" for port in (one, two, three)]
    with socket.create_server(("127.0.0.1", two)):  # the second is there, the third is not
        with pytest.raises(
            UserError, match=rf"no answer from 127.0.0.1:{three} within strategy.seconds=0.5\. "
        ):
            cluster.meet(Cluster({"worker": addresses}, "worker", 0), 0.5)
        with pytest.raises(UserError, match=rf"port {two}, this worker's in TF_CONFIG, is taken"):
            cluster.meet(Cluster({"worker": addresses}, "worker", 1), 0.5)


@pytest.mark.parametrize(
    ("visible", "shares"), [("", [[], []]), ("-1", [[], []]), ("4,2,7,1", [["4", "2"], ["7", "1"]])]
)
def test_workers_of_a_host_share_its_gpus(
    visible: str, shares: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert local_workers.gpus(2) == shares


def test_gpus_that_workers_cannot_share_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    with pytest.raises(UserError, match=r"strategy.workers=2: 3 GPUs cannot be shared equally"):
        local_workers.gpus(2)


def test_a_chief_that_saves_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker 1 ended as agreed; the chief takes longer than the grace that failures have."""

    class Process:
        def __init__(self, seconds: float) -> None:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"import time; time.sleep({seconds})"]
            )

        @property
        def running(self) -> bool:
            return self.process.poll() is None

    monkeypatch.setattr(local_workers, "_GRACE", 0.0)
    chief = Process(1.5)
    other = Process(0.0)
    other.process.wait()
    local_workers._wait([chief, other], other)  # type: ignore[list-item, arg-type]
    assert chief.process.poll() == 0


def test_workers_are_started_where_nobody_says_that_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert cluster.workers_to_start({"workers": 2}) == 2
    assert (
        cluster.workers_to_start({"workers": None})
        == cluster.workers_to_start({"workers": 1})
        == cluster.workers_to_start({})
        == 0
    )
    monkeypatch.setenv("TF_CONFIG", config(THREE, index=1))
    assert cluster.workers_to_start({"workers": 3}) == 0
    process = cluster.Process.of({"workers": 3})
    assert (process.rank, process.count, process.is_chief) == (2, 3, False)
    other = cluster.Process.of({})  # another strategy takes no notice
    assert other.is_chief
    assert not other.is_one_of_several


def test_a_worker_hears_sigterm_outside_of_training_too() -> None:
    """TensorFlow's coordination service takes the signal when it starts, and a worker would go on
    as if nothing was.
    """
    text = "import os, signal, sys, time; "
    text += "from sparring.distribute import strategies; strategies.multi_worker();"
    text += "os.kill(os.getpid(), signal.SIGTERM); time.sleep(2); sys.exit(3)"
    addresses = [f"127.0.0.1:{port}" for port in cluster.free_ports(2)]
    both = [
        subprocess.Popen(
            [sys.executable, "-c", text],
            env={**os.environ, "TF_CONFIG": config({"worker": addresses}, index=i)},
        )
        for i in range(2)
    ]
    assert [each.wait(120) for each in both] == [-signal.SIGTERM] * 2
