"""Discriminator on features of a pretrained network (Sauer et al. 2021, "Projected GANs")."""

from collections.abc import Sequence

import tensorflow as tf

from sparring.gans.networks.layers import NORMALIZATIONS, DenseLayer, Head, check_choice, leaky_relu
from sparring.gans.networks.pair import Factory


class ProjectedDiscriminator(tf.keras.layers.Layer):
    """Discriminator of dense layers on a frozen feature network: images [B, h, w, C] -> logits [B].

    Gradients flow through the feature network to the image and change nothing in it; its batch
    normalisation stays in inference mode. Simpler than Sauer et al. 2021, "Projected GANs converge
    faster": one vector of features for the whole image, neither mixed at random across channels and
    scales nor judged at several of them.

    Args:
      features: a factory of the feature network, a layer from images to [B, F].
      units: sizes of the dense layers between the features and the logit.
      normalization: that of these layers: none | batch | layer | spectral.
    """

    def __init__(
        self,
        shape: Sequence[int],
        features: Factory,
        classes: int = 0,
        units: Sequence[int] = (128,),
        normalization: str = "spectral",
        slope: float = 0.2,
    ) -> None:
        super().__init__()
        check_choice(normalization, NORMALIZATIONS, "network.discriminator")
        self.features = features()
        self.hidden = [DenseLayer(n, normalization, leaky_relu(slope)) for n in units]
        self.head = Head(classes, normalization)

    def build(self, input_shape: tf.TensorShape) -> None:
        self.features.build(input_shape)
        self.features.trainable = False
        super().build(input_shape)

    def call(self, examples: tf.Tensor, labels: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = self.features(examples, training=False)  # [B, F]
        for layer in self.hidden:
            x = layer(x, training=training)
        return self.head(x, labels)
