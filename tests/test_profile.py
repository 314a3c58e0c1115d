"""A profile is of the steps after compilation, and training goes as far as it would have gone."""

from pathlib import Path

from research.profile import Profiled


class Counting:
    """Steps in tens, and says how far each call went."""

    step, objective = 0, "score"

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
    trainer.train(10)
    assert inner.calls[3:] == [10]
    assert len(list(tmp_path.rglob("*.xplane.pb"))) == 1


def test_a_call_shorter_than_the_profile_is_recorded_whole(tmp_path: Path) -> None:
    inner = Counting()
    trainer = Profiled(inner, tmp_path, steps=1000)
    trainer.train(10)
    trainer.train(20)
    assert inner.calls == [10, 20]
