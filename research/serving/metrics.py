"""Counters and histograms in Prometheus' text format, with TensorFlow Serving's names if any."""

import bisect
import os
import resource
import time
from collections.abc import Iterator, Mapping, Sequence

_MICROSECONDS = tuple(10 * 1.8**i for i in range(23))  # TensorFlow Serving's: 10 us to 4 s and more
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    escaped = (v.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for v in values)
    pairs = [f'{name}="{value}"' for name, value in zip(names, escaped, strict=True)]
    return "{" + ",".join(pairs) + "}" if pairs else ""


class Counter:
    """Value for each combination of labels; `kind` is counter or gauge."""

    def __init__(self, name: str, about: str, labels: Sequence[str], kind: str = "counter") -> None:
        self.name = name
        self.about = about
        self.labels = labels
        self.kind = kind
        self.values: dict[tuple[str, ...], float] = {}

    def add(self, *labels: str, by: float = 1.0) -> None:
        self.values[labels] = self.values.get(labels, 0.0) + by

    def lines(self) -> Iterator[str]:
        yield f"# HELP {self.name} {self.about}"
        yield f"# TYPE {self.name} {self.kind}"
        for labels, value in sorted(self.values.items()):
            yield f"{self.name}{_labels(self.labels, labels)} {value:.17g}"


class Histogram:
    """Distribution of values for each combination of labels."""

    def __init__(
        self, name: str, about: str, labels: Sequence[str], bounds: Sequence[float] = _MICROSECONDS
    ) -> None:
        self.name = name
        self.about = about
        self.labels = labels
        self.bounds = bounds
        self.counts: dict[tuple[str, ...], list[int]] = {}
        self.sums: dict[tuple[str, ...], float] = {}

    def add(self, value: float, *labels: str) -> None:
        counts = self.counts.setdefault(labels, [0] * (len(self.bounds) + 1))
        counts[bisect.bisect_left(self.bounds, value)] += 1
        self.sums[labels] = self.sums.get(labels, 0.0) + value

    def lines(self) -> Iterator[str]:
        yield f"# HELP {self.name} {self.about}"
        yield f"# TYPE {self.name} histogram"
        for labels, counts in sorted(self.counts.items()):
            total = 0
            for bound, count in zip(
                (*map("{:g}".format, self.bounds), "+Inf"), counts, strict=True
            ):
                total += count
                yield f"{self.name}_bucket{_labels((*self.labels, 'le'), (*labels, bound))} {total}"
            yield f"{self.name}_sum{_labels(self.labels, labels)} {self.sums[labels]:.17g}"
            yield f"{self.name}_count{_labels(self.labels, labels)} {total}"


class Instruments:
    """Metrics of the service."""

    def __init__(self) -> None:
        serving = ":tensorflow:serving:"
        batching = ":tensorflow:serving:batching_session:"
        self.requests = Counter(
            f"{serving}request_count", "Requests to predict.", ["model_name", "status"]
        )
        self.latency = Histogram(
            f"{serving}request_latency",
            "Microseconds of a request.",
            ["model_name", "API", "entrypoint"],
        )
        self.runtime = Histogram(
            f"{serving}runtime_latency",
            "Microseconds in TensorFlow.",
            ["model_name", "API", "runtime"],
        )
        self.queuing = Histogram(
            f"{batching}queuing_latency", "Microseconds before a batch ran.", ["model_name"]
        )
        self.batches = Histogram("sparring_batch_rows", "Rows of a batch.", ["model_name"], _ROWS)
        self.loads = Counter(
            ":tensorflow:cc:saved_model:load_attempt_count", "Loads.", ["model_path", "status"]
        )
        self.load_latency = Counter(
            ":tensorflow:cc:saved_model:load_latency", "Microseconds to load.", ["model_path"]
        )
        self.warm_up = Histogram(
            f"{serving}model_warmup_latency", "Microseconds to warm up.", ["model_path", "status"]
        )
        self.http = Counter("sparring_http_requests_total", "Requests.", ["method", "code"])
        self.in_flight = Counter(
            "sparring_requests_in_flight", "Requests being answered.", [], "gauge"
        )
        self.sessions = Counter("sparring_sessions", "Sessions in memory.", [], "gauge")
        self.versions = Counter(
            "sparring_model_loaded", "One if in memory.", ["model_name", "version"], "gauge"
        )

    def text(self) -> str:
        """Return all metrics in the text format 0.0.4."""
        parts = [part for part in vars(self).values() if isinstance(part, Counter | Histogram)]
        return "\n".join([*(line for part in parts for line in part.lines()), *_process(), ""])


def _process() -> Iterator[str]:
    """Yield the lines that Prometheus' own clients give of a process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    yield "# TYPE process_cpu_seconds_total counter"
    yield f"process_cpu_seconds_total {usage.ru_utime + usage.ru_stime:.6f}"
    yield "# TYPE process_resident_memory_bytes gauge"
    yield f"process_resident_memory_bytes {resident()}"
    yield "# TYPE process_start_time_seconds gauge"
    yield f"process_start_time_seconds {_STARTED:.3f}"


def resident() -> int:
    """Return the bytes of memory that this process has in use; 0 if unknown."""
    try:
        with open("/proc/self/statm") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


_STARTED = time.time()


def versions(loaded: Mapping[str, Sequence[int]]) -> dict[tuple[str, ...], float]:
    """Return the values of `Instruments.versions`."""
    return {(name, str(v)): 1.0 for name, numbers in loaded.items() for v in numbers}
