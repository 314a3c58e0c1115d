"""Callbacks: code of one's own at the points of a run.

A config names them under `callbacks`, by names of its own; `sparring.fit` takes a list. They are
called by the process that writes the run, in their order, and can look at everything: what they
change in a trainer, a resumed run will not know.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from sparring.errors import UserError
from sparring.training.outcome import Outcome
from sparring.training.trainer import Evaluation, Trainer


class Callback:
    """Base of callbacks, whose methods do nothing. `descriptions` says what its scalars measure."""

    descriptions: Mapping[str, str] = {}

    def on_begin(self, trainer: Trainer, folder: Path) -> None:
        """Take note that training begins, or goes on, in a run's folder."""

    def on_call(self, trainer: Trainer) -> None:
        """Take note of a call into the compiled program: as many iterations as take a second."""

    def on_log(self, trainer: Trainer, scalars: Mapping[str, float]) -> Mapping[str, float]:
        """Take note of what is logged at `trainer.step`; return more scalars to be logged."""
        del trainer, scalars
        return {}

    def on_evaluation(self, trainer: Trainer, evaluation: Evaluation) -> None:
        """Take note of an evaluation at `trainer.step`, before it is written."""

    def on_checkpoint(self, trainer: Trainer, folder: Path) -> None:
        """Take note of a checkpoint that was saved in `folder`."""

    def on_end(self, trainer: Trainer, outcome: Outcome) -> None:
        """Take note of how training ended, unless by an exception."""


class Callbacks:
    """List of the callbacks of a run, called one after the other.

    Raises:
        UserError: one of them does not derive from `Callback`, or logs a scalar that it does not
            describe.
    """

    def __init__(self, each: Iterable[Callback] = ()) -> None:
        self.each = list(each)
        for callback in self.each:
            if not isinstance(callback, Callback):
                kind = type(callback)
                raise UserError(
                    f"callbacks: {kind.__module__}.{kind.__qualname__} does not derive from "
                    "sparring.training.callbacks.Callback."
                )

    @property
    def descriptions(self) -> dict[str, str]:
        """Tag -> what it measures, of all callbacks' scalars."""
        return {tag: text for one in self.each for tag, text in one.descriptions.items()}

    def begin(self, trainer: Trainer, folder: Path) -> None:
        """Call every `on_begin`."""
        for callback in self.each:
            callback.on_begin(trainer, folder)

    def call(self, trainer: Trainer) -> None:
        """Call every `on_call`."""
        for callback in self.each:
            callback.on_call(trainer)

    def log(self, trainer: Trainer, scalars: Mapping[str, float]) -> dict[str, float]:
        """Call every `on_log`; return their scalars."""
        more: dict[str, float] = {}
        for callback in self.each:
            found = callback.on_log(trainer, scalars)
            unknown = sorted(set(found) - set(callback.descriptions))
            if unknown:
                raise UserError(
                    f"callbacks: {type(callback).__qualname__} logs {unknown[0]}, which its "
                    "`descriptions` do not have."
                )
            more |= found
        return more

    def evaluation(self, trainer: Trainer, evaluation: Evaluation) -> None:
        """Call every `on_evaluation`."""
        for callback in self.each:
            callback.on_evaluation(trainer, evaluation)

    def checkpoint(self, trainer: Trainer, folder: Path) -> None:
        """Call every `on_checkpoint`."""
        for callback in self.each:
            callback.on_checkpoint(trainer, folder)

    def end(self, trainer: Trainer, outcome: Outcome) -> None:
        """Call every `on_end`."""
        for callback in self.each:
            callback.on_end(trainer, outcome)
