"""compose -> instantiate -> fit -> return the objective: one run, from a composed config."""

import contextlib
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate as hydra_instantiate
from omegaconf import DictConfig, OmegaConf

from research import record
from research.errors import UserError

_log = logging.getLogger("sparring")


def train(cfg: DictConfig, folder: Path, started: float) -> float | None:
    """Run one experiment in `folder`; returns its objective, which a sweeper optimises.

    A run that has nothing left to do ends at once. `started` is when the process began to work (`time.time()`), for
    the seconds of imports. Raises UserError when training ran into NaN, and when a run could not be saved at its end.
    """
    for key in cfg.check_first:
        instantiate(cfg[key])
    over = _over(cfg, folder)
    with _writable(folder):
        record.begin(folder, cfg)
    if over is not None:
        print(f"{folder} has ended already: {_said(over)}.\nRaise run.steps to go on, or choose another run.name.")
        return over["objective"]["value"]
    with record.logged(folder), record.failures(folder) as known:
        trainer = build(cfg)
        try:
            fit = _fit(cfg, trainer, folder)
            fit.outcome.seconds["imports"] += time.time() - started
            known |= {"outcome": fit.outcome, "objective": trainer.objective}
            outcome = fit.run()
        finally:
            trainer.close()
        record.settle(folder, cfg, trainer, outcome)
        print(_said(record.summary(outcome, trainer.objective)))
        with _writable(folder):
            record.finish(folder, outcome, trainer.objective)
    print(f"results: {folder / record.RESULT}\ncurves:  tensorboard --logdir {folder.parent}")
    if outcome.status == "nan" or outcome.unsaved:
        raise UserError(outcome.message)
    return outcome.final.get(trainer.objective)


def _over(cfg: DictConfig, folder: Path) -> dict[str, Any] | None:
    """The result of a run that came to its end and is asked for no more; None if there is something to do."""
    result = read_result(folder)
    if not (folder / "checkpoints" / f"step_{result.get('step', 0):012d}").is_dir():
        return None
    finished = result["status"] == "finished" and result["step"] >= cfg.run.steps
    reached = result["status"] == "target" and read_config(folder).run.target == cfg.run.target
    return result if finished or reached else None


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """A disk that refuses is one line."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder}: {error.strerror or error}: {error.filename or 'a file'} cannot be written."
        ) from error


def build(cfg: DictConfig) -> Any:
    """The trainer of a composed config, its variables made in the strategy's scope from `seed`."""
    import tensorflow as tf

    tf.keras.utils.set_random_seed(cfg.seed)  # Keras' initialisers; everything later draws from keys
    with instantiate(cfg.strategy).scope():
        return instantiate(cfg.trainer)


def instantiate(node: DictConfig) -> Any:
    """What a config names, built; a UserError raised on the way arrives as itself, not wrapped in Hydra's."""
    try:
        return hydra_instantiate(node)
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, UserError):
            cause = cause.__cause__
        if cause is not None:
            raise cause from None
        raise


def _fit(cfg: DictConfig, trainer: Any, folder: Path) -> Any:
    """The run, ready to go on from where it was."""
    from research.fit import Fit, Schedule
    from research.progress import Progress

    run = cfg.run
    schedule = Schedule(run.steps, run.log_every, run.evaluate_every, run.checkpoint_every, run.keep, run.target)
    fit = Fit(trainer, schedule, folder, Progress(_headline(trainer)))
    _initialise(cfg, fit)
    record.describe(folder, cfg, trainer)
    return fit


def _initialise(cfg: DictConfig, fit: Any) -> None:
    """Where the run begins: its own checkpoint, else run.resume's, else run.warm_start's model, else from scratch."""
    from research.checkpoint import Checkpoints, restore_into
    from research.fit import model_only

    if fit.resume(fit.latest):
        return
    if cfg.run.resume not in ("auto", "never"):
        if not fit.resume(Checkpoints(record.existing(cfg.run.resume, "run.resume") / "checkpoints", 10**9)):
            raise UserError(f"run.resume={cfg.run.resume}: that run has no checkpoint.")
        return
    if cfg.run.warm_start is not None:
        source = record.newest(record.existing(cfg.run.warm_start, "run.warm_start"))
        restore_into(model_only(fit.trainer), source)
        _log.info("Warm start from %s.", source)


def _headline(trainer: Any) -> tuple[str, ...]:
    """What is shown beside the progress bar: the objective, and what the first chart shows."""
    charts = [tags for titles in trainer.charts.values() for tags in titles.values()]
    return tuple(dict.fromkeys([trainer.objective, *(charts[0] if charts else [])]))


def _said(result: dict[str, Any]) -> str:
    name, value, best = result["objective"]["name"], result["objective"]["value"], result["best"]
    said = f"{result['status']} at step {result['step']}"
    if isinstance(value, float) and name in best:
        said += f": {name} {value:.4g} (best {best[name]:.4g} at step {best['step']})"
    return said


def read_config(folder: Path) -> DictConfig:
    """The config a run was started with."""
    path = folder / record.CONFIG
    if not path.is_file():
        raise UserError(f"{folder} is not a run's folder: it has no {record.CONFIG}.")
    cfg = OmegaConf.load(path)
    assert isinstance(cfg, DictConfig)
    return cfg


def read_result(folder: Path) -> dict[str, Any]:
    """A run's result.json; empty if it has none yet."""
    try:
        return dict(json.loads((folder / record.RESULT).read_text()))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / record.RESULT} cannot be read ({error}): mend it or delete it.") from error
