"""Distribution strategies: one device, mirrored, multi-worker and TPU."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.distribute import collective_all_reduce_strategy as _private
from tensorflow.python.eager import context

from sparring.distribute import cluster
from sparring.errors import UserError

_SHUTDOWN_SECONDS = 5.0  # that workers at their end wait for the others at theirs


def one_device() -> tf.distribute.Strategy:
    """The first GPU if there is one, else the CPU."""
    device = "/gpu:0" if tf.config.list_logical_devices("GPU") else "/cpu:0"
    return tf.distribute.OneDeviceStrategy(device)


def mirrored(devices: int | None = None) -> tf.distribute.Strategy:
    """Several devices of this host: `devices` GPUs, or as many parts of the CPU where there is no
    GPU; null: all GPUs.

    Parts of a CPU compute nothing faster; they are for trying out what several devices do.
    """
    gpus = len(tf.config.list_physical_devices("GPU"))
    count = devices or max(gpus, 1)
    if gpus and count > gpus:
        raise UserError(f"strategy.devices={count}: this host has {gpus} GPUs.")
    if not gpus:
        divide_cpu(count)
    if count == 1:
        return one_device()
    # NCCL between GPUs; parts of a CPU need no collective operations to add
    operations = None if gpus else tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(
        [f"/{'gpu' if gpus else 'cpu'}:{i}" for i in range(count)], operations
    )


def tpu(address: str = "local", seconds: float = 60.0) -> tf.distribute.Strategy:
    """The cores of a TPU: of this virtual machine ("local"), at grpc://HOST:PORT, or of a Cloud
    TPU's name.

    UserError if nothing answers within `seconds`.
    """
    try:
        # TensorFlow waits without end and cannot be stopped: another process tries it first
        if address != "local":
            subprocess.run(
                [sys.executable, "-c", _TRY, address],
                check=True,
                capture_output=True,
                timeout=seconds,
            )
        return connect_to_tpu(address)
    except subprocess.TimeoutExpired:
        said = f"no answer within {seconds:g} seconds"
    except subprocess.CalledProcessError as error:
        said = (error.stderr.decode().strip().splitlines() or ["no reason given"])[-1][:200]
    except Exception as error:  # of a dozen kinds, from a dozen layers
        said = " ".join(str(error).split())[:200]
    raise UserError(
        f"strategy=tpu: there is no TPU at strategy.address={address} ({said}). Give its "
        "grpc://HOST:PORT, run on the "
        "TPU's own virtual machine, or choose strategy=one_device."
    )


_TRY = (
    "import sys; from sparring.distribute import strategies; strategies.connect_to_tpu(sys.argv[1])"
)


def connect_to_tpu(address: str) -> tf.distribute.Strategy:
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(address)
    if address != "local":
        tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
    return tf.distribute.TPUStrategy(resolver)


def multi_worker(workers: int | None = None, seconds: float = 60.0) -> tf.distribute.Strategy:
    """The devices of several processes, on one host or on many: this process is one of them, see
    sparring.distribute.cluster.

    Args:
      workers: how many there are; null: as many as TF_CONFIG or Slurm say.
        (`sparring.distribute.local_workers` starts as many here.)
      seconds: how long to wait for a worker that does not answer, at the start and later.

    UserError where that is exceeded at the start, and for a TF_CONFIG that cannot be.
    """
    here = cluster.of_environment()
    if here is None:
        raise UserError(
            "strategy=multi_worker: set strategy.workers=2, or more, or TF_CONFIG; "
            "docs/strategies.md"
        )
    count = len(here.addresses)
    if workers not in (None, count):
        raise UserError(
            f"strategy.workers={workers}: TF_CONFIG has {count} workers; leave strategy.workers "
            "out."
        )
    if count == 1:
        return one_device()
    cluster.meet(here, seconds)
    _coordinate(here, seconds)
    # Whoever said it: of TensorFlow's resolvers this one finds all local GPUs
    os.environ["TF_CONFIG"] = here.text
    ends = signal.getsignal(signal.SIGTERM)
    made = tf.distribute.MultiWorkerMirroredStrategy()
    with contextlib.suppress(ValueError):  # not the main thread, whose signals are not ours
        # TensorFlow's coordination service takes it, and lets it come to nothing
        signal.signal(signal.SIGTERM, ends or signal.SIG_DFL)
    return made


def _coordinate(here: cluster.Cluster, seconds: float) -> None:
    """Have a worker that is gone, or does not answer for `seconds`, end the others' waiting with an
    error.
    """
    jobs = [
        _private.coordination_config_pb2.CoordinatedJob(name=job, num_tasks=len(here.jobs[job]))
        for job in cluster.JOBS
        if here.jobs.get(job)
    ]
    context.context().configure_coordination_service(
        "standalone",
        service_leader=f"/job:{jobs[0].name}/replica:0/task:0",
        cluster_register_timeout_in_ms=int(seconds * 1000),
        heartbeat_timeout_in_ms=int(seconds * 1000),
        shutdown_barrier_timeout_in_ms=int(_SHUTDOWN_SECONDS * 1000),
        coordinated_jobs=jobs,
    )


def divide_cpu(count: int) -> None:
    """Make at least `count` logical devices of the CPU, which works only before TensorFlow has used
    it.
    """
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or [None]) >= count:
        return
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError as error:
        raise UserError(
            f"strategy.devices={count}: TensorFlow is at work already in this process and can make "
            "no more devices."
        ) from error


@contextlib.contextmanager
def variable_scope(place: tf.distribute.Strategy) -> Iterator[None]:
    """The scope of a strategy, to make a trainer in.

    Running statistics of Keras' layers are read of the first replica there: all have the same.
    Keras has them averaged wherever they are read, for which all hosts would have to read them
    together.
    """

    def create(next_creator: Callable[..., tf.Variable], **settings: Any) -> tf.Variable:
        if settings.get("synchronization") == tf.VariableSynchronization.ON_READ:
            settings["aggregation"] = tf.VariableAggregation.ONLY_FIRST_REPLICA
        return next_creator(**settings)

    with place.scope():
        if place.num_replicas_in_sync == 1:
            yield
        else:
            with tf.variable_creator_scope(create):
                yield
