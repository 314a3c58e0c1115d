"""Trainer of a generator of sequences: maximum likelihood, then SeqGAN.

Yu et al. 2017, "SeqGAN: sequence generative adversarial nets with policy gradient", algorithm 1.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.data import dataset
from sparring.distribute import replicas
from sparring.errors import UserError
from sparring.gans import ema as gans_ema
from sparring.gans.discriminator_step import DESCRIPTIONS as DISCRIMINATOR
from sparring.gans.discriminator_step import DiscriminatorStep
from sparring.gans.losses import Loss, NonSaturating
from sparring.gans.metrics.base import Metric, Metrics
from sparring.gans.metrics.oracle_likelihood import OracleLikelihood
from sparring.gans.penalties import Penalty
from sparring.gans.players import Player, Values
from sparring.gans.sequences.networks import SequencePair
from sparring.gans.sequences.oracle import Oracle
from sparring.gans.sequences.policy_gradient import (
    PolicyGradient,
    negative_log_likelihood,
    weighted_likelihood,
)
from sparring.gans.sequences.settings import SequenceSettings
from sparring.optim import optimizer as optim_optimizer
from sparring.optim.optimizer import Scheduled
from sparring.training.batch_trainer import BatchTrainer
from sparring.training.trainer import Evaluation, Samples
from sparring.xla import compilation, loops, random
from sparring.xla.compilation import CachedCall

_BLOCK = 250  # sequences that an evaluation draws, or judges, at once
_METRICS: Mapping[str, Callable[..., Any]] = {"nll_oracle": OracleLikelihood}


class SeqGANTrainer(BatchTrainer):
    """Trainer of a generator of sequences of tokens, in three phases.

    One iteration takes `rules.n_critic` batches of real sequences, which a step of the run counts:
    of maximum likelihood at first, then of the discriminator alone, then of the discriminator after
    one step of the generator by policy gradient.

    Args:
      data: sequences, a `sparring.gans.sequences.oracle.Oracle`.
      network: factories of the two networks.
      loss, penalties: the discriminator's, as of other GANs; D is the logits' sigmoid.
      metrics: by name, factories called with the data.
      pretraining_optimizer: of maximum likelihood.
      generator_optimizer: of the policy gradient.
      total_steps: the length of the run, which schedules stretch over.
    """

    unit = "sequences"
    largest_call = 64
    remedy = "a lower generator_optimizer.learning_rate or discriminator_optimizer.learning_rate"

    def __init__(
        self,
        data: Oracle,
        network: SequencePair | None = None,
        loss: Loss | None = None,
        penalties: Mapping[str, Penalty] | None = None,
        metrics: Mapping[str, Callable[..., Metric]] = _METRICS,
        pretraining_optimizer: Scheduled | None = None,
        generator_optimizer: Scheduled | None = None,
        discriminator_optimizer: Scheduled | None = None,
        rules: SequenceSettings | None = None,
        seed: int = 0,
        total_steps: int = 2_000_000,
        compile: str = "auto",
    ) -> None:
        self.rules = rules or SequenceSettings()
        network = network or SequencePair()
        _check(data, network, self.rules.batch_size)
        super().__init__()
        self.data = data
        self.seed = seed
        self.length = data.shape[0]
        self.share = self.replicas.share(self.rules.batch_size, "game.batch_size")
        generator = network.build_generator(data.words)
        self.rollout = network.build_generator(data.words)
        gans_ema.copy(self.rollout, generator)
        self.pupil = Player(
            "likelihood", generator, pretraining_optimizer or optim_optimizer.adam(1e-3)
        )
        self.generator = Player(
            "generator", generator, generator_optimizer or optim_optimizer.adam(1e-3)
        )
        self.discriminator = DiscriminatorStep(
            self.length * data.words,
            self.rules.batch_size,
            network.discriminator_of(self.length, data.words),
            loss or NonSaturating(),
            discriminator_optimizer or optim_optimizer.adam(1e-3),
            penalties,
        )
        self.policy = PolicyGradient(
            generator, self.rollout, self._reward, self.length, self.rules.rollouts
        )
        self.average = gans_ema.EMA()
        self.metrics = Metrics(data, metrics)
        self.objective = next(iter(self.metrics.descriptions), "gan/nll_test")
        self.maximize = self.objective not in {*self.metrics.smaller, "gan/nll_test"}
        weights = [*generator.trainable_variables, *self.discriminator.discriminator.weights]
        mode = compilation.resolve(compile, weights)
        self.prepare(mode, total_steps, self._training, parts=("plan", "update"))
        self._keys = {
            name: random.stream(seed, f"sequences {name}")
            for name in ("fake", "discriminator", "policy", "samples")
        }
        self._draw = CachedCall(self._drawn, mode)
        self._judge = CachedCall(functools.partial(negative_log_likelihood, generator), mode)

    # ---- contract --------------------------------------------------------------------------------

    @property
    def steps_per_iteration(self) -> int:
        """Number of real sequences in one iteration."""
        return self.rules.batch_size * self.rules.n_critic

    @property
    def _pretrained(self) -> tuple[int, int]:
        """Iterations after which the discriminator begins to learn, and the game."""
        each = self.steps_per_iteration
        first = -(-self.rules.pretraining // each)
        return first, first + -(-self.rules.discriminator_pretraining // each)

    @property
    def phases(self) -> tuple[int, ...]:  # type: ignore[override]
        """Steps at which a step begins to take another time."""
        return tuple(i * self.steps_per_iteration for i in self._pretrained)

    @functools.cached_property
    def descriptions(self) -> Mapping[str, str]:
        """Description of each tag."""
        return self._training | self.metrics.descriptions | EVALUATION

    @functools.cached_property
    def _training(self) -> dict[str, str]:
        return TRAINING | dict(self.discriminator.descriptions)

    @property
    def charts(self) -> Mapping[str, Mapping[str, list[str]]]:
        """Layout of TensorBoard's custom scalars."""
        return {
            "Scores": {
                "likelihood": [tag for tag in self.descriptions if tag.startswith("gan/nll")],
                "reward": ["generator/reward"],
            },
            "Game": {
                "losses": ["loss/likelihood", "loss/generator", "loss/discriminator"],
                "logits": ["discriminator/real_logit", "discriminator/fake_logit"],
                "balance": ["discriminator/accuracy"],
            },
            "Learning": {"norms": ["gradient/.*norm"]},
        }

    @functools.cached_property
    def model(self) -> tf.train.Checkpoint:
        """Networks of both players."""
        return tf.train.Checkpoint(
            generator=self.generator.network, discriminator=self.discriminator.discriminator.network
        )

    @functools.cached_property
    def checkpoint(self) -> tf.train.Checkpoint:
        """Variables of everything, the rollout policy's too."""
        return tf.train.Checkpoint(
            model=self.model,
            rollout=self.rollout,
            pretraining_optimizer=self.pupil.optimizer.keras,
            generator_optimizer=self.generator.optimizer.keras,
            iterations=self.iterations,
            means=self.means,
            **self.discriminator.state,
        )

    def host_state(self) -> dict[str, Any]:
        return {**super().host_state(), "data": dataset.fingerprint(self.data)}

    def check_state(self, state: Mapping[str, Any]) -> list[str]:
        return dataset.changes(state.get("data", {}), self.data, labelled=False)

    def measure(self, episodes: int | None, media: bool, step: int) -> Evaluation:
        """Return scores of the generator; a metric gets no more than `episodes` samples."""
        del media
        key = random.fold(self._keys["samples"], step)

        def sample(count: int) -> tuple[np.ndarray, np.ndarray]:
            count = count if episodes is None else min(count, episodes)
            return self.sequences(key, count), np.zeros(count, np.int64)

        found = Evaluation(self.metrics(sample), notes=self.metrics.notes)
        found.scalars["gan/nll_test"] = self._nll_test()
        if episodes is not None and episodes < self.metrics.samples:
            found.notes["samples at most"] = episodes
        return found

    def generate(self, count: int, seed: int, label: str | None = None) -> Samples:
        """Draw sequences of the generator, int64 [count, T]."""
        if label is not None:
            raise UserError("--class: sequences have no classes here.")
        return Samples({"sequences": self.sequences(random.stream(seed, "sampled"), count)})

    def sequences(self, key: tf.Tensor, count: int) -> np.ndarray:
        """Draw sequences, int64 [count, T], from a key; fewer are a prefix of more."""
        parts = [np.asarray(self._draw(key, np.int64(i))) for i in range(0, count, _BLOCK)]
        return np.concatenate(parts)[:count]

    def _nll_test(self) -> float:
        test = self.data.examples("test")[0]
        padded = np.pad(test, [(0, -len(test) % _BLOCK), (0, 0)])
        blocks = [self._judge(padded[i : i + _BLOCK]) for i in range(0, len(test), _BLOCK)]
        return float(np.concatenate(blocks)[: len(test)].mean())

    # ---- the program -----------------------------------------------------------------------------

    def plan(self, count: int) -> tuple[tf.Tensor]:
        """Return the rows of the next `count` iterations, int64 [largest_call, n_critic, B]."""
        each = self.rules.n_critic
        size = self.rules.batch_size
        rows = self.data.plan(self._done * each, count * each, size).reshape(count, each, size)
        return (tf.constant(np.pad(rows, [(0, self.largest_call - count), (0, 0), (0, 0)])),)

    def learn(self, batch: tf.Tensor, iteration: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        """Run the steps of one iteration on the rows of real sequences `batch` [n_critic, B]."""
        progress = self.progress((iteration + 1) * self.steps_per_iteration)
        likelihood, alone = self._pretrained
        number = iteration * self.rules.n_critic

        def repeated(step: Callable[..., Values], total: tf.Tensor) -> tf.Tensor:
            step = self.replicas.agreed(step)

            def body(j: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
                return self.means.add(total, step(number + j, batch[j], progress))

            return loops.repeated(body, total, self.rules.n_critic, most=self.rules.n_critic)

        def played() -> tf.Tensor:
            values = self.replicas.agreed(self._update_generator)(iteration, progress)
            return self.means.add(total, values)

        def game() -> tf.Tensor:
            after = tf.cond(iteration < alone, lambda: total, played)
            return repeated(self._update_discriminator, after)

        by_likelihood = functools.partial(repeated, self._update_likelihood, total)
        return tf.cond(iteration < likelihood, by_likelihood, game)

    # ---- on each replica -------------------------------------------------------------------------

    def _real(self, rows: tf.Tensor) -> tf.Tensor:
        """Return this replica's share of the sequences of rows [B], int64 [M, T]."""
        first = tf.reshape(tf.cast(replicas.replica_index() * self.share, tf.int32), [1])
        tokens, _ = self.data.take(tf.slice(rows, first, [self.share]), None)
        return tf.ensure_shape(tokens, [self.share, self.length])

    def _members(self, name: str, number: tf.Tensor) -> tf.Tensor:
        """Return the keys [M, 2] of this replica's members of a batch."""
        first = replicas.replica_index() * self.share
        return random.members(random.fold(self._keys[name], number), self.share, first)

    def _update_likelihood(self, number: tf.Tensor, rows: tf.Tensor, progress: tf.Tensor) -> Values:
        """Take a step of maximum likelihood; the rollout policy follows at once."""
        del number
        learn = replicas.compile_in_replica(self._likelihood_gradients)
        gradients, loss = learn(self._real(rows))
        values = self.pupil.apply(gradients, {"loss/likelihood": loss}, progress)
        self.average.update(self.rollout, self.generator.network, tf.constant(0.0))
        return values | {
            "schedule/likelihood_learning_rate": self.pupil.optimizer.learning_rate(progress)
        }

    def _likelihood_gradients(self, tokens: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        everywhere = tf.ones([self.share, self.length])
        return _shares(*weighted_likelihood(self.generator.network, tokens, everywhere))

    def _update_discriminator(
        self, number: tf.Tensor, rows: tf.Tensor, progress: tf.Tensor
    ) -> Values:
        real = self._real(rows)
        draw = replicas.compile_in_replica(self.generator.network.sample)
        fake = draw(self._members("fake", number), self.length)
        keys = self._members("discriminator", number)
        shown = self._one_hot(fake)
        return self.discriminator.update(self._one_hot(real), shown, keys, progress)

    def _one_hot(self, tokens: tf.Tensor) -> tf.Tensor:
        """Return tokens [M, T] as one vector each, [M, T * words]."""
        return tf.reshape(tf.one_hot(tokens, self.data.words), [self.share, -1])

    def _update_generator(self, number: tf.Tensor, progress: tf.Tensor) -> Values:
        """Take a step by policy gradient; the rollout policy follows."""
        play = replicas.compile_in_replica(self.policy.play)
        tokens, values = play(self._members("policy", number))  # [M, T] each
        mean = replicas.all_reduce_mean(tf.reduce_mean(values, axis=0))  # [T]
        advantages = values - mean if self.rules.baseline else values
        learn = replicas.compile_in_replica(self._policy_gradients)
        gradients, loss = learn(tokens, advantages)
        found = self.generator.apply(gradients, {"loss/generator": loss}, progress)
        self.average.update(
            self.rollout, self.generator.network, tf.constant(self.rules.rollout_rate)
        )
        return found | {
            "generator/reward": mean[-1],
            "schedule/generator_learning_rate": self.generator.optimizer.learning_rate(progress),
        }

    def _policy_gradients(
        self, tokens: tf.Tensor, advantages: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        return _shares(*self.policy.gradients(tokens, advantages))

    def _reward(self, tokens: tf.Tensor) -> tf.Tensor:
        """Return D [N] of sequences [N, T]: the sigmoid of their logits."""
        return tf.sigmoid(self.discriminator.discriminator.network.of_tokens(tokens))

    def _drawn(self, key: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
        keys = random.members(key, _BLOCK, first)
        drawn: tf.Tensor = self.generator.network.sample(keys, self.length)
        return drawn


def _shares(gradients: list[tf.Tensor], loss: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Return a replica's shares of gradients and of a loss that are means over its examples."""
    return [replicas.share_of_mean(g) for g in gradients], replicas.share_of_mean(loss)


def _check(data: Any, network: Any, batch_size: int) -> None:
    if not isinstance(data, Oracle):
        raise UserError("trainer=seqgan learns sequences of tokens: choose data=oracle.")
    if not isinstance(network, SequencePair):
        raise UserError("trainer=seqgan has networks of sequences: choose network=sequences.")
    dataset.check(data, batch_size, key="game.batch_size")


TRAINING = {
    "loss/likelihood": "Negative log likelihood of the real sequences in nats per token, mean over "
    "the steps of maximum likelihood.",
    "loss/generator": "The generator's surrogate loss: -log p of its tokens times what their "
    "prefixes are worth, mean over steps.",
    "generator/reward": "The discriminator's D of the generator's sequences, mean.",
    "schedule/likelihood_learning_rate": "Learning rate of maximum likelihood.",
    "schedule/generator_learning_rate": "Learning rate of the policy gradient.",
    **{
        f"gradient/{name}_{kind}": f"Global norm of {text}, of {whose}."
        for name, whose in (("likelihood", "maximum likelihood"), ("generator", "the game"))
        for kind, text in (
            ("norm", "the generator's gradient before clipping"),
            ("update_norm", "the change one step makes to the generator's weights"),
        )
    },
    **DISCRIMINATOR,
}
EVALUATION = {
    "gan/nll_test": "Negative log likelihood of the test split under the generator, in nats per "
    "token: it grows where variety is lost."
}
