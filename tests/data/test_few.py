"""Some classes of a data set, and few examples of each: what transfer is tried on."""

import numpy as np
import pytest

from sparring.data.arrays import digits
from sparring.data.splits import few
from sparring.data.synthetic_shapes import Shapes
from sparring.errors import UserError


def test_few_are_of_the_classes_asked_for_and_drawn_by_the_seed():
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    assert few(labels, [0, 2], None, 0).tolist() == [0, 2, 3, 5, 6, 8, 9]
    drawn = [few(labels, [0, 2], 2, seed) for seed in range(8)]
    for rows in drawn:
        assert sorted(labels[rows]) == [0, 0, 2, 2]
        assert (np.diff(rows) > 0).all()
    assert len({tuple(rows) for rows in drawn}) > 1


def test_digits_of_some_classes_are_those_of_the_whole_set():
    whole = digits(0)
    some = digits(0, only=[7, 3], per_class=5)
    assert (some.classes, some.names, some.count) == (2, ("7", "3"), 10)
    images, labels = whole.examples("test")
    kept = np.isin(labels, [7, 3])
    np.testing.assert_array_equal(some.examples("test")[0], images[kept])
    np.testing.assert_array_equal(some.examples("test")[1], np.where(labels[kept] == 7, 0, 1))
    assert np.bincount(some.examples("train")[1]).tolist() == [5, 5]


def test_shifted_digits_are_moved_by_a_pixel_each_way():
    plain = digits(0, only=[1, 2])
    moved = digits(0, only=[1, 2], shifts=1)
    (images, labels), (more, again) = plain.examples("train"), moved.examples("train")
    assert moved.count == 9 * plain.count
    # The middle one is not moved
    np.testing.assert_array_equal(more[4 * plain.count : 5 * plain.count], images)
    np.testing.assert_array_equal(again.reshape(9, -1), np.tile(labels, (9, 1)))
    np.testing.assert_array_equal(more[0, 1:, 1:], images[0, :-1, :-1])
    assert (more[0, 0] == -1.0).all()
    np.testing.assert_array_equal(moved.examples("test")[0], plain.examples("test")[0])


def test_shapes_of_some_classes_keep_their_boxes():
    whole = Shapes(0, 200, 100, 16)
    some = Shapes(0, 200, 100, 16, only=[5, 2, 23])
    images, labels = whole.examples("test")
    kept = np.isin(labels, [5, 2, 23])
    np.testing.assert_array_equal(some.examples("test")[0], images[kept])
    np.testing.assert_array_equal(np.array([5, 2, 23])[some.examples("test")[1]], labels[kept])
    np.testing.assert_array_equal(some.boxes("test"), whole.boxes("test")[kept])
    assert some.names == (whole.names[5], whole.names[2], whole.names[23])


@pytest.mark.parametrize("only", [[3], [3, 3], [3, 10], [-1, 2]])
def test_classes_that_are_not_there_are_refused(only):
    with pytest.raises(
        UserError, match=r"data\.only=.*: two classes of 0 to 9 at least, each once"
    ):
        digits(0, only=only)
    with pytest.raises(UserError, match=r"data\.per_class=0: 1 at least"):
        digits(0, per_class=0)
