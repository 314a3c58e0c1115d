"""Supervised models leave with their preprocessing: they are given pixels, texts, numbers in their
own units.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparring.data.splits import split_off
from sparring.data.synthetic_shapes import Boxes, Shapes
from sparring.data.tabular import table
from sparring.data.text import reviews
from sparring.export import tflite_onnx
from sparring.export.saved_model import Small
from sparring.export.signatures import objections, on_arrays
from sparring.networks.cnn import CNN
from sparring.networks.embeddings import Bag, Embedded
from sparring.networks.mlp import MLP
from sparring.networks.rnn import RNN
from sparring.supervised.forecasting import Forecasting, Windows, sines
from sparring.supervised.localization import Localisation
from sparring.supervised.models import Factors, Headed
from sparring.supervised.recommendation import Interactions, Recommendation
from sparring.supervised.tasks import Regression
from sparring.supervised.trainer import SupervisedTrainer
from sparring.xla.compilation import CachedCall
from tests.agents.training.test_policy_export import elsewhere
from tests.supervised.test_trainer import small

pytestmark = pytest.mark.long

CONVOLUTIONS = partial(
    Headed, torso=partial(CNN, filters=(4,), kernel_sizes=(3,), strides=(2,), units=(8,))
)
LETTERS = partial(Headed, torso=partial(Embedded, Bag, 30, 8))
CELLS = partial(Headed, torso=partial(RNN, "gru", (8,)))


def trained(**settings: Any) -> SupervisedTrainer:
    tf.keras.utils.set_random_seed(0)
    trainer = small(**settings)
    trainer.train(320)
    return trainer


def said(trainer: SupervisedTrainer, inputs: np.ndarray) -> np.ndarray:
    """Outputs of the trainer's own network, as a plain graph."""
    return np.asarray(CachedCall(trainer._outputs, "graph")(inputs))


def left(
    trainer: SupervisedTrainer, asked: dict[str, dict[str, np.ndarray]], place: Path
) -> dict[str, np.ndarray]:
    trainer.export().module().save(str(place / "model"))
    return elsewhere(place / "model", asked, place)


def test_a_classifier_takes_pixels(tmp_path: Path) -> None:
    trainer = trained(
        data=Shapes(0, train=60, test=20, size=8), model=CONVOLUTIONS, compile="graph"
    )
    images = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), np.uint8)
    found = left(trainer, {s: {"images": images} for s in ("predict", "scores")}, tmp_path)
    logits = said(trainer, images.astype(np.float32) * np.float32(1 / 127.5) - np.float32(1.0))
    np.testing.assert_array_equal(found["scores/outputs"], logits)
    np.testing.assert_array_equal(found["predict/class"], logits.argmax(axis=1))
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(
        found["predict/probabilities"], odds / odds.sum(axis=1, keepdims=True), atol=1e-6
    )
    assert found["predict/class"].dtype == np.int64
    assert "predict/outputs" not in found


def test_a_box_is_where_the_task_says(tmp_path: Path) -> None:
    trainer = trained(
        data=Boxes(0, train=40, test=8, size=8),
        model=CONVOLUTIONS,
        task=Localisation,
        compile="graph",
    )
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    found = left(trainer, {"scores": {"images": images}}, tmp_path)
    inputs = images.astype(np.float32) * np.float32(1 / 127.5) - np.float32(1.0)
    np.testing.assert_array_equal(found["scores/outputs"], said(trainer, inputs))
    # Centre y, x, height, width
    share = 1.0 / (1.0 + np.exp(-found["scores/outputs"].astype(np.float64)))
    np.testing.assert_allclose(found["scores/box"][:, 0], share[:, 0] - share[:, 2] / 2, atol=1e-6)
    np.testing.assert_allclose(found["scores/box"][:, 3], share[:, 1] + share[:, 3] / 2, atol=1e-6)


