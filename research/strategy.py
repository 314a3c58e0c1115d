"""Where computation happens: the strategies, and the one place where replicas are run and what they found is added.

Sizes are global: of environments, batches and replay, each of R replicas has an R-th. A trainer's program is written
once, for any number of replicas:

- `Replicas` belongs to the trainer. Its `function` is the program. Inside, `run` has every replica do a part, and loops
  and conditions go around `run`; what the parts return is each replica's own, and `first` says what all agree on.
- Inside a part, `total` and `average` reduce over replicas, and `index` says whose share of a batch it is.
  Reductions stand outside of loops there, because replicas meet in them.
- `compiled` wraps what XLA may compile of a part: loss and gradients, without a reduction inside.

On one device a part is called as it is and sums are what is summed: nothing is added to the program.
"""

import contextlib
import functools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import tensorflow as tf
from tensorflow.python.distribute import collective_all_reduce_strategy as _private
from tensorflow.python.eager import context

from research import cluster, random
from research import compile as compilation
from research.errors import UserError

T = TypeVar("T")
Make = Callable[[Callable[..., Any], str], Any]  # a program of a function and a mode
_SHUTDOWN_SECONDS = 5.0  # that workers at their end wait for the others at theirs
_thread = threading.local()  # replicas are traced in a thread each


def one_device() -> tf.distribute.Strategy:
    """The first GPU if there is one, else the CPU."""
    device = "/gpu:0" if tf.config.list_logical_devices("GPU") else "/cpu:0"
    return tf.distribute.OneDeviceStrategy(device)


def mirrored(devices: int | None = None) -> tf.distribute.Strategy:
    """Several devices of this host: `devices` GPUs, or as many parts of the CPU where there is no GPU; null: all GPUs.

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
    return tf.distribute.MirroredStrategy([f"/{'gpu' if gpus else 'cpu'}:{i}" for i in range(count)], operations)


def tpu(address: str = "local", seconds: float = 60.0) -> tf.distribute.Strategy:
    """The cores of a TPU: of this virtual machine ("local"), at grpc://HOST:PORT, or of a Cloud TPU's name.

    UserError if nothing answers within `seconds`.
    """
    try:
        if address != "local":  # TensorFlow waits without end and cannot be stopped: another process tries it first
            subprocess.run([sys.executable, "-c", _TRY, address], check=True, capture_output=True, timeout=seconds)
        return _connected(address)
    except subprocess.TimeoutExpired:
        said = f"no answer within {seconds:g} seconds"
    except subprocess.CalledProcessError as error:
        said = (error.stderr.decode().strip().splitlines() or ["no reason given"])[-1][:200]
    except Exception as error:  # of a dozen kinds, from a dozen layers
        said = " ".join(str(error).split())[:200]
    raise UserError(
        f"strategy=tpu: there is no TPU at strategy.address={address} ({said}). Give its grpc://HOST:PORT, run on the "
        "TPU's own virtual machine, or choose strategy=one_device."
    )


_TRY = "import sys, research; from research import strategy; strategy._connected(sys.argv[1])"


def _connected(address: str) -> tf.distribute.Strategy:
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(address)
    if address != "local":
        tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
    return tf.distribute.TPUStrategy(resolver)


def multi_worker(workers: int | None = None, seconds: float = 60.0) -> tf.distribute.Strategy:
    """The devices of several processes, on one host or on many: this process is one of them, see research.cluster.

    Args:
      workers: how many there are; null: as many as TF_CONFIG or Slurm say. (`research.workers` starts as many here.)
      seconds: how long to wait for a worker that does not answer, at the start and later.

    UserError where that is exceeded at the start, and for a TF_CONFIG that cannot be.
    """
    here = cluster.of_environment()
    if here is None:
        raise UserError("strategy=multi_worker: set strategy.workers=2, or more, or TF_CONFIG; docs/strategies.md")
    count = len(here.addresses)
    if workers not in (None, count):
        raise UserError(f"strategy.workers={workers}: TF_CONFIG has {count} workers; leave strategy.workers out.")
    if count == 1:
        return one_device()
    cluster.meet(here, seconds)
    _coordinate(here, seconds)
    os.environ["TF_CONFIG"] = here.text  # whoever said it: of TensorFlow's resolvers this one finds all local GPUs
    return tf.distribute.MultiWorkerMirroredStrategy()


def _coordinate(here: cluster.Cluster, seconds: float) -> None:
    """Have a worker that is gone, or does not answer for `seconds`, end the others' waiting with an error."""
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
    """Make at least `count` logical devices of the CPU, which works only before TensorFlow has used it."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or [None]) >= count:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:
        raise UserError(
            f"strategy.devices={count}: TensorFlow is at work already in this process and can make no more devices."
        ) from error


@contextlib.contextmanager
def inside(place: tf.distribute.Strategy) -> Iterator[None]:
    """The scope of a strategy, to make a trainer in.

    Running statistics of Keras' layers are read of the first replica there: all have the same. Keras has them averaged
    wherever they are read, for which all hosts would have to read them together.
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


