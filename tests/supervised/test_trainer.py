"""Supervised training: the contract, the arithmetic of a step, stages, and that it learns what it
is shown.
"""

from functools import partial
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparring.data.dataset import Arrays, Pairs
from sparring.data.synthetic_shapes import Boxes
from sparring.data.tabular import linear
from sparring.data.text import reviews
from sparring.errors import UserError
from sparring.networks.cnn import CNN
from sparring.networks.embeddings import Bag, Embedded
from sparring.networks.mlp import MLP
from sparring.networks.rnn import RNN
from sparring.networks.tf_hub import HubEncoder
from sparring.optim.fine_tuning import Stage
from sparring.optim.optimizer import Scheduled
from sparring.supervised.localization import Localisation
from sparring.supervised.models import Factors, Headed
from sparring.supervised.recommendation import Interactions, Recommendation
from sparring.supervised.tasks import Classification, Regression, least_squares
from sparring.supervised.trainer import EvaluationSettings, SupervisedTrainer
from sparring.training.conformance import check_trainer

pytestmark = pytest.mark.long


def sgd(rate: float = 0.1, momentum: float = 0.0) -> Scheduled:
    return Scheduled(tf.keras.optimizers.SGD(momentum=momentum), rate)


def adam(rate: float = 1e-2) -> Scheduled:
    return Scheduled(tf.keras.optimizers.Adam(), rate)


def points(seed: int = 0) -> Arrays:
    """Three clouds of points in the plane, 40 and 20 of each."""
    rng = np.random.default_rng(7)
    labels = {s: np.arange(n) % 3 for s, n in (("train", 120), ("test", 60))}
    clouds = {
        s: (rng.normal(size=(len(n), 2)) * 0.3 + np.eye(3)[n][:, :2] * 2).astype(np.float32)
        for s, n in labels.items()
    }
    return Arrays(clouds, labels, seed)


def small(**more: Any) -> SupervisedTrainer:
    settings = {
        "data": points(),
        "model": partial(Headed, torso=partial(MLP, (8,))),
        "task": Classification,
        "optimizer": adam(),
        "batch_size": 16,
        "seed": 0,
        "total_steps": 1600,
    }
    return SupervisedTrainer(**(settings | more))


@pytest.fixture(autouse=True)
def _same_start() -> None:
    """Weights begin the same whichever tests ran before."""
    tf.keras.utils.set_random_seed(0)


STAGES = {"head": Stage(["head/.*"]), "all": Stage([".*"], at=0.05, learning_rate=1e-3)}


def norm_net() -> tf.keras.layers.Layer:
    return tf.keras.Sequential([tf.keras.layers.Dense(6), tf.keras.layers.BatchNormalization()])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stages": STAGES},
        {"compile": "graph", "model": partial(Headed, torso=norm_net)},
        {"stages": STAGES, "precision": "bfloat16"},
        {"compile": "eager", "data": linear(0, train=50, test=10), "task": Regression},
    ],
    ids=["plain", "stages", "normalised", "bfloat16", "regression"],
)
def test_the_contract_is_kept(settings: dict[str, Any]) -> None:
    def make() -> SupervisedTrainer:
        tf.keras.utils.set_random_seed(0)
        return small(**(settings | {"optimizer": adam()}))

    check_trainer(make, steps=150)


# ---- a step --------------------------------------------------------------------------------------


def test_a_step_is_the_gradient_of_the_batch_mean() -> None:
    # y = w x, w = 0, squared error: d/dw mean (w x - y)^2 = -2 mean(x y); x = (1, 2), y = (3, 1):
    # -2 * 2.5 = -5, d/db = -2 mean(y) = -4; rate 0.1: w = 0.5, b = 0.4. The loss before it is mean
    # (9, 1) = 5.
    data = Pairs(
        {s: np.float32([[1.0], [2.0]]) for s in ("train", "test")},
        {s: np.float32([[3.0], [1.0]]) for s in ("train", "test")},
        0,
    )
    trainer = small(
        data=data,
        model=partial(Headed, torso=partial(MLP, ())),
        task=Regression,
        optimizer=sgd(),
        batch_size=2,
    )
    trainer.network.head.kernel.assign([[0.0]])
    trainer.train(1)
    weights = trainer.network.linear_weights()
    assert weights is not None
    np.testing.assert_allclose(weights[:, 0], [0.5, 0.4], atol=1e-6)
    found = trainer.scalars()
    assert found["loss/total"] == pytest.approx(5.0, abs=1e-6)
    assert found["gradient/norm"] == pytest.approx((25 + 16) ** 0.5, abs=1e-5)
    assert found["gradient/update_norm"] == pytest.approx(0.1 * (25 + 16) ** 0.5, abs=1e-5)
    assert trainer.step == 2


