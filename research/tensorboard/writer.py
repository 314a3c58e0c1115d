"""Writer of a run's summaries for TensorBoard, the only one in this package.

Every call returns at once; a thread encodes and writes (`sparring.tensorboard.event_file`).
TensorFlow is not imported here and no default summary writer ever exists, for that breaks XLA.
"""

import io
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
from PIL import Image
from tensorboard.compat.proto import types_pb2
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as layout_metadata
from tensorboard.plugins.histogram import metadata as histogram_metadata
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.plugins.text import metadata as text_metadata

from sparring.tensorboard import gif, projector
from sparring.tensorboard.event_file import EventLog
from sparring.tensorboard.hparams import declare_hparams, flatten, session_end, session_start
from sparring.tensorboard.projector import Embedding

__all__ = ["Writer", "declare_hparams", "flatten"]

_log = logging.getLogger("sparring")

HISTOGRAM_BINS = 30  # TensorBoard's own default


class Writer:
    """Writer of one run's summaries.

    Methods do not raise because of a disk: lost events are a warning, see EventLog.

    Args:
        folder: of the run; created if missing.
        descriptions: what a tag measures and its unit, by exact tag; TensorBoard shows it beside
            the chart.
        resume_step: the run continues from this step. Points that an earlier, killed process wrote
            beyond it are purged from the curves; a point at the step itself stays. (TensorBoard's
            loader in Rust purges a tag's points only when the tag's next point arrives.) None
            appends to the existing curves.
    """

    def __init__(
        self,
        folder: Path,
        *,
        descriptions: Mapping[str, str] | None = None,
        resume_step: int | None = None,
    ) -> None:
        self._log = EventLog(folder, resume_step)
        self._folder = folder
        self._descriptions = dict(descriptions or {})
        self._newest_step = resume_step or 0

    def scalars(self, values: Mapping[str, SupportsFloat], step: int) -> None:
        """Write points of curves; values are whatever float() takes, NaN and infinities too."""
        numbers = {tag: float(value) for tag, value in values.items()}
        self._newest_step = max(self._newest_step, int(step))
        self._put(step, lambda: [self._scalar(tag, number) for tag, number in numbers.items()])

    def histograms(self, values: Mapping[str, np.ndarray], step: int) -> None:
        """Write distributions of the finite numbers in arrays of any shape, in 30 bins."""
        arrays = {tag: np.array(value) for tag, value in values.items()}
        self._put(step, lambda: [self._histogram(tag, array) for tag, array in arrays.items()])

    def images(self, values: Mapping[str, np.ndarray], step: int) -> None:
        """Write images: uint8 [N, H, W, C] or [H, W, C], C of 1 (grey), 3 (RGB) or 4 (RGBA).

        TensorBoard keeps ten steps of a tag unless it is started with `--samples_per_plugin
        images=200`.

        Raises:
            ValueError: a value is anything else; the message names the tag.
        """
        batches = {
            tag: _checked(tag, value, (3, 4), (1, 3, 4)).copy() for tag, value in values.items()
        }
        self._put(step, lambda: [self._pictures(tag, batch) for tag, batch in batches.items()])

    def videos(
        self, values: Mapping[str, np.ndarray], step: int, frames_per_second: int = 30
    ) -> None:
        """Write videos, uint8 [T, H, W, 3], as animated GIFs among the images.

        They have 100 frames and 320 pixels a side at most.

        Raises:
            ValueError: a value has another shape or dtype, or no frame; the message names the tag.
        """
        clips = {
            tag: gif.thinned(_checked(tag, value, (4,), (3,))) for tag, value in values.items()
        }
        self._put(
            step,
            lambda: [self._video(tag, *clip, frames_per_second) for tag, clip in clips.items()],
        )

    def embeddings(self, values: Mapping[str, Embedding]) -> None:
        """Write points of the projector, which shows the newest of a tag only.

        They are files beside the events.
        """
        try:
            projector.write(self._folder, values)
        except OSError as error:
            _log.warning("The projector's points could not be written: %s", error)

    def text(self, tag: str, markdown: str, step: int = 0) -> None:
        """Write a text in Markdown, such as the config in a fenced block."""
        data = text_metadata.create_summary_metadata(None, self._descriptions.get(tag))
        self._put(step, lambda: [_value(tag, data, _strings([markdown.encode()], shape=[]))])

    def hparams(self, values: Mapping[str, Any], metrics: Mapping[str, SupportsFloat]) -> None:
        """Write the run's row in the HParams table.

        Call it at the start with no metrics, so that a running or failed run has a row too, and at
        the end with the final ones: they are written as scalars at the newest step and the run is
        marked as finished.

        Args:
            values: settings, nested or flat (see `flatten`). Leave out the seed and all else that
                names one run (folder, date): runs with equal values form one row, whose metrics
                TensorBoard averages.
            metrics: final scalars by tag; best tags of their own, so that no curve gets a point
                twice.
        """
        start = session_start(values)
        end = session_end()
        self._put(0, lambda: [start])
        if metrics:
            self.scalars(metrics, self._newest_step)
            self._put(0, lambda: [end])

    def layout(self, charts: Mapping[str, Mapping[str, list[str]]]) -> None:
        """Write the layout of the Custom Scalars dashboard.

        `charts` is {category: {chart's title: [regular expressions of tags in one chart]}}.
        """
        proto = layout_pb2.Layout()
        for category, titles in charts.items():
            section = proto.category.add(title=category)
            for title, tags in titles.items():
                section.chart.add(title=title, multiline=layout_pb2.MultilineChartContent(tag=tags))
        self._put_layout(proto)

    def bands(self, charts: Mapping[str, Mapping[str, str]]) -> None:
        """Write charts of curves with bands among the custom scalars.

        `charts` is {category: {chart's title: tag}}. The band's ends are the tags `tag/low` and
        `tag/high`, written as scalars like the tag itself.
        """
        proto = layout_pb2.Layout()
        for category, titles in charts.items():
            section = proto.category.add(title=category)
            for title, tag in titles.items():
                series = layout_pb2.MarginChartContent.Series(
                    value=tag, lower=f"{tag}/low", upper=f"{tag}/high"
                )
                section.chart.add(
                    title=title, margin=layout_pb2.MarginChartContent(series=[series])
                )
        self._put_layout(proto)

    def flush(self) -> None:
        """Wait until everything so far is written.

        A killed process loses little without it: see EventLog.
        """
        self._log.flush()

    def close(self) -> None:
        """Flush and stop; a second call does nothing, any other call raises RuntimeError."""
        self._log.close()

    def _put_layout(self, proto: layout_pb2.Layout) -> None:
        data = layout_metadata.create_summary_metadata()
        tensor = _strings([proto.SerializeToString()], shape=[])
        self._put(0, lambda: [_value(layout_metadata.CONFIG_SUMMARY_TAG, data, tensor)])

    def _put(self, step: int, build: Callable[[], list[Summary.Value]]) -> None:
        self._log.put(partial(_event, time.time(), int(step), build))

    def _scalar(self, tag: str, number: float) -> Summary.Value:
        data = scalar_metadata.create_summary_metadata(None, self._descriptions.get(tag))
        return _value(tag, data, TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[number]))

    def _histogram(self, tag: str, array: np.ndarray) -> Summary.Value:
        data = histogram_metadata.create_summary_metadata(None, self._descriptions.get(tag))
        numbers = array.astype(np.float64).ravel()
        counts, edges = np.histogram(numbers[np.isfinite(numbers)], HISTOGRAM_BINS)
        # [bins, 3]: left edge, right edge, count
        table = np.stack([edges[:-1], edges[1:], counts], axis=1)
        tensor = TensorProto(
            dtype=types_pb2.DT_DOUBLE,
            tensor_shape=_shape(table.shape),
            double_val=table.ravel().tolist(),
        )
        return _value(tag, data, tensor)

    def _pictures(self, tag: str, batch: np.ndarray) -> Summary.Value:
        batch = batch if batch.ndim == 4 else batch[None]  # [N, H, W, C]
        return self._image_value(
            tag, [_png(picture) for picture in batch], batch.shape[2], batch.shape[1]
        )

    def _video(
        self, tag: str, frames: np.ndarray, counts: np.ndarray, frames_per_second: int
    ) -> Summary.Value:
        encoded, width, height = gif.encode(frames, counts, frames_per_second)
        return self._image_value(tag, [encoded], width, height)

    def _image_value(self, tag: str, files: list[bytes], width: int, height: int) -> Summary.Value:
        data = image_metadata.create_summary_metadata(None, self._descriptions.get(tag))
        return _value(
            tag,
            data,
            _strings([str(width).encode(), str(height).encode(), *files], [2 + len(files)]),
        )


