"""Several metrics together: what they say of each other's numbers."""

import numpy as np

from sparring.gans.metrics.base import Metrics


class Distance:
    """Metric whose distance and floor are given."""

    samples = 4
    smaller = ("gan/distance",)
    descriptions = {"gan/distance": "Distance.", "gan/distance_floor": "Of real ones."}  # noqa: RUF012
    notes = {}  # noqa: RUF012

    def __init__(self, distance: float, floor: float) -> None:
        self.values = {"gan/distance": distance, "gan/distance_floor": floor}

    def __call__(self, sample) -> dict[str, float]:
        return self.values


def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((count, 1), np.float32), np.zeros(count, np.int64)


def test_a_score_better_than_that_of_real_examples_is_told_of(caplog):
    assert Metrics(None, {"d": lambda data: Distance(0.5, 0.4)})(drawn)["gan/distance"] == 0.5
    assert caplog.text == ""
    Metrics(None, {"d": lambda data: Distance(0.3, 0.4)})(drawn)
    assert "gan/distance is below gan/distance_floor" in caplog.text
