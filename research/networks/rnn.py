"""Recurrent networks: LSTM and GRU over whole sequences or step by step."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from sparring.errors import UserError

CELLS = {"lstm": tf.keras.layers.LSTMCell, "gru": tf.keras.layers.GRUCell}
State = list[list[tf.Tensor]]  # for each layer the tensors of its cell's state, each [B, units]


class RNN(tf.keras.layers.Layer):
    """Stacked recurrent cells: sequences [B, T, F] -> output at the last step [B, units[-1]].

    The sequence is processed in one loop of the compiled program. `step` advances a state by one
    step, for acting while the sequence is still to come.

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
        """Return the state before the first step of `batch` sequences: zeros."""
        sizes = [tf.nest.flatten(cell.state_size) for cell in self.cells]
        return [[tf.zeros([batch, n]) for n in layer] for layer in sizes]

    def step(self, inputs: tf.Tensor, state: State) -> tuple[tf.Tensor, State]:
        """Take one step from inputs [B, F] and a state.

        Returns the last layer's output [B, units[-1]], and the next state.
        """
        following: State = []
        for cell, before in zip(self.cells, state, strict=True):
            inputs, after = cell(inputs, before)
            following.append(list(tf.nest.flatten(after)))
        return inputs, following

    def call(self, inputs: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
        """Process sequences [B, T, F] to the last layer's output at the last step.

        `mask` bool [B, T] is false for steps to skip, such as the padding of a text.
        """
        length = inputs.shape[1]
        state = self.start(tf.shape(inputs)[0])
        by_time = tf.transpose(inputs, [1, 0, 2])  # [T, B, F]
        output = tf.zeros([tf.shape(inputs)[0], self.cells[-1].units])

        def body(t: tf.Tensor, output: tf.Tensor, state: State) -> Any:
            new_output, new_state = self.step(by_time[t], state)
            if mask is not None:
                counts = mask[:, t, tf.newaxis]  # [B, 1]
                new_output, new_state = tf.nest.map_structure(
                    lambda new, old: tf.where(counts, new, old),
                    (new_output, new_state),
                    (output, state),
                )
            return t + 1, new_output, new_state

        _, output, _ = tf.while_loop(
            lambda t, *_: t < length,
            body,
            (tf.constant(0), output, state),
            maximum_iterations=length,
        )
        return tf.ensure_shape(output, [inputs.shape[0], self.cells[-1].units])
