"""Features: random and trained networks that are the same every time, and a classifier that is
trained once.
"""

import logging
import os

import numpy as np
import pytest
import tensorflow as tf

from sparring.data import arrays as data_arrays
from sparring.data.dataset import Arrays
from sparring.errors import UserError
from sparring.gans.data import mixtures
from sparring.gans.metrics import classifier
from sparring.gans.metrics.classifier import Classifier
from sparring.gans.metrics.extractors import (
    Network,
    Pixels,
    RandomNetworks,
    fingerprint,
    hidden,
    in_batches,
    initial,
    logits,
)
from sparring.xla import random

DIGITS = data_arrays.digits(0)
IMAGES, LABELS = DIGITS.examples("test")


def test_a_networks_layers_halve_an_image_to_four_pixels():
    weights = initial((32, 32, 3), 10, random.stream(0, "x"))
    # 32 -> 16 -> 8 -> 4 by convolutions of 32, 64 and 128 filters, then 4 * 4 * 128 = 2048 numbers
    # -> 64 -> 10
    assert [tuple(w.shape) for w in weights[::2]] == [
        (3, 3, 3, 32),
        (3, 3, 32, 64),
        (3, 3, 64, 128),
        (2048, 64),
        (64, 10),
    ]
    assert [tuple(w.shape) for w in initial((2,), 8, random.stream(0, "x"))[::2]] == [
        (2, 64),
        (64, 64),
        (64, 8),
    ]
    assert initial((5, 7, 1), 2, random.stream(0, "x"))[2].shape == (3 * 4 * 32, 64)  # rounded up
    for kernel in weights[:-2:2]:
        assert float(tf.math.reduce_std(kernel)) == pytest.approx(
            (2 / np.prod(kernel.shape[:-1])) ** 0.5, rel=5 / np.sqrt(2 * np.prod(kernel.shape))
        )


def test_a_network_by_hand():
    kernel = np.zeros((3, 3, 1, 1), np.float32)
    kernel[0, 0] = (
        1.0  # strides of 2 and one row of padding below and to the right: every other pixel
    )
    weights = [kernel, [0.5], [[1.0, -1.0]], [0.0, 0.0], [[2.0], [3.0]], [0.25]]
    weights = [tf.constant(w, tf.float32) for w in weights]
    image = tf.reshape(tf.constant([-2.0, 9.0, 9.0, 9.0]), (1, 2, 2, 1))
    # the one pixel -2 + 0.5 is rectified to 0; for +2: 2.5 -> (2.5, -2.5) -> (2.5, 0) -> 5 + 0.25
    assert hidden(weights, image).numpy().tolist() == [[0.0, 0.0]]
    assert hidden(weights, -image).numpy().tolist() == [[2.5, 0.0]]
    assert logits(weights, -image).numpy().tolist() == [[5.25]]


def test_batches_leave_no_trace_of_their_padding():
    found = in_batches(
        lambda x: x * tf.cast(tf.shape(x)[0], tf.float32), np.arange(10, dtype=np.float32), batch=4
    )
    np.testing.assert_array_equal(found, np.arange(10) * 4.0)


def test_random_networks_are_always_the_same_and_unlike_each_other():
    one = RandomNetworks(DIGITS, count=2)
    other = RandomNetworks(data_arrays.digits(5), count=3)
    for a, b in zip(one.members, other.members, strict=False):
        np.testing.assert_array_equal(a(IMAGES), b(IMAGES))
    first, second = (member(IMAGES) for member in one.members)
    assert first.shape == (len(IMAGES), 64)
    assert np.corrcoef(first.mean(axis=0), second.mean(axis=0))[0, 1] < 0.5
    assert one.notes["extractor"] != other.notes["extractor"]
    assert one.notes == RandomNetworks(DIGITS, count=2).notes
    with pytest.raises(UserError, match=r"extractor\.count=0"):
        RandomNetworks(DIGITS, count=0)


def test_pixels_are_flat():
    (member,) = Pixels(DIGITS).members
    np.testing.assert_array_equal(member(IMAGES), IMAGES.reshape(-1, 64))


def test_fingerprints_see_values_shapes_types_and_words():
    a = np.arange(6, dtype=np.float32)
    marks = [
        fingerprint([a]),
        fingerprint([a + 1]),
        fingerprint([a.reshape(2, 3)]),
        fingerprint([a.astype(int)]),
    ]
    marks += [fingerprint([a], 1), fingerprint([a, a]), fingerprint([a[::-1]])]
    assert len(set(marks)) == len(marks)
    assert fingerprint([a]) == fingerprint([tf.constant(a)])


# ---- the classifier ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    found = Classifier(DIGITS, str(tmp_path_factory.mktemp("cache")), steps=400)
    assert found.accuracy > 0.95  # trained here, in the first test that needs it
    return found


