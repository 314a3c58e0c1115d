"""Models learned elsewhere, put to work: warm starts, frozen layers, encoders of agents, judges
of GANs.
"""

import functools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from omegaconf import OmegaConf

from sparring.agents.ppo import PPO
from sparring.agents.training.on_policy import OnPolicyTrainer
from sparring.cli import setup
from sparring.config.composer import Composer
from sparring.config.validation import Command
from sparring.data.arrays import digits
from sparring.data.dataset import Arrays
from sparring.data.synthetic_shapes import Shapes
from sparring.distribute import strategies
from sparring.envs.compiled.toys import Catch
from sparring.errors import UserError
from sparring.gans.metrics.trained_classifier import TrainedClassifier
from sparring.gans.networks.dcgan import DCGANGenerator
from sparring.gans.networks.pair import Pair
from sparring.gans.networks.projected import ProjectedDiscriminator
from sparring.networks.cnn import CNN
from sparring.networks.mlp import MLP
from sparring.networks.pretrained import Pretrained
from sparring.optim.fine_tuning import Stage
from sparring.optim.optimizer import Scheduled, freeze
from sparring.storage import variable_names
from sparring.supervised import pretraining
from sparring.supervised.models import Headed
from sparring.supervised.tasks import Classification
from sparring.supervised.trainer import SupervisedTrainer
from sparring.training import warm_start
from sparring.training.experiment import train
from tests.agents.training import test_replicas
from tests.helpers import runs, toy_gans
from tests.networks.test_pretrained import small  # noqa: F401  a fixture

pytestmark = pytest.mark.long

LITTLE = ["data=digits", "model=mlp", "model.torso.units=[8]", "run.steps=640", "run.log_every=320"]


def run(folder: Path, name: str, *words: str) -> Path:
    """A run of `sparring supervised` in this process; its folder."""
    setup.prepare()
    overrides = [*LITTLE, *words, f"run.dir={folder}", f"run.name={name}"]
    cfg = Command(Composer("supervised"), overrides, multirun=False).cfg
    OmegaConf.resolve(cfg.run)
    train(OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k != "hydra"]), folder / name, 0.0)
    return folder / name