def test_parts_of_a_batch_add_up_to_it() -> None:
    trainer = small(compile="eager")
    weights = trainer.stages[0].weights
    rows = tf.constant(trainer.data.plan(0, 1, 16)[0])
    number = tf.constant(3, tf.int64)
    whole = trainer.part(weights, number, rows, 0, 16)
    parts = [trainer.part(weights, number, rows, first, 8) for first in (0, 8)]
    added = tf.nest.map_structure(lambda a, b: a + b, *parts)
    for ours, expected in zip(tf.nest.flatten(added), tf.nest.flatten(whole), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert np.abs(parts[0][0][0] - whole[0][0]).max() > 1e-3


def test_linear_regression_arrives_at_least_squares() -> None:
    trainer = small(
        data=linear(0, train=100, test=20, features=3),
        model=partial(Headed, torso=partial(MLP, ())),
        task=Regression,
        optimizer=sgd(0.1, momentum=0.9),
        batch_size=100,
        total_steps=30_000,
    )
    assert trainer.evaluate().scalars["eval/weight_error"] > 0.1
    trainer.train(30_000)
    assert trainer.evaluate().scalars["eval/weight_error"] < 1e-5


def test_least_squares_is_numpys_with_a_bias() -> None:
    # y = 2 x + 1 exactly
    x = np.float32([[0.0], [1.0], [2.0]])
    y = np.float32([[1.0], [3.0], [5.0]])
    np.testing.assert_allclose(least_squares(x, y), [[2.0], [1.0]], atol=1e-12)


def test_weight_error_is_of_linear_models_alone() -> None:
    trainer = small(data=linear(0, train=32, test=8), task=Regression)
    assert set(trainer.evaluate().scalars) == {"eval/rmse", "eval/r2"}


def test_it_learns_points_and_shows_what_it_confuses() -> None:
    trainer = small(total_steps=6400)
    trainer.train(6400)
    found = trainer.evaluate()
    assert found.scalars["eval/accuracy"] > 0.95
    assert set(found.images) == {"eval/confusion"}
    assert found.notes == {"test": {"examples": 60, "classes": 3}}


def test_predictions_are_those_of_the_network_whatever_the_batch() -> None:
    trainer = small()
    inputs, _ = trainer.data.examples("test")
    np.testing.assert_allclose(trainer.predict(inputs), trainer.network(inputs), atol=1e-5)
    assert trainer.predict(inputs[:7]).shape == (7, 3)


def test_the_projector_places_examples_by_what_the_head_is_shown() -> None:
    trainer = small(evaluation=EvaluationSettings(embedded=5), total_steps=6400)
    trainer.train(6400)
    inputs, _ = trainer.data.examples("test", 5)
    placed = trainer.evaluate().embeddings["eval/features"]
    np.testing.assert_allclose(placed.vectors, trainer.network.torso(inputs), atol=1e-5)
    assert placed.labels["target"] == [str(row % 3) for row in trainer.data.rows("test", 5)]
    assert placed.labels["output"] == [str(n) for n in trainer.predict(inputs).argmax(axis=1)]
    assert placed.pictures is None
    assert not trainer.evaluate(media=False).embeddings
    assert not small(evaluation=EvaluationSettings(embedded=0)).evaluate().embeddings


def test_of_numbers_the_projector_says_what_was_asked_and_answered() -> None:
    placed = (
        small(data=linear(0, train=32, test=8), task=Regression)
        .evaluate()
        .embeddings["eval/features"]
    )
    assert len(placed.vectors) == len(placed.labels["target"]) == 8
    _, targets = linear(0, train=32, test=8).examples("test")
    assert float(placed.labels["target"][3].split()[0]) == pytest.approx(targets[3, 0], rel=1e-3)


def test_images_come_as_small_pictures_and_boxes_as_four_numbers() -> None:
    trainer = small(
        data=Boxes(0, train=32, test=8, size=16),
        model=partial(Headed, torso=partial(CNN, (4,), (3,), (2,), (8,))),
        task=Localisation,
    )
    placed = trainer.evaluate().embeddings["eval/features"]
    assert placed.pictures is not None
    assert placed.pictures.shape == (8, 16, 16, 3)
    assert len(placed.labels["output"][0].split()) == 4


# ---- stages --------------------------------------------------------------------------------------


def weights(trainer: SupervisedTrainer) -> dict[str, np.ndarray]:
    return {
        "torso": trainer.network.torso.weights[0].numpy(),
        "head": trainer.network.head.kernel.numpy(),
    }


@pytest.mark.parametrize("compile", ["graph", "xla", "eager"])
def test_what_a_stage_does_not_name_stays_to_the_bit_and_moves_in_the_next(compile: str) -> None:
    stages = {"head": Stage(["head/.*"]), "all": Stage([".*"], at=0.5)}
    # 20 iterations, the second stage from the 11th
    trainer = small(stages=stages, total_steps=320, compile=compile)
    before = weights(trainer)
    trainer.train(160)
    middle = weights(trainer)
    assert (middle["torso"] == before["torso"]).all()
    assert (middle["head"] != before["head"]).any()
    trainer.train(16)
    assert (weights(trainer)["torso"] != middle["torso"]).any()


def test_each_stage_has_its_rate_and_late_weights_a_fresh_start() -> None:
    stages = {
        "head": Stage(["head/.*"], learning_rate=0.01),
        "all": Stage([".*"], at=0.5, learning_rate=1e-3),
    }
    trainer = small(stages=stages, total_steps=320)
    trainer.train(160)
    assert trainer.scalars()["schedule/learning_rate"] == pytest.approx(0.01)
    before = weights(trainer)["torso"]
    trainer.train(16)
    assert trainer.scalars()["schedule/learning_rate"] == pytest.approx(1e-3)
    # Adam's first step moves every weight by its rate (less epsilon's share); with another's count
    # it would be 3 times
    moved = np.abs(weights(trainer)["torso"] - before)
    assert np.median(moved) == pytest.approx(1e-3, rel=0.01)


def test_a_stage_may_begin_in_the_middle_of_a_call() -> None:
    stages = {"head": Stage(["head/.*"]), "all": Stage([".*"], at=0.5)}
    whole, parts = (small(stages=stages, total_steps=320) for _ in range(2))
    for name in ("torso", "head"):
        for a, b in zip(
            getattr(whole.network, name).weights, getattr(parts.network, name).weights, strict=True
        ):
            b.assign(a)
    whole.train(320)
    for _ in range(20):
        parts.train(16)
    np.testing.assert_array_equal(weights(whole)["torso"], weights(parts)["torso"])


def test_frozen_batch_normalisation_keeps_its_statistics() -> None:
    stages = {"head": Stage(["head/.*"]), "all": Stage([".*"], at=0.5)}
    trainer = small(
        model=partial(Headed, torso=norm_net), stages=stages, total_steps=320, compile="graph"
    )
    norm = trainer.network.torso.layers[1]
    before = [v.numpy() for v in norm.variables]
    trainer.train(160)
    np.testing.assert_equal([v.numpy() for v in norm.variables], before)
    trainer.train(16)
    assert (norm.moving_mean.numpy() != before[2]).any()


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        (
            {"a": Stage(["headd/.*"])},
            r"stages.a.train: headd/\.\* matches none of the names, which are head/bias, ",
        ),
        ({"a": Stage(["("])}, "stages.a.train: .* is no regular expression"),
        ({"a": Stage([".*"], at=0.5)}, r"stages begin at \[0.5\] of the run: the first at 0"),
        ({"a": Stage(["head/.*"]), "b": Stage([".*"], at=1.0)}, "all before 1"),
        (
            {"a": Stage([".*"]), "b": Stage(["head/.*"], at=0.5)},
            "stages.b.train=.*: all of that trains already",
        ),
    ],
)
def test_stages_that_cannot_be(stages: dict[str, Stage], said: str) -> None:
    with pytest.raises(UserError, match=said):
        small(stages=stages)