def priced(path: Path) -> Any:
    """Size 100, 110, ... and age 0 to 4; the price is 1000 size - 5000 age + 2000."""
    rows = [(100 + 10 * i, i % 5) for i in range(50)]
    path.write_text(
        "size,price,age\n" + "".join(f"{s},{1000 * s - 5000 * a + 2000},{a}\n" for s, a in rows)
    )
    return table(str(path), ["price"], 0, test_fraction=0.2)


def test_a_table_is_in_the_units_of_its_columns(tmp_path: Path) -> None:
    trainer = small(
        data=priced(tmp_path / "t.csv"),
        model=partial(Headed, torso=partial(MLP, ())),
        task=Regression,
        batch_size=40,
    )
    trainer.train(40 * 1500)
    rows = np.float32([[300, 2], [205, 4], [500, 0]])
    found = left(trainer, {"predict": {"inputs": rows}, "scores": {"inputs": rows}}, tmp_path)
    np.testing.assert_allclose(
        found["predict/values"][:, 0], [292_000, 187_000, 502_000], rtol=1e-4
    )
    assert np.abs(found["scores/outputs"]).max() < 3.0  # in units of the spread, as it was trained
    assert trainer.export().notes["columns"] == (["size", "age"], ["price"])


def test_an_export_that_is_not_the_trained_model_is_said_to_be(tmp_path: Path) -> None:
    trainer = small(
        data=priced(tmp_path / "t.csv"),
        model=partial(Headed, torso=partial(MLP, ())),
        task=Regression,
        batch_size=40,
    )
    trainer.train(4000)
    exported = trainer.export()
    assert objections(exported, exported.module()) == []
    trainer.network.head.bias.assign_add([3.0])  # what was traced reads the variable
    other = dataclasses.replace(exported, expected=lambda: {"rmse": 0.001})
    (said,) = objections(other, exported.module())
    assert "its rmse is 3" in said
    assert "the trained one's 0.001" in said


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_an_exported_table_is_the_trained_one_whatever_its_units(
    tmp_path: Path, scale: float, offset: float
) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 3))
    rows[:, 2] = 3.0  # a constant column
    rows[:, 1] = rows[:, 0] + 0.1 * rows[:, 1]
    text = "".join(",".join(map(repr, r)) + "\n" for r in (scale * (rows + offset)).tolist())
    (tmp_path / "t.csv").write_text("a,price,b\n" + text)
    data = table(str(tmp_path / "t.csv"), ["price"], 0, test_fraction=0.2)
    trainer = small(
        data=data, model=partial(Headed, torso=partial(MLP, (8,))), task=Regression, batch_size=40
    )
    trainer.train(4000)
    exported = trainer.export()
    assert objections(exported, exported.module()) == []
    # fed as users do: the file's numbers in float32
    test = split_off(60, 0.2, "")["test"]
    given = (scale * (rows + offset))[test][:, [0, 2]].astype(np.float32)
    outputs = exported.module().function("scores")({"inputs": given})["outputs"]
    np.testing.assert_allclose(outputs, trainer.predict(data.examples("test")[0]), atol=1e-3)


def test_a_forecast_is_in_the_series_own_unit(tmp_path: Path) -> None:
    scaled = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    parts = {"train": scaled[:32], "test": scaled[32:]}
    data = Windows(
        {s: p[:, :5] for s, p in parts.items()},
        {s: p[:, 5] for s, p in parts.items()},
        0,
        40.0,
        300.0,
    )
    trainer = trained(data=data, model=CELLS, task=Forecasting)
    window = np.random.default_rng(1).normal(300, 40, (6, 5, 1)).astype(np.float32)
    found = left(trainer, {"scores": {"window": window}}, tmp_path)
    inputs = (window - np.float32(300)) / np.float32(40)
    # 1 / 40 is multiplied by
    np.testing.assert_allclose(found["scores/outputs"], said(trainer, inputs), atol=1e-6)
    again = on_arrays(trainer.export().signatures["scores"].trace())({"window": window})
    np.testing.assert_array_equal(found["scores/outputs"], again["outputs"])
    np.testing.assert_allclose(
        found["scores/values"], found["scores/outputs"] * 40 + 300, rtol=1e-6
    )