class Replicas:
    """The replicas of the strategy in whose scope this is made."""

    def __init__(self) -> None:
        self.strategy = tf.distribute.get_strategy()
        self.count = self.strategy.num_replicas_in_sync
        self.here = self.count if self.count == 1 else len(self.strategy.extended.worker_devices)  # in this process
        self._xla = False

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Where variables are made after the trainer."""
        return contextlib.nullcontext() if self.count == 1 else self.strategy.scope()

    def function(self, python_function: Callable[..., Any], mode: str, make: Make = compilation.function) -> Any:
        """A program in a resolved mode of `research.compile`; of several replicas XLA compiles the parts alone."""
        if self.count == 1:
            return make(python_function, mode)
        self._xla = mode == "xla"

        def scoped(*arguments: Any) -> Any:
            with self.strategy.scope():
                return python_function(*arguments)

        return make(scoped, "graph" if self._xla else mode)

    def run(self, part: Callable[..., Any], *arguments: Any) -> Any:
        """`part(*arguments)` on every replica, each with its own of what an earlier part returned."""
        if self.count == 1 or not tf.distribute.in_cross_replica_context():
            return part(*arguments)
        xla = self._xla

        def replica(*arguments: Any) -> Any:
            _thread.xla = xla
            return part(*arguments)

        return self.strategy.run(replica, args=arguments)

    def first(self, values: T) -> T:
        """One replica's of `values`, a nest that is the same on all of them."""
        if self.count == 1 or not tf.distribute.in_cross_replica_context():
            return values
        return tf.nest.map_structure(lambda v: self.strategy.experimental_local_results(v)[0], values)

    def share(self, size: int, key: str) -> int:
        """A replica's share of a global size; UserError with the config's `key` if it has no whole one."""
        if size % self.count:
            raise UserError(f"{key}={size} is no multiple of the {self.count} replicas that share it.")
        return size // self.count


# ---- inside a replica's part -------------------------------------------------------------------------------------


def count() -> int:
    """How many replicas there are."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def index() -> tf.Tensor | int:
    """Which of the replicas this is: a plain number wherever TensorFlow knows it while tracing."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return 0
    number = context.replica_id_in_sync_group
    static = tf.get_static_value(number)
    return number if static is None else int(static)


def own(key: tf.Tensor) -> tf.Tensor:
    """A random key of this replica's own; on one device the key itself."""
    return key if count() == 1 else random.fold(key, index())


def total(values: T) -> T:
    """The sum over replicas of each tensor of a nest, all of one type; differentiable."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    flat = tf.nest.flatten(values)
    if len(flat) == 1:
        return tf.nest.pack_sequence_as(values, [context.all_reduce(tf.distribute.ReduceOp.SUM, flat[0])])
    vector = tf.concat([tf.reshape(v, [-1]) for v in flat], axis=0)  # one reduction, not one for each tensor
    summed = context.all_reduce(tf.distribute.ReduceOp.SUM, vector)
    parts = tf.split(summed, [v.shape.num_elements() for v in flat])
    shaped = [tf.reshape(part, v.shape) for part, v in zip(parts, flat, strict=True)]
    return tf.nest.pack_sequence_as(values, shaped)


def average(values: T) -> T:
    """The mean over replicas of each tensor of a nest: of means over equal shares, the mean over all."""
    return total(tf.nest.map_structure(part, values))


def part(mean: tf.Tensor) -> tf.Tensor:
    """What the mean over this replica's share adds to the mean over all."""
    return mean if count() == 1 else mean / count()


def spread(values: tf.Tensor, axis: int | None = None) -> tf.Tensor:
    """The standard deviation of `values` over all axes or over `axis`, of which each replica has an equal share."""
    mean = average(tf.reduce_mean(values, axis, keepdims=True))
    return tf.sqrt(average(tf.reduce_mean(tf.square(values - mean), axis)))


def from_first(value: tf.Tensor) -> tf.Tensor:
    """The first replica's `value`."""
    return value if count() == 1 else total(tf.where(tf.equal(index(), 0), value, tf.zeros_like(value)))


def maximum(value: tf.Tensor) -> tf.Tensor:
    """The largest over replicas of a scalar."""
    return value if count() == 1 else tf.reduce_max(total(tf.one_hot(index(), count(), dtype=value.dtype) * value))


def compiled(python_function: Callable[..., Any]) -> Callable[..., Any]:
    """`python_function`, compiled by XLA where the program around it is not because it has several replicas."""
    if count() == 1 or not getattr(_thread, "xla", False):
        return python_function
    return tf.function(python_function, jit_compile=True, autograph=False)


def assign(variable: tf.Variable, value: tf.Tensor) -> None:
    """`variable.assign(value)` where all replicas have the same value for it, in a part or around parts."""
    context = tf.distribute.get_replica_context()
    own = variable.synchronization == tf.VariableSynchronization.ON_READ
    if context is None or context.num_replicas_in_sync == 1 or own:
        variable.assign(value)
        return

    def update(everywhere: tf.distribute.Strategy, values: Any) -> None:
        everywhere.extended.update(variable, lambda v, x: v.assign(x), args=(values,))

    context.merge_call(update, args=(value,))


# ---- variables ---------------------------------------------------------------------------------------------------

replicated = functools.partial(  # which every replica assigns, all the same value: running statistics
    tf.Variable,
    trainable=False,
    synchronization=tf.VariableSynchronization.ON_READ,
    aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
)


def mine(variable: tf.Variable) -> tf.Variable:
    """This replica's own of a `replicated` variable, for what such a variable cannot do itself, as to scatter."""
    if count() == 1:
        return variable
    if not isinstance(index(), int):
        raise UserError("A replay buffer cannot be shared over the cores of a TPU yet: choose another strategy.")
    components = tf.distribute.get_strategy().experimental_local_results(variable)
    return components[index() % len(components)]
