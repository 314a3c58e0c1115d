"""Tables: rows of numbers, some of which are predicted from the others."""

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.data import host_random
from sparring.data.checks import not_found
from sparring.data.dataset import Pairs
from sparring.data.preprocessing import InputSpec, Units
from sparring.data.splits import SPLITS, split_off
from sparring.errors import UserError

_log = logging.getLogger("sparring")


def linear(
    seed: int, train: int = 1000, test: int = 200, features: int = 8, noise: float = 0.1
) -> Pairs:
    """Return normal inputs [N, features] with targets [N, 1] that are linear in them plus noise.

    `noise` is the standard deviation of the normal noise. The table is identical in every run;
    `seed` fixes the order of the batches.
    """
    count = train + test
    x = host_random.normal(count * features, 1).reshape(count, features)
    slope = host_random.normal(features, 2)
    offset = 0.5
    y = x @ slope + offset + noise * host_random.normal(count, 3)
    rows = {"train": slice(0, train), "test": slice(train, count)}
    return Pairs(
        {s: x[r].astype(np.float32) for s, r in rows.items()},
        {s: y[r, None].astype(np.float32) for s, r in rows.items()},
        seed,
    )


class Table(Pairs):
    """Rows of numbers: inputs [N, F] and targets [N, K], both scaled from their columns' units."""

    def __init__(
        self,
        inputs: Mapping[str, np.ndarray],
        targets: Mapping[str, np.ndarray],
        seed: int,
        units: tuple[Units, Units],
        columns: tuple[Sequence[str], Sequence[str]],
    ) -> None:
        super().__init__(inputs, targets, seed)
        self._targets_units = units[1]
        self.columns = columns
        self.raw = InputSpec(
            "inputs", tf.TensorSpec(self.shape, tf.float32), units[0].scaled, units[0].unscaled
        )

    @property
    def meaning(self) -> dict[str, Any]:
        return {"columns": list(self.columns[0]), "targets": list(self.columns[1])}

    def restored(self, outputs: tf.Tensor) -> tf.Tensor:
        """Return outputs in the units of the targets' columns."""
        return self._targets_units.unscaled(outputs)


def table(path: str, targets: Sequence[str], seed: int, test_fraction: float = 0.1) -> Table:
    """Return a .csv file with a header, whose columns `targets` are predicted from all others.

    Every column is numeric. Inputs and targets are scaled to mean 0 and standard deviation 1 over
    the train split, in float32; a column that is constant there is only shifted.

    Raises:
        UserError: the file is missing, not UTF-8 or no table, a column does not exist, or a cell is
          no finite number; the message gives its line.
    """
    source = f"data.path={path}"
    head, rows = _read(Path(path), source)
    missing = [t for t in targets if t not in head]
    if missing or not targets:
        raise UserError(
            f"{source}: data.targets={list(targets)}: choose among its columns, {', '.join(head)}."
        )
    values = np.array([_numbers(cells, line, head, source) for line, cells in rows])  # [N, columns]
    wanted = [head.index(t) for t in targets]
    others = [i for i in range(len(head)) if i not in wanted]
    if not others:
        raise UserError(
            f"{source}: data.targets are all of its columns: none is left to tell them from."
        )
    split = split_off(len(values), test_fraction, source)
    units = Units.of(values[split["train"]])
    _name_coarse_columns(values, units, head, source)
    scaled = units.scaled(values.astype(np.float32))  # as an exported model does
    parts = {s: scaled[split[s]] for s in SPLITS}
    return Table(
        {s: p[:, others] for s, p in parts.items()},
        {s: p[:, wanted] for s, p in parts.items()},
        seed,
        (units.columns(others), units.columns(wanted)),
        ([head[i] for i in others], [head[i] for i in wanted]),
    )


def _name_coarse_columns(
    values: np.ndarray, units: Units, head: Sequence[str], source: str
) -> None:
    """Warn of columns whose numbers float32 tells apart badly, such as dates in seconds."""
    error = np.abs(values - values.astype(np.float32)).max(axis=0)
    for i in np.flatnonzero(error > 0.01 * units.spread):
        _log.warning(
            "%s: column %s has values around %g that differ by %g, too little for float32: "
            "subtract a number from all of them.",
            source,
            head[i],
            units.mean[i],
            units.spread[i],
        )


def read_text(path: Path, source: str) -> str:
    """Return the text of a UTF-8 file.

    Raises:
        UserError: the file cannot be read or is not UTF-8; the message gives the line.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise not_found(str(path), source, "file") from None
    except OSError as error:
        raise UserError(f"{source} cannot be read: {error.strerror or error}.") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{source} is not UTF-8: line {line} holds the byte 0x{data[error.start]:02x}. Convert "
            "it, for example by "
            "`iconv -f latin1 -t utf8`."
        ) from error


def text_lines(text: str) -> list[str]:
    """Return the lines of a text, which end with a newline and nothing else, such as U+2028."""
    return [line.removesuffix("\r") for line in text.split("\n")]


def _read(path: Path, source: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    reader = csv.reader(io.StringIO(read_text(path, source), newline=""))
    try:
        rows = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise UserError(
            f"{source}: line {reader.line_num} is no row of a table: {error}."
        ) from None
    if len(rows) < 3:
        raise UserError(f"{source}: a table has a head and two rows at least.")
    return rows[0][1], rows[1:]


def _numbers(cells: list[str], line: int, head: list[str], source: str) -> list[float]:
    if len(cells) != len(head):
        raise UserError(f"{source}: line {line} has {len(cells)} cells, the head {len(head)}.")
    found = []
    for name, cell in zip(head, cells, strict=True):
        try:
            found.append(float(cell))
        except ValueError:
            found.append(float("nan"))
        if not abs(found[-1]) <= float(np.finfo(np.float32).max):
            raise UserError(
                f"{source}: line {line}, column {name}: {cell!r} is no finite number of float32."
            )
    return found
