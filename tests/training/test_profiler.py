"""A profile is of the steps after compilation, and training goes as far as it would have gone."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from sparring.training.profiler import Profiled, _add

pytestmark = pytest.mark.long


class Counting:
    """Steps in tens, and says how far each call went."""

    step = 0
    objective = "score"

    def __init__(self) -> None:
        self.calls: list[int] = []

    def train(self, steps: int) -> None:
        self.calls.append(steps)
        self.step += -(-steps // 10) * 10


def test_the_second_call_is_recorded_and_what_is_left_of_it_done_after(tmp_path: Path) -> None:
    inner = Counting()
    trainer = Profiled(inner, tmp_path, steps=25)
    assert trainer.objective == "score"
    trainer.train(40)
    assert not list(tmp_path.rglob("*"))
    trainer.train(100)
    assert trainer.step == 140
    assert inner.calls == [40, 25, 70]  # 25 are recorded, which is 30 in tens
    (profile,) = tmp_path.glob("plugins/profile/*/*.xplane.pb")
    assert profile.stat().st_size > 0
    assert (
        "| operation | own time, ms | share, % | calls |" in (tmp_path / "profile.md").read_text()
    )
    trainer.train(10)
    assert inner.calls[3:] == [10]
    assert len(list(tmp_path.rglob("*.xplane.pb"))) == 1


def test_a_call_shorter_than_the_profile_is_recorded_whole(tmp_path: Path) -> None:
    inner = Counting()
    trainer = Profiled(inner, tmp_path, steps=1000)
    trainer.train(10)
    trainer.train(20)
    assert inner.calls == [10, 20]


def test_an_operation_s_own_time_is_without_what_it_called() -> None:
    # outer 0 to 100, inner 10 to 40 and 50 to 60, innermost 15 to 20; then outer again, 100 to 130.
    spans = [(0, 100, 1), (10, 30, 2), (15, 5, 3), (50, 10, 2), (100, 30, 1)]
    events = [
        SimpleNamespace(offset_ps=a, duration_ps=d, metadata_id=m) for a, d, m in reversed(spans)
    ]
    own: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    _add(events, {1: "outer", 2: "inner", 3: "innermost"}, own, calls)
    assert own == {"outer": 100 - 30 - 10 + 30, "inner": 30 - 5 + 10, "innermost": 5}
    assert calls == {"outer": 2, "inner": 2, "innermost": 1}
