"""Time series: windows of the past and the next value, with baseline forecasts."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.data import host_random
from sparring.data.dataset import Pairs
from sparring.data.preprocessing import InputSpec, Units
from sparring.data.splits import SPLITS
from sparring.errors import UserError
from sparring.supervised import plots
from sparring.supervised.tasks import Regression, least_squares, needs, with_bias


class Windows(Pairs):
    """Windows [N, T, 1] of series and the value that follows each, [N, 1].

    Both are in units of the train split's standard deviation, which is `spread`.
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
        self.spread = spread  # standard deviation in the series' own unit
        self._units = Units(np.array([mean]), np.array([spread]))
        self.raw = InputSpec(
            "window",
            tf.TensorSpec(self.shape, tf.float32),
            self._units.scaled,
            self._units.unscaled,
        )

    def restored(self, outputs: tf.Tensor) -> tf.Tensor:
        """Return outputs in the series' own unit."""
        return self._units.unscaled(outputs)


def sines(
    seed: int,
    train: int = 4000,
    test: int = 1000,
    window: int = 24,
    noise: float = 0.05,
    periods: tuple = (8.0, 40.0),
) -> Windows:
    """Return noisy sines [window + 1] of random period, phase and amplitude (0.5 to 1.5).

    `noise` is the standard deviation of the normal noise. The next value is linear in the past with
    coefficients that depend on the period, which has to be inferred first: no single linear
    forecast serves all. The series are identical in every run; `seed` fixes the order of the
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
    """Return yearly sunspot numbers, 1700 to 2008, with the last years as test split.

    They come with statsmodels (SIDC), and are scaled to mean 0 and standard deviation 1 over the
    train years. Windows of the test split may reach back into train years.

    Raises:
        UserError: statsmodels is not installed, or the window does not fit the splits.
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
    """Forecast of a series' next value by squared error, beside two baselines.

    Persistence repeats the last value. Linear autoregression is least squares from the whole window
    to the value that follows it, on the train split. Errors are in the series' own unit.
    """

    trained = {"train/squared_error": "Squared error of training windows, in units of the spread."}  # noqa: RUF012

    def __init__(self, data: Any) -> None:
        self.spread: float = needs(data, "spread", "forecasting", ["sines", "sunspots"])
        super().__init__(data)
        train, following = data.examples("train")
        test, targets = data.examples("test")
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
        """Descriptions of the scalars of `evaluate`, by tag."""
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
        """Return scores by tag, as `Task.evaluate` does; baselines are those of the whole split."""
        model = _mean_square(outputs, targets)
        persistence = _mean_square(self._baselines["persistence"], self._targets)
        linear = _mean_square(self._baselines["linear"], self._targets)
        roots = {"": model, "_persistence": persistence, "_linear": linear}
        return {f"eval/rmse{name}": self.spread * value**0.5 for name, value in roots.items()} | {
            "eval/skill": 1.0 - model / persistence,
            "eval/skill_linear": 1.0 - linear / persistence,
        }

    def pictures(
        self, inputs: np.ndarray, outputs: np.ndarray, targets: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return plots of the first forecasts of the test split beside the truth, and of all."""
        lines = [("came", targets[:120, 0]), ("forecast", outputs[:120, 0])]
        return {"eval/forecast": plots.curves(lines), **super().pictures(inputs, outputs, targets)}


def _mean_square(outputs: np.ndarray, targets: np.ndarray) -> float:
    return float(np.square(outputs - targets, dtype=np.float64).mean())
