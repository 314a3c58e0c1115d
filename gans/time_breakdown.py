"""Parts of a GAN's iteration, for `sparring.benchmark.time_breakdown`."""

from typing import Any

import tensorflow as tf

from sparring.benchmark import time_breakdown
from sparring.benchmark.time_breakdown import Part
from sparring.gans.adversarial_step import AdversarialStep
from sparring.gans.players import KEYS, Batch, DiscriminatorInputs
from sparring.xla import loops


def shares(trainer: Any, seconds: float) -> dict[str, float]:
    """Measure each part's share of an iteration's time.

    data: real examples, labels, latents and keys; generate: the generator's forward pass; penalty:
    the penalties and their gradients (second derivatives, for most); optimizers: a step of each
    player's; average: moving average of the generator; "rest": forward and backward passes of both
    players.
    """
    game = trainer.game
    parts = {
        "data": _data(trainer),
        "generate": _generate(game),
        "optimizers": _optimizers(trainer),
    }
    parts |= {"average": _average(trainer)} | (
        {"penalty": _penalty(trainer)} if game.penalties else {}
    )
    return time_breakdown.shares(
        lambda count: trainer.train(count * trainer.steps_per_iteration),
        parts,
        trainer.mode,
        seconds,
    )


def _batch(game: AdversarialStep, i: tf.Tensor) -> Batch:
    """Build a batch out of one number, so that building it takes no time."""
    size = game.rules.part
    number = 1e-3 * tf.cast(i % 7, tf.float32)
    return Batch(
        tf.fill([size, *game.data.shape], number),
        tf.zeros([size], tf.int64),
        tf.fill([size, game.latent], number),
        tf.zeros([size, KEYS, 2], tf.uint32) + tf.cast(i, tf.uint32),
    )


def _sum(tensors: Any) -> tf.Tensor:
    return tf.add_n([tf.reduce_sum(tf.cast(x, tf.float32)) for x in tf.nest.flatten(tensors)])


def _data(trainer: Any) -> Part:
    game = trainer.game
    rules = trainer.rules
    rows = tf.constant(game.data.plan(0, 1, rules.batch_size)[0], tf.int64)

    def part(i: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        times = rules.accumulation * (
            rules.n_critic + (rules.n_critic > 1 or rules.accumulation > 1)
        )
        return _repeated(
            lambda k: _sum(game.batch(i * times + k, rows, tf.constant(0, tf.int64))), times, total
        )

    return part


def _generate(game: AdversarialStep) -> Part:
    rules = game.rules
    shared = rules.n_critic == 1 and rules.accumulation == 1
    times = rules.accumulation * (1 if shared else rules.n_critic + 1)

    def part(i: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        return _repeated(lambda k: _sum(game.generate(_batch(game, i * times + k))), times, total)

    return part


def _penalty(trainer: Any) -> Part:
    game = trainer.game
    rules = trainer.rules
    times = max(rules.accumulation * rules.n_critic // rules.penalty_interval, 1)

    def once(i: tf.Tensor) -> tf.Tensor:
        batch = _batch(game, i)
        packed = game.objective.augment(batch.real, batch.keys[:, 0], tf.constant(0.5))
        return _sum(
            game.penalty_gradients(
                batch, DiscriminatorInputs(packed, packed + 0.1), tf.constant(0.5)
            )
        )

    return lambda i, total: _repeated(lambda k: once(i * times + k), times, total)


def _optimizers(trainer: Any) -> Part:
    game = trainer.game
    critic = trainer.rules.n_critic

    def part(i: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        def step(player: Any) -> tf.Tensor:
            return _sum(player.step([1e-3 * w for w in player.weights], tf.constant(0.5)))

        total = _repeated(lambda _: step(game.discriminator), critic, total)
        return total + step(game.generator)

    return part


def _average(trainer: Any) -> Part:
    def part(i: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        decay = tf.minimum(tf.cast(i, tf.float32), 0.5)
        trainer.ema.update(trainer.average, trainer.game.generator.network, decay)
        return total + decay

    return part


def _repeated(work: Any, times: int, total: tf.Tensor) -> tf.Tensor:
    return loops.repeated(lambda k, total: total + work(k), total, times, most=times)