# ---- each kind of model and task -----------------------------------------------------------------


def test_a_network_over_words_passes_over_the_padding() -> None:
    for torso in (partial(RNN, "gru", (4,)), partial(RNN, "lstm", (4, 3)), Bag):
        network = Embedded(torso, vocabulary=9, dimension=5)
        long = np.array([[3, 4, 5, 0, 0, 0]])
        short = np.array([[3, 4, 5, 0]])
        np.testing.assert_allclose(network(long), network(short), atol=1e-6)
        assert np.abs(network(np.array([[3, 4, 6, 0]])) - network(short)).max() > 1e-4


class Encoder(HubEncoder):
    """Pretrained encoder of texts, as it is before its first call."""

    def __init__(self) -> None:
        tf.keras.layers.Layer.__init__(self)
        self.table = self.add_weight("table", [30, 4])

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.gather(self.table, inputs), axis=1)


def test_a_pretrained_encoder_is_not_fed_words_by_another_vocabulary() -> None:
    data = reviews(0, vocabulary=30, length=8, train=40, test=20)
    model = partial(Headed, torso=Encoder)
    with pytest.raises(UserError, match=r"model=bert: this data numbers words .* model=text"):
        small(data=data, model=model)
    # ids by any other vocabulary are the user's own
    small(data=Pairs(data._inputs, data._targets, 0), model=model, task=_Classes)