def _event(wall_time: float, step: int, build: Callable[[], list[Summary.Value]]) -> Event:
    return Event(wall_time=wall_time, step=step, summary=Summary(value=build()))


class SilentWriter(Writer):
    """Writer that writes nothing, for workers that are not the chief."""

    def __init__(self) -> None:
        self._newest_step = 0

    def embeddings(self, values: Mapping[str, Embedding]) -> None:
        del values

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _put(self, step: int, build: Callable[[], list[Summary.Value]]) -> None:
        del step, build


def _value(tag: str, metadata: SummaryMetadata, tensor: TensorProto) -> Summary.Value:
    return Summary.Value(tag=tag, metadata=metadata, tensor=tensor)


def _strings(values: list[bytes], shape: list[int]) -> TensorProto:
    return TensorProto(dtype=types_pb2.DT_STRING, tensor_shape=_shape(shape), string_val=values)


def _shape(sizes: tuple[int, ...] | list[int]) -> TensorShapeProto:
    return TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in sizes])


def _png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(file, "PNG")
    return file.getvalue()


def _checked(
    tag: str, value: np.ndarray, ndims: tuple[int, ...], channels: tuple[int, ...]
) -> np.ndarray:
    array = np.asarray(value)
    if (
        array.dtype != np.uint8
        or array.ndim not in ndims
        or array.shape[-1] not in channels
        or not array.size
    ):
        raise ValueError(
            f"{tag}: a picture here is uint8 with {' or '.join(map(str, ndims))} axes, the last "
            "one of size"
            f" {' or '.join(map(str, channels))}; this is {array.dtype} {list(array.shape)}"
        )
    return array
