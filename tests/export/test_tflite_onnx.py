"""Files for small devices compute what the original does, as far as their format allows, and the
report says so.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparring.cli import export
from sparring.cli.export import FORMATS
from sparring.errors import UserError
from sparring.export import tflite_onnx
from sparring.export.saved_model import Small
from sparring.export.signatures import Arrays, Export, Signature
from sparring.storage import variable_names
from tests.helpers.toy_gans import Images, make

pytestmark = pytest.mark.long

# 2048 weights: below 1024 the format "dynamic" leaves a kernel as it is
WEIGHTS = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
INPUTS = np.random.default_rng(1).uniform(-1, 1, (1200, 64)).astype(np.float32)


def judge(function: Any, seed: int) -> dict[str, float]:
    one = INPUTS[seed : seed + 1]
    return {"score": float(function({"x": one})["choice"][0])}


@pytest.fixture(scope="module")
def chooser() -> Export:
    """Product y = x W, and the index of the largest y."""
    weights = tf.Variable(WEIGHTS)

    def call(x: tf.Tensor) -> dict[str, tf.Tensor]:
        y = tf.matmul(x, weights)
        return {"choice": tf.argmax(y, axis=-1, output_type=tf.int32), "y": y}

    signature = Signature(call, {"x": tf.TensorSpec([64], tf.float32)}, "Chooses.")
    return Export({"choose": signature}, "choose", lambda n: {"x": INPUTS[:n]}, judge)


@pytest.fixture(scope="module")
def report(chooser: Export, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("edge")
    found = tflite_onnx.write(folder, chooser, chooser.module(), Small(FORMATS, True, 600, 2))
    found["quanta"] = {
        kind: quanta(folder / f"tflite/choose-{kind}.tflite") for kind in ("dynamic", "int8")
    }
    found["sizes"] = {
        p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*.*")
    }
    return found


def test_every_format_is_written_measured_and_judged(report: dict[str, Any]) -> None:
    formats = report["formats"]
    assert formats.keys() == {*FORMATS, "onnx"}
    for kind in formats:
        error = formats[kind]["error"]["y"]
        assert 0 <= error["mean"] <= error["largest"], kind
        assert formats[kind]["agreement"]["choice"] > (
            0.9 if kind in ("dynamic", "int8") else 0.995
        ), kind
        assert 0 < formats[kind]["p50_ms"] <= formats[kind]["p99_ms"]
    best = np.argmax(INPUTS[:2] @ WEIGHTS, axis=1).astype(float).tolist()
    assert report["original"]["scores"] == {"score": {"mean": np.mean(best), "by_seed": best}}
    assert formats["float32"]["scores"] == report["original"]["scores"]
    assert report["original"]["bytes"] == WEIGHTS.nbytes
    assert (
        report["sizes"]["tflite/choose-float16.tflite"]
        < report["sizes"]["tflite/choose-float32.tflite"]
    )
    assert (
        report["sizes"]["tflite/choose-int8.tflite"]
        < report["sizes"]["tflite/choose-float16.tflite"]
    )
    assert report["sizes"].keys() == {
        *(f"tflite/choose-{kind}.tflite" for kind in FORMATS),
        "onnx/choose.onnx",
    }


# What int8 is fitted to, and what the report is about
FITTED = INPUTS[:500]
FRESH = INPUTS[500:1100]
MEAN = np.sqrt(2 / np.pi)  # mean distance from zero of what is normal with deviation 1


def quanta(path: Path) -> dict[tuple[int, ...], np.ndarray]:
    """The quantisation steps of a file's int8 tensors, by their shapes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        details = tf.lite.Interpreter(str(path)).get_tensor_details()
    return {
        tuple(d["shape"]): d["quantization_parameters"]["scales"]
        for d in details
        if d["dtype"] == np.int8
    }


def kernel_steps(found: np.ndarray) -> np.ndarray:
    """Steps of W in int8, 127 of them up to the largest weight: of all of W, or in newer TensorFlow
    of each column.
    """
    steps = np.abs(WEIGHTS).max(axis=None if found.size == 1 else 0) / 127
    np.testing.assert_allclose(found, np.atleast_1d(steps), rtol=1e-5)
    return steps