class _Classes(Classification):
    """Classification of data that does not name its two classes."""

    def __init__(self, data: Any) -> None:
        data.classes = 2
        data.names = ("bad", "good")
        super().__init__(data)


def test_data_is_part_of_the_state_and_compared_before_a_resume() -> None:
    rows = np.arange(40, dtype=np.float32).reshape(20, 2)
    split = dict.fromkeys(("train", "test"), rows)
    labels = {s: np.arange(20) % 2 for s in ("train", "test")}
    trainer = small(data=Arrays(split, labels, 0, ("bee", "cat")))
    state = trainer.host_state()
    assert trainer.check_state(state) == []
    assert trainer.check_state({"done": 3, "evaluations": 0}) == []  # of an earlier version
    shorter = small(
        data=Arrays(
            {**split, "test": rows[:19]}, {**labels, "test": labels["test"][:19]}, 0, ("bee", "cat")
        )
    )
    (said,) = shorter.check_state(state)
    assert "20 -> 19 examples in the test split" in said
    other = small(data=Arrays(split, labels, 0, ("ant", "bee")))
    with pytest.raises(UserError, match="classes are ant, bee, and the run began with bee, cat"):
        other.check_state(state)


def test_boxes_are_learned() -> None:
    trainer = small(
        data=Boxes(0, train=256, test=32, size=16),
        model=partial(Headed, torso=partial(CNN, (8, 16), (3, 3), (2, 2), (32,))),
        task=Localisation,
        batch_size=32,
        total_steps=10_000,
    )
    before = trainer.evaluate(media=False).scalars["eval/iou"]
    trainer.train(10_000)
    found = trainer.evaluate()
    assert found.scalars["eval/iou"] > max(0.5, before + 0.2)
    assert found.images["eval/predictions"].dtype == np.uint8


def test_recommendation_comes_near_its_optimum_and_beats_popularity() -> None:
    # Two numbers a user are enough, but from one start in eight they end in a local optimum; four
    # do not.
    data = Interactions(0, users=30, items=20, train=6000, test=1000, dimension=2)
    trainer = small(
        data=data,
        model=partial(Factors, users=30, dimension=4),
        task=Recommendation,
        batch_size=100,
        total_steps=60_000,
        optimizer=adam(0.02),
    )
    trainer.train(60_000)
    found = trainer.evaluate().scalars
    assert (
        found["eval/hit_rate_popularity"] + 0.05
        < found["eval/hit_rate"]
        <= found["eval/hit_rate_optimum"]
    )
    assert found["eval/share_of_optimum"] > 0.8


# ---- what cannot be ------------------------------------------------------------------------------


def test_data_that_is_not_for_a_task_is_refused() -> None:
    unlabelled = Arrays({s: np.zeros((20, 2), np.float32) for s in ("train", "test")}, None, 0)
    with pytest.raises(UserError, match="task=classification: the data has no labels"):
        small(data=unlabelled)
    with pytest.raises(UserError, match="task=regression: targets are int64"):
        small(task=Regression)
    with pytest.raises(
        UserError,
        match=r"task=recommendation: this data is not for it\. There are: data=interactions",
    ):
        small(task=Recommendation)


def test_a_model_computes_in_the_precision_that_is_asked_for_and_keeps_its_weights_in_float32() -> (
    None
):
    trainers = []
    for precision in ("float32", "bfloat16"):
        tf.keras.utils.set_random_seed(0)
        trainers.append(small(precision=precision))
    exact, coarse = (trainer.predict(trainer.data.examples("test")[0]) for trainer in trainers)
    assert coarse.dtype == np.float32
    # Eight bits of mantissa
    assert 1e-5 < np.abs(coarse - exact).max() < 0.05 * np.abs(exact).max()
    assert {v.dtype for v in trainers[1].network.variables} == {tf.float32}
    trainers[1].train(1600)
    assert trainers[1].evaluate().scalars["eval/accuracy"] > 0.9
    assert tf.keras.mixed_precision.global_policy().name == "float32"
    with pytest.raises(
        UserError, match=r"precision=float16: choose one of float32, bfloat16\. .* loss scaling"
    ):
        small(precision="float16")


def test_an_alpha_channel_is_refused() -> None:
    data = Arrays(
        {s: np.zeros((20, 8, 8, 4), np.uint8) for s in ("train", "test")},
        {s: np.arange(20) % 2 for s in ("train", "test")},
        0,
    )
    with pytest.raises(UserError, match=r"alpha channel.*set data\.channels=3"):
        small(data=data)


def test_a_model_without_a_head_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"says \[5\] of an example, where the task asks for 3 numbers"
    ):
        small(model=lambda outputs: tf.keras.layers.Dense(5))
