"""Memories of value networks, which learn from replayed sequences (Kapturowski et al. 2019,
"Recurrent experience replay in distributed reinforcement learning").
"""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf

from sparring import nested
from sparring.agents.networks import masks
from sparring.agents.networks.headed import Torso
from sparring.agents.networks.normalizers import Normalizer
from sparring.agents.networks.recurrent import Memories, Memory, Part
from sparring.agents.replay import Sequences, Transitions


class QMemories(Memories):
    """Memories of the online network, number 0, and of the target network, number 1.

    What is seen [B, 2 W + S] is what both say, and then the state before the step, which only what
    is kept of the step is made of.
    """

    def __init__(
        self, memory: Callable[[], Memory], spec: Any, normalizer: Normalizer | None
    ) -> None:
        super().__init__(memory, 2, spec, normalizer)
        self.online = self._weights_of(0)
        self.target = self._weights_of(1)

    @property
    def space(self) -> gymnasium.spaces.Box:
        """Space of what networks are given."""
        width = 2 * self.width + sum(self.sizes)
        return gymnasium.spaces.Box(-np.inf, np.inf, (width,), np.float32)

    @property
    def state_space(self) -> gymnasium.spaces.Box:
        """Space of the state that is stored with each step."""
        return gymnasium.spaces.Box(-np.inf, np.inf, (sum(self.sizes),), np.float32)

    def torso(self, network: Torso, number: int) -> Torso:
        """Return a factory of `network` behind the memory `number`."""
        return lambda: Part(network, number, self.width)

    def see(self, observation: Any, state: tf.Tensor) -> tuple[Any, tf.Tensor]:
        """Return what is seen of observations [B, ...], and the state after the step."""
        said, after = self.step(nested.without_mask(observation), state)
        return masks.beside(tf.concat([said, state], axis=1), observation), after

    def state(self, seen: Any) -> tf.Tensor:
        """Return the state before the step [B, S] of what was seen."""
        return nested.without_mask(seen)[:, 2 * self.width :]

    def transitions(self, batch: Sequences, burn_in: int) -> Transitions:
        """Return the transitions after the first `burn_in` steps of sequences, seen anew.

        The states that were stored with the first steps are brought up to date by the first
        `burn_in` steps, through which no gradient flows.
        """
        flat = batch.transitions
        steps, count = batch.length.shape  # of transitions in a sequence, of sequences
        state = batch.state
        if burn_in:
            state = tf.stop_gradient(self._unrolled(batch, 0, burn_in, state)[1])
        slots = batch.last.shape[0]
        seen, _ = self._unrolled(batch, burn_in, slots, state)  # of the slots from burn_in on
        mine = steps - burn_in
        time = tf.range(mine)[:, tf.newaxis] + tf.cast(batch.length[burn_in:], tf.int32)
        after = tf.reshape(time * count + tf.range(count), [-1])
        masked = nested.map_parts(lambda x: x[burn_in:], batch.observation)
        wide = nested.map_parts(lambda x: tf.reshape(x, [-1, *x.shape[2:]]), masked)
        left = masks.beside(seen, wide)
        late = Transitions(
            *(tf.nest.map_structure(lambda x: x[burn_in * count :], flat._replace(extra={})))
        )
        return late._replace(
            observation=nested.map_parts(lambda x: x[: mine * count], left),
            next_observation=nested.map_parts(lambda x: tf.gather(x, after), left),
        )

    def _unrolled(
        self, batch: Sequences, begin: int, end: int, state: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the features of the slots from `begin` to `end`, [T * M, 2 W + S], and the state
        after them; the states inside of them are zeros.
        """
        part = nested.map_parts(lambda x: x[begin:end], nested.without_mask(batch.observation))
        flat = nested.map_parts(lambda x: tf.reshape(x, [-1, *x.shape[2:]]), part)
        said, after = self.unroll(flat, tf.reshape(batch.last[begin:end], [-1]), state)
        return tf.pad(said, [[0, 0], [0, sum(self.sizes)]]), after

    def _weights_of(self, number: int) -> list[tf.Variable]:
        memory = self.each[number]
        parts = (memory.encoder, *memory.cells.cells)
        return [weight for part in parts for weight in part.trainable_weights]
