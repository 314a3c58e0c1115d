"""Modes of a mixture, counted by hand."""

import numpy as np
import pytest

from sparring.data import arrays
from sparring.errors import UserError
from sparring.gans.data import mixtures
from sparring.gans.metrics.base import Metrics
from sparring.gans.metrics.mode_coverage import MixtureModes, divergence


def given(points):
    points = np.asarray(points, np.float32)
    return lambda count: (points[:count], np.zeros(min(count, len(points)), np.int64))


def test_modes_by_hand():
    # grid, sigma 0.05: within 0.15 of a center is high quality
    points = [
        (0.0, 0.0),  # on a center
        (0.1, 0.1),  # 0.1414 off the same: high quality
        (2.0, 1.86),  # 0.14 off (2, 2)
        (-4.0, 4.16),  # 0.16 off (-4, 4): poor, its mode is not covered
        (90.0, 90.0),  # belongs to (4, 4), poor
    ]
    found = MixtureModes(mixtures.grid(), samples=5)(given(points))
    assert found["gan/modes"] == 2.0
    assert found["gan/high_quality"] == pytest.approx(3 / 5)
    # shares 2/5, 1/5, 1/5, 1/5 against 1/25: 0.4 log(10) + 0.6 log(5)
    assert found["gan/reverse_kl"] == pytest.approx(0.4 * np.log(10) + 0.6 * np.log(5))


def test_real_samples_cover_every_mode():
    # within 3 sigma in two dimensions lie 1 - exp(-4.5) = 0.98889 of a Gaussian's samples
    for data in (mixtures.ring(), mixtures.grid()):
        found = MixtureModes(data, samples=20_000)(lambda n, data=data: data.examples("test", n))
        assert found["gan/modes"] == data.classes
        assert found["gan/high_quality"] == pytest.approx(
            1 - np.exp(-4.5), abs=5 * np.sqrt(0.011 / 20_000)
        )
        # Chi-squared / 2N on average
        assert 0 < found["gan/reverse_kl"] < 3 * (data.classes - 1) / (2 * 20_000)


def test_one_mode_is_the_logarithm_of_their_number():
    found = MixtureModes(mixtures.ring(), samples=100)(given(np.tile([[1.0, 0.0]], (100, 1))))
    assert found == {
        "gan/modes": 1.0,
        "gan/high_quality": 1.0,
        "gan/reverse_kl": pytest.approx(np.log(8)),
    }


def test_divergence_by_hand():
    assert divergence(np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.25, 0.5])) == pytest.approx(
        np.log(2)
    )
    assert divergence(np.array([0.5, 0.5]), np.array([1.0, 0.0])) == np.inf


def test_the_plane_shows_modes_good_and_poor_examples():
    metric = MixtureModes(mixtures.ring(), samples=2)
    picture = metric.pictures(given([(1.0, 0.0), (-0.5, -0.5)]))["gan/plane"][0]
    # 512 pixels span -1.25 to 1.25: x = 1 is pixel (1 / 1.25 + 1) * 256 = 460.8, y = -0.5 is (0.4 +
    # 1) * 256 = 358.4
    assert picture.shape == (512, 512, 3)
    assert picture[256, 460].tolist() == [31, 119, 180]
    assert picture[358, 153].tolist() == [214, 39, 40]
    assert picture[51, 256].tolist() == [
        170,
        170,
        170,
    ]  # the mode at (0, 1): y = 1 is (1 - 0.8) * 256 = 51.2
    assert picture[256, 256].tolist() == [255, 255, 255]


def test_points_that_fly_away_leave_the_picture_whole():
    picture = MixtureModes(mixtures.ring(), 3).pictures(
        given([(1e9, 0), (np.inf, 0), (np.nan, 0)])
    )["gan/plane"]
    assert not (picture == (214, 39, 40)).all(axis=-1).any()


def test_other_data_has_no_modes_to_count():
    with pytest.raises(UserError, match="choose data=ring or data=grid"):
        MixtureModes(arrays.digits(0))


def test_several_metrics_share_their_samples_and_no_tag():
    asked = []

    def sample(count):
        asked.append(count)
        return mixtures.ring().examples("test", count)

    metrics = Metrics(mixtures.ring(), {"modes": lambda data: MixtureModes(data, samples=50)})
    assert metrics(sample) == MixtureModes(mixtures.ring(), samples=50)(sample)
    assert asked == [50, 50]
    assert metrics.notes == {
        "modes": {
            "samples": 50,
            "modes": 8,
            "sigma": 0.01,
            "high quality": "within 3 sigma of the nearest center",
        }
    }
    assert metrics.pictures(sample).keys() == {"gan/plane"}
    assert metrics.descriptions.keys() == {"gan/modes", "gan/high_quality", "gan/reverse_kl"}
    with pytest.raises(
        UserError, match=r"metrics\.b: another metric measures gan/high_quality already"
    ):
        Metrics(mixtures.ring(), {"a": MixtureModes, "b": MixtureModes})
