"""Time series: windows of the past and what comes next, and the forecasts that any model has to
beat.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.data import host_random
from sparring.data.dataset import SPLITS, Pairs
from sparring.data.preprocessing import InputSpec, Units
from sparring.errors import UserError
from sparring.supervised import plots
from sparring.supervised.tasks import Regression, least_squares, needs, with_bias


class Windows(Pairs):
    """Windows [N, T, 1] of series and the value that follows each, [N, 1], in units of the train
    split's spread.
    """

    def __init__(
        self,
        windows: Mapping[str, np.ndarray],
        following: Mapping[str, np.ndarray],
        seed: int,
        spread: float,
        mean: float = 0.0,
    ) -> None:
        super().__init__(
            {s: windows[s][..., None].astype(np.float32) for s in SPLITS},
            {s: following[s][:, None].astype(np.float32) for s in SPLITS},
            seed,
        )
        self.spread = spread  # what 1 is in the series' own unit
        self._units = Units(np.array([mean]), np.array([spread]))
        self.raw = InputSpec(
            "window",
            tf.TensorSpec(self.shape, tf.float32),
            self._units.scaled,
            self._units.unscaled,
        )

    def restored(self, outputs: tf.Tensor) -> tf.Tensor:
        """In the series' own unit."""
        return self._units.unscaled(outputs)


def sines(
    seed: int,
    train: int = 4000,
    test: int = 1000,
    window: int = 24,
    noise: float = 0.05,
    periods: tuple = (8.0, 40.0),
) -> Windows:
    """Sines [window + 1], each with a period, phase and amplitude (0.5 to 1.5) of its own, under
    normal noise.

    What comes next is linear in the past by numbers that depend on the period, which is to be found
      out first: no one
    linear forecast serves all. The series are the same in every run; `seed` fixes the order of the
    batches.
    """
    low, high = periods
    if min(train, test) < 1 or window < 2 or not 2.0 <= low <= high:
        raise UserError(
            f"data.train={train}, data.test={test}, data.window={window}, "
            f"data.periods=[{low},{high}]."
        )
    parts = {}
    for stream, (split, count) in enumerate(zip(SPLITS, (train, test), strict=True)):
        u = host_random.uniform(3 * count, 11, stream).reshape(3, count, 1)
        period = low + (high - low) * u[0]
        phase = 2.0 * np.pi * u[1]
        amplitude = 0.5 + u[2]
        # [N, T + 1]
        wave = amplitude * np.sin(2.0 * np.pi * np.arange(window + 1) / period + phase)
        parts[split] = wave + noise * host_random.normal(wave.size, 12, stream).reshape(wave.shape)
    return Windows(
        {s: p[:, :-1] for s, p in parts.items()}, {s: p[:, -1] for s, p in parts.items()}, seed, 1.0
    )


def sunspots(seed: int, window: int = 24, test_fraction: float = 0.2) -> Windows:
    """Yearly sunspot numbers, 1700 to 2008, as statsmodels ships them (SIDC); the last years are
    the test split.

    Scaled to mean 0 and spread 1 over the train years. Windows of the test split may reach back
    into train years.
    """
    try:
        from statsmodels.datasets import sunspots as shipped
    except ImportError as error:
        raise UserError(
            "data=sunspots comes with statsmodels: pip install statsmodels, or choose data=sines."
        ) from error
    numbers = shipped.load_pandas().data["SUNACTIVITY"].to_numpy(np.float64)
    cut = len(numbers) - round(len(numbers) * test_fraction)
    if not window < cut < len(numbers):
        raise UserError(
            f"data.window={window}, data.test_fraction={test_fraction}: {len(numbers)} years are "
            "there."
        )
    mean = float(numbers[:cut].mean())
    spread = float(numbers[:cut].std())
    scaled = (numbers - mean) / spread
    # [years - window, window + 1]
    windows = np.lib.stride_tricks.sliding_window_view(scaled, window + 1)
    parts = {"train": windows[: cut - window], "test": windows[cut - window :]}
    return Windows(
        {s: p[:, :-1] for s, p in parts.items()},
        {s: p[:, -1] for s, p in parts.items()},
        seed,
        spread,
        mean,
    )


class Forecasting(Regression):
    """What comes next in a series: squared error, beside that of persistence and of linear
    autoregression.

    Persistence says the last value again. Linear autoregression is least squares from the whole
    window to what follows it, on the train split. Errors are in the series' own unit.
    """

    trained = {"train/squared_error": "Squared error of training windows, in units of the spread."}  # noqa: RUF012

    def __init__(self, data: Any) -> None:
        self.spread: float = needs(data, "spread", "forecasting", ["sines", "sunspots"])
        super().__init__(data)
        (train, following), (test, targets) = data.examples("train"), data.examples("test")
        self.weights = least_squares(train, following)  # [T + 1, 1]
        linear = with_bias(test.reshape(len(test), -1).astype(np.float64)) @ self.weights
        self._baselines = {"persistence": test[:, -1, :1], "linear": linear}  # [N, 1]
        self._targets = targets
        self.notes = {
            "window": data.shape[0],
            "linear autoregression": "least squares on the train split",
        }

    @property
    def descriptions(self) -> Mapping[str, str]:
        """Tag -> what it measures."""
        said = "Root of the mean squared error over the test split, in the series' unit, "
        return {
            "eval/rmse": f"{said}of the model.",
            "eval/rmse_persistence": f"{said}of saying the last value again.",
            "eval/rmse_linear": f"{said}of linear autoregression over the window.",
            "eval/skill": "1 less the model's mean squared error over that of persistence; 0: no "
            "better.",
            "eval/skill_linear": "The same of linear autoregression.",
        }

    def evaluate(
        self, outputs: np.ndarray, targets: np.ndarray, network: tf.keras.layers.Layer
    ) -> dict[str, float]:
        """As `Task.evaluate`; baselines are of the whole split."""
        model = _mean_square(outputs, targets)
        persistence, linear = (_mean_square(b, self._targets) for b in self._baselines.values())
        roots = {"": model, "_persistence": persistence, "_linear": linear}
        return {f"eval/rmse{name}": self.spread * value**0.5 for name, value in roots.items()} | {
            "eval/skill": 1.0 - model / persistence,
            "eval/skill_linear": 1.0 - linear / persistence,
        }

    def pictures(
        self, inputs: np.ndarray, outputs: np.ndarray, targets: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The first forecasts of the test split beside what came, and points of all."""
        lines = [("came", targets[:120, 0]), ("forecast", outputs[:120, 0])]
        return {"eval/forecast": plots.curves(lines), **super().pictures(inputs, outputs, targets)}


def _mean_square(outputs: np.ndarray, targets: np.ndarray) -> float:
    return float(np.square(outputs - targets, dtype=np.float64).mean())