def deviation(x: Any, w: Any, y: Any) -> float:
    """Of y = x W from what it was: rounding to a step s is uniform, of variance s^2 / 12, and each
    of 64 terms is so.

    Var = sum_i (W_i^2 s_x^2 + x_i^2 s_w^2) / 12 + s_y^2 / 12
    """
    terms = np.square(x) * np.square(WEIGHTS).sum(axis=0) + np.square(w) * np.square(FRESH).sum(
        axis=1, keepdims=True
    )
    return float(np.sqrt(np.mean(terms + np.square(y)) / 12))


def test_float32_and_onnx_differ_in_the_order_of_sums_alone(report: dict[str, Any]) -> None:
    for kind in ("float32", "onnx"):  # 64 terms of about 1, each rounded by 2^-24
        assert report["formats"][kind]["error"]["y"]["largest"] < 64 * 4 * 2**-24, kind


def test_float16_is_off_by_what_half_precision_rounds_its_weights_by(
    report: dict[str, Any],
) -> None:
    # 0.0043 at most, mean 0.00077
    off = np.abs(FRESH @ (WEIGHTS.astype(np.float16).astype(np.float32) - WEIGHTS))
    error = report["formats"]["float16"]["error"]["y"]
    expected = {"largest": off.max(), "mean": off.mean()}
    expected["of_spread"] = off.mean() / np.std(FRESH @ WEIGHTS)
    assert error == pytest.approx(expected, rel=0.01)


def test_dynamic_is_off_by_the_rounding_of_weights_and_inputs(report: dict[str, Any]) -> None:
    step = kernel_steps(report["quanta"]["dynamic"][32, 64])
    rows = np.abs(FRESH).max(axis=1, keepdims=True) / 127  # inputs as they come, row by row
    sigma = deviation(rows, step, 0.0)  # 0.045, or 0.034 with steps by column
    error = report["formats"]["dynamic"]["error"]["y"]
    assert error["mean"] == pytest.approx(MEAN * sigma, rel=0.05)
    assert 3 * sigma < error["largest"] < 5 * sigma  # of 19 200 that are normal


def test_int8_is_off_by_the_rounding_of_all_and_by_what_it_cuts_off(report: dict[str, Any]) -> None:
    found = report["quanta"]["int8"]
    known = FITTED @ WEIGHTS
    # 256 values, 255 steps
    step = kernel_steps(found[32, 64])
    x = np.ptp(FITTED) / 255
    y = np.ptp(known) / 255
    np.testing.assert_allclose([*found[1, 64], *found[1, 32]], [x, y], rtol=1e-5)
    fresh = FRESH @ WEIGHTS
    # 3.0 at most, in a few of 19 200
    beyond = np.maximum(np.maximum(fresh - known.max(), known.min() - fresh), 0.0)
    sigma = deviation(x, step, y)  # 0.060, or 0.052
    error = report["formats"]["int8"]["error"]["y"]
    assert error["mean"] - beyond.mean() == pytest.approx(MEAN * sigma, rel=0.05)
    assert abs(error["largest"] - beyond.max()) < 4 * sigma


def test_the_report_is_a_line_for_each(report: dict[str, Any]) -> None:
    said = list(tflite_onnx.lines(report))
    assert said[0] == "choose, on 600 inputs from the run:"
    assert [line.split()[0] for line in said[1:]] == ["original", *FORMATS, "onnx"]
    assert "choice agrees 100.00%" in said[2]


