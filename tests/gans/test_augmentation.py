"""Augmentation of examples before the discriminator."""

import numpy as np
import tensorflow as tf

from sparring.gans.augmentation import InstanceNoise, pack
from sparring.optim.schedules import Linear
from sparring.xla import random


def test_packing_puts_neighbours_side_by_side_in_the_last_axis() -> None:
    points = tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
    np.testing.assert_array_equal(pack(points, 2), [[1, 2, 3, 4], [5, 6, 7, 8]])
    np.testing.assert_array_equal(pack(points, 1), points)
    images = tf.reshape(tf.range(6 * 2 * 3 * 2), [6, 2, 3, 2])
    packed = pack(images, 3).numpy()
    assert packed.shape == (2, 2, 3, 6)
    for i in range(3):
        np.testing.assert_array_equal(packed[1, ..., 2 * i : 2 * i + 2], images[3 + i])


def test_instance_noise_has_the_scale_of_its_schedule_and_is_each_example_s_own() -> None:
    keys = random.members(random.stream(0, "test"), 1000)
    noise = InstanceNoise(Linear(2.0, 0.0))
    examples = tf.ones([1000, 4, 4, 1])
    added = noise(examples, keys, tf.constant(0.25)).numpy() - 1.0  # scale 1.5
    assert abs(added.std() - 1.5) < 0.02
    assert abs(added.mean()) < 0.05
    assert len(np.unique(added)) > 15_000
    np.testing.assert_allclose(
        noise(examples[:3], keys[:3], tf.constant(0.25)) - 1.0, added[:3], atol=1e-6
    )
    np.testing.assert_array_equal(noise(examples, keys, tf.constant(1.0)), examples)
