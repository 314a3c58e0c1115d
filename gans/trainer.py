"""GAN trainer: many iterations in one compiled call, all state in the checkpoint."""

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.errors import UserError, listed
from sparring.export.signatures import Export
from sparring.gans import ema as gans_ema
from sparring.gans import export as gans_export
from sparring.gans import time_breakdown
from sparring.gans.adversarial_step import AdversarialStep
from sparring.gans.augmentation import Augmentation
from sparring.gans.diagnostics import Alarms, Limits
from sparring.gans.ema import EMA
from sparring.gans.evaluation import PICTURES, EvaluationSettings, Gallery, Sampler
from sparring.gans.losses import Loss
from sparring.gans.metrics.base import Metric, Metrics
from sparring.gans.networks.pair import Pair
from sparring.gans.penalties import Penalty
from sparring.gans.settings import GameSettings
from sparring.gans.state import objective_state
from sparring.optim.optimizer import Scheduled
from sparring.training.trainer import Evaluation
from sparring.xla import compilation, loops
from sparring.xla.running_means import Means, Measured

_CALL = 256  # most iterations of one call, which fix the shape of its plan of batches


class GANTrainer(Measured):
    """Trainer of a generator and a discriminator; a `sparring.training.trainer.Trainer`.

    One iteration is `rules.n_critic` discriminator steps and one generator step. A step of the run
    is a real image shown to the discriminator (an example, for other data).

    Args:
      data: a `sparring.data.dataset.Data`.
      network: factories of the two networks, and the size of a latent vector.
      penalties, augmentations, metrics: by name; of metrics, factories called with the data.
      objective: tag of the score that selects the best model; None: the first of the metrics.
    """

    unit = "images"
    remedy = (
        "a lower generator_optimizer.learning_rate and discriminator_optimizer.learning_rate, "
        "discriminator_optimizer.optimizer.global_clipnorm=1.0, penalty=r1, or look for infinite "
        "data"
    )

    def __init__(
        self,
        data: Any,
        network: Pair,
        loss: Loss,
        penalties: Mapping[str, Penalty],
        augmentations: Mapping[str, Augmentation],
        metrics: Mapping[str, Callable[..., Metric]],
        generator_optimizer: Scheduled,
        discriminator_optimizer: Scheduled,
        rules: GameSettings,
        ema: EMA,
        seed: int,
        total_steps: int,
        objective: str | None = None,
        compile: str = "auto",
        evaluation: EvaluationSettings | None = None,
        alarms: Limits | None = None,
    ) -> None:
        if not isinstance(network, Pair):
            raise UserError(
                "network: a GAN has a generator and a discriminator: choose network=gan_mlp or "
                "dcgan."
            )
        optimizers = (generator_optimizer, discriminator_optimizer)
        self.game = AdversarialStep(
            data, network, loss, penalties, augmentations, optimizers, rules, seed
        )
        self.rules = rules
        self.ema = ema
        self.seed = seed
        self.total_steps = total_steps
        self.metrics = Metrics(data, metrics)
        self.objective = _objective(objective, self.metrics)
        self.maximize = self.objective not in self.metrics.smaller
        self.average = self.game.make_generator()
        gans_ema.copy(self.average, self.game.generator.network)
        self.mode = compilation.resolve(
            compile, [*self.game.generator.weights, *self.game.discriminator.weights]
        )
        self.settings = evaluation or EvaluationSettings()
        self.alarms = Alarms(alarms or Limits(), unbounded=getattr(loss, "unbounded", False))
        self.sampler = Sampler(self.game, self.average, self.mode, seed, self.settings.batch_size)
        self.gallery = Gallery(self.sampler, self.settings, self.mode, seed)
        self.iterations = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.means = Means(self._training)
        self._program = self.game.replicas.function(self._iterate, self.mode)
        self._done = 0
        self._evaluations = 0
        self._seconds = {"plan": 0.0, "update": 0.0}

    # ---- contract --------------------------------------------------------------------------------

    @property
    def steps_per_iteration(self) -> int:
        """Number of real examples in one iteration."""
        return self.rules.batch_size * self.rules.n_critic

    @property
    def step(self) -> int:
        """Number of real examples shown to the discriminator so far."""
        return self._done * self.steps_per_iteration

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
        return DESCRIPTIONS | players | penalties

    @property
    def charts(self) -> Mapping[str, Mapping[str, list[str]]]:
        """Layout of TensorBoard's custom scalars."""
        norms = [f"gradient/{player}_norm" for player in ("generator", "discriminator")]
        penalties = (
            {"penalties": [f"penalty/{name}" for name in self.game.penalties]}
            if self.game.penalties
            else {}
        )
        return {
            "Game": {
                "losses": ["loss/generator", "loss/discriminator"],
                "logits": ["discriminator/real_logit", "discriminator/fake_logit"],
                "balance": ["discriminator/accuracy", "generator/diversity"],
            },
            "Learning": {"norms": norms, **penalties},
            "Scores": {
                name: list(metric.descriptions) for name, metric in self.metrics.parts.items()
            },
        }

    @functools.cached_property
    def model(self) -> tf.train.Checkpoint:
        """Both networks, and the generator's average, from which samples are drawn."""
        return tf.train.Checkpoint(
            generator=self.game.generator.network,
            discriminator=self.game.discriminator.network,
            average=self.average,
        )

    @functools.cached_property
    def checkpoint(self) -> tf.train.Checkpoint:
        """All variables, including those of losses, penalties and augmentations."""
        return tf.train.Checkpoint(
            model=self.model,
            generator_optimizer=self.game.generator.optimizer.keras,
            discriminator_optimizer=self.game.discriminator.optimizer.keras,
            iterations=self.iterations,
            means=self.means,
            **objective_state(self.game.objective),
        )

    def train(self, steps: int) -> None:
        """Advance by whole iterations until at least `steps` more steps are done."""
        left = -(-steps // self.steps_per_iteration)
        while left > 0:
            count = min(left, _CALL)
            started = time.perf_counter()
            plan = self._plan(count)
            planned = time.perf_counter()
            self._program(plan, tf.constant(count, tf.int64))
            self._seconds["plan"] += planned - started
            self._seconds["update"] += time.perf_counter() - planned
            self._done += count
            left -= count

    def scalars(self) -> dict[str, float]:
        values = super().scalars()
        self.alarms(values, self.step)
        return values

    def evaluate(
        self, episodes: int | None = None, media: bool = True, step: int | None = None
    ) -> Evaluation:
        """Compute scores and images of the averaged generator.

        A metric gets at most `episodes` samples.
        """
        samples = self.sampler.at(self.step if step is None else step)

        def sample(count: int) -> tuple[np.ndarray, np.ndarray]:
            return samples(count if episodes is None else min(count, episodes))

        every = self.settings.pictures_every
        found = Evaluation()
        if media and every and self._evaluations % every == 0:
            found = self.gallery.show(samples, self.metrics.features)
            found.images |= self.metrics.pictures(sample)
        self._evaluations += 1
        found.scalars = self.metrics(sample)
        found.notes = self.metrics.notes
        if episodes is not None:
            found.notes["samples at most"] = episodes
        return found

    def time_breakdown(self, seconds: float = 1.0) -> dict[str, float]:
        """Measure shares of an iteration's time, each for about `seconds`.

        See `sparring.gans.time_breakdown`.
        """
        return time_breakdown.shares(self, seconds)

    def host_state(self) -> dict[str, Any]:
        return {"done": self._done, "evaluations": self._evaluations}

    def load_host_state(self, state: Mapping[str, Any]) -> list[str]:
        self._done = int(state["done"])
        self._evaluations = int(state["evaluations"])
        return []

    def export(self) -> Export:
        """Return the signatures of the averaged generator and the discriminator."""
        return gans_export.game(self)

    def close(self) -> None:
        pass

    # ---- the program -----------------------------------------------------------------------------

    def _plan(self, count: int) -> tf.Tensor:
        """Plan the batches of the next `count` iterations: rows, int64 [_CALL * n_critic, B]."""
        critic = self.rules.n_critic
        batch = self.rules.batch_size
        rows = self.game.data.plan(self._done * critic, count * critic, batch)
        return tf.constant(np.pad(rows, [(0, _CALL * critic - len(rows)), (0, 0)]), tf.int64)

    def _iterate(self, plan: tf.Tensor, count: tf.Tensor) -> None:
        start = tf.identity(self.iterations)

        body = functools.partial(self._iteration, start, plan)
        self.means.total.assign(
            loops.repeated(body, tf.identity(self.means.total), count, most=_CALL)
        )
        self.iterations.assign_add(count)

    def _iteration(
        self, start: tf.Tensor, plan: tf.Tensor, i: tf.Tensor, total: tf.Tensor
    ) -> tf.Tensor:
        """Run the i-th iteration of a call that begins at iteration `start` of the run."""
        number = start + i
        critic = self.rules.n_critic
        game = self.game
        images = (number + 1) * self.steps_per_iteration
        progress = tf.minimum(tf.cast(images, tf.float32) / float(self.total_steps), 1.0)
        if critic == 1 and self.rules.accumulation == 1:
            values = game.both_steps(number, plan[i], progress)
        else:

            def step(j: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
                values = game.discriminator_step(
                    number * critic + j, plan[i * critic + j], progress
                )
                return self.means.add(total, values)

            total = loops.repeated(step, total, critic, most=critic)
            values = game.generator_step(
                number * critic + critic - 1, plan[i * critic + critic - 1], progress
            )
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
