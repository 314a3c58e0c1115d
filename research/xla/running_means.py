"""Running means of named scalars, kept on the device between two points of the log.

The sums live in one variable that is part of the checkpoint, so a run that is killed and resumed
between two points logs the same values as one that was not.
"""

from collections.abc import Iterable, Mapping

import tensorflow as tf

from sparring.errors import UserError


class Means(tf.Module):
    """Sums and weights of named scalars. Pure inside a loop: `total = means.add(total, {...})`."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__(name="means")
        self.names = sorted(names)
        # [sum|weight, N]
        self.total = tf.Variable(tf.zeros([2, len(self.names)]), trainable=False, name="means")

    def add(
        self, total: tf.Tensor, values: Mapping[str, tf.Tensor | tuple[tf.Tensor, tf.Tensor]]
    ) -> tf.Tensor:
        """Return `total` [2, N] plus `values`: scalars of weight one, or pairs (sum, weight).

        Names not given are unchanged.

        Raises:
            UserError: a name was not declared.
        """
        unknown = sorted(set(values) - set(self.names))
        if unknown:
            raise UserError(
                f"{unknown[0]}: a scalar that nothing describes. Add it to the `descriptions` of "
                "the agent or trainer that returns it: "
                f"descriptions = {{**Base.descriptions, {unknown[0]!r}: 'What it measures.'}}."
            )
        pairs = [_pair(values.get(name, (0.0, 0.0))) for name in self.names]
        sums, weights = zip(*pairs, strict=True)
        return total + tf.stack([tf.stack(sums), tf.stack(weights)])

    def read(self) -> dict[str, float]:
        """Return the means since the last `reset`, as floats.

        A name to which nothing was added is left out.
        """
        sums, weights = self.total.numpy()
        return {
            n: float(s / w)
            for n, s, w in zip(self.names, sums, weights, strict=True)
            if w > 0 or w != w
        }

    def reset(self) -> None:
        """Start the next interval."""
        self.total.assign(tf.zeros_like(self.total))


class Measured:
    """Mixin of trainers for scalars and timings between two points of the log.

    It implements those methods of `sparring.training.trainer.Trainer`. A subclass has `means`, and
    counts in `_seconds` the time that parts of its work on the host take.
    """

    means: Means
    _seconds: dict[str, float]

    def scalars(self) -> dict[str, float]:
        """Return the means since the last call, and start a new interval."""
        values = self.means.read()
        self.means.reset()
        return values

    def peek(self) -> dict[str, float]:
        """Return the means so far, without starting a new interval."""
        return self.means.read()

    def timings(self) -> dict[str, float]:
        """Return the seconds by part since the last call."""
        seconds = self._seconds
        self._seconds = dict.fromkeys(self._seconds, 0.0)
        return seconds


def _pair(value: tf.Tensor | tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    if isinstance(value, tuple):
        return tf.cast(value[0], tf.float32), tf.cast(value[1], tf.float32)
    return tf.cast(value, tf.float32), tf.constant(1.0)
