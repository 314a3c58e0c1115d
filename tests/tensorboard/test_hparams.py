from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from tensorboard.plugins.hparams import api_pb2, metadata

from sparring.tensorboard.hparams import DECLARATION, declare_hparams, flatten, session_start
from tests.helpers.board import loaded


def declared(root: Path) -> api_pb2.Experiment:
    content = loaded(root).SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    return metadata.parse_experiment_plugin_data(content)


def setting(root: Path, name: str) -> api_pb2.HParamInfo:
    (info,) = [info for info in declared(root).hparam_infos if info.name == name]
    return info


def group(values: dict) -> str:
    content = session_start(values).metadata.plugin_data.content
    return metadata.parse_session_start_info_plugin_data(content).group_name


def test_flatten() -> None:
    config = {
        "agent": {"name": "ppo", "gamma": np.float32(0.5), "clip": {"value": None}},
        "network": {"layers": [64, 64], "extra": {}},
        "compile": True,
        "steps": 1000,
        "limit": float("inf"),
        "folder": Path("runs"),
    }
    flat = flatten(config)
    assert flat == {
        "agent.name": "ppo",
        "agent.gamma": 0.5,
        "agent.clip.value": "none",
        "network.layers": "[64, 64]",
        "network.extra": "{}",
        "compile": True,
        "steps": 1000,
        "limit": "inf",
        "folder": "runs",
    }
    assert type(flat["agent.gamma"]) is float
    assert type(flat["compile"]) is bool


def test_flatten_takes_a_hydra_config() -> None:
    assert flatten(OmegaConf.create({"a": {"b": [1, 2]}, "c": None})) == {
        "a.b": "[1, 2]",
        "c": "none",
    }


def test_group_is_the_values_not_their_order() -> None:
    assert group({"a": {"b": 1}, "c": "x"}) == group({"c": "x", "a.b": 1})
    assert group({"a": 1}) != group({"a": 2})


def test_declaration_lists_settings_and_metrics(tmp_path: Path) -> None:
    declare_hparams(
        tmp_path, {"rate": [0.5, 0.25], "name": ["ppo"], "on": [True]}, {"final/return": "reward"}
    )
    rate, name, on = (setting(tmp_path, key) for key in ("rate", "name", "on"))
    assert (rate.type, rate.differs) == (api_pb2.DATA_TYPE_FLOAT64, True)
    assert (rate.domain_interval.min_value, rate.domain_interval.max_value) == (0.25, 0.5)
    assert (name.type, list(name.domain_discrete), name.differs) == (
        api_pb2.DATA_TYPE_STRING,
        ["ppo"],
        False,
    )
    assert (on.type, list(on.domain_discrete)) == (api_pb2.DATA_TYPE_BOOL, [True])
    (metric,) = declared(tmp_path).metric_infos
    assert (metric.name.tag, metric.description) == ("final/return", "reward")


def test_values_of_several_types_are_text_without_a_filter(tmp_path: Path) -> None:
    declare_hparams(tmp_path, {"clip": [None, 0.5]}, {})
    clip = setting(tmp_path, "clip")
    assert (clip.type, clip.WhichOneof("domain"), clip.differs) == (
        api_pb2.DATA_TYPE_STRING,
        None,
        True,
    )


def test_second_sweep_adds_to_the_first(tmp_path: Path) -> None:
    declare_hparams(
        tmp_path, {"rate": [0.5], "name": ["ppo"], "clip": [0.5], "old": [1]}, {"final/return": "a"}
    )
    declare_hparams(
        tmp_path, {"rate": [0.25], "name": ["dqn"], "clip": [None], "new": [1]}, {"final/loss": "b"}
    )
    assert [info.name for info in declared(tmp_path).hparam_infos] == [
        "rate",
        "name",
        "clip",
        "old",
        "new",
    ]
    rate, name, clip = (setting(tmp_path, key) for key in ("rate", "name", "clip"))
    assert (rate.domain_interval.min_value, rate.domain_interval.max_value) == (0.25, 0.5)
    assert (list(name.domain_discrete), name.differs) == (["dqn", "ppo"], True)
    assert (clip.type, clip.WhichOneof("domain")) == (api_pb2.DATA_TYPE_STRING, None)
    declare_hparams(tmp_path, {"clip": ["off"]}, {})
    assert setting(tmp_path, "clip") == clip  # numbers are among its values still
    assert {metric.name.tag for metric in declared(tmp_path).metric_infos} == {
        "final/return",
        "final/loss",
    }
    assert [path.name for path in tmp_path.iterdir()] == [
        DECLARATION
    ]  # one file, nothing half-written beside it


def test_unwritable_root_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "sweep").write_text("a file where a folder should be")
    with pytest.raises(OSError, match="sweep"):
        declare_hparams(tmp_path / "sweep", {}, {})
