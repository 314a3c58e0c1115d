"""State of losses, penalties and augmentations is saved, restored and equal on all replicas."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparring.distribute import replicas as here
from sparring.errors import UserError
from sparring.gans.losses import Hinge
from sparring.gans.penalties import R1
from sparring.gans.state import objective_state, trackable_state
from sparring.gans.trainer import GANTrainer
from sparring.storage import variable_names
from sparring.storage.checkpoints import Checkpoints
from tests.helpers import replicas
from tests.helpers.toy_gans import make

pytestmark = pytest.mark.long


class Growing(tf.Module):
    """A squared logit, times the number of calls so far."""

    coupled = True

    def __init__(self) -> None:
        super().__init__()
        self.calls = tf.Variable(0.0, trainable=False)

    def __call__(
        self, critic: Any, real: tf.Tensor, fake: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor
    ) -> tf.Tensor:
        here.assign(self.calls, self.calls + 1.0)
        return 0.1 * self.calls * tf.square(critic(real))


@dataclass
class PlainGrowing:
    """The penalty above in a plain object."""

    inner: list[Growing] = field(default_factory=lambda: [Growing()])
    coupled = True

    def __call__(self, *arguments: Any) -> tf.Tensor:
        return self.inner[0](*arguments)


class Centred(tf.Module):
    """Hinge loss of logits minus an exponential moving average of the real ones."""

    relativistic = False
    coupled = True

    def __init__(self) -> None:
        super().__init__()
        self.average = tf.Variable(0.0, trainable=False)

    def discriminator(self, real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
        mean = here.all_reduce_mean(tf.reduce_mean(real))
        here.assign(self.average, 0.9 * self.average + 0.1 * tf.stop_gradient(mean))
        return Hinge().discriminator(real - self.average, fake - self.average)

    def generator(self, fake: tf.Tensor, real: tf.Tensor | None) -> tf.Tensor:
        return Hinge().generator(fake, real)


class Fading:
    """Noise that fades with every call: a plain object that holds a variable."""

    coupled = True

    def __init__(self) -> None:
        self.scale = tf.Variable(1.0, trainable=False)

    def __call__(self, examples: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor) -> tf.Tensor:
        here.assign(self.scale, self.scale * 0.9)
        return examples + self.scale


PATHS = [
    "objective/penalty/p/calls",
    "objective/penalty/q/inner/0/calls",
    "objective/loss/average",
    "objective/augmentation/fading/scale",
]
INTERVALS = [1, 2]  # of the penalty: at every step, and lazily


def with_state(interval: int) -> GANTrainer:
    """A trainer whose loss, penalties and augmentation all keep something."""
    return make(
        loss=Centred(),
        penalties={"p": Growing(), "q": PlainGrowing()},
        augmentations={"fading": Fading()},
        penalty_interval=interval,
    )


def variables(trainer: GANTrainer) -> dict[str, np.ndarray]:
    named = variable_names.named_variables(trainer.checkpoint)
    return {name: variable.numpy() for name, variable in named.items()}


@pytest.mark.parametrize("interval", INTERVALS)
def test_a_resumed_run_has_the_state_of_one_that_did_not_stop(
    interval: int, tmp_path: Path
) -> None:
    whole, stopped, resumed = (with_state(interval) for _ in range(3))
    at_first = variables(resumed)
    whole.train(16 * 6)
    stopped.train(16 * 3)
    host = {"trainer": stopped.host_state()}
    Checkpoints(tmp_path).save(stopped.step, stopped.checkpoint, host)
    Checkpoints(tmp_path).restore(resumed.checkpoint)
    resumed.load_host_state(host["trainer"])
    for path in PATHS:
        assert variables(resumed)[path] == variables(stopped)[path] != at_first[path], path
    resumed.train(16 * 3)
    np.testing.assert_equal(variables(resumed), variables(whole))


@pytest.mark.parametrize("interval", INTERVALS)
def test_replicas_hold_the_same_state_as_one_device(interval: int) -> None:
    one, two = replicas.pair(lambda: with_state(interval))
    for trainer in (one, two):
        trainer.train(16 * 4)
    replicas.assert_in_agreement(two)
    for path in PATHS:
        np.testing.assert_allclose(variables(two)[path], variables(one)[path], rtol=1e-5)


def test_without_state_nothing_is_added_to_a_checkpoint() -> None:
    game = make(penalties={"r1": R1(lambda progress: 1.0)}).game
    assert objective_state(game.objective) == {}


def test_variables_of_partials_closures_and_slots_are_found() -> None:
    class Slotted:
        __slots__ = ("value",)

        def __init__(self) -> None:
            self.value = tf.Variable(2.0)

    def closing() -> Callable[[], tf.Tensor]:
        hidden = tf.Variable(1.0)
        return lambda: hidden + 1.0

    slotted = Slotted()
    found = trackable_state("loss", {"a": partial(closing()), "b": slotted, "c": [R1(1.0)]})
    assert list(found) == ["a", "b"]
    assert float(found["a"]["func"]["hidden"]) == 1.0
    assert found["b"]["value"] is slotted.value


def test_a_variable_that_a_module_hides_from_checkpoints_is_refused_by_name() -> None:
    class Hiding(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.helper = Fading()

        def __call__(self, critic: Any, real: tf.Tensor, *others: Any) -> tf.Tensor:
            return tf.zeros(tf.shape(real)[:1])

    with pytest.raises(UserError, match=r"penalty\.p\.helper holds a tf\.Variable .* tf\.Module"):
        make(penalties={"p": Hiding()}).checkpoint  # noqa: B018
