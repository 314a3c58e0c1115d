"""Augmentations of images: each by hand, differentiable, and each image's own."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparring.errors import UserError
from sparring.gans import differentiable_augmentation
from sparring.gans.differentiable_augmentation import Color, Cutout, Flip, Translation
from sparring.xla import random

NOW = tf.constant(0.0)
KEYS = random.members(random.stream(0, "test"), 500)
EVERY = [Color(), Translation(), Cutout(), Flip()]


def drawing(monkeypatch: pytest.MonkeyPatch, *numbers: float) -> None:
    """Have every draw of uniform numbers be these."""
    given = tf.constant([numbers])
    monkeypatch.setattr(
        differentiable_augmentation.random, "uniform", lambda keys, count: given[:, :count]
    )


def test_colours_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    drawing(monkeypatch, 0.75, 0.25, 1.0)
    # Brightness + 0.25: pixels (0.25, 0.75) and (0.25, 0.25). Saturation 2 * 0.25: of means 0.5
    # and 0.25: (0.375, 0.625), (0.25, 0.25). Contrast 1.5 about the mean 0.375:
    # (0.375, 0.75), (0.1875, 0.1875).
    image = tf.constant([[[[0.0, 0.5], [0.0, 0.0]]]])
    expected = [[[[0.375, 0.75], [0.1875, 0.1875]]]]
    np.testing.assert_allclose(Color()(image, KEYS[:1], NOW), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("drawn", "down", "right"), [((0.0, 0.99), -1, 1), ((0.5, 0.5), 0, 0), ((0.99, 0.4), 1, 0)]
)
def test_translations_by_hand(
    drawn: tuple[float, float], down: int, right: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A quarter of 4 pixels: floor(3 u) - 1, so -1, 0 or 1
    drawing(monkeypatch, *drawn)
    image = np.arange(1.0, 17.0, dtype=np.float32).reshape(1, 4, 4, 1)
    padded = np.pad(image, [(0, 0), (1, 1), (1, 1), (0, 0)])
    expected = padded[:, 1 - down : 5 - down, 1 - right : 5 - right]
    found = Translation(0.25)(tf.constant(image), KEYS[:1], NOW)
    np.testing.assert_array_equal(found, expected)


def test_cutouts_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    # Half of 4: 2 rows from floor(0.5 * 5) - 1 = 1, and 2 columns from floor(0 * 5) - 1 = -1, of
    # which one is in the image
    drawing(monkeypatch, 0.5, 0.0)
    found = Cutout(0.5)(tf.ones([1, 4, 4, 1]), KEYS[:1], NOW)[0, :, :, 0]
    expected = np.ones((4, 4))
    expected[1:3, 0] = 0.0
    np.testing.assert_array_equal(found, expected)


def test_half_of_the_images_are_mirrored() -> None:
    image = np.arange(6.0, dtype=np.float32).reshape(1, 1, 6, 1)
    found = Flip()(tf.constant(image.repeat(500, axis=0)), KEYS, NOW).numpy()
    mirrored = (found == image[:, :, ::-1]).all(axis=(1, 2, 3))
    assert ((found == image).all(axis=(1, 2, 3)) ^ mirrored).all()
    assert 200 < mirrored.sum() < 300


@pytest.mark.parametrize("augment", EVERY, ids=lambda a: type(a).__name__)
def test_an_image_has_its_own_and_xla_and_gradients_agree(augment: Any) -> None:
    images = tf.random.stateless_normal([6, 8, 6, 3], [0, 1])
    whole = augment(images, KEYS[:6], NOW)
    np.testing.assert_allclose(augment(images[:2], KEYS[:2], NOW), whole[:2], atol=1e-6)
    compiled = tf.function(augment, jit_compile=True)
    np.testing.assert_allclose(compiled(images, KEYS[:6], NOW), whole, atol=1e-5)
    # All of them are linear but for constants: f(x + v) - f(x) is the derivative along v
    v = tf.random.stateless_normal(images.shape, [0, 2])
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = tf.reduce_sum(tf.square(augment(images, KEYS[:6], NOW)))
    slope = tf.reduce_sum(tape.gradient(total, images) * v)
    moved = augment(images + v, KEYS[:6], NOW) - whole
    np.testing.assert_allclose(slope, tf.reduce_sum(2.0 * whole * moved), rtol=1e-4)


def test_points_are_refused() -> None:
    with pytest.raises(UserError, match=r"augmentation=cutout: .* and an example here is \[2\]"):
        Cutout()(tf.zeros([3, 2]), KEYS[:3], NOW)
