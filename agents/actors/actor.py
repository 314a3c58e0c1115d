"""An actor: a process of Ray's that steps its share of the environments with the weights it is
given.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sparring.agents.drivers.on_host import HostRollout, add_sums
from sparring.storage import variable_names

Sums = dict[str, tuple[float, float]]


class Share(NamedTuple):
    """An actor's share of a rollout, and the numbers in the infos of its episodes' ends: sum and
    count by tag.
    """

    rollout: HostRollout
    info: Sums


class Actor:
    """Actor `number` of `count`; `build()` returns a trainer of the run's, for its agent and
    environments.
    """

    def __init__(self, build: Callable[[], Any], number: int, count: int) -> None:
        self._build = build
        self._number = number
        self._count = count
        self._info: Sums = {}

    def open(self, state: Mapping[str, Any] | None, vector_step: int) -> list[str]:
        """Open the environments: as they were saved, as at the run's beginning, or, at a step past
        that, in the place of lost ones. Return a sentence for each that could not be put back.
        """
        trainer = self._build()
        named = variable_names.named_variables(trainer.model)
        self._variables = [variable for _, variable in sorted(named.items())]
        note = functools.partial(add_sums, self._info)
        self._collector = trainer.collector(self._number, self._count, note)
        if state is not None:
            return list(self._collector.restore(state))
        if vector_step == 0:
            self._collector.open()
        else:
            self._collector.restart(vector_step)
        return []

    def collect(self, iteration: int, weights: Sequence[np.ndarray]) -> Share:
        """Collect the rollout of an iteration with the weights of the learner's variables."""
        for variable, value in zip(self._variables, weights, strict=True):
            variable.assign(value)
        self._info.clear()
        rollout = self._collector.collect(iteration * self._collector.source.rollout_steps)
        return Share(rollout, dict(self._info))

    def snapshot(self) -> Any:
        """Return the state of the environments and of the agent's memory of them."""
        return self._collector.snapshot()

    def close(self) -> None:
        """Close the environments."""
        self._collector.close()


def configured(config: str) -> Any:
    """Return the trainer of a run's config, which is given as YAML, on one device."""
    from omegaconf import OmegaConf

    from sparring.cli import setup
    from sparring.training import experiment

    setup.prepare()
    cfg = OmegaConf.create(config)
    cfg.strategy = OmegaConf.create({"_target_": "sparring.distribute.strategies.one_device"})
    return experiment.build(cfg)
