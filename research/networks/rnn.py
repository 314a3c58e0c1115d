"""Recurrent networks: LSTM and GRU over sequences, and step by step."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from sparring.errors import UserError

CELLS = {"lstm": tf.keras.layers.LSTMCell, "gru": tf.keras.layers.GRUCell}
State = list[list[tf.Tensor]]  # for each layer what its cell remembers, each [B, units]


class RNN(tf.keras.layers.Layer):
    """Layers of recurrent cells: sequences [B, T, F] -> what the last layer says of the last step,
    [B, units[-1]].

    A sequence is gone through in one loop of the compiled program. `step` goes on by one step from
    a state, for what acts while the sequence is still to come.

    Args:
      cell: "lstm" (Hochreiter and Schmidhuber 1997) or "gru" (Cho et al. 2014).
      units: of each layer.
    """

    def __init__(self, cell: str = "lstm", units: Sequence[int] = (64,)) -> None:
        super().__init__()
        if cell not in CELLS:
            raise UserError(f"network.cell={cell}: choose one of {', '.join(CELLS)}.")
        if not units:
            raise UserError("network.units=[]: one layer at least.")
        self.cells = [CELLS[cell](n) for n in units]

    def build(self, input_shape: tf.TensorShape) -> None:
        shape = tf.TensorShape(input_shape)
        if shape.rank != 3:
            raise UserError(
                f"network={type(self).__name__.lower()} goes through sequences [T, F], and an "
                "input here is "
                f"{list(shape[1:])}: choose another network, or stack inputs to sequences."
            )
        width = shape[-1]
        for cell in self.cells:  # before the loop, in which no variable can be made
            cell.build(tf.TensorShape([None, width]))
            width = cell.units
        super().build(input_shape)

    def start(self, batch: tf.Tensor | int) -> State:
        """The state before the first step of `batch` sequences: zeros."""
        sizes = [tf.nest.flatten(cell.state_size) for cell in self.cells]
        return [[tf.zeros([batch, n]) for n in layer] for layer in sizes]

    def step(self, inputs: tf.Tensor, state: State) -> tuple[tf.Tensor, State]:
        """One step: inputs [B, F] and a state -> what the last layer says [B, units[-1]], and the
        next state.
        """
        following: State = []
        for cell, before in zip(self.cells, state, strict=True):
            inputs, after = cell(inputs, before)
            following.append(list(tf.nest.flatten(after)))
        return inputs, following

    def call(self, inputs: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
        """`mask` bool [B, T]: false for steps that are passed over, such as the padding
        of a text.
        """
        length = inputs.shape[1]
        state = self.start(tf.shape(inputs)[0])
        by_time = tf.transpose(inputs, [1, 0, 2])  # [T, B, F]
        says = tf.zeros([tf.shape(inputs)[0], self.cells[-1].units])

        def body(t: tf.Tensor, says: tf.Tensor, state: State) -> Any:
            said, after = self.step(by_time[t], state)
            if mask is not None:
                counts = mask[:, t, tf.newaxis]  # [B, 1]
                said, after = tf.nest.map_structure(
                    lambda new, old: tf.where(counts, new, old), (said, after), (says, state)
                )
            return t + 1, said, after

        _, says, _ = tf.while_loop(
            lambda t, *_: t < length, body, (tf.constant(0), says, state), maximum_iterations=length
        )
        return tf.ensure_shape(says, [inputs.shape[0], self.cells[-1].units])
