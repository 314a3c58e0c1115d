"""Pretraining of a torso on another task, from which transfer learning starts."""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.optim.optimizer import Scheduled, another
from sparring.supervised.models import Headed
from sparring.supervised.tasks import Task
from sparring.supervised.trainer import SupervisedTrainer
from sparring.training.warm_start import _log


def pretrained_torso(
    torso: Callable[[], tf.keras.layers.Layer],
    data: Any,
    task: Callable[..., Task],
    optimizer: Scheduled,
    steps: int,
    batch_size: int,
    seed: int,
    compile: str = "auto",
) -> tf.keras.layers.Layer:
    """Return a torso trained on another task, under a head that is then discarded.

    It is trained on `steps` examples of `data`.
    """

    def train() -> tuple[list[np.ndarray], np.ndarray]:
        own = Scheduled(another(optimizer.keras), optimizer.learning_rate)
        model = functools.partial(Headed, torso=torso)
        trainer = SupervisedTrainer(
            data, model, task, own, batch_size, seed, steps, compile=compile
        )
        trainer.train(steps)
        score = trainer.evaluate(media=False).scalars[trainer.objective]
        _log.info(
            "Pre-trained the torso on %d examples: %s %.4g.", trainer.step, trainer.objective, score
        )
        return trainer.network.torso.get_weights(), data.examples("train", 2)[0]

    # Nothing can train in a strategy's scope, which does not extend to other threads
    with ThreadPoolExecutor(1) as pool:
        weights, inputs = pool.submit(train).result()
    network = torso()
    network(tf.constant(inputs))
    network.set_weights(weights)
    return network
