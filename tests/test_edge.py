"""Files for small devices compute what the original does, as far as their format allows, and the report says so."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from research import edge, export
from research.errors import UserError
from research.export import FORMATS, Small
from research.signatures import Arrays, Export, Signature
from tests.toy_gans import Images, make

WEIGHTS = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
INPUTS = np.random.default_rng(1).uniform(-1, 1, (1200, 64)).astype(np.float32)


def judge(function: Any, seed: int) -> dict[str, float]:
    one = INPUTS[seed : seed + 1]
    return {"score": float(function({"x": one})["choice"][0])}


@pytest.fixture(scope="module")
def chooser() -> Export:
    """y = x W, and which y is the largest."""
    weights = tf.Variable(WEIGHTS)

    def call(x: tf.Tensor) -> dict[str, tf.Tensor]:
        y = tf.matmul(x, weights)
        return {"choice": tf.argmax(y, axis=-1, output_type=tf.int32), "y": y}

    signature = Signature(call, {"x": tf.TensorSpec([64], tf.float32)}, "Chooses.")
    return Export({"choose": signature}, "choose", lambda n: {"x": INPUTS[:n]}, judge)


@pytest.fixture(scope="module")
def report(chooser: Export, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("edge")
    found = edge.write(folder, chooser, chooser.module(), Small(FORMATS, True, 600, 2))
    found["sizes"] = {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*.*")}
    return found


def test_every_format_is_written_measured_and_judged(report: dict[str, Any]) -> None:
    formats = report["formats"]
    assert formats.keys() == {*FORMATS, "onnx"}
    expected = INPUTS[500:1100] @ WEIGHTS  # the inputs that int8 was not fitted to
    spread = float(np.abs(expected).max())
    for kind, largest in {"float32": 1e-5, "onnx": 1e-5, "float16": 1e-3, "dynamic": 0.02, "int8": 0.2}.items():
        error = formats[kind]["error"]["y"]
        assert 0 <= error["mean"] <= error["largest"] <= largest * spread, kind
        assert formats[kind]["agreement"]["choice"] > (0.9 if kind in ("dynamic", "int8") else 0.995), kind
        assert 0 < formats[kind]["p50_ms"] <= formats[kind]["p99_ms"]
    # int8 cuts off what is beyond the 500 inputs it was fitted to; else it is off by half a 256th of its range
    assert 1e-4 < formats["int8"]["error"]["y"]["mean"] / spread < 0.01
    best = np.argmax(INPUTS[:2] @ WEIGHTS, axis=1).astype(float).tolist()
    assert report["original"]["scores"] == {"score": {"mean": np.mean(best), "by_seed": best}}
    assert formats["float32"]["scores"] == report["original"]["scores"]
    assert report["original"]["bytes"] == WEIGHTS.nbytes
    assert report["sizes"]["tflite/choose-float16.tflite"] < report["sizes"]["tflite/choose-float32.tflite"]
    assert report["sizes"]["tflite/choose-int8.tflite"] < report["sizes"]["tflite/choose-float16.tflite"]
    assert report["sizes"].keys() == {*(f"tflite/choose-{kind}.tflite" for kind in FORMATS), "onnx/choose.onnx"}


def test_the_report_is_a_line_for_each(report: dict[str, Any]) -> None:
    said = list(edge.lines(report))
    assert said[0] == "choose, on 600 inputs from the run:"
    assert [line.split()[0] for line in said[1:]] == ["original", *FORMATS, "onnx"]
    assert "choice agrees 100.00%" in said[2]


def test_errors_and_agreement_are_what_they_say() -> None:
    def original(inputs: Arrays) -> dict[str, np.ndarray]:
        return {"y": inputs["x"], "n": inputs["x"].astype(np.int32)}

    def other(inputs: Arrays) -> dict[str, np.ndarray]:
        return {"y": inputs["x"] + np.where(inputs["x"] > 2, 0.5, 0.0), "n": np.zeros(len(inputs["x"]), np.int32)}

    found = edge.Fidelity(original, {"x": np.arange(4, dtype=np.float32)}, judge, 0).of(other)
    assert found["error"] == {"y": {"largest": 0.5, "mean": 0.125}}  # one of 0, 1, 2, 3 is off by a half
    assert found["agreement"] == {"n": 0.25}
    assert found["scores"] == {}


def test_a_small_generator_draws_alike() -> None:
    from functools import partial

    from gans.networks import DCGANDiscriminator, DCGANGenerator, Pair

    network = Pair(partial(DCGANGenerator, width=2), partial(DCGANDiscriminator, width=2), latent=4)
    trainer = make(Images((8, 8, 1)), network=network, batch_size=8)
    trainer.train(64)
    exported = trainer.export()
    module = exported.module()
    latents = exported.samples(40)
    expected = module.function("generate")(latents)["examples"]
    for kind, largest in (("float32", 1e-5), ("int8", 0.1)):
        content = edge.convert(module.signatures["generate"], module, kind, exported.samples(50))
        found = edge.interpreted(content)(latents)["examples"]
        assert found.shape == (40, 8, 8, 1)
        assert np.abs(found - expected).max() < largest
    assert exported.judge(module.function("generate"), 0).keys() == {"gan/mean_distance"}


def test_what_does_not_convert_is_one_line(chooser: Export) -> None:
    def call(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.strings.as_string(x)}

    exported = Export({"s": Signature(call, {"x": tf.TensorSpec([2], tf.float32)}, "")}, "s", chooser.samples, judge)
    module = exported.module()
    with pytest.raises(UserError, match="--tflite float32: this model does not convert") as error:
        edge.convert(module.signatures["s"], module, "float32", {})
    assert "\n" not in str(error.value)


def test_flags_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for flags, said in (
        (["--tflite", "int4"], "int4: choose from float32,float16,dynamic,int8"),
        (["--tflite", "int8", "--inputs", "0"], "--inputs is at least 1"),
    ):
        with pytest.raises(UserError, match=said):
            export.main([str(tmp_path), *flags])
    assert json.dumps(Small()._asdict())
