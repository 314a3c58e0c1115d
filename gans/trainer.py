"""GAN trainer: many iterations in one compiled call, all state in the checkpoint."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.data import dataset
from sparring.errors import UserError, listed
from sparring.export.signatures import Export
from sparring.gans import defaults, sampling, time_breakdown
from sparring.gans import ema as gans_ema
from sparring.gans import export as gans_export
from sparring.gans.adversarial_step import AdversarialStep
from sparring.gans.augmentation import Augmentation
from sparring.gans.diagnostics import Alarms, Limits
from sparring.gans.ema import EMA
from sparring.gans.evaluation import PICTURES, EvaluationSettings, Gallery, Sampler
from sparring.gans.losses import Loss, NonSaturating
from sparring.gans.metrics.base import Metric, Metrics
from sparring.gans.networks.pair import Pair
from sparring.gans.penalties import Penalty
from sparring.gans.settings import GameSettings
from sparring.gans.state import objective_state
from sparring.optim.optimizer import Scheduled
from sparring.training.batch_trainer import BatchTrainer
from sparring.training.trainer import Evaluation, Samples
from sparring.xla import compilation, loops


class GANTrainer(BatchTrainer):
    """Trainer of a generator and a discriminator.

    One iteration is `rules.n_critic` discriminator steps and one generator step. A step of the run
    is a real image shown to the discriminator (an example, for other data).

    Args:
      data: a `sparring.data.dataset.Data`.
      network: factories of the two networks, and the size of a latent vector; None: a DCGAN for
        images, else dense networks.
      loss: None: the non-saturating one.
      penalties, augmentations, metrics: by name; of metrics, factories called with the data.
      generator_optimizer, discriminator_optimizer: None: Adam at 2e-4 without momentum.
      total_steps: the length of the run, which schedules stretch over.
      objective: tag of the score that selects the best model; None: the first of the metrics.
    """

    unit = "images"
    largest_call = 256
    remedy = (
        "a lower generator_optimizer.learning_rate and discriminator_optimizer.learning_rate, "
        "discriminator_optimizer.optimizer.global_clipnorm=1.0, penalty=r1, or look for infinite "
        "data"
    )

    def __init__(
        self,
        data: Any,
        network: Pair | None = None,
        loss: Loss | None = None,
        penalties: Mapping[str, Penalty] | None = None,
        augmentations: Mapping[str, Augmentation] | None = None,
        metrics: Mapping[str, Callable[..., Metric]] = defaults.METRICS,
        generator_optimizer: Scheduled | None = None,
        discriminator_optimizer: Scheduled | None = None,
        rules: GameSettings | None = None,
        ema: EMA | None = None,
        seed: int = 0,
        total_steps: int = 1_000_000,
        objective: str | None = None,
        compile: str = "auto",
        evaluation: EvaluationSettings | None = None,
        alarms: Limits | None = None,
    ) -> None:
        network = network or defaults.pair(data)
        if not isinstance(network, Pair):
            raise UserError(
                "network: a GAN has a generator and a discriminator: choose network=gan_mlp or "
                "dcgan."
            )
        super().__init__()
        self.rules = rules or GameSettings()
        self.ema = ema or EMA()
        optimizers = (
            generator_optimizer or defaults.optimizer(),
            discriminator_optimizer or defaults.optimizer(),
        )
        self.game = AdversarialStep(
            data,
            network,
            loss or NonSaturating(),
            penalties or {},
            augmentations or {},
            optimizers,
            self.rules,
            seed,
        )
        self.seed = seed
        self.metrics = Metrics(data, metrics)
        self.objective = _objective(objective, self.metrics)
        self.maximize = self.objective not in self.metrics.smaller
        self.average = self.game.make_generator()
        gans_ema.copy(self.average, self.game.generator.network)
        weights = [*self.game.generator.weights, *self.game.discriminator.weights]
        self.prepare(
            compilation.resolve(compile, weights),
            total_steps,
            self._training,
            parts=("plan", "update"),
        )
        self.settings = evaluation or EvaluationSettings()
        self.alarms = Alarms(alarms or Limits(), unbounded=getattr(loss, "unbounded", False))
        self.sampler = Sampler(self.game, self.average, self.mode, seed, self.settings.batch_size)
        self.gallery = Gallery(self.sampler, self.settings, self.mode, seed)

    # ---- contract --------------------------------------------------------------------------------

    @property
    def steps_per_iteration(self) -> int:
        """Number of real examples in one iteration."""
        return self.rules.batch_size * self.rules.n_critic

    @functools.cached_property
    def descriptions(self) -> Mapping[str, str]:
        """Description of each tag."""
        return self._training | self.metrics.descriptions | PICTURES

    @functools.cached_property
    def _training(self) -> dict[str, str]:
        players: dict[str, str] = {}
        for who in ("generator", "discriminator"):
            players |= {
                f"gradient/{who}_norm": f"Global norm of the {who}'s gradient before clipping, "
                "mean over its steps.",
                f"gradient/{who}_update_norm": "Global norm of the change one step makes to the "
                f"{who}'s weights.",
                f"schedule/{who}_learning_rate": f"The {who}'s learning rate, mean over "
                "iterations.",
            }
        penalties = {
            f"penalty/{name}": f"The penalty {name} with its weight, mean over the steps that took "
            "it."
            for name in self.game.penalties
        }
        adaptive = {
            f"augmentation/{name}_probability": f"Probability of each augmentation of {name}, mean "
            "over the discriminator's steps."
            for name in self.game.objective.adaptive
        }
        return DESCRIPTIONS | players | penalties | adaptive

    @property
    def charts(self) -> Mapping[str, Mapping[str, list[str]]]:
        """Layout of TensorBoard's custom scalars."""
        norms = [f"gradient/{player}_norm" for player in ("generator", "discriminator")]
        penalties = (
            {"penalties": [f"penalty/{name}" for name in self.game.penalties]}
            if self.game.penalties
            else {}
        )
        observed = [f"augmentation/{name}_probability" for name in self.game.objective.adaptive]
        adaptive = {"augmentation": observed} if observed else {}
        return {
            "Game": {
                "losses": ["loss/generator", "loss/discriminator"],
                "logits": ["discriminator/real_logit", "discriminator/fake_logit"],
                "balance": ["discriminator/accuracy", "generator/diversity"],
            },
            "Learning": {"norms": norms, **penalties, **adaptive},
            "Scores": {
                name: list(metric.descriptions) for name, metric in self.metrics.parts.items()
            },
        }

    @functools.cached_property
    def model(self) -> tf.train.Checkpoint:
        """Networks of both players, and the generator's average, which samples are drawn from."""
        return tf.train.Checkpoint(
            generator=self.game.generator.network,
            discriminator=self.game.discriminator.network,
            average=self.average,
        )

    @functools.cached_property
    def checkpoint(self) -> tf.train.Checkpoint:
        """Variables of everything, including losses, penalties and augmentations."""
        return tf.train.Checkpoint(
            model=self.model,
            generator_optimizer=self.game.generator.optimizer.keras,
            discriminator_optimizer=self.game.discriminator.optimizer.keras,
            iterations=self.iterations,
            means=self.means,
            **objective_state(self.game.objective),
        )

    def host_state(self) -> dict[str, Any]:
        return {**super().host_state(), "data": dataset.fingerprint(self.game.data)}

    def check_state(self, state: Mapping[str, Any]) -> list[str]:
        before = state.get("data", {})
        return dataset.changes(before, self.game.data, labelled=self.rules.conditional)

    def scalars(self) -> dict[str, float]:
        values = super().scalars()
        self.alarms(values, self.step)
        return values

    def measure(self, episodes: int | None, media: bool, step: int) -> Evaluation:
        """Return scores and images of the averaged generator.

        A metric gets no more than `episodes` samples.
        """
        samples = self.sampler.at(step)

        def sample(count: int) -> tuple[np.ndarray, np.ndarray]:
            return samples(count if episodes is None else min(count, episodes))

        found = Evaluation()
        if self.media_due(media, self.settings.pictures_every):
            found = self.gallery.show(samples, self.metrics.features)
            found.images |= self.metrics.pictures(sample)
        found.scalars = self.metrics(sample)
        found.notes = self.metrics.notes
        if episodes is not None and episodes < self.metrics.samples:
            found.notes["samples at most"] = episodes
        return found

    def preview(self) -> dict[str, np.ndarray]:
        return self.gallery.preview()

    def time_breakdown(self, seconds: float = 1.0) -> dict[str, float]:
        """Measure shares of an iteration's time, each for about `seconds`.

        See `sparring.gans.time_breakdown`.
        """
        return time_breakdown.shares(self, seconds)

    def export(self) -> Export:
        """Return the signatures of the averaged generator and the discriminator."""
        return gans_export.game(self)

    def generate(self, count: int, seed: int, label: str | None = None) -> Samples:
        """Draw examples of the averaged generator; see `sparring.gans.sampling`."""
        return sampling.drawn(self.sampler, count, seed, label)

    # ---- the program -----------------------------------------------------------------------------

    def program(self) -> Callable[..., Any]:
        if self._program is None:
            self.game.hold_frozen_statistics(self.average)
        return super().program()

    def plan(self, count: int) -> tuple[tf.Tensor]:
        """Return the examples of the next `count` iterations, int64 [256, n_critic, B]."""
        critic = self.rules.n_critic
        rows = self.game.data.plan(self._done * critic, count * critic, self.rules.batch_size)
        rows = rows.reshape(count, critic, self.rules.batch_size)
        padding = [(0, self.largest_call - count), (0, 0), (0, 0)]
        return (tf.constant(np.pad(rows, padding), tf.int64),)

    def learn(self, batch: tf.Tensor, iteration: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        """Run the steps of one iteration; `batch` [n_critic, B] holds the examples of each."""
        critic = self.rules.n_critic
        game = self.game
        images = (iteration + 1) * self.steps_per_iteration
        progress = self.progress(images)
        if critic == 1 and self.rules.accumulation == 1:
            values = game.both_steps(iteration, batch[0], progress)
        else:

            def step(j: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
                values = game.discriminator_step(iteration * critic + j, batch[j], progress)
                return self.means.add(total, values)

            total = loops.repeated(step, total, critic, most=critic)
            last = iteration * critic + critic - 1
            values = game.generator_step(last, batch[critic - 1], progress)
        game.replicas.run(self._follow, images)
        for name, player in (("generator", game.generator), ("discriminator", game.discriminator)):
            values[f"schedule/{name}_learning_rate"] = player.optimizer.learning_rate(progress)
        return self.means.add(total, values)

    def _follow(self, images: tf.Tensor) -> None:
        """Move the average towards the generator."""
        self.ema.update(
            self.average,
            self.game.generator.network,
            self.ema.decay(images, self.steps_per_iteration),
        )


def _objective(objective: str | None, metrics: Metrics) -> str:
    tags = list(metrics.descriptions)
    if not tags:
        raise UserError(
            "metric: a run needs one to say how good it is: choose metric=swd, or another."
        )
    if objective is not None and objective not in tags:
        raise UserError(
            f"trainer.objective={objective}: no metric of this run gives it. {listed(tags)}"
        )
    return objective or tags[0]


DESCRIPTIONS = {
    "loss/discriminator": "The discriminator's loss without penalties, mean over its steps.",
    "loss/generator": "The generator's loss, mean over its steps.",
    "discriminator/accuracy": "Share of pairs of a real and a generated example that the logits "
    "order right.",
    "discriminator/real_logit": "The discriminator's logit of real examples, mean.",
    "discriminator/fake_logit": "The discriminator's logit of generated examples, mean.",
    "generator/diversity": "Standard deviation over a batch of generated examples over that of "
    "real ones, as they are.",
}
