"""Sliced Wasserstein distance and memorisation: shifts, copies and fresh draws whose scores are
known.
"""

import numpy as np
import pytest

from sparring.data import arrays
from sparring.data.dataset import Arrays
from sparring.data.pixel_values import pixels
from sparring.errors import UserError
from sparring.gans.data import mixtures
from sparring.gans.metrics.memorisation import Memorisation
from sparring.gans.metrics.sliced_wasserstein import SlicedWasserstein

DIGITS = arrays.digits(0)


def given(examples):
    return lambda count: (examples[:count], np.zeros(min(count, len(examples)), np.int64))


def plane(seed, count, shift=0.0):
    return (np.random.default_rng(seed).normal(size=(count, 2)) + shift).astype(np.float32)


# ---- sliced Wasserstein --------------------------------------------------------------------------


def test_a_shift_is_as_far_as_it_is_long_by_the_root_of_the_dimension():
    data = Arrays({"train": plane(0, 500), "test": plane(1, 400)}, None, 0)
    metric = SlicedWasserstein(data, samples=1000, directions=2000)
    assert metric.samples == 500
    found = metric(given(data.examples("train")[0] + np.float32([3.0, 4.0])))
    # of 5 / sqrt(2) = 3.536 along 2000 random lines: (u.v)^2 has mean 12.5 and spread 12.5 /
    # sqrt(2)
    assert found["gan/sliced_wasserstein"] == pytest.approx(5 / 2**0.5, rel=0.05)
    same = metric(given(data.examples("train")[0]))
    assert same["gan/sliced_wasserstein"] == pytest.approx(0.0, abs=1e-6)
    assert 0.0 < same["gan/sliced_wasserstein_floor"] < 0.2
    notes = metric.notes
    assert (notes["samples"], notes["directions"], notes["floor's samples"]) == (500, 2000, 400)
    assert notes["floor"] == same["gan/sliced_wasserstein_floor"]


def test_fewer_samples_are_held_against_as_many_real_ones():
    metric = SlicedWasserstein(DIGITS, samples=300)
    assert metric(given(DIGITS.examples("train", 100)[0]))[
        "gan/sliced_wasserstein"
    ] == pytest.approx(0.0, abs=1e-6)


def test_endless_data_has_a_distance_too():
    data = mixtures.grid()
    found = SlicedWasserstein(data, samples=2000)(lambda n: data.examples("test", n))
    assert found["gan/sliced_wasserstein"] == found["gan/sliced_wasserstein_floor"]
    assert 0.0 < found["gan/sliced_wasserstein"] < 0.3


# ---- memorisation --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data():
    return Arrays({"train": plane(0, 400), "test": plane(1, 1000)}, None, 0)


def test_copies_are_found(data):
    metric = Memorisation(data, samples=1000)
    half = np.concatenate([data.examples("train")[0][:200], plane(2, 200)])
    found = metric(given(half))
    fresh = metric(given(plane(2, 1000)))
    # as fresh as the test split: half of all pairs, give or take 5 / sqrt(12 * 500); about 1% below
    # the 1% quantile
    assert fresh["gan/nearer_than_test"] == pytest.approx(0.5, abs=5 / np.sqrt(12 * 500))
    assert 0.0 <= fresh["gan/copies"] < 0.03
    # half copies: each nearer than every test example; the other half is fair
    assert found["gan/nearer_than_test"] == pytest.approx(0.75, abs=0.08)
    assert found["gan/copies"] == pytest.approx(0.5, abs=0.03)
    poor = metric(given(plane(2, 500, shift=9.0)))
    assert poor["gan/nearer_than_test"] < 0.02
    assert poor["gan/copies"] == 0.0


def test_the_share_of_pairs_by_hand():
    # train at 0; test at distances 1, 2, 3, 4; generated at 2 (a tie) and 0.5
    line = Arrays({"train": np.array([[0.0]]), "test": np.array([[1.0], [2], [3], [4]])}, None, 0)
    found = Memorisation(line, samples=4, quantile=0.5)(
        given(np.array([[2.0], [-0.5]], np.float32))
    )
    # 2 is nearer than 3 and 4 and ties with 2: 2.5 of 4; 0.5 is nearer than all: 6.5 of 8
    assert found["gan/nearer_than_test"] == pytest.approx(6.5 / 8)
    assert found["gan/copies"] == 1.0  # both nearer than the median, 2.5


def test_pictures_put_each_beside_its_nearest():
    metric = Memorisation(DIGITS, samples=50)
    images = DIGITS.examples("train")[0][[5, 70, 900]]
    shown = metric.pictures(given(np.clip(images + 0.01, -1, 1)))["gan/nearest_neighbours"]
    # a row of four cells, 18 pixels wide with their white margins and 10 high, enlarged to 256 or
    # more: by 4
    assert (shown.shape, shown.dtype) == ((1, 40, 288, 1), np.uint8)
    cells = shown[0, ::4, ::4].reshape(10, 4, 18, 1).swapaxes(0, 1)[:, 1:-1, 1:-1]
    np.testing.assert_array_equal(cells[:3, :, 8:], pixels(images))
    np.testing.assert_array_equal(cells[:3, :, :8], pixels(np.clip(images + 0.01, -1, 1)))
    assert cells[3].min() == 255  # nothing
    assert (
        Memorisation(Arrays({"train": plane(0, 9), "test": plane(1, 9)}, None, 0)).pictures(
            given(plane(2, 9))
        )
        == {}
    )


def test_notes_say_what_was_compared(data):
    notes = Memorisation(data, samples=300, reference=100).notes
    assert (notes["samples"], notes["reference"], notes["test examples"]) == (300, 100, 300)
    assert "0.01 quantile" in notes["nearer than"]


def test_endless_data_and_senseless_numbers_are_refused(data):
    with pytest.raises(UserError, match="endless data cannot be memorised"):
        Memorisation(mixtures.ring())
    with pytest.raises(UserError, match=r"quantile=1\.0"):
        Memorisation(data, quantile=1.0)
    with pytest.raises(UserError, match="directions=0"):
        SlicedWasserstein(data, directions=0)
