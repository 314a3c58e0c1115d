"""TensorBoard's HParams table: settings and final metrics of runs, and a sweep's list of both."""

import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2

from sparring.storage import atomic
from sparring.tensorboard.event_file import framed

# The name sorts before, and never collides with, those of a run's event files
DECLARATION = "events.out.tfevents.0000000000.hparams"

Scalar = bool | int | float | str


def flatten(config: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return a nested config as `{"agent.gamma": 0.99, ...}`, in the types HParams takes.

    None becomes "none"; lists, infinities and everything else become their text. A NumPy scalar
    becomes Python's.
    """
    flat: dict[str, Scalar] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat.update({f"{key}.{inner}": leaf for inner, leaf in flatten(value).items()})
        else:
            flat[str(key)] = _scalar(value)
    return flat


def _scalar(value: Any) -> Scalar:
    value = (
        value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value
    )
    if value is None:
        return "none"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has none
    return value if isinstance(value, bool | int | float) else str(value)


def session_start(values: Mapping[str, Any]) -> Summary.Value:
    """Return the settings of one run.

    Runs with equal settings share a group, over which TensorBoard averages the metrics.
    """
    return summary_v2.hparams_pb(flatten(values)).value[0]


def session_end() -> Summary.Value:
    """Return the mark of a finished run."""
    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time())
    content = plugin_data_pb2.HParamsPluginData(session_end_info=end)
    return _value(metadata.SESSION_END_INFO_TAG, content)


def declare_hparams(
    root: Path, values: Mapping[str, Iterable[Any]], metrics: Mapping[str, str]
) -> None:
    """Declare a sweep's settings and metrics at its root.

    Call it before the first run, otherwise later runs' columns are missing. Declarations of an
    earlier sweep at the same root are kept.

    Args:
        root: the folder that holds the sweep's runs, or one beside them. TensorBoard shows it as a
            run.
        values: every setting, as a dotted key, and the values it takes in the sweep. Settings that
            differ come first.
        metrics: tag and description of the metrics to show.
    """
    with atomic.locked(root):
        _declare(root / DECLARATION, values, metrics)


def _declare(path: Path, values: Mapping[str, Iterable[Any]], metrics: Mapping[str, str]) -> None:
    old = _declared(path) if path.exists() else api_pb2.Experiment()
    settings = {info.name: info for info in old.hparam_infos}
    for name, several in values.items():
        info = _info(name, several)
        settings[name] = _merged(settings[name], info) if name in settings else info
    shown = {info.name.tag: info for info in old.metric_infos}
    for tag, description in metrics.items():
        shown[tag] = api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), description=description)
    experiment = api_pb2.Experiment(hparam_infos=settings.values(), metric_infos=shown.values())
    value = _value(
        metadata.EXPERIMENT_TAG, plugin_data_pb2.HParamsPluginData(experiment=experiment)
    )
    now = time.time()
    head = Event(wall_time=now, file_version="brain.Event:2")
    _replace(
        path, framed(head) + framed(Event(wall_time=now, step=0, summary=Summary(value=[value])))
    )


def _info(name: str, several: Iterable[Any]) -> api_pb2.HParamInfo:
    values = [_scalar(value) for value in several]
    types = {_type(value) for value in values}
    info = api_pb2.HParamInfo(
        name=name, type=api_pb2.DATA_TYPE_STRING, differs=len(set(values)) > 1
    )
    if len(types) != 1:
        return info  # without a domain: a filter by text would miss the numbers among the values
    info.type = types.pop()
    if info.type == api_pb2.DATA_TYPE_FLOAT64:
        info.domain_interval.min_value = min(values)
        info.domain_interval.max_value = max(values)
    else:
        info.domain_discrete.extend(sorted(set(values)))
    return info


def _type(value: Scalar) -> int:
    if isinstance(value, bool):
        return api_pb2.DATA_TYPE_BOOL
    return api_pb2.DATA_TYPE_STRING if isinstance(value, str) else api_pb2.DATA_TYPE_FLOAT64


def _merged(old: api_pb2.HParamInfo, new: api_pb2.HParamInfo) -> api_pb2.HParamInfo:
    domains = [info.WhichOneof("domain") for info in (old, new)]
    if None in domains or old.type != new.type:
        return api_pb2.HParamInfo(name=new.name, type=api_pb2.DATA_TYPE_STRING, differs=True)
    return _info(new.name, [*_values(old), *_values(new)])


def _values(info: api_pb2.HParamInfo) -> list[Scalar]:
    if info.type == api_pb2.DATA_TYPE_FLOAT64:
        return [info.domain_interval.min_value, info.domain_interval.max_value]
    return list(info.domain_discrete)


def _declared(path: Path) -> api_pb2.Experiment:
    reader = PyRecordReader_New(str(path))
    reader.GetNext()  # the file's version
    reader.GetNext()
    content = Event.FromString(reader.record()).summary.value[0].metadata.plugin_data.content
    return metadata.parse_experiment_plugin_data(content)


def _value(tag: str, content: plugin_data_pb2.HParamsPluginData) -> Summary.Value:
    return Summary.Value(
        tag=tag, metadata=metadata.create_summary_metadata(content), tensor=metadata.NULL_TENSOR
    )


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(".hparams.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
