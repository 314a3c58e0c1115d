"""The Dirac-GAN (Mescheder et al. 2018, "Which training methods for GANs do actually converge?"),
by the real game.

Data is the point 0, the generator the point t, the discriminator the line x -> p x. Both learn by
gradient descent with rate h, the discriminator first. With s the logistic function, the
cross-entropy's steps are

  p <- p - h t s(p t),   t <- t + h p s(-p t),

and near the equilibrium (0, 0), where s = 1/2 and with a = h / 2, one iteration is linear:

  p' = p - a t,   t' = t + a p' = (1 - a^2) t + a p.
  On (t, p): M = [[1 - a^2, a], [-a, 1]], det M = 1.

Its eigenvalues are complex for a < 2, so their modulus is sqrt(det M) = 1: it circles for ever.
Losses linear at 0 (Wasserstein, hinge within its margins) have a = h. A penalty c p^2 / 2 takes h c
p off p, which scales the second row and what depends on p' by (1 - h c):

  p' = (1 - h c) p - a t,   t' = t + a p'.
  M = [[1 - a^2, a (1 - h c)], [-a, 1 - h c]], det M = 1 - h c,

and the distance shrinks by sqrt(1 - h c) an iteration. R1 and R2 with weight g / 2 have c = g each:
the line's slope is p everywhere. Instance noise of variance v: the discriminator's gradient, E[-n
s(-p n) + (t + n) s(p (t + n))], is t / 2 + p v / 2 to first order (s(y) = 1/2 + y / 4: p v / 4 from
each term), so c = v / 2.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sparring.gans import losses
from sparring.gans.augmentation import InstanceNoise
from sparring.gans.networks.pair import Pair
from sparring.gans.penalties import DRAGAN, R1, R2, WGANGP
from sparring.gans.trainer import GANTrainer
from sparring.optim.optimizer import Scheduled
from tests.helpers import toy_gans

pytestmark = pytest.mark.long

H = 0.2  # the rate of both players


class Origin:
    shape = (1,)
    classes = 0
    count = 0

    def plan(self, first: int, steps: int, size: int) -> np.ndarray:
        return np.zeros((steps, size), np.int64)

    def take(self, rows: tf.Tensor, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.zeros([rows.shape[0], 1]), tf.zeros_like(rows)

    def examples(self, split: str, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((limit or 1, 1), np.float32), np.zeros(limit or 1, np.int64)


class Point(tf.keras.layers.Layer):
    def __init__(self, shape: Any, classes: int) -> None:
        super().__init__()
        self.place = self.add_weight("place", [])

    def call(self, latents: tf.Tensor, labels: tf.Tensor, training: bool = False) -> tf.Tensor:
        return tf.fill([latents.shape[0], 1], self.place)


class Line(tf.keras.layers.Layer):
    def __init__(self, shape: Any, classes: int) -> None:
        super().__init__()
        self.slope = self.add_weight("slope", [])

    def call(self, examples: tf.Tensor, labels: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.slope * examples[:, 0]


def dirac(
    loss: Any,
    penalties: tuple[Any, ...] = (),
    noise: float = 0.0,
    batch_size: int = 2,
    compile: str = "graph",
    **rules: Any,
) -> GANTrainer:
    def sgd() -> Scheduled:
        return Scheduled(tf.keras.optimizers.SGD(), H)

    return toy_gans.make(
        Origin(),
        Pair(Point, Line, 1),
        loss,
        batch_size=batch_size,
        optimizers=(sgd(), sgd()),
        compile=compile,
        penalties={str(i): p for i, p in enumerate(penalties)},
        augmentations={"noise": InstanceNoise(noise)} if noise else {},
        **rules,
    )


def path(trainer: GANTrainer, start: tuple[float, float], iterations: int) -> np.ndarray:
    """(t, p) after each iteration from `start` on, [iterations + 1, 2]."""
    game = trainer.game
    points = [start]
    game.generator.weights[0].assign(start[0])
    game.discriminator.weights[0].assign(start[1])
    for _ in range(iterations):
        trainer.train(1)
        points.append((float(game.generator.weights[0]), float(game.discriminator.weights[0])))
    return np.array(points)


def matrix(a: float, c: float) -> np.ndarray:
    keep = 1.0 - H * c
    return np.array([[1.0 - a * a, a * keep], [-a, keep]])


# name: loss, penalties, a, c
CASES: dict[str, tuple[Callable[[], Any], tuple[Any, ...], float, float]] = {
    "plain": (losses.NonSaturating, (), H / 2, 0.0),
    "minimax": (losses.Minimax, (), H / 2, 0.0),
    "wgan": (losses.Wasserstein, (), H, 0.0),
    "hinge": (losses.Hinge, (), H, 0.0),
    "rpgan": (losses.RelativisticPairing, (), H / 2, 0.0),
    "r1": (losses.NonSaturating, (R1(0.5),), H / 2, 0.5),
    "r2": (losses.NonSaturating, (R2(0.5),), H / 2, 0.5),
    "rpgan, r1 and r2": (losses.RelativisticPairing, (R1(0.5), R2(0.25)), H / 2, 0.75),
    "wgan, r1": (losses.Wasserstein, (R1(0.5),), H, 0.5),
}


@pytest.mark.parametrize("name", CASES)
def test_an_iteration_near_the_equilibrium_is_the_matrix_worked_by_hand(name: str) -> None:
    loss, penalties, a, c = CASES[name]
    trainer = dirac(loss(), penalties, compile="eager")
    far = 1e-3
    columns = [path(trainer, start, 1)[1] / far for start in ((far, 0.0), (0.0, far))]
    np.testing.assert_allclose(np.transpose(columns), matrix(a, c), atol=2e-5)
    assert np.linalg.det(matrix(a, c)) == pytest.approx(1.0 - H * c)


def radius(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points, axis=1)


@pytest.mark.parametrize("name", ["plain", "wgan", "hinge", "rpgan"])
def test_without_a_penalty_it_circles_for_ever(name: str) -> None:
    # M leaves t^2 + p^2 - a t p as it is: from (1, 0), it is (1 - a^2)^2 + a^2 + a^2 (1 - a^2) = 1
    # again. A turn takes 2 pi / a iterations: 63 for a = 0.1, 31 for a = 0.2.
    loss, _, a, _ = CASES[name]
    points = path(dirac(loss()), (0.01, 0.0), 200)
    t, p = points.T
    # Cross-entropy's curvature damps by t^2
    np.testing.assert_allclose(t**2 + p**2 - a * t * p, 0.01**2, rtol=2e-3)
    crossings = np.count_nonzero(np.diff(np.sign(t)))
    assert crossings == pytest.approx(2 * 200 * a / (2 * np.pi), abs=1)


@pytest.mark.parametrize("name", ["r1", "r2", "rpgan, r1 and r2", "wgan, r1"])
def test_with_a_penalty_at_the_data_it_converges_at_the_rate_of_the_theory(name: str) -> None:
    # 60 iterations shrink by sqrt(1 - 0.2 * 0.5)^60 = 0.042, or sqrt(1 - 0.2 * 0.75)^60 = 0.0076
    loss, penalties, a, c = CASES[name]
    points = path(dirac(loss(), penalties), (0.02, 0.0), 60)
    expected = np.linalg.matrix_power(matrix(a, c), 60) @ points[0]
    np.testing.assert_allclose(points[-1], expected, rtol=1e-2, atol=1e-6)
    assert radius(points[-1:])[0] < 0.1 * 0.02


def test_instance_noise_converges_at_the_rate_of_the_theory() -> None:
    # variance 1: c = 1/2, and det M = 1 - 0.2 / 2 = 0.9. The noise of a batch is the same at the
    # same step, and is taken off; the mean squares of 4096 numbers remain, within 4 (2 / 4096)^0.5
    # of 1: 0.005 of h c = 0.1.
    trainer = dirac(losses.NonSaturating(), noise=1.0, batch_size=4096)
    far = 0.05

    def first_step(start: tuple[float, float]) -> np.ndarray:
        trainer.iterations.assign(0)
        trainer._done = 0
        return path(trainer, start, 1)[1]

    base = first_step((0.0, 0.0))
    columns = [(first_step(start) - base) / far for start in ((far, 0.0), (0.0, far))]
    np.testing.assert_allclose(np.transpose(columns), matrix(H / 2, 0.5), atol=0.01)
    # 0.71 * 0.9^30 = 0.03, and the noise
    assert radius(path(trainer, (0.5, 0.5), 60)[-10:]).max() < 0.1


@pytest.mark.parametrize("penalty", [WGANGP(1.0), DRAGAN(1.0)])
@pytest.mark.parametrize("n_critic", [1, 5])
def test_a_gradient_norm_of_one_does_not_let_it_converge(penalty: Any, n_critic: int) -> None:
    """Mescheder et al. 2018, theorem 4.3 and figure 3: the slope is drawn to +-1, past which the
    point keeps moving.
    """
    trainer = dirac(losses.Wasserstein(), (penalty,), n_critic=n_critic)
    points = path(trainer, (1.0, 0.0), 200)
    assert np.abs(points[-50:, 0]).max() > 0.05
    assert radius(points[-50:]).max() > 0.5
    assert np.abs(points).max() < 20.0


def test_clipped_weights_do_not_converge_either() -> None:
    trainer = dirac(losses.Wasserstein(), weight_clip=0.5)
    points = path(trainer, (1.0, 0.0), 200)
    assert np.abs(points[:, 1]).max() == pytest.approx(0.5)
    assert np.abs(points[-50:, 0]).max() > 0.4


def test_lazy_penalties_pull_as_hard_on_average() -> None:
    # every other step: 2 c p h' off p with h' = h * 2/3 (the interval's correction); a = h' / 2 for
    # the discriminator
    trainer = dirac(losses.NonSaturating(), (R1(0.5),), penalty_interval=2, compile="eager")
    rate = H * 2.0 / 3.0
    points = path(trainer, (0.0, 1e-3), 2)
    # iteration 0: t = 0, so the main step leaves p; the penalty: p - h' * 2 * 0.5 p; then t = h / 2
    # * p. Iteration 1: p - h' / 2 t alone; then t + h / 2 p.
    p0 = 1.0 - rate * 2.0 * 0.5
    t0 = H / 2 * p0
    p1 = p0 - rate / 2 * t0
    np.testing.assert_allclose(points[1:] / 1e-3, [[t0, p0], [t0 + H / 2 * p1, p1]], rtol=1e-4)
    # Of the one step that took it
    assert trainer.peek()["penalty/0"] == pytest.approx(0.25 * 1e-6, rel=1e-4)