def test_errors_and_agreement_are_what_they_say() -> None:
    def original(inputs: Arrays) -> dict[str, np.ndarray]:
        return {"y": inputs["x"], "n": inputs["x"].astype(np.int32)}

    def other(inputs: Arrays) -> dict[str, np.ndarray]:
        return {
            "y": inputs["x"] + np.where(inputs["x"] > 2, 0.5, 0.0),
            "n": np.zeros(len(inputs["x"]), np.int32),
        }

    found = tflite_onnx.Fidelity(original, {"x": np.arange(4, dtype=np.float32)}, judge, 0).of(
        other
    )
    # One of 0, 1, 2, 3 is off by a half; their standard deviation is sqrt(5 / 4) = 1.1180
    spread = found["error"]["y"].pop("of_spread")
    assert spread == pytest.approx(0.125 / 1.1180, rel=1e-4)
    assert found["error"] == {"y": {"largest": 0.5, "mean": 0.125}}
    assert found["agreement"] == {"n": 0.25}
    assert found["scores"] == {}


def test_a_format_that_is_another_model_is_objected_to_and_a_faithful_one_is_not() -> None:
    def row(of_spread: float, share: float) -> dict[str, Any]:
        return {"error": {"y": {"of_spread": of_spread}}, "agreement": {"n": share}}

    formats = {"float32": row(0.0, 1.0), "dynamic": row(0.1, 0.95)}
    formats |= {"int8": row(0.1118, 0.25), "onnx": row(float("nan"), 1.0)}
    assert list(tflite_onnx.objections({"formats": formats})) == [
        "--tflite int8 does not compute what was trained: y is off by 0.11 of its spread; n agrees "
        "in 25.00%. Use another format.",
        "--onnx does not compute what was trained: y is off by nan of its spread. Use another "
        "format.",
    ]


def test_a_small_generator_draws_alike() -> None:
    from functools import partial

    from sparring.gans.networks.dcgan import DCGANDiscriminator, DCGANGenerator
    from sparring.gans.networks.pair import Pair

    network = Pair(partial(DCGANGenerator, width=2), partial(DCGANDiscriminator, width=2), latent=4)
    trainer = make(Images((8, 8, 1)), network=network, batch_size=8)
    trainer.train(64)
    last = variable_names.named_variables(trainer.model)["average/ups/0/kernel"]
    last.assign(100.0 * last)  # from examples within 0.012 of zero to such as fill the range
    exported = trainer.export()
    module = exported.module()
    latents = exported.samples(40)
    expected = module.function("generate")(latents)["examples"]
    off = {}
    for kind in ("float32", "int8"):
        content = tflite_onnx.convert(
            module.signatures["generate"], module, kind, exported.samples(50)
        )
        found = tflite_onnx.interpreted(content)(latents)["examples"]
        assert found.shape == (40, 8, 8, 1)
        off[kind] = np.abs(found - expected)
    assert off["float32"].max() < 1e-5
    # A tangent in int8 is a multiple of 1/128, which alone is a mean error of 1/512; measured with
    # what is before it: mean 0.0037 (0.0036 on TensorFlow 2.21), largest 0.0172, of examples whose
    # deviation is 0.18
    np.testing.assert_array_equal(found * 128, np.round(found * 128))
    assert off["int8"].mean() == pytest.approx(0.0037, rel=0.1)
    assert 0.0172 / 1.5 < off["int8"].max() < 0.0172 * 1.5
    assert exported.judge(module.function("generate"), 0).keys() == {"gan/mean_distance"}


def test_what_does_not_convert_is_one_line(chooser: Export) -> None:
    def call(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.strings.as_string(x)}

    exported = Export(
        {"s": Signature(call, {"x": tf.TensorSpec([2], tf.float32)}, "")},
        "s",
        chooser.samples,
        judge,
    )
    module = exported.module()
    with pytest.raises(UserError, match="--tflite float32: this model does not convert") as error:
        tflite_onnx.convert(module.signatures["s"], module, "float32", {})
    assert "\n" not in str(error.value)


def test_flags_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for flags, said in (
        (["--tflite", "int4"], "int4: choose from float32,float16,dynamic,int8"),
        (["--tflite", "int8", "--inputs", "0"], "--inputs is at least 1"),
    ):
        with pytest.raises(UserError, match=said):
            export.main([str(tmp_path), *flags])
    assert json.dumps(Small()._asdict())
