"""Recurrent generator and convolutional discriminator of sequences of tokens."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from sparring.gans.networks.layers import Head
from sparring.xla import random

State = list[tf.Tensor]  # hidden state and cell of the LSTM, [N, U] each


class RecurrentGenerator(tf.keras.layers.Layer):
    """LSTM over tokens with a softmax over the next one: tokens [N, T] -> logits [N, T, words].

    The logits at t are of the token at t, given those before it. A start token, the last row of
    the embedding, comes before the first.

    Args:
      words: number of different tokens.
      embedding, units: of a token, and of the LSTM.
    """

    def __init__(self, words: int, embedding: int = 32, units: int = 32) -> None:
        super().__init__()
        self.words = words
        self.embedding = tf.keras.layers.Embedding(words + 1, embedding)
        self.cell = tf.keras.layers.LSTMCell(units)
        self.over_time = tf.keras.layers.RNN(self.cell, return_sequences=True)
        self.head = tf.keras.layers.Dense(words)

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        start = tf.fill([tf.shape(tokens)[0], 1], tf.cast(self.words, tokens.dtype))
        before = tf.concat([start, tokens[:, :-1]], axis=1)  # [N, T]
        before = tf.ensure_shape(before, tokens.shape)
        return self.head(self.over_time(self.embedding(before)))  # [N, T, words]

    def start(self, count: int) -> tuple[tf.Tensor, State]:
        """Return logits [N, words] of the first tokens of `count` sequences, and the state."""
        zeros = tf.zeros([count, self.cell.units])
        return self.step(tf.fill([count], tf.constant(self.words, tf.int64)), [zeros, zeros])

    def step(self, tokens: tf.Tensor, state: State) -> tuple[tf.Tensor, State]:
        """Return logits [N, words] of what follows tokens [N] in a state, and the next state."""
        output, state = self.cell(self.embedding(tokens), state)
        return self.head(output), list(state)

    def sample(self, keys: tf.Tensor, length: int) -> tf.Tensor:
        """Draw sequences, int64 [N, length], each from its key of `keys` [N, 2]."""
        tokens = tf.zeros([length, keys.shape[0]], tf.int64)
        logits, state = self.start(keys.shape[0])
        zero = tf.constant(0, tf.int64)
        return tf.transpose(self.finish(tokens, logits, state, zero, keys))

    def finish(
        self, tokens: tf.Tensor, logits: tf.Tensor, state: State, first: tf.Tensor, keys: tf.Tensor
    ) -> tf.Tensor:
        """Return sequences [T, N] whose tokens from number `first` [] on are drawn anew.

        `logits` [N, words] are of token `first`, in `state`; the token of number t is drawn from
        `keys` [N, 2] and t.
        """
        length = tokens.shape[0]
        row = tf.range(length, dtype=tf.int64)[:, tf.newaxis]  # [T, 1]

        def body(
            t: tf.Tensor, tokens: tf.Tensor, logits: tf.Tensor, state: State
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, State]:
            drawn = _categorical(random.fold(keys, t), logits)
            tokens = tf.where(row == t, drawn, tokens)
            return t + 1, tokens, *self.step(drawn, state)

        found: tf.Tensor = tf.while_loop(
            lambda t, *_: t < length,
            body,
            (first, tokens, logits, state),
            maximum_iterations=length,
            parallel_iterations=1,
        )[1]
        return found


class TextCNN(tf.keras.layers.Layer):
    """Convolutions over time, their maxima, a highway layer and a logit (Kim 2014; Yu et al. 2017).

    It judges sequences of one-hot tokens [N, T * words], or tokens themselves by `of_tokens`:
    logits [N].

    Args:
      length, words: T and the number of different tokens.
      embedding: of a token.
      windows: lengths of the convolutions' kernels.
      filters: of each of them.
    """

    def __init__(
        self,
        length: int,
        words: int,
        embedding: int = 32,
        windows: Sequence[int] = (1, 2, 3, 4, 5),
        filters: int = 32,
    ) -> None:
        super().__init__()
        self.length = length
        self.words = words
        self.windows = [min(window, length) for window in windows]
        self.embedding = self.add_weight("embedding", [words, embedding], initializer="uniform")
        self.convolutions = [tf.keras.layers.Dense(filters, "relu") for _ in self.windows]
        width = filters * len(self.windows)
        self.transform = tf.keras.layers.Dense(width, "relu")
        # Begins by handing most of its input on (Srivastava et al. 2015, section 2.2)
        self.gate = tf.keras.layers.Dense(width, "sigmoid", bias_initializer=_constant(-2.0))
        self.head = Head(0)

    def call(self, examples: tf.Tensor, labels: tf.Tensor, training: bool = False) -> tf.Tensor:
        del labels, training
        one_hot = tf.reshape(examples, [-1, self.words])  # [N * T, words]
        embedded = tf.reshape(one_hot @ self.embedding, [-1, self.length, self.embedding.shape[1]])
        return self._judge(embedded)

    def of_tokens(self, tokens: tf.Tensor) -> tf.Tensor:
        """Return logits [N] of tokens [N, T]."""
        return self._judge(tf.gather(self.embedding, tokens))

    def _judge(self, embedded: tf.Tensor) -> tf.Tensor:
        """Return logits [N] of embedded tokens [N, T, E]."""
        pooled = []
        for window, convolution in zip(self.windows, self.convolutions, strict=True):
            end = self.length - window + 1
            # As one matrix product, which XLA has faster than a convolution on a CPU
            shifted = [embedded[:, i : end + i] for i in range(window)]
            windowed = convolution(tf.concat(shifted, axis=-1))  # [N, T - window + 1, filters]
            pooled.append(tf.reduce_max(windowed, axis=1))
        features = tf.concat(pooled, axis=-1)  # [N, filters * windows]
        gate = self.gate(features)
        features = gate * self.transform(features) + (1.0 - gate) * features
        return self.head(features, ())


class SequencePair:
    """Factories of a generator and a discriminator of sequences.

    `generator(words=)` makes a `RecurrentGenerator`, or what has its methods;
    `discriminator(length=, words=)` a `TextCNN`, or what has its two.
    """

    def __init__(
        self,
        generator: Callable[..., Any] = RecurrentGenerator,
        discriminator: Callable[..., Any] = TextCNN,
    ) -> None:
        self._generator = generator
        self._discriminator = discriminator

    def build_generator(self, words: int) -> Any:
        """Build a generator of sequences of `words` different tokens."""
        network = self._generator(words=words)
        network(tf.zeros([2, 2], tf.int64))
        return network

    def discriminator_of(self, length: int, words: int) -> Callable[..., Any]:
        """Return the factory of the discriminator, called as that of other GANs is."""
        make = functools.partial(self._discriminator, length=length, words=words)
        return lambda shape, classes: make()


def _categorical(keys: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Draw from softmax(logits) [N, K] by keys [N, 2]; int64 [N]."""
    count = logits.shape[-1]
    noisy = logits + random.gumbel(keys, count)
    # On a CPU six times as fast as tf.argmax, of which XLA makes a loop over numbers one by one
    largest = noisy >= tf.reduce_max(noisy, axis=-1, keepdims=True)
    return tf.reduce_max(tf.where(largest, tf.range(count, dtype=tf.int64), 0), axis=-1)


def _constant(value: float) -> tf.keras.initializers.Initializer:
    return tf.keras.initializers.Constant(value)
