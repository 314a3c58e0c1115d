"""DCGAN generator and discriminator (Radford et al. 2016)."""

from collections.abc import Sequence

import tensorflow as tf

from sparring.errors import UserError
from sparring.gans.networks.layers import (
    NORMALIZATIONS,
    Head,
    NormalizedLayer,
    append_label,
    check_choice,
    leaky_relu,
    normal_initializer,
)
from sparring.gans.networks.spectral_norm import SpectralConv2D


class DCGANGenerator(tf.keras.layers.Layer):
    """DCGAN generator (Radford et al. 2016): latents [B, Z] -> images [B, h, w, C] in [-1, 1].

    Transposed convolutions of stride two: from a smallest side of 4 to 7 every layer doubles the
    sides, up to any `shape` whose sides are that times one power of two. The last hidden layer has
    `width` channels, each one before it twice as many, up to `max_width`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int = 0,
        width: int = 64,
        max_width: int = 512,
        normalization: str = "batch",
    ) -> None:
        super().__init__()
        check_choice(normalization, ("none", "batch"), "network.generator")
        doublings = doublings_of(shape)
        widths = [min(width * 2**i, max_width) for i in reversed(range(doublings))]
        # h, w, C of the smallest feature map
        self.start = (shape[0] >> doublings, shape[1] >> doublings, widths[0])
        self.classes = classes
        self.dense = tf.keras.layers.Dense(
            self.start[0] * self.start[1] * self.start[2], kernel_initializer=normal_initializer()
        )
        self.norms = [NormalizedLayer(normalization, tf.nn.relu) for _ in widths]
        self.ups = [
            tf.keras.layers.Conv2DTranspose(
                n, 4, 2, "same", kernel_initializer=normal_initializer()
            )
            for n in (*widths[1:], shape[2])
        ]

    def call(self, latents: tf.Tensor, labels: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = tf.reshape(self.dense(append_label(latents, labels, self.classes)), [-1, *self.start])
        for norm, up in zip(self.norms, self.ups, strict=True):
            x = up(norm(x, training=training))  # [B, 2h, 2w, channels]
        return tf.tanh(x)


class DCGANDiscriminator(tf.keras.layers.Layer):
    """DCGAN discriminator (Radford et al. 2016): images [B, h, w, C] -> logits [B].

    Convolutions of stride two, the generator's mirror image. `normalization`: none | batch | layer
    | spectral; the first layer has none but the spectral one. `patches` judges every place of the
    smallest feature map by itself (PatchGAN, Isola et al. 2017): logits [B, h', w', 1].
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int = 0,
        width: int = 64,
        max_width: int = 512,
        normalization: str = "none",
        slope: float = 0.2,
        patches: bool = False,
    ) -> None:
        super().__init__()
        check_choice(normalization, NORMALIZATIONS, "network.discriminator")
        if patches and classes:
            raise UserError(
                "network.discriminator.patches=true judges without a label: set "
                "game.conditional=false."
            )
        conv = SpectralConv2D if normalization == "spectral" else tf.keras.layers.Conv2D
        widths = [min(width * 2**i, max_width) for i in range(doublings_of(shape))]
        self.downs = [
            conv(n, 4, 2, "same", kernel_initializer=normal_initializer()) for n in widths
        ]
        self.norms = [
            NormalizedLayer(normalization if i else "none", leaky_relu(slope))
            for i in range(len(widths))
        ]
        self.head = (
            conv(1, 3, 1, "same", kernel_initializer=normal_initializer())
            if patches
            else Head(classes, normalization)
        )
        self.flatten = tf.keras.layers.Flatten()
        self.patches = patches

    def call(self, examples: tf.Tensor, labels: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = examples
        for down, norm in zip(self.downs, self.norms, strict=True):
            x = norm(down(x), training=training)  # [B, h / 2, w / 2, channels]
        return self.head(x) if self.patches else self.head(self.flatten(x), labels)


def doublings_of(shape: Sequence[int], network: str = "dcgan") -> int:
    """Count how often both sides of an image [h, w, C] can be halved, to 4 at the least.

    UserError, which names the `network`, if the sides do not lead there.
    """
    sides = tuple(shape[:2])
    count = 0
    if len(shape) != 3:
        raise UserError(
            f"network={network} makes images [h, w, C]; an example of this data is {list(shape)}: "
            "use network=gan_mlp."
        )
    while all(side % 2 == 0 and side >= 8 for side in sides):
        sides = (sides[0] // 2, sides[1] // 2)
        count = count + 1
    if count == 0 or max(sides) > 7:
        raise UserError(
            f"network={network}: {shape[0]}x{shape[1]}: both sides must be 4 to 7 times one power "
            "of two, and 8 at least, as 24x32 is: resize the images to 32x32, say, or use "
            "network=gan_mlp."
        )
    return count
