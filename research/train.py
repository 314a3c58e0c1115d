"""compose -> instantiate -> fit -> return the objective: one run, from a composed config."""

import json
import logging
import time
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

    `started` is when the process began to work (`time.time()`), for the seconds of imports.
    """
    for key in cfg.check_first:
        instantiate(cfg[key])
    record.begin(folder, cfg)
    with record.logged(folder), record.failures(folder):
        trainer = build(cfg)
        imports = time.time() - started
        try:
            outcome = _fit(cfg, trainer, folder)
        finally:
            trainer.close()
        outcome.seconds = {"imports": imports} | outcome.seconds
        objective = outcome.final.get(trainer.objective)
        record.finish(folder, outcome, trainer.objective)
    _report(outcome, trainer.objective, folder)
    if outcome.status == "nan":
        raise UserError(outcome.message)
    return objective


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
    from research.fit import Fit, Schedule
    from research.progress import Progress

    run = cfg.run
    fit = Fit(
        trainer,
        Schedule(run.steps, run.log_every, run.evaluate_every, run.checkpoint_every, run.keep, run.target),
        folder,
        Progress(),
    )
    _initialise(cfg, fit)
    record.describe(folder, cfg, fit.trainer)
    outcome = fit.run()
    record.settle(folder, cfg, trainer, outcome)
    return outcome


def _initialise(cfg: DictConfig, fit: Any) -> None:
    """Where the run begins: its own checkpoint, else run.resume's, else run.warm_start's model, else from scratch."""
    from research.checkpoint import Checkpoints, restore_into
    from research.fit import model_only

    own = fit.resume(fit.latest)
    if own:
        return
    if cfg.run.resume not in ("auto", "never"):
        if not fit.resume(Checkpoints(record.existing(cfg.run.resume, "run.resume") / "checkpoints", 10**9)):
            raise UserError(f"run.resume={cfg.run.resume}: that run has no checkpoint.")
        return
    if cfg.run.warm_start is not None:
        source = record.newest(record.existing(cfg.run.warm_start, "run.warm_start"))
        restore_into(model_only(fit.trainer), source)
        _log.info("Warm start from %s.", source)


def _report(outcome: Any, objective: str, folder: Path) -> None:
    final, best = outcome.final.get(objective), outcome.best.get(objective)
    said = f"{outcome.status} at step {outcome.step}"
    if final is not None and best is not None:
        said += f": {objective} {final:.2f} (best {best:.2f} at step {outcome.best['step']:.0f})"
    print(f"{said}\nresults: {folder / 'result.json'}\ncurves:  tensorboard --logdir {folder.parent}")


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
    path = folder / record.RESULT
    return json.loads(path.read_text()) if path.is_file() else {}
