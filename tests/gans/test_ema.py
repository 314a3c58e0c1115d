"""The generator's average, by hand."""

import numpy as np
import pytest
import tensorflow as tf

from sparring.gans import ema
from sparring.gans.ema import EMA


def network(weight: float, buffer: float) -> tf.keras.layers.Layer:
    layer = tf.keras.layers.Layer()
    layer.weight = layer.add_weight(
        "weight", [], initializer=tf.keras.initializers.Constant(weight)
    )
    layer.buffer = layer.add_weight(
        "buffer", [], initializer=tf.keras.initializers.Constant(buffer), trainable=False
    )
    return layer


@pytest.mark.parametrize(
    ("half_life", "ramp_up", "images", "batch", "decay"),
    [
        (100.0, None, 5, 100, 0.5),  # one half-life
        (100.0, None, 5, 50, 0.5**0.5),
        (100.0, None, 5, 200, 0.25),
        (100.0, 0.05, 1000, 50, 0.5),  # 5% of 1000 images are 50
        (100.0, 0.05, 10_000, 50, 0.5**0.5),  # 5% are 500, more than the half-life
        (0.0, None, 1000, 50, 0.0),  # no average
        (100.0, 0.05, 0, 50, 0.0),
    ],
)
def test_the_decay(
    half_life: float, ramp_up: float | None, images: int, batch: int, decay: float
) -> None:
    found = EMA(half_life, ramp_up).decay(tf.constant(images, tf.int64), batch)
    assert float(found) == pytest.approx(decay, rel=1e-6)


def test_weights_are_averaged_and_buffers_copied() -> None:
    average = network(1.0, 10.0)
    source = network(2.0, 20.0)
    for _ in range(2):
        EMA(1.0).update(average, source, tf.constant(0.75))
    np.testing.assert_allclose(average.weight, 2.0 - 0.75**2)  # 1 -> 1.25 -> 1.4375
    np.testing.assert_allclose(average.buffer, 20.0)
    assert (source.weight.numpy(), source.buffer.numpy()) == (2.0, 20.0)


def test_a_copy_is_whole() -> None:
    target = network(1.0, 10.0)
    source = network(2.0, 20.0)
    ema.copy(target, source)
    assert (target.weight.numpy(), target.buffer.numpy()) == (2.0, 20.0)
