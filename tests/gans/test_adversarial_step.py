"""The game's steps: what they share, what they leave alone, and that how a batch is cut makes no
difference.
"""

import traceback
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import sparring
from sparring.errors import UserError
from sparring.gans.augmentation import InstanceNoise
from sparring.gans.losses import Hinge, RelativisticPairing, Wasserstein
from sparring.gans.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from sparring.gans.networks.mlp import MLPDiscriminator, MLPGenerator
from sparring.gans.networks.pair import Pair
from sparring.gans.networks.spectral_norm import SpectralDense
from sparring.gans.penalties import R1, R2, WGANGP
from sparring.gans.players import unchanged
from sparring.gans.settings import GameSettings, correct_for_interval
from sparring.gans.trainer import GANTrainer
from sparring.optim.optimizer import Scheduled, freeze
from tests.helpers.toy_gans import Images, Ring, make, mlp

pytestmark = pytest.mark.long

ZERO = tf.constant(0, tf.int64)
HALF = tf.constant(0.5)
ROWS = tf.range(16, dtype=tf.int64)
EAGER = {"compile": "eager"}


def weights(trainer: GANTrainer) -> list[np.ndarray]:
    game = trainer.game
    return [
        v.numpy()
        for v in (*game.generator.network.variables, *game.discriminator.network.variables)
    ]


