"""Pretrained networks: the backbones of tf.keras.applications as encoders of images."""

import logging
import sys
from collections.abc import Callable, Sequence

import tensorflow as tf

from sparring.errors import UserError
from sparring.networks import pretrained_weights
from sparring.networks.mlp import MLP

_log = logging.getLogger("sparring")
IMAGENET = "imagenet"


class Pretrained(tf.keras.layers.Layer):
    """Backbone of `tf.keras.applications` without its head: [B, H, W, C] -> features [B, F].

    Images are brought to the range and the channel order that the backbone was trained with, by
    Keras' own `preprocess_input` for it; grey ones are repeated to three channels.

    Args:
        backbone: the name of a class there: VGG16, ResNet50, InceptionV3, MobileNetV2,
          EfficientNetB0, ...
        weights: a path or an address of an .h5 file of weights without the head; "imagenet" for
          those that Keras keeps in ~/.keras/models, or fetches there; None for random ones, which
          the log reports.
        sha256: the expected checksum of the file; an address needs one.
        size: [height, width] that images are resized to (bilinear); None: unchanged.
        low, high: the range of the images' values: -1 and 1 in supervised training and GANs, 0 and
          1 for agents.
        trainable: whether its weights train; `stages` may freeze them as well.
        fixed_statistics: whether batch normalization keeps its pretrained statistics even where it
          trains. A frozen one does in any case.
        pooling: "avg" or "max" over positions; None: all positions, as one vector.
        units: of dense layers behind it.
        settings: further arguments of the backbone's class, such as {alpha: 0.35} of MobileNetV2.
    """

    def __init__(
        self,
        backbone: str,
        weights: str | None,
        sha256: str | None = None,
        size: Sequence[int] | None = None,
        low: float = -1.0,
        high: float = 1.0,
        trainable: bool = True,
        fixed_statistics: bool = True,
        pooling: str | None = "avg",
        units: Sequence[int] = (),
        settings: dict | None = None,
    ) -> None:
        super().__init__()
        self.made, self._preprocess = application(backbone)
        self.backbone = backbone
        self.source = weights
        self.sha256 = sha256
        self.size = None if size is None else (int(size[0]), int(size[1]))
        self.low = low
        self.high = high
        self.pooling = pooling
        self.fixed_statistics = fixed_statistics
        self.settings = dict(settings or {})
        self._trains = trainable
        self.dense = MLP(units, "relu")

    def build(self, input_shape: tf.TensorShape) -> None:
        height, width = self._sides(tf.TensorShape(input_shape))
        self.network = self._make((height, width, 3))
        self.network.trainable = self._trains
        # Tracks the weights by their layers' names
        self.blocks = {layer.name: layer for layer in self.network.layers if layer.weights}
        super().build(input_shape)

    def _sides(self, shape: tf.TensorShape) -> tuple[int, int]:
        if shape.rank != 4:
            raise UserError(
                f"A backbone looks at images [H, W, C], and an input here is {list(shape[1:])}."
            )
        if shape[-1] not in (1, 3):
            raise UserError(
                f"backbone={self.backbone} looks at three colours, these images have {shape[-1]} "
                "channels: "
                "drop the alpha channel (data.channels=3), stack no frames, or take network=cnn."
            )
        return self.size or (int(shape[1]), int(shape[2]))

    def _make(self, shape: tuple[int, int, int]) -> tf.keras.Model:
        if self.source == IMAGENET:
            return self._from_keras(shape)
        network = self._random_network(shape)
        if self.source is None:
            _log.warning("%s begins with random weights, as weights=null says.", self.backbone)
        else:
            pretrained_weights.load(network, pretrained_weights.locate(self.source, self.sha256))
        return network

    def _from_keras(self, shape: tuple[int, int, int]) -> tf.keras.Model:
        try:
            return self._network_of(shape, IMAGENET)
        # No file and no network, a broken file, weights of another network
        except Exception as error:
            # If the images' size is wrong, which raises the same from Keras, this reports it
            self._random_network(shape)
            raise UserError(
                f"weights=imagenet: Keras has no weights for {self.backbone} that can be used in "
                f"~/.keras/models, and can fetch none: {' '.join(str(error).split())[:300]}"
            ) from error

    def _random_network(self, shape: tuple[int, int, int]) -> tf.keras.Model:
        """Return the network with random weights."""
        try:
            return self._network_of(shape, None)
        except ValueError as error:
            said = " ".join(str(error).split())
            raise UserError(
                f"backbone={self.backbone}: {said}. Have images enlarged, by `size` beside it."
            ) from error

    def _network_of(self, shape: tuple[int, int, int], weights: str | None) -> tf.keras.Model:
        return self.made(
            include_top=False,
            weights=weights,
            input_shape=shape,
            pooling=self.pooling,
            **self.settings,
        )

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        # [B, H, W, C], 0 to 255
        x = (tf.cast(inputs, tf.float32) - self.low) * (255.0 / (self.high - self.low))
        if self.size is not None and tuple(x.shape[1:3]) != self.size:
            x = tf.image.resize(x, self.size)
        if x.shape[-1] == 1:
            x = tf.repeat(x, 3, axis=-1)
        training = bool(training) and self._trains and not self.fixed_statistics
        x = self.network(self._preprocess(x), training=training)
        return self.dense(x)


def application(
    name: str,
) -> tuple[Callable[..., tf.keras.Model], Callable[[tf.Tensor], tf.Tensor]]:
    """Return a class of `tf.keras.applications` and its preprocessing of images of 0 to 255."""
    made = getattr(tf.keras.applications, name, None)
    if not callable(made):
        known = [
            n
            for n in dir(tf.keras.applications)
            if callable(getattr(tf.keras.applications, n)) and n[0].isupper()
        ]
        raise UserError(
            f"backbone={name}: there is none of that name. There are: {', '.join(sorted(known))}."
        )
    return made, sys.modules[made.__module__].preprocess_input
