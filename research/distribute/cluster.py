"""Place of this process among the workers of a run, as TF_CONFIG or Slurm give it.

TensorFlow is not imported here. TensorFlow's own reading of TF_CONFIG says little of what is wrong
with it, and its start waits for the others without saying for whom.
"""

import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparring.errors import UserError

JOBS = ("chief", "worker")  # in the order in which their tasks are counted
GONE = "is gone"
GO_ON = "The same command, with its run.name, goes on from the last checkpoint."
_SLURM_PORT = 8888  # of the first task on a host, as TensorFlow's resolver for Slurm chooses it
_EXAMPLE = (
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
)


@dataclass(frozen=True)
class Cluster:
    """The workers of one run, and which of them this process is.

    Args:
      jobs: addresses HOST:PORT by job, "chief" (at most one) and "worker".
      job, index: this process' place there.
    """

    jobs: Mapping[str, Sequence[str]]
    job: str
    index: int

    @property
    def addresses(self) -> list[str]:
        """Addresses of all workers, the chief's first."""
        return [address for job in JOBS for address in self.jobs.get(job, ())]

    @property
    def number(self) -> int:
        """Index of this process in `addresses`; 0 is the chief, which alone writes."""
        return self.index + (len(self.jobs.get("chief", ())) if self.job == "worker" else 0)

    @property
    def text(self) -> str:
        """TF_CONFIG of this process."""
        return json.dumps(
            {"cluster": dict(self.jobs), "task": {"type": self.job, "index": self.index}}
        )


def of_environment(environment: Mapping[str, str] = os.environ) -> Cluster | None:
    """Return the cluster of TF_CONFIG, else of Slurm; None for a process that is alone.

    Raises UserError, in a line, for a TF_CONFIG that cannot be.
    """
    if environment.get("TF_CONFIG"):
        return parse(environment["TF_CONFIG"])
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "SLURM_PROCID" in environment:
        return of_slurm(environment)
    return None


def parse(text: str) -> Cluster:
    """A Cluster from the text of a TF_CONFIG."""
    try:
        said = json.loads(text)
    except ValueError as error:
        raise _wrong(f"is no JSON ({error})") from error
    said = said if isinstance(said, dict) else {}
    jobs = said.get("cluster")
    task = said.get("task")
    if not isinstance(jobs, dict) or not any(jobs.get(job) for job in JOBS):
        raise _wrong("has no cluster of workers")
    for job in jobs:
        if job not in JOBS:
            raise _wrong(
                f"has a job {job!r} in its cluster, where a run has {' and '.join(JOBS)} only"
            )
    _check_addresses(jobs)
    # A list, as its type may be no text
    if not isinstance(task, dict) or task.get("type") not in list(jobs):
        raise _wrong(
            f"says no task of its cluster ({', '.join(jobs)}): task.type={_of(task, 'type')}"
        )
    index = str(_of(task, "index"))
    count = len(jobs[task["type"]])
    if not index.isdigit() or int(index) >= count:
        raise _wrong(
            f"says task.index={index}, where its cluster has {task['type']} 0 to {count - 1}"
        )
    return Cluster(jobs, task["type"], int(index))


def _check_addresses(jobs: Mapping[str, Sequence[str]]) -> None:
    for job, addresses in jobs.items():
        if not isinstance(addresses, list):
            raise _wrong(f"has {addresses!r} where the list of its {job}'s addresses belongs")
    if len(jobs.get("chief", ())) > 1:
        raise _wrong("has several chiefs")
    addresses = [address for job in jobs for address in jobs[job]]
    for address in addresses:
        if not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\s/]+):\d{1,5}", str(address)):
            raise _wrong(f"has an address {address!r}, which is not HOST:PORT")
        if not 0 < int(address.rpartition(":")[2]) < 65536:
            raise _wrong(f"has an address {address!r}, whose port is not one of 1 to 65535")
    if len(set(addresses)) < len(addresses):
        raise _wrong("has an address twice")


def _of(task: object, name: str) -> object:
    return task.get(name) if isinstance(task, dict) else None


def _wrong(what: str) -> UserError:
    return UserError(
        f"TF_CONFIG {what}. It looks like {_EXAMPLE}; or unset it, to start workers with "
        "strategy.workers."
    )