def test_it_names_digits_and_its_features_have_mean_square_one(trained):
    p = trained.probabilities(IMAGES)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-5)
    assert trained.accuracy == pytest.approx((p.argmax(axis=1) == LABELS).mean())
    assert trained.notes["accuracy on the real test split"] == trained.accuracy
    features = trained.features(DIGITS.examples("train")[0])
    assert np.mean(np.square(features)) == pytest.approx(1.0, abs=1e-4)


def test_scaling_features_leaves_the_classes_as_they_were():
    weights = initial((8, 8, 1), 10, random.stream(1, "x"))
    scaled = classifier._scaled(weights, 9.0)
    x = tf.constant(IMAGES[:8])
    np.testing.assert_allclose(hidden(scaled, x) * 3.0, hidden(weights, x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits(scaled, x), logits(weights, x), rtol=1e-3, atol=1e-4)


def test_it_is_trained_once_and_read_from_then_on(trained, monkeypatch):
    monkeypatch.setattr(classifier, "fit", None)  # would fail
    again = Classifier(data_arrays.digits(7), str(trained.folder), steps=400)
    np.testing.assert_array_equal(again.features(IMAGES), trained.features(IMAGES))
    assert again.notes == trained.notes
    (file,) = trained.folder.iterdir()
    with np.load(file, allow_pickle=False) as found:
        assert all(found[name].dtype.kind in "fU" for name in found.files)


def test_training_it_again_gives_the_same_numbers(tmp_path):
    made = [Classifier(DIGITS, str(tmp_path / str(i)), steps=30).features(IMAGES) for i in range(2)]
    np.testing.assert_array_equal(*made)


def test_other_data_or_training_makes_another(tmp_path):
    x, y = DIGITS.examples("train")
    changed = Arrays(
        {"train": np.concatenate([x[:-1], -x[-1:]]), "test": IMAGES},
        {"train": y, "test": LABELS},
        0,
    )
    for data, steps in ((DIGITS, 2), (DIGITS, 3), (changed, 2)):
        assert Classifier(data, str(tmp_path), steps=steps).features(IMAGES).shape == (
            len(IMAGES),
            64,
        )
    assert len(list(tmp_path.iterdir())) == 3


def test_a_damaged_file_is_made_anew(tmp_path, caplog):
    first = Classifier(DIGITS, str(tmp_path), steps=2).features(IMAGES)
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    with np.load(file) as found:
        arrays = dict(found)
    arrays["000"] = arrays["000"] + 1  # a sound file, but of other weights than it says
    np.savez(tmp_path / "other.npz", **arrays)
    other = (tmp_path / "other.npz").read_bytes()
    for bad in (bytes(content), content[:100], b"", other):
        file.write_bytes(bad)
        with caplog.at_level(logging.WARNING, "sparring"):
            again = Classifier(DIGITS, str(tmp_path), steps=2).features(IMAGES)
        np.testing.assert_array_equal(again, first)
        assert "made anew" in caplog.text
        caplog.clear()


def test_a_folder_that_cannot_be_written_costs_no_run(tmp_path, caplog):
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING, "sparring"):
        Classifier(DIGITS, str(tmp_path / "file" / "below"), steps=2).features(IMAGES)
    assert "cannot be kept" in caplog.text


def test_without_a_home_it_is_trained_and_not_kept(monkeypatch, tmp_path, caplog):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 123456)  # of no user in the password file
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.WARNING, "sparring"):
        Classifier(DIGITS, steps=2).features(IMAGES)
    assert "XDG_CACHE_HOME names a folder" in caplog.text
    assert not list(tmp_path.iterdir())


def test_data_without_classes_is_refused():
    unlabelled = Arrays({"train": IMAGES, "test": IMAGES}, None, 0)
    with pytest.raises(UserError, match="the data has no classes to learn"):
        Classifier(unlabelled)


def test_vectors_are_classified_too(tmp_path):
    found = Classifier(mixtures.ring(), str(tmp_path), steps=200)
    assert found.accuracy > 0.99


def test_its_step_is_adam():
    # one weight w = 0 before logits (0 * w, w) ... checked against Keras' Adam on the same
    # gradients
    weights = initial((2,), 3, random.stream(0, "x"))
    x, y = mixtures.ring(3).examples("train", 256)
    ours = classifier.fit(weights, x, y, 5, 0.01)
    variables = [tf.Variable(w) for w in weights]
    adam = tf.keras.optimizers.Adam(0.01, epsilon=1e-7)
    from sparring.data.dataset import Order

    for i in range(5):
        rows = Order(256, 0).plan(i, 1, 128)[0]
        adam.learning_rate.assign(0.01 * (1 - i / 5))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(y[rows], logits(variables, x[rows]))
            )
        adam.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
    for a, b in zip(ours, variables, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_networks_work_in_a_strategys_scope(tmp_path):
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        inside = Classifier(DIGITS, str(tmp_path / "a"), steps=3).features(IMAGES)
    np.testing.assert_array_equal(
        inside, Classifier(DIGITS, str(tmp_path / "b"), steps=3).features(IMAGES)
    )
    assert Network(initial((2,), 2, random.stream(0, "x"))).features(tf.zeros([3, 2])).shape == (
        3,
        64,
    )
