"""Networks of observations of several parts, such as a camera's picture and a robot's joints."""

from collections.abc import Callable, Mapping

import tensorflow as tf

from sparring.errors import UserError

Encoder = Callable[[], tf.keras.layers.Layer]


class PartEncoders(tf.keras.layers.Layer):
    """Encoders of an observation's parts, joined: [B, ...] by name -> [B, F].

    Args:
      picture: a factory of the encoder of a part [B, H, W, C], each of which has its own.
      vector: a factory of the encoder of all other parts, flattened and concatenated by name.
      encoders: factories of the encoders of the parts they name, in place of those.
      joined: a factory of the layer behind the concatenated features; None: they are the output.
    """

    def __init__(
        self,
        picture: Encoder,
        vector: Encoder,
        encoders: Mapping[str, Encoder] | None = None,
        joined: Encoder | None = None,
    ) -> None:
        super().__init__()
        self._picture = picture
        self._vector = vector
        self._named = dict(encoders or {})
        self.encoders: dict[str, tf.keras.layers.Layer] = {}
        self.vector: tf.keras.layers.Layer | None = None
        self.joined = None if joined is None else joined()

    def build(self, input_shape: Mapping[str, tf.TensorShape]) -> None:
        if not isinstance(input_shape, Mapping):
            raise UserError(
                f"network: {type(self).__name__} joins the parts of an observation, and is given "
                f"one of {list(input_shape)[1:]}: choose another, such as network=mlp. Of an agent "
                "with a memory, the memory's encoder sees the parts."
            )
        unknown = sorted(set(self._named) - set(input_shape))
        if unknown:
            raise UserError(
                f"network.encoders: there is no part {unknown[0]}; the observations have "
                f"{', '.join(sorted(input_shape))}."
            )
        made = {}
        for name in sorted(input_shape):
            if name in self._named:
                made[name] = self._named[name]()
            elif len(input_shape[name]) == 4:
                made[name] = self._picture()
        self.encoders = made
        if len(made) < len(input_shape):
            self.vector = self._vector()
        super().build(input_shape)

    def call(self, parts: Mapping[str, tf.Tensor]) -> tf.Tensor:
        features = [_flat(encode(parts[name])) for name, encode in sorted(self.encoders.items())]
        if self.vector is not None:
            others = [_flat(parts[name]) for name in sorted(parts) if name not in self.encoders]
            features.append(self.vector(tf.concat(others, axis=1)))
        together = tf.concat(features, axis=1)
        return together if self.joined is None else self.joined(together)


def _flat(part: tf.Tensor) -> tf.Tensor:
    return tf.reshape(part, [tf.shape(part)[0], part.shape[1:].num_elements()])
