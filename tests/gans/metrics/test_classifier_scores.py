"""Scores by a classifier of generated examples; modes of stacked digits, counted by hand."""

import numpy as np
import pytest

from sparring.data import arrays
from sparring.errors import UserError
from sparring.gans.data.stacked_digits import StackedDigits
from sparring.gans.metrics.classifier_scores import Judged, StackedModes, inception_form

pytestmark = pytest.mark.long

DIGITS = arrays.digits(0)


class Oracle:
    """A classifier that knows each image of the digits, in place of one that is trained."""

    notes = {"extractor": "oracle"}  # noqa: RUF012

    def __init__(self, data):
        self.known = {}
        for split in ("train", "test"):
            images, labels = data.examples(split)
            self.known |= {
                image.tobytes(): label for image, label in zip(images, labels, strict=True)
            }

    def probabilities(self, images):
        return np.eye(10)[[self.known[np.ascontiguousarray(i).tobytes()] for i in images]]


def test_inception_form_by_hand():
    assert inception_form(np.eye(4)) == pytest.approx(4.0)  # sure and even
    assert inception_form(np.full((5, 4), 0.25)) == pytest.approx(1.0)  # knows nothing
    assert inception_form(np.eye(4)[[0, 0, 0]]) == pytest.approx(1.0)  # one class only
    # p = (.9, .1) and (.1, .9), even on average: KL = .9 log 1.8 + .1 log .2 = 0.3681
    assert inception_form(np.array([[0.9, 0.1], [0.1, 0.9]])) == pytest.approx(
        np.exp(0.9 * np.log(1.8) + 0.1 * np.log(0.2))
    )


def test_judged_by_label_and_beside_its_floor():
    images, labels = DIGITS.examples("test")
    wrong = np.where(np.arange(len(labels)) < 90, (labels + 1) % 10, labels)
    metric = Judged(DIGITS, Oracle, samples=359, label_accuracy=True)
    found = metric(lambda n: (images[:n], wrong[:n]))
    assert found["gan/label_accuracy"] == pytest.approx(1 - 90 / 359)
    assert found["gan/label_accuracy_floor"] == 1.0
    assert found["gan/is_classifier"] == found["gan/is_classifier_floor"]
    # A sure classifier: KL is the entropy of the classes' shares
    shares = np.bincount(labels) / 359
    assert found["gan/is_classifier"] == pytest.approx(np.exp(-np.sum(shares * np.log(shares))))
    assert found.keys() == metric.descriptions.keys()
    assert Judged(DIGITS, Oracle).descriptions.keys() == {
        "gan/is_classifier",
        "gan/is_classifier_floor",
    }
    assert metric.notes["extractor"] == "oracle"
    assert metric.notes["floor's samples"] == 359


def test_modes_of_stacked_digits_by_hand():
    data = StackedDigits(seed=0, train=100, test=3000)
    images, labels = data.digits.examples("train")
    first = [np.flatnonzero(labels == digit)[0] for digit in range(10)]
    stacks = [(1, 2, 3), (1, 2, 3), (3, 2, 1), (0, 0, 0)]  # 123 twice, 321, 0
    fake = np.stack(
        [np.concatenate([images[first[d]] for d in stack], axis=-1) for stack in stacks]
    )
    metric = StackedModes(data, Oracle, samples=3000)
    found = metric(lambda n: (fake, np.zeros(4, np.int64)))
    assert found["gan/modes"] == 3.0
    p = np.bincount(labels) / len(labels)
    real = {123: p[1] * p[2] * p[3], 321: p[3] * p[2] * p[1], 0: p[0] ** 3}
    expected = (
        0.5 * np.log(0.5 / real[123])
        + 0.25 * np.log(0.25 / real[321])
        + 0.25 * np.log(0.25 / real[0])
    )
    assert found["gan/reverse_kl"] == pytest.approx(expected)
    # 3000 even draws show 1000 (1 - e^-3) = 950 numbers, give or take 5; the divergence is about
    # 999 / 6000 = 0.17 nats
    assert found["gan/modes_floor"] == len(np.unique(data.examples("test")[1]))
    assert 930 < found["gan/modes_floor"] < 970
    assert 0.1 < found["gan/reverse_kl_floor"] < 0.25


def test_other_data_is_refused():
    with pytest.raises(UserError, match="choose data=stacked_digits"):
        StackedModes(DIGITS)
