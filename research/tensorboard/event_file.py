"""Event files, the format of TensorBoard, written by a thread of their own.

TensorFlow is not used: one of its summary writers, once it becomes the default, breaks XLA, and its
write errors reach the training loop. Framing and checksums are TensorBoard's own; this module adds
what its writer lacks: a record is in the file whole or not at all, a failed write is tried again,
and no trouble with a disk ends a training.
"""

import atexit
import contextlib
import io
import logging
import os
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter

logger = logging.getLogger("sparring")

RETRY_SECONDS = 10.0  # between two tries to write to a disk that refused
KEPT_BYTES = 16 * 2**20  # size of the events that wait for such a disk; more of them are lost
QUEUED = 1000  # events the thread may lag behind before the caller waits for it
PATIENCE_SECONDS = 10.0  # the longest the caller waits for a thread that hangs in a write


def framed(event: Event) -> bytes:
    """Return the event as one record: length, checksum, bytes, checksum."""
    buffer = io.BytesIO()
    RecordWriter(buffer).write(event.SerializeToString())
    return buffer.getvalue()


class EventFile:
    """New event file in `folder`.

    With `resume_step`, TensorBoard purges the points beyond this step in older files of the folder.

    Raises:
        OSError: the file cannot be created.
    """

    def __init__(self, folder: Path, resume_step: int | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        older = [path.name for path in folder.glob("events.out.tfevents.*")]
        self.path = folder / _name_after(older)
        self._tags: set[str] = set()
        self._size = 0
        self._descriptor = os.open(
            self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666
        )
        try:
            self.append(Event(wall_time=time.time(), file_version="brain.Event:2"))
            # TensorBoard takes a run's first START for its beginning and purges only at later ones,
            # so each run needs one there. A second writer that does not resume (an evaluation
            # afterwards) must not purge anything.
            if resume_step is not None or not older:
                start = 0 if resume_step is None else resume_step + 1
                session = SessionLog(status=SessionLog.START)
                self.append(Event(wall_time=time.time(), step=start, session_log=session))
        except OSError:
            self.close()
            self.path.unlink(missing_ok=True)
            raise

    def append(self, event: Event) -> None:
        """Write one event, whole.

        A tag's metadata goes into a file once: TensorBoard reads the first only.
        """
        slim = Event()
        slim.CopyFrom(event)
        for value in slim.summary.value:
            if value.tag in self._tags:
                value.ClearField("metadata")
        record = memoryview(framed(slim))
        try:
            written = 0
            while written < len(record):
                written += os.write(self._descriptor, record[written:])
        except OSError:
            # Readers stop for good at a broken record
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(record)
        self._tags.update(value.tag for value in event.summary.value)

    def gone(self) -> bool:
        """Return whether the file was deleted: writing would succeed and nobody would see it."""
        try:
            return os.fstat(self._descriptor).st_nlink == 0
        except OSError:
            return True

    def close(self) -> None:
        os.close(self._descriptor)


def _name_after(older: list[str]) -> str:
    """Return a name that sorts after those of older files, whatever the clock says.

    TensorBoard reads files in that order.
    """
    stamps = [name.split(".")[3] for name in older]
    stamp = max([int(time.time()), *(int(stamp) + 1 for stamp in stamps if stamp.isdigit())])
    return f"events.out.tfevents.{stamp:010d}.{socket.gethostname()}.{os.getpid()}"


class _Flush(threading.Event):
    """Mark in the queue, set when everything put before it was written or refused."""

    def __init__(self, last: bool) -> None:
        super().__init__()
        self.last = last  # the thread ends after it


class EventLog:
    """Events of a folder, built and written by one thread in the order they were put.

    Every event is handed to the operating system as soon as it is built, so a killed process loses
    only those still in the queue. Failures are warnings on the logger `sparring`, one per trouble.
    """

    def __init__(self, folder: Path, resume_step: int | None = None) -> None:
        self._folder = folder
        self._resume_step = resume_step
        self._file: EventFile | None = None
        self._queue: queue.Queue[Callable[[], Event] | _Flush] = queue.Queue(QUEUED)
        self._pending: deque[Event] = deque()
        self._pending_bytes = 0
        self._lost = 0
        self._trouble: str | None = None
        self._retry_at = 0.0
        self._complaints: set[str] = set()
        self._stalled = self._closed = False
        self._thread = threading.Thread(target=self._run, name="event-log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def put(self, build: Callable[[], Event]) -> None:
        """Queue the event that `build` returns.

        It is called on the log's thread, so it must own the data it reads.
        """
        if self._closed:
            raise RuntimeError(
                f"the events of {self._folder} are closed: nothing can be written after close()"
            )
        try:
            self._queue.put(build, timeout=0.001 if self._stalled else PATIENCE_SECONDS)
            self._stalled = False
        except queue.Full:
            self._lost += 1
            if not self._stalled:
                logger.warning(
                    "TensorBoard events are being lost: writing to %s has hung for %.0f s; "
                    "training goes on",
                    self._folder,
                    PATIENCE_SECONDS,
                )
            self._stalled = True

    def flush(self) -> None:
        """Wait until everything put so far is written, or refused by the disk in one more try."""
        self._flush(last=False)

    def _flush(self, last: bool) -> None:
        done = _Flush(last)
        try:
            self._queue.put(done, timeout=PATIENCE_SECONDS)
        except queue.Full:
            return
        done.wait(6 * PATIENCE_SECONDS)

    def close(self) -> None:
        """Flush and end the thread; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        self._flush(last=True)
        self._thread.join(PATIENCE_SECONDS)
        lost = self._lost + len(self._pending) + self._queue.qsize()
        if lost:
            logger.warning(
                "%d TensorBoard events of %s were lost: %s",
                lost,
                self._folder,
                self._trouble or "see above",
            )

    def _run(self) -> None:
        last = False
        while not last:
            try:
                item = self._queue.get(timeout=RETRY_SECONDS if self._pending else None)
            except queue.Empty:
                item = None
            if isinstance(item, _Flush):
                last = item.last
                self._write(now=True)
                item.set()
            else:
                if item is not None:
                    self._build(item)
                self._write(now=False)
        if self._file is not None:
            self._file.close()

    def _build(self, build: Callable[[], Event]) -> None:
        try:
            event = build()
        except Exception as error:
            self._complain(f"could not be encoded: {type(error).__name__}: {error}", trace=True)
            return
        if self._pending_bytes + event.ByteSize() > KEPT_BYTES and self._trouble:
            self._lost += 1
            return
        self._pending.append(event)
        self._pending_bytes += event.ByteSize()

    def _write(self, now: bool) -> None:
        if not self._pending or (not now and time.monotonic() < self._retry_at):
            return
        try:
            file = self._ready_file()
            while self._pending:
                file.append(self._pending[0])
                self._pending_bytes -= self._pending.popleft().ByteSize()
        except OSError as error:
            self._retry_at = time.monotonic() + RETRY_SECONDS
            if self._trouble is None:
                logger.warning(
                    "TensorBoard events are being lost: %s can't be written (%s). Training goes on "
                    "and writing is tried"
                    " again every %.0f s; the first %d MB wait in memory, the rest is gone",
                    self._folder,
                    error,
                    RETRY_SECONDS,
                    KEPT_BYTES // 2**20,
                )
            self._trouble = str(error)
            return
        self._retry_at = 0.0
        if self._trouble is not None:
            logger.warning(
                "TensorBoard events are written again in %s; %d were lost", self._folder, self._lost
            )
            self._trouble = None
            self._lost = 0

    def _ready_file(self) -> EventFile:
        if self._file is not None and self._file.gone():
            self._complain(
                f"in {self._file.path} are lost: the file was deleted; a new one is begun",
                trace=False,
            )
            gone = self._file
            self._file = None
            with contextlib.suppress(OSError):
                gone.close()
        if self._file is None:
            self._file = EventFile(self._folder, self._resume_step)
        return self._file

    def _complain(self, what: str, trace: bool) -> None:
        if what not in self._complaints:
            logger.warning("TensorBoard events %s", what, exc_info=trace)
        self._complaints.add(what)