def test_texts_are_tokenised_inside(tmp_path: Path) -> None:
    data = reviews(0, vocabulary=30, length=8, train=80, test=20)
    trainer = trained(data=data, model=LETTERS)
    texts = np.array([b"The plot was NOT clever!", b"", b"unheard of, but fine"], object)
    ids = data.tokeniser(tf.constant(texts)).numpy()
    assert ids[0, 0] > 1
    assert ids[2, 0] == 1
    module = trainer.export().module()
    module.save(str(tmp_path / "model"))
    found = elsewhere(tmp_path / "model", {"predict": {"text": texts.astype(bytes)}}, tmp_path)
    logits = said(trainer, ids)
    np.testing.assert_array_equal(found["predict/class"], logits.argmax(axis=1))
    wild = np.where(ids == 1, 10**12, ids)  # ids that are no word's are unknown words
    np.testing.assert_array_equal(module.function("scores")({"ids": wild})["outputs"], logits)


def test_users_that_are_not_known_fail_nobody(tmp_path: Path) -> None:
    data = Interactions(0, users=9, items=14, train=200, test=50)
    trainer = trained(data=data, model=partial(Factors, users=9, dimension=4), task=Recommendation)
    users = np.array([3, 9, 0, -1])
    found = left(trainer, {s: {"user": users} for s in ("predict", "scores")}, tmp_path)
    logits = said(trainer, np.array([3, 0, 0, 0]))
    np.testing.assert_array_equal(found["predict/known"], [True, False, True, False])
    np.testing.assert_array_equal(
        found["predict/items"][[0, 2]], np.argsort(-logits[[0, 2]], axis=1)[:, :10]
    )
    np.testing.assert_array_equal(found["predict/items"][[1, 3]], -1)
    np.testing.assert_array_equal(
        found["scores/outputs"], np.where(found["predict/known"][:, None], logits, 0.0)
    )


@pytest.mark.parametrize(
    ("settings", "agreement", "score"),
    [
        (
            {"data": Shapes(0, train=60, test=20, size=8), "model": CONVOLUTIONS},
            {"class"},
            "accuracy",
        ),
        (
            {"data": reviews(0, vocabulary=30, length=8, train=80, test=20), "model": LETTERS},
            {"class"},
            "accuracy",
        ),
        (
            {"data": sines(0, train=60, test=20, window=5), "model": CELLS, "task": Forecasting},
            set(),
            "rmse",
        ),
        (
            {
                "data": Interactions(0, users=9, items=14, train=200, test=50),
                "model": partial(Factors, users=9, dimension=4),
                "task": Recommendation,
            },
            {"items", "known"},
            "hit_rate",
        ),
    ],
    ids=["images", "texts", "series", "users"],
)
def test_small_devices_agree(
    settings: Any, agreement: set[str], score: str, tmp_path: Path
) -> None:
    trainer = trained(**settings, compile="graph")
    exported = trainer.export()
    report = tflite_onnx.write(
        tmp_path, exported, exported.module(), Small(("float32", "dynamic", "int8"), True, 50, 5)
    )
    expected = trainer.evaluate(media=False).scalars[f"eval/{score}"]
    assert report["original"]["scores"][score]["by_seed"] == [
        pytest.approx(expected, abs=1e-6)
    ]  # not five times
    assert report["seeds"] == [0]
    for kind in ("float32", "onnx"):
        found = report["formats"][kind]
        assert found["error"]["outputs"]["largest"] < 1e-4
        assert found["agreement"].keys() == agreement
        assert found["scores"][score]["mean"] == pytest.approx(expected, abs=0.06)
    assert report["formats"]["int8"]["error"]["outputs"]["mean"] < 0.05
