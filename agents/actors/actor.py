"""An actor: a process of Ray's that steps its share of the environments with the weights it is
given.
"""

import functools
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sparring.agents.drivers.on_host import Collector, HostRollout, add_sums
from sparring.storage import variable_names


class Share(NamedTuple):
    """An actor's share of a rollout, the numbers in the infos of its episodes' ends (sum and count
    by tag), and the life that it collected it in: another once it was lost.
    """

    rollout: HostRollout
    info: dict[str, tuple[float, float]]
    life: str


class Actor:
    """Actor `number` of `count`; `build()` returns a trainer of the run's, for its agent and
    environments.

    One that Ray has started in the place of a lost one opens its environments when it is first
    asked for something.
    """

    def __init__(self, build: Callable[[], Any], number: int, count: int) -> None:
        self._build = build
        self._number = number
        self._count = count
        self._info: dict[str, tuple[float, float]] = {}
        self._life = uuid.uuid4().hex
        self._opened = False

    @functools.cached_property
    def _trainer(self) -> Any:
        return self._build()

    @functools.cached_property
    def _collector(self) -> Collector:
        note = functools.partial(add_sums, self._info)
        return self._trainer.collector(self._number, self._count, note)

    @functools.cached_property
    def _variables(self) -> list[Any]:
        """The variables that are sent, in the order of their names."""
        named = variable_names.named_variables(self._trainer.model)
        return [variable for _, variable in sorted(named.items())]

    def open(self, state: Mapping[str, Any] | None, iteration: int) -> list[str]:
        """Open the environments: as they were saved, as at the run's beginning, or, at an iteration
        past that, in the place of lost ones. Return a sentence for each that could not be put back.
        """
        self._opened = True
        if state is not None:
            return list(self._collector.restore(state))
        if iteration == 0:
            self._collector.open()
        else:
            self._collector.restart(iteration * self._collector.source.rollout_steps)
        return []

    def collect(self, iteration: int, weights: Sequence[np.ndarray]) -> Share:
        """Collect the rollout of an iteration with the weights of the learner's variables."""
        if not self._opened:
            self.open(None, iteration)
        for variable, value in zip(self._variables, weights, strict=True):
            variable.assign(value)
        self._info.clear()
        rollout = self._collector.collect(iteration * self._collector.source.rollout_steps)
        return Share(rollout, dict(self._info), self._life)

    def snapshot(self, iteration: int) -> Any:
        """Return the state of the environments, and of the agent's memory of them, before an
        iteration.
        """
        if not self._opened:
            self.open(None, iteration)
        return self._collector.snapshot()

    def close(self) -> None:
        """Close the environments."""
        if self._opened:
            self._collector.close()


def configured(config: str) -> Any:
    """Return the trainer of a run's config, which is given as YAML, on one device."""
    from omegaconf import OmegaConf

    from sparring.cli import setup
    from sparring.training import experiment

    setup.prepare()
    cfg: Any = OmegaConf.create(config)
    cfg.strategy = OmegaConf.create({"_target_": "sparring.distribute.strategies.one_device"})
    return experiment.build(cfg)
