"""Recurrent layers between observations and an agent's networks.

They are behind the methods `start` and `see` of an agent (see sparring.agents.agent). The state is
one tensor [B, S], whatever the layers, and begins with zeros. Whoever steps environments carries it
from step to step, and puts it back to the start where a step opened an episode.
"""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf

from sparring import nested
from sparring.agents.networks.headed import Torso, highest_bytes, prepare, require_parts
from sparring.agents.networks.normalizers import Normalizer
from sparring.networks.rnn import RNN

State = Any  # a tensor or array [B, S], or ()


def restarted(state: State, first: Any) -> State:
    """The state after a step, at the start again where the step opened an episode: `first` [B].
    Tensors or arrays.
    """
    if isinstance(state, tuple):
        return state
    where = np.where if isinstance(first, np.ndarray) else tf.where
    return where(first[:, np.newaxis], np.float32(0.0), state)


class Memory(tf.keras.layers.Layer):
    """Recurrent cells over the steps of an episode, behind an encoder: observations [B, ...] -> [B,
    units[-1]].

    Args:
      cell: "lstm" (Hochreiter and Schmidhuber 1997) or "gru" (Cho et al. 2014).
      units: of each layer of cells.
      encoder: a factory of the network in front of them; None: they see the observations' numbers
        as they are.
    """

    def __init__(
        self, cell: str = "lstm", units: tuple[int, ...] = (64,), encoder: Torso | None = None
    ) -> None:
        super().__init__()
        self.encoder = tf.keras.layers.Flatten() if encoder is None else encoder()
        self.cells = RNN(cell, units)
        self.width = int(units[-1])
        self.sizes = [int(n) for c in self.cells.cells for n in tf.nest.flatten(c.state_size)]

    def step(self, encoded: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Apply one step: [B, F] and state [B, S] -> outputs [B, units[-1]] and the next state."""
        nested = tf.nest.pack_sequence_as(self.cells.start(1), tf.split(state, self.sizes, axis=1))
        said, after = self.cells.step(encoded, nested)
        return said, tf.concat(tf.nest.flatten(after), axis=1)


class Memories(tf.Module):
    """A memory of its own for each of an agent's networks. `seen` is what they all say, one after
    the other: [B, W].

    Args:
      memory: a factory of one.
      count: of the networks.
      spec: of one observation.
      normalizer: of observations, if they are to be normalised.
    """

    def __init__(
        self,
        memory: Callable[[], Memory],
        count: int,
        spec: Any,
        normalizer: Normalizer | None = None,
    ) -> None:
        super().__init__(name="memories")
        self._normalizer = normalizer
        self._highest = highest_bytes(spec)
        self.each = [memory() for _ in range(count)]
        self.width = self.each[0].width
        self.sizes = [sum(m.sizes) for m in self.each]
        for each in self.each:
            require_parts(each.encoder, spec)
        zeros = nested.map_parts(lambda part: tf.zeros([1, *part.shape], part.dtype), spec)
        for each, encoded in zip(self.each, self._encoded(zeros), strict=True):
            each.cells.build(tf.TensorShape([None, None, encoded.shape[-1]]))

    @property
    def space(self) -> gymnasium.spaces.Box:
        """Specification of the recurrent features that networks are given."""
        return gymnasium.spaces.Box(-np.inf, np.inf, (self.width * len(self.each),), np.float32)

    @property
    def weights(self) -> list[tf.Variable]:
        """Trainable weights, in the layers' order."""
        return [
            w
            for m in self.each
            for part in (m.encoder, *m.cells.cells)
            for w in part.trainable_weights
        ]

    def start(self, batch: int) -> tf.Tensor:
        """The state before an episode's first step: zeros [B, S]."""
        return tf.zeros([batch, sum(self.sizes)])

    def step(self, observation: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Observations [B, ...] and the state [B, S] -> what is seen [B, W], and the next state."""
        return self._step(self._encoded(observation), state)

    def sequence(self, observation: tf.Tensor, first: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
        """Return the features of T steps of B environments, from `state` [B, S] on."""
        return self.unroll(observation, first, state)[0]

    def unroll(
        self, observation: tf.Tensor, first: tf.Tensor, state: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the features of T steps of B environments from `state` [B, S] on, and the state
        after them.

        `observation` [T * B, ...] and `first` [T * B] are time-major, as what is returned, [T * B,
        W]. After a step that opened an episode, as `first` says, the state is at the start again.
        """
        batch = state.shape[0]
        width = self.width * len(self.each)
        steps = nested.batch_size(observation) // batch
        encoded = [tf.reshape(x, [steps, batch, x.shape[-1]]) for x in self._encoded(observation)]
        first = tf.reshape(first, [steps, batch])
        rows = tf.TensorArray(tf.float32, steps, element_shape=[batch, width])

        def body(t: tf.Tensor, state: tf.Tensor, rows: tf.TensorArray) -> tuple[tf.Tensor, ...]:
            seen, after = self._step([x[t] for x in encoded], state)
            return t + 1, restarted(after, first[t]), rows.write(t, seen)

        _, state, rows = tf.while_loop(
            lambda t, *_: t < steps, body, (0, state, rows), maximum_iterations=steps
        )
        return tf.reshape(rows.stack(), [steps * batch, width]), state

    def _encoded(self, observation: tf.Tensor) -> list[tf.Tensor]:
        prepared = prepare(observation, self._normalizer, self._highest)
        return [m.encoder(prepared) for m in self.each]

    def _step(self, encoded: list[tf.Tensor], state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parts = zip(self.each, encoded, tf.split(state, self.sizes, axis=1), strict=True)
        said, after = zip(*(m.step(x, s) for m, x, s in parts), strict=True)
        return tf.concat(said, axis=1), tf.concat(after, axis=1)


class Part(tf.keras.layers.Layer):
    """A network behind the memory that is its own, number `index` of those in `seen`: [B, W] -> [B,
    F].
    """

    def __init__(self, network: Torso, index: int, width: int) -> None:
        super().__init__()
        self.network = network()
        self.begin = index * width
        self.width = width

    def call(self, seen: tf.Tensor) -> tf.Tensor:
        return self.network(seen[:, self.begin : self.begin + self.width])