def of_slurm(environment: Mapping[str, str]) -> Cluster:
    """The tasks of a Slurm step, in Slurm's order: those of a host on ports from 8888 on."""
    counts = [
        int(number)
        for number, times in re.findall(
            r"(\d+)(?:\(x(\d+)\))?", environment["SLURM_STEP_TASKS_PER_NODE"]
        )
        for _ in range(int(times or 1))
    ]
    hosts = _slurm_hosts(environment["SLURM_STEP_NODELIST"])
    addresses = [
        f"{h}:{_SLURM_PORT + i}" for h, n in zip(hosts, counts, strict=True) for i in range(n)
    ]
    return Cluster({"worker": addresses}, "worker", int(environment["SLURM_PROCID"]))


def _slurm_hosts(names: str) -> list[str]:
    try:
        done = subprocess.run(
            ["scontrol", "show", "hostnames", names], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(
            f"SLURM_STEP_NODELIST={names}: scontrol cannot say its hosts ({error})."
        ) from error
    return done.stdout.split()


def meet(cluster: Cluster, seconds: float) -> None:
    """Wait until every other worker is there; UserError, which names those that are not, after
    `seconds`.

    Each listens at its own port until it has seen all others. TensorFlow's server then takes the
    port, which answers those that come later.
    """
    deadline = time.monotonic() + seconds
    with _listening(cluster):
        missing = [a for i, a in enumerate(cluster.addresses) if i != cluster.number]
        while missing:
            missing = [address for address in missing if not _answers(address, deadline)]
            if missing and time.monotonic() > deadline:
                raise UserError(
                    f"strategy=multi_worker: no answer from {', '.join(missing)} within "
                    f"strategy.seconds={seconds:g}. "
                    "Every address in TF_CONFIG has to be a running worker's (this is "
                    f"{cluster.job} {cluster.index})."
                )
            time.sleep(0.1 if missing else 0.0)


class _listening:  # noqa: N801 - reads as what it does
    """Accepts connections at this worker's port, and closes them, until left."""

    def __init__(self, cluster: Cluster) -> None:
        host, _, text = cluster.addresses[cluster.number].rpartition(":")
        # Elsewhere a name may be of an interface not ours
        port = int(text)
        local = host in ("localhost", "127.0.0.1")
        try:
            self.socket = socket.create_server((host if local else "", port))
        except OSError as error:
            raise UserError(
                f"strategy=multi_worker: port {port}, this worker's in TF_CONFIG, is taken "
                f"({error.strerror})."
            ) from error

    def __enter__(self) -> None:
        self.socket.settimeout(0.2)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self) -> None:
        while not self.over.is_set():
            try:
                self.socket.accept()[0].close()
            except OSError:
                continue

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()
        self.socket.close()


def _answers(address: str, deadline: float) -> bool:
    host, _, port = address.rpartition(":")
    try:
        patience = max(0.1, min(2.0, deadline - time.monotonic()))
        socket.create_connection((host.strip("[]"), int(port)), timeout=patience).close()
    except OSError:
        return False
    return True


def free_ports(count: int) -> list[int]:
    """Ports of this host's own loopback that nothing listens at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@dataclass(frozen=True)
class Process:
    """Place of this process among those of its run.

    Attributes:
      rank: index among the workers; 0 is the chief, which alone writes.
      count: the number of workers.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def of(cls, strategy: Mapping[str, Any]) -> "Process":
        """Return this process' place in a run with this `strategy` node of a config."""
        here = of_environment() if "workers" in strategy else None
        return cls() if here is None else cls(here.number, len(here.addresses))

    @property
    def is_chief(self) -> bool:
        """Whether it is the chief, or the only worker."""
        return self.rank == 0

    @property
    def is_one_of_several(self) -> bool:
        """Whether the run has further workers."""
        return self.count > 1


def workers_to_start(strategy: Mapping[str, Any]) -> int:
    """Return how many workers a command with this `strategy` node starts.

    It is 0 for a run of one process, and for a process that is one of the workers.
    """
    count = strategy.get("workers") or 0
    return count if count > 1 and of_environment() is None else 0
