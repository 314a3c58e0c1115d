"""The GAN trainer keeps the contract, plans every batch once, averages its generator, and
learns.
"""

import re
from functools import partial
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from omegaconf import OmegaConf

from sparring.config.composer import Composer
from sparring.errors import UserError
from sparring.gans.augmentation import InstanceNoise
from sparring.gans.ema import EMA
from sparring.gans.evaluation import EvaluationSettings
from sparring.gans.losses import Hinge, RelativisticPairing
from sparring.gans.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from sparring.gans.networks.pair import Pair
from sparring.gans.penalties import R1, R2
from sparring.gans.trainer import GANTrainer
from sparring.networks.mlp import MLP
from sparring.training.conformance import check_trainer
from tests.helpers.toy_gans import Images, MeanDistance, Ring, make, mlp

pytestmark = pytest.mark.long

SMALL = EvaluationSettings(columns=4, points=64, batch_size=32)
DCGAN = Pair(
    partial(DCGANGenerator, width=2),
    partial(DCGANDiscriminator, width=2, normalization="spectral"),
    latent=4,
)
EVERYTHING = {"augmentations": {"noise": InstanceNoise(0.1)}, "evaluation": SMALL}


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(
            {"n_critic": 2, "penalties": {"r1": R1(1.0)}, "network": mlp(normalization="batch")},
            id="points",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {
                "data": Images((8, 8, 1)),
                "network": DCGAN,
                "loss": Hinge(),
                "conditional": True,
                "batch_size": 6,
            },
            id="images",
        ),
        pytest.param(
            {
                "loss": RelativisticPairing(),
                "accumulation": 2,
                "pack": 2,
                "penalties": {"r1": R1(1.0), "r2": R2(1.0)},
                "penalty_interval": 2,
                "compile": "xla",
            },
            id="xla",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_contract_is_kept(settings: dict[str, Any]) -> None:
    check_trainer(lambda: make(**EVERYTHING, **settings), steps=150)


def test_batches_are_planned_in_order_each_once() -> None:
    class Watched(Ring):
        asked: list[tuple[int, int, int]] = []  # noqa: RUF012

        def plan(self, first: int, steps: int, size: int) -> np.ndarray:
            self.asked.append((first, steps, size))
            return super().plan(first, steps, size)

    trainer = make(Watched(), n_critic=2)
    plans: list[np.ndarray] = []

    def program(plan: tf.Tensor, count: tf.Tensor) -> None:
        plans.append(plan.numpy()[: int(count)])
        trainer.iterations.assign_add(count)

    trainer._program = program
    trainer.train(16 * 2 * 300 - 5)  # rounded up to iterations; more than one call may hold
    trainer.train(1)
    assert Watched.asked == [(0, 512, 16), (512, 88, 16), (600, 2, 16)]
    assert trainer.step == 16 * 2 * 301
    np.testing.assert_array_equal(np.concatenate(plans).ravel(), np.arange(16 * 2 * 301))


def test_the_planned_rows_are_what_is_taken() -> None:
    class Watched(Images):
        taken: list[np.ndarray] = []  # noqa: RUF012

        def take(self, rows: tf.Tensor, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            self.taken.append(rows.numpy())
            return super().take(rows, keys)

    data = Watched((4,), count=40)
    trainer = make(data, n_critic=2, accumulation=2, batch_size=4, compile="eager")
    trainer.train(8 * 5)  # an epoch
    critic = np.concatenate(
        [np.concatenate(data.taken[i : i + 4]) for i in range(0, len(data.taken), 6)]
    )
    assert sorted(critic) == list(range(40))
    np.testing.assert_array_equal(critic.reshape(10, 4), Images((4,), count=40).plan(0, 10, 4))
    generator = np.concatenate(
        [np.concatenate(data.taken[i + 4 : i + 6]) for i in range(0, len(data.taken), 6)]
    )
    # The last batch again
    np.testing.assert_array_equal(generator, critic.reshape(5, 2, 4)[:, 1].ravel())


def test_the_average_follows_the_generator_by_its_half_life() -> None:
    trainer = make(ema=EMA(16.0, ramp_up=None), rate=0.1, compile="eager")
    before = [v.numpy() for v in trainer.average.trainable_variables]
    np.testing.assert_equal(before, [v.numpy() for v in trainer.game.generator.weights])
    trainer.train(16)  # a half-life
    for average, start, now in zip(
        trainer.average.trainable_variables, before, trainer.game.generator.weights, strict=True
    ):
        assert np.abs(now - start).max() > 0.01
        np.testing.assert_allclose(average, (start + now) / 2, atol=1e-6)


def test_rates_follow_their_schedules_and_are_logged() -> None:
    trainer = make(rate=lambda progress: 0.1 * (1.0 - progress), total_steps=64, compile="eager")
    said = []
    for _ in range(4):
        trainer.train(16)
        said.append(trainer.scalars())
    for player in ("generator", "discriminator"):
        rates = [s[f"schedule/{player}_learning_rate"] for s in said]
        assert rates == pytest.approx([0.075, 0.05, 0.025, 0.0], abs=1e-7)
        assert said[3][f"gradient/{player}_update_norm"] == 0.0


def test_it_learns_a_ring() -> None:
    penalties = {"r1": R1(0.1), "r2": R2(0.1)}
    trainer = make(
        loss=RelativisticPairing(),
        network=mlp(64),
        penalties=penalties,
        batch_size=64,
        # falls to 0: of a constant one the last step hangs on the processor's rounding
        rate=lambda progress: 2e-3 * (1.0 - progress),
        total_steps=64 * 6000,
        compile="xla",
    )
    before = trainer.evaluate(media=False).scalars["gan/mean_distance"]
    trainer.train(64 * 6000)
    found, _ = trainer.sampler.at(0)(500)
    angles = np.arctan2(found[:, 1], found[:, 0])
    radius = np.linalg.norm(found, axis=1)
    near = np.abs(radius - 1.0) < 0.2
    modes = np.round(angles[near] / (2 * np.pi / 8)).astype(int) % 8
    assert np.bincount(modes, minlength=8).min() > 2  # 62 are an even share
    assert near.mean() > 0.7
    assert trainer.evaluate(media=False).scalars["gan/mean_distance"] < min(0.1, before)


# ---- evaluation ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def conditional() -> GANTrainer:
    data = Images((8, 8, 1), classes=3)
    return make(data, DCGAN, conditional=True, batch_size=6, evaluation=SMALL)


def test_samples_are_fixed_by_seed_and_step_and_more_begin_with_fewer(
    conditional: GANTrainer,
) -> None:
    few = conditional.sampler.at(7)(10)
    many = conditional.sampler.at(7)(70)
    for a, b in zip(few, many, strict=True):
        np.testing.assert_allclose(a, b[:10], atol=1e-6)
    samples = conditional.sampler.at(7)
    assert len(samples(70)[0]) == 70
    np.testing.assert_array_equal(samples(10)[0], samples(70)[0][:10])
    assert not np.allclose(conditional.sampler.at(8)(10)[0], few[0])
    assert many[0].shape == (70, 8, 8, 1)
    assert np.bincount(many[1], minlength=3).min() > 10  # labels as in the data: a third each


def test_what_is_sampled_is_the_average(conditional: GANTrainer) -> None:
    latents, labels = conditional.sampler.latents(tf.constant([0, 1], tf.uint32), 3)
    np.testing.assert_allclose(
        conditional.sampler.of(latents, labels),
        conditional.average(latents, labels, training=False),
        atol=1e-6,
    )
    assert all(
        a is not b
        for a, b in zip(
            conditional.average.variables, conditional.game.generator.network.variables, strict=True
        )
    )


def test_pictures_of_images(conditional: GANTrainer) -> None:
    found = conditional.evaluate(step=7)
    assert set(found.images) == {
        "samples/generated",
        "samples/real_and_generated",
        "samples/interpolation",
        "samples/classes",
    }
    again = conditional.evaluate(step=8)
    np.testing.assert_array_equal(
        found.images["samples/generated"], again.images["samples/generated"]
    )
    assert found.scalars != again.scalars
    assert set(found.histograms) == {"discriminator/real_logits", "discriminator/generated_logits"}
    assert found.histograms.keys() | found.images.keys() <= conditional.descriptions.keys()
    assert all(np.isfinite(h).all() and h.size for h in found.histograms.values())
    # ways begin and end at samples: the first row of the first column is the first sample
    grid = found.images["samples/generated"]
    way = found.images["samples/interpolation"]
    cell = grid.shape[0] // 4
    np.testing.assert_allclose(way[:cell, :cell], grid[:cell, :cell], atol=1)


def test_one_column_is_a_grid_too() -> None:
    settings = EvaluationSettings(columns=1, points=6, batch_size=6, embedded=0)
    found = make(Images((8, 8, 1)), DCGAN, batch_size=6, evaluation=settings).evaluate().images
    assert all(image.ndim == 3 and image.size for image in found.values())
    assert len(found) == 3


def test_pictures_of_points_and_of_metrics() -> None:
    class Shown(MeanDistance):
        def pictures(self, sample: Any) -> dict[str, np.ndarray]:
            return {"gan/shown": np.zeros((1, 2, 2, 3), np.uint8)}

    trainer = make(
        metrics={"shown": Shown}, evaluation=EvaluationSettings(points=64, pictures_every=2)
    )
    assert set(trainer.evaluate().images) == {"samples/scatter", "gan/shown"}
    assert trainer.evaluate().images == {}
    assert trainer.evaluate(media=False).images == {}


def test_an_evaluation_of_few_samples_asks_for_no_more() -> None:
    counts: list[int] = []

    class Counting(MeanDistance):
        def __call__(self, sample: Any) -> dict[str, float]:
            counts.append(len(sample(200)[0]))
            return super().__call__(sample)

    trainer = make(metrics={"mean": Counting})
    trainer.evaluate(episodes=5, media=False)
    trainer.evaluate(media=False)
    assert counts == [5, 200]


# ---- what cannot be ------------------------------------------------------------------------------


def test_what_to_try_against_nan_are_keys_that_there_are() -> None:
    keys = re.findall(r"[a-z_]+(?:\.[a-z_]+)+", GANTrainer.remedy)
    cfg = Composer("gan").compose([])
    missing = object()
    assert len(keys) == 3
    for key in keys:
        assert OmegaConf.select(cfg, key, default=missing) is not missing, key


def test_one_network_is_no_gan() -> None:
    with pytest.raises(UserError, match=r"choose network=gan_mlp or dcgan"):
        make(network=partial(MLP, (4,)))  # type: ignore[arg-type]


def test_an_objective_that_nothing_measures_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"objective=gan/modes: no metric of this run gives it. .*gan/mean_distance"
    ):
        make(objective="gan/modes")


def test_the_first_score_is_the_objective_unless_another_is_named() -> None:
    class Two(MeanDistance):
        descriptions = {"gan/first": "a", "gan/second": "b"}  # noqa: RUF012
        smaller = ("gan/second",)

    for named, expected, maximize in (
        (None, "gan/first", True),
        ("gan/second", "gan/second", False),
    ):
        trainer = make(metrics={"two": Two}, objective=named)
        assert (trainer.objective, trainer.maximize) == (expected, maximize)
    with pytest.raises(UserError, match="a run needs one"):
        make(metrics={})


def test_an_evaluation_says_how_its_scores_came_about() -> None:
    assert make().evaluate(media=False).notes == {"mean": {"samples": 200}}
    assert make().evaluate(20, media=False).notes == {
        "mean": {"samples": 200},
        "samples at most": 20,
    }
