"""Residual generator and discriminator, with attention and labels as options.

Miyato et al. 2018, "Spectral normalization for generative adversarial networks", appendix B.4;
Miyato and Koyama 2018, "cGANs with projection discriminator"; Zhang et al. 2019, "Self-attention
generative adversarial networks"; Brock et al. 2019, "Large scale GAN training", appendix B.
"""

from collections.abc import Sequence

import tensorflow as tf

from sparring.gans.networks.attention import SelfAttention, check_side
from sparring.gans.networks.dcgan import doublings_of
from sparring.gans.networks.layers import Head, NormalizedLayer, check_choice
from sparring.gans.networks.minibatch_deviation import MinibatchDeviation
from sparring.gans.networks.spectral_norm import SpectralConv2D, SpectralDense

_NETWORK = "residual"


class ConditionalBatchNorm(tf.keras.layers.Layer):
    """Batch normalisation whose scale and offset depend on the label: [B, h, w, F] -> the same.

    De Vries et al. 2017, "Modulating early visual processing by language". A class's scale and
    offset are learned differences from those that all classes share, at first zero.
    """

    def __init__(self, classes: int, activation: bool = True) -> None:
        super().__init__()
        self.classes = classes
        self.relu = tf.nn.relu if activation else tf.identity
        self.norm = NormalizedLayer("batch", tf.identity)

    def build(self, input_shape: tf.TensorShape) -> None:
        if self.classes:
            size = [self.classes, input_shape[-1]]
            self.scale = self.add_weight("scale", size, initializer="zeros")
            self.offset = self.add_weight("offset", size, initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, labels: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = self.norm(inputs, training=training)
        if self.classes:
            chosen = tf.one_hot(labels, self.classes, dtype=x.dtype)  # [B, classes]
            scale = tf.matmul(chosen, tf.cast(self.scale, x.dtype))[:, tf.newaxis, tf.newaxis]
            offset = tf.matmul(chosen, tf.cast(self.offset, x.dtype))[:, tf.newaxis, tf.newaxis]
            x = x * (1.0 + scale) + offset
        return self.relu(x)


class GeneratorBlock(tf.keras.layers.Layer):
    """Residual block that doubles the sides: [B, h, w, F] -> [B, 2 h, 2 w, filters]."""

    def __init__(self, filters: int, classes: int, normalization: str) -> None:
        super().__init__()
        conv = SpectralConv2D if normalization == "spectral" else tf.keras.layers.Conv2D
        self.norms = [ConditionalBatchNorm(classes), ConditionalBatchNorm(classes)]
        self.convs = [conv(filters, 3, 1, "same"), conv(filters, 3, 1, "same")]
        self.shortcut = conv(filters, 1)

    def call(self, inputs: tf.Tensor, labels: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = doubled(self.norms[0](inputs, labels, training=training))
        x = self.norms[1](self.convs[0](x), labels, training=training)
        # The convolution of one pixel and the doubling commute: it is done on the small map
        return self.convs[1](x) + doubled(self.shortcut(inputs))


class DiscriminatorBlock(tf.keras.layers.Layer):
    """Residual block, which halves the sides if `down`: [B, h, w, F] -> [B, h / 2, w / 2, filters].

    A network's `first` block begins without an activation, as its inputs are pixels.
    """

    def __init__(self, filters: int, normalization: str, down: bool, first: bool = False) -> None:
        super().__init__()
        conv = SpectralConv2D if normalization == "spectral" else tf.keras.layers.Conv2D
        self.convs = [conv(filters, 3, 1, "same"), conv(filters, 3, 1, "same")]
        self.shortcut = conv(filters, 1) if down else None
        self.down = down
        self.first = first

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        x = inputs if self.first else tf.nn.relu(inputs)
        x = self.convs[1](tf.nn.relu(self.convs[0](x)))
        if self.shortcut is None:
            return x + inputs
        return halved(x) + self.shortcut(halved(inputs))


class ResidualGenerator(tf.keras.layers.Layer):
    """Residual generator: latents [B, Z] -> images [B, h, w, C] in [-1, 1].

    From a smallest side of 4 to 7 every block doubles the sides. The last block has `width`
    channels, each one before it twice as many, up to `max_width`. Labels choose the scales of batch
    normalisation. `attention` is the side of the feature map that attends to itself; null: none.
    `normalization`: batch | spectral, which is batch normalisation and spectral kernels (Zhang et
    al. 2019).
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int = 0,
        width: int = 64,
        max_width: int = 256,
        normalization: str = "batch",
        attention: int | None = None,
    ) -> None:
        super().__init__()
        check_choice(normalization, ("batch", "spectral"), "network.generator")
        doublings = doublings_of(shape, _NETWORK)
        widths = [min(width * 2**i, max_width) for i in reversed(range(doublings))]
        self.start = (shape[0] >> doublings, shape[1] >> doublings, widths[0])
        spectral = normalization == "spectral"
        self.dense = (SpectralDense if spectral else tf.keras.layers.Dense)(
            self.start[0] * self.start[1] * self.start[2]
        )
        self.blocks = [GeneratorBlock(n, classes, normalization) for n in widths]
        sides = [self.start[0] << (i + 1) for i in range(doublings)]
        self.attended = check_side(attention, sides, "network.generator.attention")
        self.attention = None if attention is None else SelfAttention(spectral)
        self.norm = NormalizedLayer("batch", tf.nn.relu)
        conv = SpectralConv2D if spectral else tf.keras.layers.Conv2D
        self.out = conv(shape[2], 3, 1, "same")

    def call(self, latents: tf.Tensor, labels: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = tf.reshape(self.dense(latents), [-1, *self.start])
        for i, block in enumerate(self.blocks):
            x = block(x, labels, training=training)  # [B, 2h, 2w, channels]
            if self.attention is not None and i == self.attended:
                x = self.attention(x)
        return tf.tanh(self.out(self.norm(x, training=training)))


class ResidualDiscriminator(tf.keras.layers.Layer):
    """Residual discriminator: images [B, h, w, C] -> logits [B].

    Blocks halve the sides to 4 to 7, and one more keeps them; features are summed over places.
    Labels are projected on them. `normalization`: none | spectral. `attention` is the side of the
    feature map that attends to itself; null: none. `deviation_group`: examples whose standard
    deviation is shown as a further channel (Karras et al. 2018, section 3); 0: none.
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int = 0,
        width: int = 64,
        max_width: int = 256,
        normalization: str = "spectral",
        attention: int | None = None,
        deviation_group: int = 0,
    ) -> None:
        super().__init__()
        check_choice(normalization, ("none", "spectral"), "network.discriminator")
        halvings = doublings_of(shape, _NETWORK)
        widths = [min(width * 2**i, max_width) for i in range(halvings)]
        self.blocks = [
            DiscriminatorBlock(n, normalization, True, first=not i) for i, n in enumerate(widths)
        ]
        sides = [shape[0] >> (i + 1) for i in range(halvings)]
        self.attended = check_side(attention, sides, "network.discriminator.attention")
        self.attention = None if attention is None else SelfAttention(normalization == "spectral")
        self.deviation = MinibatchDeviation(deviation_group) if deviation_group else None
        conv = SpectralConv2D if normalization == "spectral" else tf.keras.layers.Conv2D
        self.mixed = conv(widths[-1], 1) if deviation_group else None
        self.last = DiscriminatorBlock(widths[-1], normalization, down=False)
        self.head = Head(classes, normalization)

    def call(self, examples: tf.Tensor, labels: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = examples
        for i, block in enumerate(self.blocks):
            x = block(x)  # [B, h / 2, w / 2, channels]
            if self.attention is not None and i == self.attended:
                x = self.attention(x)
        if self.deviation is not None:
            x = self.mixed(self.deviation(x))
        x = tf.nn.relu(self.last(x))
        return self.head(tf.reduce_sum(x, axis=[1, 2]), labels)


def doubled(x: tf.Tensor) -> tf.Tensor:
    """Return each pixel as four: [B, h, w, F] -> [B, 2 h, 2 w, F]."""
    return tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2)


def halved(x: tf.Tensor) -> tf.Tensor:
    """Return means of squares of four pixels: [B, h, w, F] -> [B, h / 2, w / 2, F]."""
    return tf.nn.avg_pool2d(x, 2, 2, "VALID")
