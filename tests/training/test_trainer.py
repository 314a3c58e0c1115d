"""check_trainer: passes a trainer that keeps the contract, and names the clause that one breaks."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparring.training.conformance import check_trainer
from sparring.training.trainer import Evaluation
from tests.helpers.toy_trainer import BATCH, Line


def test_a_trainer_that_keeps_the_contract_passes_and_is_closed() -> None:
    made: list[Line] = []

    def make() -> Line:
        made.append(Line())
        return made[-1]

    check_trainer(make, steps=50)
    assert made
    assert all(trainer.closed for trainer in made)


class Stops(Line):
    def train(self, steps: int) -> None:
        super().train(min(steps, BATCH))


class Rushes(Line):
    def train(self, steps: int) -> None:
        super().train(steps if steps < 10 else steps + 2 * BATCH)


class Counts(Line):
    """Trainer whose learning depends on how often train was called."""

    def train(self, steps: int) -> None:
        super().train(steps)
        self.weights.assign_add([0.01, 0.0])


class Differs(Line):
    made = 0

    def __init__(self) -> None:
        Differs.made += 1
        super().__init__(seed=Differs.made)


class Explodes(Line):
    def train(self, steps: int) -> None:
        super().train(steps)
        self.ballast = tf.Variable([0.0, np.inf])


class Silent(Line):
    def peek(self) -> dict[str, float]:
        return {}


class Undescribed(Line):
    def peek(self) -> dict[str, float]:
        return {"loss/secret": 1.0}

    scalars = peek


class NotANumber(Line):
    def peek(self) -> dict[str, float]:
        return {"loss/squared": float("nan")}


class TwoMeans(Line):
    def peek(self) -> dict[str, float]:
        return {tag: value + 1.0 for tag, value in super().peek().items()}


class NeverNew(Line):
    def scalars(self) -> dict[str, float]:
        return self.peek()


class OldSeconds(Line):
    def timings(self) -> dict[str, float]:
        return {"update": 1.0}


class EarlySeconds(Line):
    def timings(self) -> dict[str, float]:
        return {"update": -1.0}


class Meddles(Line):
    """Its evaluation moves a weight."""

    def evaluate(self, *arguments: Any, **settings: Any) -> Evaluation:
        self.momentum.assign_add([1e-3, 0.0])
        return super().evaluate(*arguments, **settings)


class MeddlesUnseen(Line):
    """Its evaluation moves something that is in no checkpoint."""

    def evaluate(self, *arguments: Any, **settings: Any) -> Evaluation:
        self.seed += 1
        return super().evaluate(*arguments, **settings)


class Wavers(Line):
    looks = 0

    def evaluate(self, *arguments: Any, **settings: Any) -> Evaluation:
        Wavers.looks += 1
        return Evaluation({"eval/distance": float(Wavers.looks)})


class NoObjective(Line):
    def evaluate(self, *arguments: Any, **settings: Any) -> Evaluation:
        return Evaluation({"loss/squared": 1.0})


class UndescribedFinding(Line):
    def evaluate(self, *arguments: Any, **settings: Any) -> Evaluation:
        return Evaluation({"eval/distance": 1.0, "eval/secret": 1.0})


class Arrays(Line):
    def evaluate(self, *arguments: Any, **settings: Any) -> Evaluation:
        return Evaluation({"eval/distance": np.ones(1)})  # type: ignore[dict-item]


class FloatPictures(Line):
    def evaluate(self, *arguments: Any, **settings: Any) -> Evaluation:
        return Evaluation({"eval/distance": 1.0}, images={"eval/weights": np.zeros([1, 2, 2, 1])})


class FlatVideo(Line):
    def evaluate(self, *arguments: Any, **settings: Any) -> Evaluation:
        return Evaluation(
            {"eval/distance": 1.0}, videos={"eval/film": np.zeros([2, 2, 3], np.uint8)}
        )


class AlwaysPictures(Line):
    def evaluate(
        self, episodes: int | None = None, media: bool = True, step: int | None = None
    ) -> Evaluation:
        return super().evaluate(episodes, True, step)


class ForgetsMomentum(Line):
    @property
    def checkpoint(self) -> tf.train.Checkpoint:
        return tf.train.Checkpoint(model=self.model, batches=self.batches, means=self.means)


class ForgetsMeans(Line):
    @property
    def checkpoint(self) -> tf.train.Checkpoint:
        return tf.train.Checkpoint(model=self.model, batches=self.batches, momentum=self.momentum)


class ForgetsStep(Line):
    def load_host_state(self, state: Any) -> list[str]:
        return []


class Complains(Line):
    def load_host_state(self, state: Any) -> list[str]:
        super().load_host_state(state)
        return ["The dog ate it."]


class HalfAModel(Line):
    """Its evaluation needs more than its model holds."""

    def evaluate(self, *arguments: Any, **settings: Any) -> Evaluation:
        return Evaluation({"eval/distance": float(self.momentum.numpy()[0])})


class ModelApart(Line):
    def __init__(self) -> None:
        super().__init__()
        self.average = tf.Variable([0.0, 0.0])

    @property
    def model(self) -> tf.train.Checkpoint:
        return tf.train.Checkpoint(weights=self.weights, average=self.average)

    @property
    def checkpoint(self) -> tf.train.Checkpoint:
        parts = {n: getattr(self, n) for n in ("weights", "momentum", "batches", "lowest", "means")}
        return tf.train.Checkpoint(**parts)


class SpacedUnit(Line):
    unit = "training examples"


class NamelessObjective(Line):
    objective = "eval/unheard_of"


class ChartOfNothing(Line):
    charts = {"Fit": {"distance": ["eval/distanec"]}}  # noqa: RUF012


BROKEN: dict[type[Line], str] = {
    Stops: r"train\(50\) advanced to step 4 only",
    Rushes: r"train\(50\) advanced to step 60, though train\(1\) does 4",
    Counts: r"train\(a\) and train\(b\) are not train\(a \+ b\).*weights",
    Differs: r"two trainers made alike differ.*weights",
    Explodes: r"not finite after 50 steps: \['ballast'\]",
    Silent: r"peek\(\) is empty",
    Undescribed: "without a description: .*loss/secret",
    NotANumber: "not finite, plain numbers: .*loss/squared",
    TwoMeans: r"scalars\(\) and peek\(\) differ",
    NeverNew: r"scalars\(\) did not start a new interval",
    OldSeconds: r"timings\(\) did not start anew",
    EarlySeconds: r"timings\(\) has negative seconds",
    Meddles: r"evaluate\(\) changed the state: \['momentum'\]",
    MeddlesUnseen: r"evaluate\(\), or saving, changed what came after it",
    Wavers: "at the same step found something else",
    NoObjective: "lacks the objective eval/distance",
    UndescribedFinding: "without a description: .*eval/secret",
    Arrays: "not finite, plain numbers: .*eval/distance",
    FloatPictures: "not uint8.*eval/weights",
    FlatVideo: "not uint8.*eval/film",
    AlwaysPictures: r"evaluate\(media=False\) gave pictures",
    ForgetsMomentum: "resume is not exact: .*weights",
    ForgetsMeans: "a resumed trainer reports other scalars",
    ForgetsStep: "saved at step 52, resumed at 0",
    Complains: "could not take up the host state: .*The dog ate it",
    HalfAModel: "the model alone evaluates to other scalars",
    ModelApart: r"in the model, but not in the checkpoint: \['average'\]",
    SpacedUnit: "unit 'training examples' is no part of a tag",
    NamelessObjective: "no description of the objective eval/unheard_of",
    ChartOfNothing: "charts of tags without a description: .*eval/distanec",
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_the_clause_that_a_trainer_breaks_is_named(broken: Callable[[], Line]) -> None:
    with pytest.raises(AssertionError, match=BROKEN[broken]):  # type: ignore[index]
        check_trainer(broken, steps=50)