def assert_alike(ours: GANTrainer, theirs: GANTrainer, atol: float = 2e-6) -> None:
    for a, b in zip(weights(ours), weights(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


def dcgan(normalization: str = "none", **more: Any) -> Pair:
    discriminator = partial(DCGANDiscriminator, width=2, normalization=normalization, **more)
    return Pair(partial(DCGANGenerator, width=2), discriminator, 4)


# ---- a batch is a batch, however it is cut, compiled or shared -----------------------------------

PARTS = {"loss": RelativisticPairing(), "augmentations": {"noise": InstanceNoise(0.1)}}


def test_accumulated_parts_are_the_whole_batch() -> None:
    for rules in ({"n_critic": 2, "penalty_interval": 2}, {"pack": 2}):
        settings = {**PARTS, **rules, **EAGER, "penalties": {"r1": R1(1.0), "gp": WGANGP(1.0)}}
        whole = make(**settings)
        parts = make(accumulation=4, **settings)
        for trainer in (whole, parts):
            trainer.train(16 * 4)
        assert_alike(whole, parts)
        ours = whole.scalars()
        theirs = parts.scalars()
        assert ours.keys() == theirs.keys()
        for tag in ours.keys() - {
            "generator/diversity"
        }:  # a spread over a part is another than over the whole
            assert ours[tag] == pytest.approx(theirs[tag], rel=1e-4, abs=1e-5), tag


def test_xla_is_the_graph() -> None:
    settings = {
        **PARTS,
        "penalty_interval": 2,
        "penalties": {"r1": R1(1.0)},
        "network": mlp(normalization="spectral"),
    }
    compiled = [make(compile=mode, **settings) for mode in ("graph", "xla", "eager")]
    for trainer in compiled:
        trainer.train(16 * 3)
    assert_alike(compiled[0], compiled[1], atol=1e-5)
    assert_alike(compiled[0], compiled[2], atol=1e-5)


def test_sharing_generated_examples_changes_nothing() -> None:
    shared, apart = (make(loss=Hinge(), penalties={"r2": R2(1.0)}, **EAGER) for _ in range(2))
    shared.game.both_steps(ZERO, ROWS, HALF)
    apart.game.discriminator_step(ZERO, ROWS, HALF)
    apart.game.generator_step(ZERO, ROWS, HALF)
    assert_alike(shared, apart)


def test_every_step_draws_its_own_and_every_example_too() -> None:
    game = make(**EAGER).game
    one, same, next_ = (game.batch(tf.constant(i, tf.int64), ROWS, ZERO) for i in (0, 0, 1))
    np.testing.assert_array_equal(one.latents, same.latents)
    for a, b in ((one.latents, next_.latents), (one.real, next_.real)):
        assert not np.intersect1d(a, b).size
        assert len(np.unique(a)) == a.numpy().size
    other = make(seed=1, **EAGER).game.batch(ZERO, ROWS, ZERO)
    assert not np.intersect1d(one.latents, other.latents).size


# ---- losses are means over the whole batch -------------------------------------------------------


class Slope(tf.keras.layers.Layer):
    """Logits w x + b of points [B, 1]."""

    def __init__(self, shape: Any, classes: int) -> None:
        super().__init__()
        self.weight = self.add_weight("weight", [], initializer="ones")

    def call(self, examples: tf.Tensor, labels: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.weight * examples[:, 0]


class Shift(tf.keras.layers.Layer):
    """Points z + t."""

    def __init__(self, shape: Any, classes: int) -> None:
        super().__init__()
        self.place = self.add_weight("place", [], initializer="zeros")

    def call(self, latents: tf.Tensor, labels: tf.Tensor, training: bool = False) -> tf.Tensor:
        return latents[:, :1] + self.place


class Line:
    """Points 0, 1, 2, ..."""

    shape = (1,)
    classes = 0
    count = 100

    def take(self, rows: tf.Tensor, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.cast(rows, tf.float32)[:, tf.newaxis], tf.zeros_like(rows)

    def examples(self, split: str, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((1, 1), np.float32), np.zeros(1, np.int64)


def test_gradients_and_means_by_hand() -> None:
    # logits are x and z; Wasserstein: d/dw mean(z) - mean(x), with x = 0 .. 15, mean 7.5; R1 of
    # gamma 4: 2 w^2, slope 4
    optimizers = tuple(Scheduled(tf.keras.optimizers.SGD(), 0.1) for _ in range(2))
    trainer = make(
        Line(),
        Pair(Shift, Slope, 1),
        Wasserstein(),
        penalties={"r1": R1(4.0)},
        optimizers=optimizers,
        **EAGER,
    )
    latents = trainer.game.batch(ZERO, ROWS, ZERO).latents.numpy()
    values = trainer.game.both_steps(ZERO, ROWS, HALF)
    slope = latents.mean() - 7.5 + 4.0
    weight = 1.0 - 0.1 * slope
    expected = {
        "loss/discriminator": latents.mean() - 7.5,
        "penalty/r1": 2.0,
        "gradient/discriminator_norm": abs(slope),
        "gradient/discriminator_update_norm": 0.1 * abs(slope),
        "discriminator/real_logit": 7.5,
        "discriminator/fake_logit": latents.mean(),
        "discriminator/accuracy": (np.arange(16) > latents[:, 0]).mean(),
        "generator/diversity": latents.std() / np.arange(16).std(),
        "loss/generator": -weight * latents.mean(),  # by the discriminator as it is now
        "gradient/generator_norm": abs(weight),
        "gradient/generator_update_norm": 0.1 * abs(weight),
    }
    assert values.keys() == expected.keys()
    for tag, value in expected.items():
        assert float(values[tag]) == pytest.approx(value, rel=1e-5), tag
    # uphill
    assert float(trainer.game.generator.weights[0]) == pytest.approx(0.1 * weight, rel=1e-5)


def test_noise_and_packs_do_not_hide_a_collapse() -> None:
    # twice 16 points that lie together: noise of 10 on both would make their spread look like that
    # of 0 .. 15
    class Nowhere(Shift):
        def call(self, latents: tf.Tensor, labels: tf.Tensor, training: bool = False) -> tf.Tensor:
            return 0.0 * latents[:, :1] + self.place

    class Two(Slope):
        def call(self, examples: tf.Tensor, labels: tf.Tensor, training: bool = False) -> tf.Tensor:
            return self.weight * tf.reduce_sum(examples, axis=1)

    pair = Pair(Nowhere, Two, 1)
    for rules in ({}, {"n_critic": 2}, {"pack": 2}):
        trainer = make(Line(), pair, augmentations={"noise": InstanceNoise(10.0)}, **rules, **EAGER)
        assert (
            float(trainer.game.discriminator_step(ZERO, ROWS, HALF)["generator/diversity"]) == 0.0
        )


# ---- what steps leave alone ----------------------------------------------------------------------


def buffers(network: tf.keras.layers.Layer) -> list[np.ndarray]:
    return [v.numpy() for v in network.non_trainable_variables]


@pytest.mark.parametrize("network", [mlp(normalization="batch"), dcgan("batch")])
def test_statistics_of_batch_normalisation_move_in_their_own_player_s_steps_only(
    network: Pair,
) -> None:
    data, rows = (Ring(), ROWS) if network.latent == 2 else (Images((16, 16, 1)), ROWS)
    game = make(data, network, penalties={"r1": R1(1.0)}, penalty_interval=2, **EAGER).game
    before = buffers(game.generator.network)
    judge = buffers(game.discriminator.network)
    game.discriminator_step(ZERO, rows, HALF)
    np.testing.assert_equal(buffers(game.generator.network), before)
    moved = buffers(game.discriminator.network)
    assert not np.array_equal(moved[0], judge[0])
    game.generator_step(ZERO, rows, HALF)
    np.testing.assert_equal(buffers(game.discriminator.network), moved)
    after = buffers(game.generator.network)
    assert not np.array_equal(after[0], before[0])
    once = make(
        data, network, **EAGER
    ).game  # made alike: one pass in training moves the statistics as far
    once.generate(once.batch(ZERO, rows, ZERO))
    np.testing.assert_allclose(after[0], buffers(once.generator.network)[0], rtol=1e-5)
    game.both_steps(ZERO, rows, HALF)
    np.testing.assert_allclose(
        buffers(game.generator.network)[0] - 0.9 * after[0], after[0] - 0.9 * before[0], atol=0.2
    )


def test_what_is_unchanged_is_restored() -> None:
    network = MLPDiscriminator((2,), normalization="batch")
    network(tf.ones([2, 2]), tf.zeros([2], tf.int64))
    before = buffers(network)
    with unchanged(network):
        network(tf.ones([2, 2]), tf.zeros([2], tf.int64), training=True)
    np.testing.assert_equal(buffers(network), before)


def test_power_iteration_happens_once_in_a_step_of_the_discriminator() -> None:
    trainer = make(
        network=mlp(normalization="spectral"),
        penalties={"r1": R1(1.0)},
        n_critic=3,
        rate=0.0,
        **EAGER,
    )
    layer = trainer.game.discriminator.network.hidden[0].dense
    layer.right.assign(tf.one_hot(0, layer.right.shape[0]))
    kernel = layer.kernel.numpy()
    right = layer.right.numpy()
    for _ in range(3):
        left = kernel @ right / np.linalg.norm(kernel @ right)
        right = kernel.T @ left / np.linalg.norm(kernel.T @ left)
    trainer.train(1)
    np.testing.assert_allclose(layer.right, right, atol=1e-6)
    np.testing.assert_array_equal(layer.kernel, kernel)


def test_the_generator_s_step_leaves_the_discriminator_alone_and_the_other_way_round() -> None:
    game = make(**EAGER).game
    before = (
        [v.numpy() for v in game.generator.weights],
        [v.numpy() for v in game.discriminator.weights],
    )
    game.generator_step(ZERO, ROWS, HALF)
    np.testing.assert_equal([v.numpy() for v in game.discriminator.weights], before[1])
    moved = [v.numpy() for v in game.generator.weights]
    game.discriminator_step(ZERO, ROWS, HALF)
    np.testing.assert_equal([v.numpy() for v in game.generator.weights], moved)
    assert not np.array_equal(moved[0], before[0][0])


# ---- options -------------------------------------------------------------------------------------


def test_labels_reach_both_players_only_if_it_is_conditional() -> None:
    seen: list[np.ndarray] = []

    class Judge(MLPDiscriminator):
        def call(self, examples: tf.Tensor, labels: tf.Tensor, training: bool = False) -> tf.Tensor:
            seen.append(labels.numpy())
            return super().call(examples, labels, training)

    data = Images((4,), classes=3)
    for conditional in (False, True):
        trainer = make(data, Pair(MLPGenerator, Judge, 2), conditional=conditional, **EAGER)
        assert trainer.game.generator.network.classes == (3 if conditional else 0)
        assert (trainer.game.discriminator.network.head.embedding is not None) == conditional
        trainer.game.both_steps(ZERO, ROWS, HALF)
        np.testing.assert_array_equal(seen[-1], np.arange(16) % 3)


def test_packs_are_judged_as_one() -> None:
    trainer = make(pack=4, **EAGER)
    game = trainer.game
    assert game.discriminator.network.hidden[0].dense.kernel.shape[0] == 8
    assert game.generator.network.out.kernel.shape[1] == 2
    shown = game.objective.augment(
        game.batch(ZERO, ROWS, ZERO).real, game.batch(ZERO, ROWS, ZERO).keys[:, 0], HALF
    )
    assert shown.shape == (4, 8)
    assert game.objective.discriminate(shown, tf.zeros([4], tf.int64)).shape == (4,)
    for weight in game.discriminator.weights:
        weight.assign(tf.zeros_like(weight))
    values = game.both_steps(ZERO, ROWS, HALF)
    # A mean over packs
    assert float(values["loss/discriminator"]) == pytest.approx(2.0 * np.log(2.0))
    assert float(values["discriminator/accuracy"]) == 0.5  # all are ties


def test_clipped_weights_stay_within_their_limit() -> None:
    trainer = make(loss=Wasserstein(), weight_clip=0.01, **EAGER)
    trainer.train(16)
    assert max(
        float(tf.reduce_max(tf.abs(w))) for w in trainer.game.discriminator.weights
    ) == pytest.approx(0.01)
    assert max(float(tf.reduce_max(tf.abs(w))) for w in trainer.game.generator.weights) > 0.1


def test_real_and_generated_examples_in_one_batch_matter_to_batch_normalisation_only() -> None:
    for normalization, same in (("none", True), ("batch", False)):
        made = [
            make(network=mlp(normalization=normalization), joint=joint, **EAGER)
            for joint in (False, True)
        ]
        first, second = (
            float(t.game.both_steps(ZERO, ROWS, HALF)["loss/discriminator"]) for t in made
        )
        assert (first == pytest.approx(second, rel=1e-5)) == same


def test_joint_batches_are_joint_in_the_generator_s_step_too() -> None:
    """The generator's loss is of the logits that the discriminator's own step would find."""
    network = mlp(normalization="batch")
    game = make(network=network, loss=Hinge(), joint=True, **EAGER).game
    batch = game.batch(ZERO, ROWS, ZERO)
    fake = game.generate(batch)
    labels = tf.concat([batch.labels, batch.labels], axis=0)
    both = game.objective.discriminate(tf.concat([batch.real, fake], axis=0), labels)
    loss = game.objective.generator_loss(batch, fake, HALF)
    assert float(loss) == pytest.approx(float(-tf.reduce_mean(both[16:])), rel=1e-5)


@pytest.mark.parametrize("network", [mlp(normalization="batch"), dcgan("batch")])
def test_penalties_of_joint_batch_normalisation_are_refused(network: Pair) -> None:
    data = Ring() if network.latent == 2 else Images((16, 16, 1))
    with pytest.raises(UserError, match=r"game\.joint=true: a penalty judges examples apart"):
        make(data, network, penalties={"r1": R1(1.0)}, joint=True)
    make(penalties={"r1": R1(1.0)}, joint=True)


@pytest.mark.parametrize("network", [mlp(), dcgan("spectral"), dcgan("layer", patches=True)])
def test_bfloat16_computes_and_keeps_its_weights_in_float32(network: Pair) -> None:
    data = Ring() if network.latent == 2 else Images((16, 16, 1))
    settings = {"penalties": {"r1": R1(1.0)}, **EAGER}
    half = make(
        data,
        network,
        generator_precision="bfloat16",
        discriminator_precision="bfloat16",
        **settings,
    )
    full = make(data, network, **settings)
    assert half.game.generator.network.compute_dtype == "bfloat16"
    assert {
        v.dtype
        for v in (
            *half.game.generator.network.variables,
            *half.game.discriminator.network.variables,
        )
    } == {tf.float32}
    for trainer in (half, full):
        trainer.train(16)
    ours = half.scalars()
    theirs = full.scalars()
    for tag in ("loss/discriminator", "loss/generator", "penalty/r1"):
        assert ours[tag] == pytest.approx(theirs[tag], rel=0.1, abs=0.02)
        assert ours[tag] != theirs[tag]
    assert tf.keras.mixed_precision.global_policy().name == "float32"


def test_the_interval_s_correction_of_rate_and_decays() -> None:
    optimizer = Scheduled(
        tf.keras.optimizers.Adam(beta_1=0.9, beta_2=0.99), lambda progress: 1.0 - progress
    )
    correct_for_interval(optimizer, 16)
    assert float(optimizer.learning_rate(HALF)) == pytest.approx(0.5 * 16 / 17)
    assert optimizer.keras.beta_1 == pytest.approx(0.9 ** (16 / 17))
    assert optimizer.keras.beta_2 == pytest.approx(0.99 ** (16 / 17))
    rms = Scheduled(tf.keras.optimizers.RMSprop(rho=0.9), 0.1)
    correct_for_interval(rms, 16)
    assert rms.keras.rho == pytest.approx(0.9 ** (16 / 17))
    correct_for_interval(Scheduled(tf.keras.optimizers.SGD(), 0.1), 16)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (
            {"batch_size": 12, "accumulation": 5},
            r"game.batch_size=12 is no multiple of game.accumulation=5",
        ),
        (
            {"batch_size": 12, "accumulation": 4, "pack": 2},
            r"game.accumulation=4 times game.pack=2",
        ),
        (
            {"batch_size": 4, "pack": 2, "conditional": True},
            r"game.pack=2: packed examples have no label",
        ),
        (
            {"discriminator_precision": "float16"},
            r"game.discriminator_precision=float16: choose one of float32, bfloat16",
        ),
    ],
)
def test_rules_that_cannot_be_are_refused(rules: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        GameSettings(**rules)


def test_fewer_examples_than_a_batch_are_refused_by_the_key_that_is_too_large() -> None:
    with pytest.raises(
        UserError, match=r"100 training examples do not fill a batch of 101: lower game\.batch_size"
    ):
        make(Line(), batch_size=101)


def test_a_conditional_model_needs_labels() -> None:
    with pytest.raises(UserError, match="it has no labels, which a conditional model needs"):
        make(Line(), conditional=True)


# ---- buffers -------------------------------------------------------------------------------------


def _buffers(network: tf.keras.layers.Layer, ending: str) -> list[np.ndarray]:
    return [v.numpy() for v in network.non_trainable_variables if ending in v.name]


@pytest.mark.parametrize("critics", [1, 2])
def test_spectral_normalisation_of_a_generator_moves_once_a_step(critics: int) -> None:
    class Spectral(tf.keras.layers.Layer):
        def __init__(self, shape: tuple[int, ...], classes: int) -> None:
            super().__init__()
            self.dense = SpectralDense(2)

        def call(self, latents: tf.Tensor, labels: tf.Tensor, training: bool) -> tf.Tensor:
            return self.dense(latents)

    trainer = make(network=Pair(Spectral, mlp().discriminator, 2), n_critic=critics, rate=0.0)
    layer = trainer.game.generator.network.dense
    layer.kernel.assign([[3.0, 1.0], [0.0, 2.0]])
    layer.right.assign([0.6, 0.8])
    trainer.train(trainer.steps_per_iteration)
    expected = SpectralDense(2)
    expected.build([None, 2])
    expected.kernel.assign(layer.kernel)
    expected.right.assign([0.6, 0.8])
    expected.power_step()
    np.testing.assert_allclose(layer.right, expected.right, atol=1e-6)
    np.testing.assert_allclose(trainer.average.dense.right, expected.right, atol=1e-6)


def test_frozen_batch_normalisation_keeps_its_statistics() -> None:
    trainer = make(network=mlp(normalization="batch"))
    for variable in trainer.game.generator.weights:
        freeze(variable)
    before = _buffers(trainer.game.generator.network, "moving")
    others = _buffers(trainer.game.discriminator.network, "moving")
    assert before
    assert others
    trainer.train(32)
    for network in (trainer.game.generator.network, trainer.average):
        for a, b in zip(before, _buffers(network, "moving"), strict=True):
            np.testing.assert_array_equal(a, b)
    moved = _buffers(trainer.game.discriminator.network, "moving")
    assert any((a != b).any() for a, b in zip(others, moved, strict=True))


# ---- from `train` to the gradient ----------------------------------------------------------------


def test_few_frames_and_files_lie_between_training_and_the_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = Path(sparring.__file__).parents[1]
    stacks: list[list[traceback.FrameSummary]] = []
    gradient = tf.GradientTape.gradient

    def recorded(tape: tf.GradientTape, *arguments: Any, **options: Any) -> Any:
        stack = traceback.extract_stack()[:-1]
        ours = [
            f for f in stack if Path(f.filename).is_relative_to(root) and ".venv" not in f.filename
        ]
        names = [f.name for f in ours]
        stacks.append(ours[names.index("train") + 1 :])
        return gradient(tape, *arguments, **options)

    trainer = make()
    monkeypatch.setattr(tf.GradientTape, "gradient", recorded)
    trainer.train(16)
    assert len(stacks) >= 3  # the discriminator's, and the generator's two
    for stack in stacks:
        assert len(stack) <= 7, [f"{f.filename}:{f.name}" for f in stack]
        assert len({f.filename for f in stack}) <= 3