def weights(folder: Path) -> dict[str, np.ndarray]:
    """The network's variables in a run's newest checkpoint."""
    found = runs.tensors(folder)
    return {
        n.partition("/.ATTR")[0]: v
        for n, v in found.items()
        if n.startswith("model/network") and "ATTR" in n
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the digits 0 to 4."""
    return run(tmp_path_factory.mktemp("source"), "five", "data.only=[0,1,2,3,4]")


# ---- warm starts ---------------------------------------------------------------------------------


def test_a_warm_start_takes_the_layers_it_names_and_frozen_ones_stay(
    tmp_path: Path, source: Path
) -> None:
    words = [
        f"run.warm_start={source}",
        "run.warm_layers=['network/torso/.*']",
        "run.freeze=['network/torso/.*']",
    ]
    tuned = weights(run(tmp_path, "tuned", "data.only=[5,6,7]", *words))
    before = weights(source)
    torso = [n for n in tuned if "/torso/" in n]
    assert len(torso) == 2
    for name in torso:
        np.testing.assert_array_equal(tuned[name], before[name])
    assert [tuned[n].shape for n in tuned if n.endswith("head/kernel")] == [(8, 3)]


def test_frozen_layers_stay_frozen_after_a_resume(tmp_path: Path, source: Path) -> None:
    words = [f"run.warm_start={source}", "data.only=[0,1,2,3,4]", "run.freeze=['network/torso/.*']"]
    run(tmp_path, "a", *words, "run.steps=320")
    found = weights(run(tmp_path, "a", *words, "run.steps=640"))
    before = weights(source)
    assert all((found[n] == before[n]).all() == ("/torso/" in n) for n in found)


def test_layers_that_do_not_fit_are_listed(tmp_path: Path, source: Path) -> None:
    with pytest.raises(UserError, match="does not fit") as caught:
        run(tmp_path, "a", f"run.warm_start={source}", "model.torso.units=[9]")
    for layer in ("head/bias", "head/kernel", "torso/hidden/0/bias", "torso/hidden/0/kernel"):
        assert f"network/{layer}" in str(caught.value)
    assert str(caught.value).endswith(
        "Or name what to take of it: run.warm_layers=['PATTERN', ...]."
    )
    with pytest.raises(
        UserError, match=r"differs: model/network/torso/hidden/0/kernel is float32 \(64, 8\) in the"
    ):
        run(
            tmp_path,
            "b",
            f"run.warm_start={source}",
            "model.torso.units=[9]",
            "run.warm_layers=['network/torso/.*']",
        )
    with pytest.raises(
        UserError, match=r"not in the checkpoint: model/network/torso/hidden/1/kernel"
    ):
        run(
            tmp_path,
            "c",
            f"run.warm_start={source}",
            "model.torso.units=[8,8]",
            "run.warm_layers=['network/torso.*']",
        )
    with pytest.raises(
        UserError,
        match=r"run.freeze: nothing\.\* matches none of the names, which are network/head/",
    ):
        run(tmp_path, "d", "run.freeze=['nothing.*']")


def test_what_is_frozen_counts_in_no_norm_and_an_optimizer_of_nothing_else_does_nothing() -> None:
    still = tf.Variable([1.0, 2.0])
    moving = tf.Variable([3.0])
    optimizer = Scheduled(tf.keras.optimizers.Adam(), 0.1)
    optimizer.build([still, moving])
    freeze(still)
    norms = optimizer.step([tf.constant([5.0, 5.0]), tf.constant([2.0])], tf.constant(0.0))
    assert float(norms["gradient/norm"]) == 2.0
    assert float(norms["gradient/update_norm"]) == pytest.approx(0.1, abs=1e-4)
    np.testing.assert_array_equal(still, [1.0, 2.0])
    freeze(moving)
    norms = optimizer.step([tf.constant([5.0, 5.0]), tf.constant([2.0])], tf.constant(0.0))
    assert float(norms["gradient/norm"]) == float(norms["gradient/update_norm"]) == 0.0


def test_a_player_of_a_gan_can_be_frozen() -> None:
    trainer = toy_gans.make()
    warm_start.freeze_weights(trainer.model, ["generator/hidden/.*"])
    before = {n: v.numpy() for n, v in variable_names.named_variables(trainer.model).items()}
    trainer.train(32)
    moved = {
        n
        for n, v in variable_names.named_variables(trainer.model).items()
        if (v.numpy() != before[n]).any()
    }
    assert {n for n in before if n.startswith("generator/")} - moved == {
        n for n in before if "generator/hidden" in n
    }
    assert any(n.startswith("discriminator/") for n in moved)


@pytest.mark.parametrize("make", [test_replicas.ppo, test_replicas.dqn])
def test_layers_of_an_agent_can_be_frozen(make: Callable[..., Any]) -> None:
    trainer = make(compile="graph")
    warm_start.freeze_weights(trainer.model, [".*hidden/0/.*"])
    before = {
        n: v.numpy()
        for n, v in variable_names.named_variables(trainer.model).items()
        if n.endswith(("kernel", "bias"))
    }
    trainer.train(80)
    moved = {
        n
        for n, v in variable_names.named_variables(trainer.model).items()
        if n in before and (v.numpy() != before[n]).any()
    }
    held = {n for n in before if "hidden/0/" in n}
    assert len(held) >= 2
    assert before.keys() - moved == held
    trainer.close()


HEAD = {"head": Stage(["head/.*"])}

# ---- transfer ------------------------------------------------------------------------------------


def adam(rate: float) -> Scheduled:
    return Scheduled(tf.keras.optimizers.Adam(), rate)


@pytest.mark.slow
def test_transfer_beats_learning_from_scratch_at_ten_examples_per_class_over_five_seeds() -> None:
    torso = partial(CNN, (16, 32, 64), (3, 3, 3), (2, 2, 2), (128,))
    odd, even = ([c for c in range(24) if (c // 6 + c % 6) % 2 == part] for part in (1, 0))
    scores: dict[str, list[float]] = {"learned": [], "scratch": []}
    for seed in range(5):
        tf.keras.utils.set_random_seed(seed)
        first = Shapes(seed, 4000, 1000, only=odd)
        made = partial(
            pretraining.pretrained_torso, torso, first, Classification, adam(1e-3), 50_000, 64, seed
        )
        data = Shapes(seed, 4000, 1000, only=even, per_class=10)
        for name, factory, rate, stages in (
            ("learned", made, 1e-2, HEAD),
            ("scratch", torso, 1e-3, None),
        ):
            trainer = SupervisedTrainer(
                data,
                partial(Headed, torso=factory),
                Classification,
                adam(rate),
                50,
                seed,
                20_000,
                stages,
            )
            before = trainer.network.torso.get_weights()
            trainer.train(20_000)
            if name == "learned":
                np.testing.assert_equal(trainer.network.torso.get_weights(), before)
            scores[name].append(trainer.evaluate(media=False).scalars["eval/accuracy"])
    assert all(a > b for a, b in zip(scores["learned"], scores["scratch"], strict=True)), scores


def test_a_torso_that_has_learned_keeps_what_it_learned() -> None:
    data = digits(0, only=[0, 1])
    tf.keras.utils.set_random_seed(0)
    torso = partial(MLP, (8,))
    learn = functools.partial(pretraining.pretrained_torso, torso, data, Classification, adam(1e-2))
    with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
        found = learn(3200, 32, 0)
    trainer = SupervisedTrainer(
        data, partial(Headed, torso=lambda: found), Classification, adam(1e-2), 32, 0, 320, HEAD
    )
    trainer.train(320)  # ten steps of the head alone
    assert trainer.evaluate().scalars["eval/accuracy"] > 0.95


# ---- encoders of agents and judges of GANs -------------------------------------------------------


class Board(Catch):
    """Catch as a picture of bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Box(0, 255, (self.rows, self.columns, 1), np.uint8)

    def observe(self, state):
        seen = tf.reshape(super().observe(state), [-1, self.rows, self.columns, 1])
        return tf.cast(seen * 255.0, tf.uint8)


def test_a_backbone_is_an_encoder_of_observations(small) -> None:  # noqa: F811
    network = partial(
        small, weights=None, size=[12, 12], low=0.0, high=1.0, trainable=False, units=[8]
    )
    trainer = OnPolicyTrainer(
        partial(PPO),
        Board(),
        network,
        adam(1e-2),
        num_envs=4,
        rollout_steps=8,
        epochs=1,
        minibatches=2,
        seed=0,
        total_steps=64,
        compile="graph",
    )
    encoder = trainer.agent._actor_net._torso
    before = encoder.network.get_weights()
    assert not {id(v) for v in encoder.network.variables} & {id(v) for v in trainer.agent.trainable}
    dense = encoder.dense.hidden[0].kernel.numpy()
    trainer.train(64)
    np.testing.assert_equal(encoder.network.get_weights(), before)
    assert (encoder.dense.hidden[0].kernel.numpy() != dense).any()


def test_a_discriminator_looks_through_a_frozen_backbone(small) -> None:  # noqa: F811
    features = partial(small, weights=None, trainable=False)
    pair = Pair(
        partial(DCGANGenerator, width=4),
        partial(ProjectedDiscriminator, features=features, units=(5,)),
        3,
    )
    trainer = toy_gans.make(toy_gans.Images((8, 8, 3)), pair, batch_size=4, rate=1e-2)
    judge = trainer.game.discriminator.network
    made = trainer.game.generator.network
    assert [tuple(v.shape) for v in judge.trainable_variables if v.shape.rank == 2] == [
        (6, 5),
        (5, 1),
    ]
    before = judge.features.network.get_weights()
    weights = [v.numpy() for v in made.trainable_variables]
    trainer.train(16)
    np.testing.assert_equal(judge.features.network.get_weights(), before)
    assert all(
        (v.numpy() != w).any() for v, w in zip(made.trainable_variables, weights, strict=True)
    )


@pytest.mark.parametrize("place", [strategies.one_device, partial(strategies.mirrored, 2)])
def test_a_trained_classifier_is_the_extractor_of_a_metric(
    source: Path, place: Callable[[], Any]
) -> None:
    data = digits(0, only=[0, 1, 2, 3, 4])
    with place().scope():  # as a run builds it
        found = TrainedClassifier(data, str(source))
    images, labels = data.examples("test")
    stored = weights(source)
    kernel, bias = (
        next(v for n, v in stored.items() if n.endswith(f"hidden/0/{p}"))
        for p in ("kernel", "bias")
    )
    by_hand = np.maximum(images.reshape(len(images), -1) @ kernel + bias, 0.0)
    np.testing.assert_allclose(found.features(images), by_hand, atol=1e-4)
    accuracy = (found.probabilities(images).argmax(axis=1) == labels).mean()
    assert found.notes["accuracy on the real test split"] == accuracy
    assert found.notes["dimension"] == 8
    with pytest.raises(UserError, match=r"it learned from \[8, 8, 1\], here are \[32, 32, 3\]"):
        TrainedClassifier(Shapes(0, 4, 4), str(source))
    with pytest.raises(UserError, match=r"extractor\.run=nowhere: no run's folder"):
        TrainedClassifier(data, "nowhere")


def test_a_backbone_that_is_too_large_for_its_images_is_one_line() -> None:
    data = Arrays(
        {s: np.zeros((8, 8, 8, 1), np.uint8) for s in ("train", "test")},
        {s: np.arange(8) % 2 for s in ("train", "test")},
        0,
    )
    model = partial(Headed, torso=partial(Pretrained, "MobileNetV2", None))
    with pytest.raises(
        UserError, match=r"^backbone=MobileNetV2: Input size must be at least 32x32"
    ):
        SupervisedTrainer(data, model, Classification, adam(1e-3), 4, 0, 100)
