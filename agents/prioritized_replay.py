"""Prioritised replay (Schaul et al. 2016, "Prioritized experience replay"), compiled by XLA."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import tensorflow as tf

from sparring.agents.replay import Ring, Rows
from sparring.agents.sum_tree import SumTree
from sparring.distribute import replicas
from sparring.optim.schedules import Schedule, as_schedule
from sparring.xla import random


class PrioritizedRing(Ring):
    """A ring whose transitions are drawn in proportion to (error + `epsilon`) ** `alpha`.

    See section 3.3 for the proportional variant. New transitions have the highest priority so far;
    each draw is from a stratum of its own. In the loss a transition weighs (N P) ** -`beta`,
    divided by the largest weight in the batch of all replicas; `beta` is a number or a schedule.
    Of several replicas, each has priorities of its own.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        extra: Mapping[str, gymnasium.spaces.Box] | None = None,
        span: int = 1,
        alpha: float = 0.6,
        beta: Schedule | float = 0.4,
        epsilon: float = 1e-6,
    ) -> None:
        super().__init__(capacity, num_envs, observation_space, action_space, extra, span)
        self.alpha = float(alpha)
        self.beta = as_schedule(beta)
        self.epsilon = float(epsilon)
        self.priorities = SumTree(self.slots * num_envs)  # to the power of alpha
        self.highest = replicas.replicated(1.0)

    def write(self, observations: Any, actions: tf.Tensor, *others: Any) -> None:
        """Append T slots, as `Ring.write`: with them T slots begin transitions, T end to."""
        steps = actions.shape[0]
        before = tf.identity(self.written)
        super().write(observations, actions, *others)
        # Slots that `span` steps were now made from
        first = before - self.span + 1
        row = self._rows(first, steps)
        kept = self._since(self.oldest(), first, steps)
        begins = kept & ~tf.gather(replicas.local_variable(self.last), row)
        highest = replicas.local_variable(self.highest).value()
        left = self._left(steps + self.behind)
        self.priorities.assign(left, (row, tf.where(begins, highest, 0.0)))

    def _left(self, steps: int) -> tuple[tf.Tensor, tf.Tensor]:
        """The rows of the `steps` slots before the oldest that is kept, and no weight for them."""
        first = self.oldest() - steps
        row = self._rows(first, steps)
        gone = self._since(0, first, steps)
        return row, tf.where(gone, 0.0, self.priorities.weights(row))

    def _since(self, oldest: tf.Tensor | int, first: tf.Tensor, steps: int) -> tf.Tensor:
        """Tell which rows [steps * B] of the slots from `first` on are of `oldest` or newer."""
        slots = first + tf.range(steps, dtype=tf.int64)
        return tf.repeat(slots >= oldest, self.num_envs)

    def choose(
        self, key: tf.Tensor, count: int, steps: int, progress: tf.Tensor | float = 0.0
    ) -> Rows:
        """Return rows of `count` transitions by their priorities, with their weights; `key` [2]."""
        assert steps == self.span, f"transitions span {self.span} steps, not {steps}"
        total = self.priorities.total()
        share = (tf.range(count, dtype=tf.float32) + random.uniform(key, count)) / count
        row = self.priorities.find(share * total)
        probability = tf.maximum(self.priorities.weights(row) / total, 1e-30)
        weight = tf.pow(probability, -self.beta(tf.convert_to_tensor(progress)))
        weight /= replicas.all_reduce_max(tf.reduce_max(weight))
        oldest = self.oldest()
        age = (row // self.num_envs - oldest) % self.slots
        return Rows(oldest + age, row % self.num_envs, weight)

    def learned(self, rows: Rows, errors: tf.Tensor, progress: tf.Tensor) -> None:
        """Give the transitions at `rows` priorities by their errors, float32 [M]."""
        del progress
        row = self._row(rows)
        priority = tf.pow(errors + self.epsilon, self.alpha)
        kept = self.priorities.weights(row) > 0.0
        self.priorities.assign((row, tf.where(kept, priority, 0.0)))
        highest = replicas.local_variable(self.highest)
        highest.assign(tf.maximum(highest.value(), tf.reduce_max(priority)))
