"""Standard deviation over a group of examples, as a channel (Karras et al. 2018, section 3)."""

import tensorflow as tf

from sparring.errors import UserError

_EPSILON = 1e-8


class MinibatchDeviation(tf.keras.layers.Layer):
    """Feature map with a further channel: [B, h, w, F] -> [B, h, w, F + 1].

    The channel is the mean over places and channels of the standard deviation over `group`
    neighbouring examples, or over the whole batch where it is smaller. Groups lie within a
    replica's share of a batch, so that replicas equal one device.
    """

    def __init__(self, group: int) -> None:
        super().__init__()
        self.group = group

    def call(self, x: tf.Tensor) -> tf.Tensor:
        batch, h, w, channels = x.shape
        group = min(self.group, batch)
        if batch % group:
            raise UserError(
                f"network.discriminator.deviation_group={self.group} must divide a replica's part "
                f"of a batch, and that has {batch} examples: choose another game.batch_size."
            )
        grouped = tf.reshape(tf.cast(x, tf.float32), [-1, group, h, w, channels])
        apart = grouped - tf.reduce_mean(grouped, axis=1, keepdims=True)
        deviation = tf.sqrt(tf.reduce_mean(tf.square(apart), axis=1) + _EPSILON)
        mean = tf.reduce_mean(deviation, axis=[1, 2, 3])  # [B / group]
        channel = tf.repeat(mean, group)[:, tf.newaxis, tf.newaxis, tf.newaxis]
        shown = tf.broadcast_to(channel, [batch, h, w, 1])
        return tf.concat([x, tf.cast(shown, x.dtype)], axis=-1)
