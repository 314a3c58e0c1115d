"""Where computation happens. Everything that holds variables is created inside the strategy's scope."""

import tensorflow as tf


def one_device() -> tf.distribute.Strategy:
    """The first GPU if there is one, else the CPU."""
    device = "/gpu:0" if tf.config.list_logical_devices("GPU") else "/cpu:0"
    return tf.distribute.OneDeviceStrategy(device)
