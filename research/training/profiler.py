"""A trainer whose second call is recorded by TensorFlow's profiler, and a table of where its time
goes.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from sparring.storage import atomic
from sparring.tensorboard.writer import Writer

TABLE = "profile.md"
_ROWS = 25
_log = logging.getLogger("sparring")


class Profiled:
    """A trainer (`sparring.training.trainer.Trainer`) that records `steps` of its steps in
    `folder`, once it is compiled.

    The first call traces and compiles, so the recording begins with the second. Everything else is
    the trainer's own. What took the time is in the folder's `profile.md`, and in TensorBoard as the
    text `profile`; every event is in TensorBoard's dashboard "Profile", if
    `tensorboard-plugin-profile` is installed.
    """

    def __init__(self, trainer: Any, folder: Path, steps: int) -> None:
        self._trainer = trainer
        self._folder = folder
        self._steps = steps
        self._calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trainer, name)

    def train(self, steps: int) -> None:
        """Advance by at least `steps` steps, and by as few as its inner iterations allow."""
        self._calls += 1
        goal = self._trainer.step + steps
        if self._calls == 2:
            with tf.profiler.experimental.Profile(str(self._folder)):
                self._trainer.train(min(self._steps, steps))
            self._tell()
        if self._trainer.step < goal:
            self._trainer.train(goal - self._trainer.step)

    def _tell(self) -> None:
        text = table(self._folder)
        atomic.write_text(self._folder / TABLE, text)
        writer = Writer(
            self._folder, descriptions={"profile": "Where the time of the recorded steps went."}
        )
        writer.text("profile", text, self._trainer.step)
        writer.close()
        _log.info("Where the time went: %s", self._folder / TABLE)


def table(folder: Path) -> str:
    """The newest profile in a folder as a Markdown table: each operation's own time, without what
    it called.
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    own: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for path in sorted(folder.glob("plugins/profile/*/*.xplane.pb"))[-1:]:
        for plane in xplane_pb2.XSpace.FromString(path.read_bytes()).planes:
            for line in plane.lines:
                _add(
                    line.events,
                    {key: value.name for key, value in plane.event_metadata.items()},
                    own,
                    calls,
                )
    whole = sum(own.values()) or 1
    rows = [
        f"| {name.replace('|', ' ')[:80]} | {took / 1e9:.2f} | {100 * took / whole:.1f} | "
        f"{calls[name]} |"
        for name, took in own.most_common(_ROWS)
    ]
    head = ["| operation | own time, ms | share, % | calls |", "|---|---|---|---|"]
    return "\n".join(["Time summed over threads.", "", *head, *rows]) + "\n"


def _add(
    events: Sequence[Any], names: dict[int, str], own: Counter[str], calls: Counter[str]
) -> None:
    """Add a thread's events. An event that lies within another is taken from the other's own time
    (picoseconds).
    """
    open_: list[tuple[int, str]] = []  # (end, name) of the events around this one
    for event in sorted(events, key=lambda e: (e.offset_ps, -e.duration_ps)):
        name = names.get(event.metadata_id, "?")
        while open_ and open_[-1][0] <= event.offset_ps:
            open_.pop()
        if open_:
            own[open_[-1][1]] -= event.duration_ps
        own[name] += event.duration_ps
        calls[name] += 1
        open_.append((event.offset_ps + event.duration_ps, name))
