"""Likelihood of generated sequences under the oracle that drew the real ones."""

from typing import Any

import numpy as np

from sparring.errors import UserError
from sparring.gans.metrics.base import Sample
from sparring.gans.sequences.oracle import Oracle


class OracleLikelihood:
    """Negative log likelihood of generated sequences under the oracle (Yu et al. 2017, eq. 9).

    It judges quality alone: a generator that repeats the oracle's likeliest sequence has the best
    score of all. `gan/distinct` beside it, and the trainer's `gan/nll_test`, tell of variety.
    """

    descriptions = {  # noqa: RUF012
        "gan/nll_oracle": "Negative log likelihood of generated sequences under the oracle, in "
        "nats per token; less is better.",
        "gan/nll_oracle_floor": "The same of the test split, which the oracle drew itself.",
        "gan/distinct": "Share of generated sequences that occur once among them, or first.",
    }
    smaller = ("gan/nll_oracle",)

    def __init__(self, data: Any, samples: int = 5000) -> None:
        if not isinstance(data, Oracle):
            raise UserError(
                "metric=nll_oracle asks the oracle that drew the data: choose data=oracle."
            )
        self.oracle = data.oracle
        self.samples = samples
        self._floor = float(-self.oracle.log_likelihoods(data.examples("test")[0]).mean())

    @property
    def notes(self) -> dict[str, Any]:
        """Protocol of the metric, as `Metric.notes`."""
        return {"samples": self.samples, "unit": "nats per token"}

    def __call__(self, sample: Sample) -> dict[str, float]:
        sequences = sample(self.samples)[0]
        return {
            "gan/nll_oracle": float(-self.oracle.log_likelihoods(sequences).mean()),
            "gan/nll_oracle_floor": self._floor,
            "gan/distinct": len(np.unique(sequences, axis=0)) / len(sequences),
        }
