"""Export for small devices, TensorFlow Lite in four formats and ONNX, with fidelity reports.

The formats of TensorFlow Lite:
    float32  the same arithmetic by other kernels
    float16  weights in half precision, arithmetic in float32
    dynamic  kernels in int8, activations quantized at run time
    int8     kernels and activations in int8, fitted to inputs of the run; float32 at its ends
"""

import contextlib
import gzip
import importlib
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.errors import UserError
from sparring.export.signatures import Arrays, Export, Exported, Function, in_parts

_FITTED = 500  # inputs that int8 is fitted to
_CALLS = 500  # calls to measure a latency
# From where on a small model is said not to be the trained one
_AGREES = 0.95  # share of equal discrete outputs
_OFF = 0.1  # mean error, in standard deviations of the trained model's output


def write(folder: Path, export: Export, module: Exported, wanted: Any) -> dict[str, Any]:
    """Write the files into the version's folder, and return the fidelity report.

    `wanted` is a `sparring.export.saved_model.Small`.
    """
    drawn = export.samples(_FITTED + wanted.inputs)
    count = len(next(iter(drawn.values())))  # may be fewer
    first = min(_FITTED, count // 2)
    fitted = {name: array[:first] for name, array in drawn.items()}
    fresh = {name: array[first:] for name, array in drawn.items()}
    signature = module.signatures[export.edge]
    made: dict[str, tuple[Path, Function]] = {}
    for kind in wanted.formats:
        path = folder / "tflite" / f"{export.edge}-{kind}.tflite"
        _keep(path, convert(signature, module, kind, fitted))
        made[kind] = path, interpreted(path.read_bytes())
    if wanted.onnx:
        path = folder / "onnx" / f"{export.edge}.onnx"
        _keep(path, to_onnx(export))
        # Outputs are sorted, as TensorFlow flattens them
        made["onnx"] = (path, in_onnxruntime(path, sorted(signature.structured_outputs)))
    original = module.function(export.edge)
    seeds = wanted.seeds if export.drawn else min(wanted.seeds, 1)
    report = Fidelity(original, fresh, export.judge, seeds)
    weights = b"".join(v.numpy().tobytes() for v in signature.variables)
    return {
        "signature": export.edge,
        "inputs": count - first,
        "seeds": list(range(seeds)),
        "original": {**_size(weights), **report.judged(original), **report.latency(original)},
        "formats": {
            k: {**_size(p.read_bytes()), **report.of(function)} for k, (p, function) in made.items()
        },
    }


def _size(content: bytes) -> dict[str, int]:
    """Return the size in bytes, plain and gzipped; gzip shows what pruning saves."""
    return {"bytes": len(content), "gzip_bytes": len(gzip.compress(content, mtime=0))}


def _keep(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def convert(signature: Any, module: Exported, kind: str, fitted: Arrays) -> bytes:
    """Return a signature as a TensorFlow Lite file.

    Raises:
        UserError: it does not convert; the message names the operation without such a kernel.
    """
    converter = tf.lite.TFLiteConverter.from_concrete_functions([signature], module.module)
    if kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind == "int8":
        converter.representative_dataset = lambda: _one_by_one(fitted)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    try:
        with _quiet():
            return converter.convert()
    except Exception as error:  # the converter's own, of several kinds
        raise UserError(
            f"--tflite {kind}: this model does not convert: {' '.join(str(error).split())[:300]}"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence converters, which report every operation in Python and in C++.

    Errors are raised all the same.
    """
    loggers = [
        (logger, logger.level) for logger in map(logging.getLogger, ("tensorflow", "tf2onnx"))
    ]
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere, warnings.catch_warnings():  # noqa: PTH123
        warnings.simplefilter("ignore")
        try:
            sys.stderr.flush()
            os.dup2(nowhere.fileno(), 2)
            for logger, _ in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            for logger, level in loggers:
                logger.setLevel(level)


def _one_by_one(inputs: Arrays) -> Iterator[dict[str, np.ndarray]]:
    for i in range(len(next(iter(inputs.values())))):
        yield {name: array[i : i + 1] for name, array in inputs.items()}


def interpreted(content: bytes) -> Function:
    """Return a TensorFlow Lite file as a function of arrays, for any batch.

    The interpreter is resized to the batch.
    """
    # TensorFlow announces the removal of this class, but both supported versions have it
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*Warning: tf.lite.Interpreter is deprecated")
        interpreter = tf.lite.Interpreter(model_content=content, num_threads=1)
    (key,) = interpreter.get_signature_list()
    runner = interpreter.get_signature_runner(key)
    return lambda inputs: {name: np.array(value) for name, value in runner(**inputs).items()}


def to_onnx(export: Export) -> bytes:
    """Return the edge signature of an export as an ONNX file.

    An output with an input's name, such as a state, gets the suffix _out.
    """
    tf2onnx = _needed("tf2onnx")
    wanted = export.signatures[export.edge]
    specs = [tf.TensorSpec([None, *s.shape], s.dtype, name=n) for n, s in wanted.inputs.items()]

    def by_name(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = wanted.call(**dict(zip(wanted.inputs, tensors, strict=True)))
        return {
            f"{name}_out" if name in wanted.inputs else name: output
            for name, output in outputs.items()
        }

    function = tf.function(by_name, autograph=False)
    with _quiet():
        model, _ = tf2onnx.convert.from_function(function, input_signature=specs, opset=15)
    return model.SerializeToString()


def in_onnxruntime(path: Path, outputs: list[str]) -> Function:
    """Return an ONNX file as a function of arrays, run by onnxruntime."""
    session = _needed("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def call(inputs: Arrays) -> dict[str, np.ndarray]:
        return dict(zip(outputs, session.run(None, dict(inputs)), strict=True))

    return call


def _needed(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"ONNX needs {name}, which is not installed: pip install 'sparring[edge]'."
        ) from error


class Fidelity:
    """Comparison of functions with the original they were made from.

    Args:
        original: on arrays.
        inputs: drawn from the run, and used for every function.
        judge: (function, seed) -> scores, called with seeds 0, 1, ...
        seeds: how many.
    """

    def __init__(
        self,
        original: Function,
        inputs: Arrays,
        judge: Callable[[Function, int], dict[str, float]],
        seeds: int,
    ) -> None:
        self._inputs = inputs
        self._judge = judge
        self._seeds = seeds
        self._expected = in_parts(original, inputs)

    def of(self, function: Function) -> dict[str, Any]:
        """Return errors, agreement of discrete outputs, scores, and latency.

        An error's `of_spread` is its mean in standard deviations of the original's output.
        """
        found = in_parts(function, self._inputs)
        errors = {}
        agreement = {}
        for name, expected in self._expected.items():
            if expected.dtype.kind == "f":
                distance = np.abs(found[name].astype(np.float64) - expected)
                mean = float(distance.mean())
                errors[name] = {
                    "largest": float(distance.max()),
                    "mean": mean,
                    "of_spread": _ratio(mean, float(np.std(expected, dtype=np.float64))),
                }
            else:
                agreement[name] = float(np.mean(found[name] == expected))
        return {
            "error": errors,
            "agreement": agreement,
            **self.judged(function),
            **self.latency(function),
        }

    def judged(self, function: Function) -> dict[str, Any]:
        """Return every score by seed, and its mean."""
        scores = [self._judge(function, seed) for seed in range(self._seeds)]
        found = {}
        for name in scores[0] if scores else {}:
            by_seed = [score[name] for score in scores]
            found[name] = {"mean": float(np.mean(by_seed)), "by_seed": by_seed}
        return {"scores": found}

    def latency(self, function: Function) -> dict[str, float]:
        """Return the median and the 99th percentile of a one-member call's milliseconds."""
        one = {name: array[:1] for name, array in self._inputs.items()}
        function(one)
        seconds = []
        for _ in range(_CALLS):
            started = time.perf_counter()
            function(one)
            seconds.append(time.perf_counter() - started)
        p50, p99 = np.percentile(seconds, [50, 99])
        return {"p50_ms": 1e3 * float(p50), "p99_ms": 1e3 * float(p99)}


def _ratio(error: float, spread: float) -> float:
    """Return an error in units of a spread, one of a constant output in the output's own."""
    return error / spread if spread > 0.0 else error


def objections(report: dict[str, Any]) -> Iterator[str]:
    """Yield a sentence for each format whose outputs are not those of the trained model."""
    for kind, row in report["formats"].items():
        faults = [
            f"{name} is off by {error['of_spread']:.2g} of its spread"
            for name, error in row["error"].items()
            if not error["of_spread"] <= _OFF  # NaN is one, too
        ]
        faults += [
            f"{name} agrees in {share:.2%}"
            for name, share in row["agreement"].items()
            if share < _AGREES
        ]
        if faults:
            option = "--onnx" if kind == "onnx" else f"--tflite {kind}"
            yield (
                f"{option} does not compute what was trained: {'; '.join(faults)}. Use another "
                "format."
            )


def lines(report: dict[str, Any]) -> Iterator[str]:
    """Yield the report as lines of a table."""
    rows = {"original": report["original"], **report["formats"]}
    yield f"{report['signature']}, on {report['inputs']} inputs from the run:"
    for kind, row in rows.items():
        sizes = f"{row['bytes'] / 1024:9.1f} KiB ({row['gzip_bytes'] / 1024:.1f} gzipped)"
        said = [f"  {kind:8} {sizes}  {row['p50_ms']:.3f} ms"]
        said += [
            f"{n} off by {e['largest']:.2g}, mean {e['mean']:.2g}"
            for n, e in row.get("error", {}).items()
        ]
        said += [f"{n} agrees {share:.2%}" for n, share in row.get("agreement", {}).items()]
        said += [f"{n} {score['mean']:.4g}" for n, score in row["scores"].items()]
        yield "  ".join(said)
