"""Train a GAN on an array, and write samples of it to a file.

python examples/train_gan.py --steps 500000 --folder runs/gan
"""

import argparse
from pathlib import Path

import numpy as np

import sparring
from sparring.gans.losses import RelativisticPairing
from sparring.gans.penalties import R1


def two_moons(count: int) -> np.ndarray:
    """Return points on two half circles, float32 [count, 2]."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(0.0, np.pi, count)
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = np.where(rng.random((count, 1)) < 0.5, upper, [1.0, 0.5] - upper)
    return (points + rng.normal(0.0, 0.05, points.shape)).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=500_000, help="real examples shown")
    parser.add_argument("--folder", type=Path, default=Path("runs/gan"))
    arguments = parser.parse_args()
    sparring.set_random_seed(0)  # of the initial weights
    trainer = sparring.GANTrainer(
        data=sparring.from_array(two_moons(10_000)),
        loss=RelativisticPairing(),
        penalties={"r1": R1(gamma=0.1)},
        total_steps=arguments.steps,
    )
    outcome = sparring.fit(trainer, arguments.folder)
    samples, _ = trainer.sampler.at(trainer.step)(1000)
    np.save(arguments.folder / "samples.npy", samples)
    best = outcome.best.get("gan/sliced_wasserstein", float("nan"))  # of a run stopped early, none
    print(f"{outcome.status}; sliced Wasserstein distance: {best:.4f}")


if __name__ == "__main__":
    main()
