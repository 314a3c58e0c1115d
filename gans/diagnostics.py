"""Warnings of common GAN failures, computed from logged means, each with a remedy."""

import logging
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_log = logging.getLogger("sparring")


@dataclass(frozen=True)
class Limits:
    """Thresholds of the alarms.

    Args:
      accuracy: share of pairs that the discriminator orders correctly, from which it is too strong
        (at 1 minus this, inverted), at `points` points of the log in a row.
      diversity: standard deviation of generated examples over that of real ones, below which the
        generator has collapsed.
      gradient: ratio of a gradient norm to the median of the norms before it.
      points: consecutive points of the log that make a state out of an incident; a gradient needs
        as many before it.
    """

    accuracy: float = 0.99
    diversity: float = 0.1
    gradient: float = 100.0
    points: int = 5


class Alarms:
    """Alarms on logged values, each given once until its cause has been absent for a point.

    A critic whose loss is `unbounded`, as Wasserstein's, is meant to order all pairs correctly: its
    gradient does not vanish, and high accuracy is no cause for alarm.
    """

    def __init__(self, limits: Limits, unbounded: bool = False) -> None:
        self.limits = limits
        self.unbounded = unbounded
        # Consecutive points at which each cause was present
        self._rows: dict[str, int] = defaultdict(int)
        self._norms: dict[str, list[float]] = defaultdict(list)

    def __call__(self, values: Mapping[str, float], step: int) -> list[str]:
        """Log and return the warnings for one point of the log."""
        found = dict(self._found(values))
        said = []
        for name, (text, needed) in found.items():
            self._rows[name] += 1
            if self._rows[name] == needed:
                said.append(f"Step {step}: {text}")
        for name in set(self._rows) - set(found):
            self._rows[name] = 0
        for text in said:
            _log.warning("%s", text)
        return said

    def _found(self, values: Mapping[str, float]) -> Iterator[tuple[str, tuple[str, int]]]:
        limits = self.limits
        accuracy = values.get("discriminator/accuracy", 0.5)
        diversity = values.get("generator/diversity", 1.0)
        if accuracy >= limits.accuracy and not self.unbounded:
            text = (
                f"the discriminator orders {accuracy:.1%} of pairs right, and the generator may "
                "learn nothing from it. "
                "Try a lower discriminator_optimizer.learning_rate, penalty=r1 (or more of it) or "
                "augmentation=instance_noise."
            )
            yield "strong", (text, limits.points)
        elif accuracy <= 1.0 - limits.accuracy:
            text = (
                f"the discriminator orders {accuracy:.1%} of pairs right: it prefers generated "
                "examples. Try a higher "
                "discriminator_optimizer.learning_rate or game.n_critic, or look for a loss with a "
                "wrong sign."
            )
            yield "weak", (text, limits.points)
        if diversity < limits.diversity:
            text = (
                f"generated examples spread {diversity:.3f} as far as real ones: the generator has "
                "collapsed. Try "
                "loss=relativistic_pairing penalty=[r1,r2], or game.pack=2."
            )
            yield "collapse", (text, 1)
        yield from self._exploding(values)

    def _exploding(self, values: Mapping[str, float]) -> Iterator[tuple[str, tuple[str, int]]]:
        for player in ("generator", "discriminator"):
            norm = values.get(f"gradient/{player}_norm")
            norms = self._norms[player]
            if norm is None:
                continue
            if len(norms) >= self.limits.points and norm > self.limits.gradient * statistics.median(
                norms
            ):
                text = (
                    f"the {player}'s gradient has norm {norm:.3g}, where "
                    f"{statistics.median(norms):.3g} is usual. Try "
                    f"a lower {player}_optimizer.learning_rate, "
                    f"{player}_optimizer.optimizer.global_clipnorm=1.0, or "
                    "a penalty."
                )
                yield f"gradient of {player}", (text, 1)
            norms.append(norm)
            del norms[:-100]
