"""Models of earlier runs: paths that were relative to another working folder."""

import json
import logging
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sparring.errors import UserError
from sparring.training.trained_model import _find_relative_paths


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder in which a run was started, that of the run beside it; work elsewhere."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two" / "run").mkdir(parents=True)
    starts = [{"working_folder": str(tmp_path / "one")}]
    (tmp_path / "two" / "run" / "provenance.json").write_text(json.dumps({"starts": starts}))
    monkeypatch.chdir(tmp_path / "two")
    return tmp_path / "one"


def test_relative_paths_are_found_where_the_run_was_started(
    begun: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (begun / "set.npz").touch()
    (begun / "both.h5").touch()
    Path("both.h5").touch()
    text = {"data": {"path": "set.npz"}, "model": {"weights": "both.h5", "x": {"path": "none"}}}
    cfg = OmegaConf.create({**text, "run": {"path": "set.npz"}})
    with caplog.at_level(logging.WARNING, "sparring"):
        _find_relative_paths(cfg, Path("run"))
    assert cfg.data.path == str(begun / "set.npz")
    assert caplog.messages == [f"data.path=set.npz is not here: taking {begun / 'set.npz'}."]
    assert cfg.model == {"weights": "both.h5", "x": {"path": "none"}}
    assert cfg.run.path == "set.npz"


def test_data_that_is_nowhere_is_said_to_be_looked_for_in_both_places(begun: Path) -> None:
    cfg = OmegaConf.create({"data": {"path": "set.npz"}})
    with pytest.raises(UserError, match="the path is relative") as said:
        _find_relative_paths(cfg, Path("run"))
    assert f"working folder, {Path.cwd()}, nor where the run was started, {begun}." in str(
        said.value
    )
