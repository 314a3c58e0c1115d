"""compose -> instantiate -> fit -> return the objective: one run, from a composed config."""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from sparring.config import targets
from sparring.distribute import cluster
from sparring.errors import UserError
from sparring.storage import run_folder, settings
from sparring.storage.run_folder import read_config, read_result
from sparring.training import tensorboard_page

_log = logging.getLogger("sparring")


def train(
    cfg: DictConfig, folder: Path, started: float, origin: Mapping[str, Any] | None = None
) -> float | None:
    """Run one experiment in `folder`; returns its objective, which a sweeper optimises.

    A run that has nothing left to do ends at once. `started` is when the process began to work
    (`time.time()`), for the seconds of imports; `origin` is what was typed, see `record.originate`.
    Raises UserError when training ran into NaN, when a run could not be saved at its end, and when
    a worker of several (sparring.distribute.cluster) is gone. Of these, all but the first compute
    their shares and write nothing.
    """
    if cfg.run.profile and cluster.is_multi_worker(cfg.strategy):
        raise UserError(
            "run.profile: a profile is of one process; leave out strategy=multi_worker, or the "
            "profile."
        )
    over = _over(cfg, folder)
    if cluster.worker_index(cfg.strategy):
        if over is None:
            _follow(cfg, folder)
        return None
    with _writable(folder):
        run_folder.begin(folder, cfg)
        if over is None:
            run_folder.originate(folder, cfg, origin)
    if over is not None:
        print(
            f"{folder} has ended already: {_said(over)}.\nRaise run.steps to go on, or choose "
            "another run.name."
        )
        return over["objective"]["value"]
    trainer, outcome = _lead(cfg, folder, started)
    print(f"results: {folder / run_folder.RESULT}\ncurves:  sparring tensorboard {folder.parent}")
    if outcome.status == "nan" or outcome.unsaved:
        error = UserError(outcome.message)
        error.exit_code = 1
        raise error
    return outcome.final.get(trainer.objective)


def _lead(cfg: DictConfig, folder: Path, started: float) -> tuple[Any, Any]:
    """Train, and write what came of it: what the only worker does, or the first. The trainer, and
    the outcome.
    """
    with run_folder.logged(folder), run_folder.failures(folder) as known, _meeting(cfg):
        place = strategy(cfg)
        trainer = build(cfg, place)
        if cfg.run.profile:
            trainer = _profiled(trainer, folder, cfg.run.profile)
        try:
            fit = _fit(cfg, trainer, folder, place)
            fit.outcome.seconds["imports"] += time.time() - started
            known |= {"outcome": fit.outcome, "objective": trainer.objective}
            outcome = fit.run()
        finally:
            trainer.close()
        tensorboard_page.settle(folder, cfg, trainer, outcome)
        print(_said(run_folder.summary(outcome, trainer.objective)))
        with _writable(folder):
            run_folder.finish(folder, outcome, trainer.objective)
    return trainer, outcome


def _follow(cfg: DictConfig, folder: Path) -> None:
    """What a worker does that is not the first."""
    with _meeting(cfg):
        place = strategy(cfg)
        trainer = build(cfg, place)
        try:
            _fit(cfg, trainer, folder, place).run()
        finally:
            trainer.close()


def _meeting(cfg: DictConfig) -> contextlib.AbstractContextManager[None]:
    """Says it in a line if, of several workers, one is gone."""
    if not cluster.is_multi_worker(cfg.strategy):
        return contextlib.nullcontext()
    from sparring.distribute import consensus

    return consensus.complete()


def _over(cfg: DictConfig, folder: Path) -> dict[str, Any] | None:
    """The result of a run that came to its end and is asked for no more; None if there is something
    to do.
    """
    result = read_result(folder)
    if not (folder / "checkpoints" / f"step_{result.get('step', 0):012d}").is_dir():
        return None
    finished = result.get("status") == "finished" and result["step"] >= cfg.run.steps
    reached = result.get("status") == "target" and read_config(folder).run.target == cfg.run.target
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


def strategy(cfg: DictConfig) -> Any:
    """The strategy of a composed config; before anything else has TensorFlow settle on
    its devices.
    """
    targets.check_arguments(settings.plain(cfg))
    targets.instantiate(cfg.get("device"))  # None in a config from before there was one
    return targets.instantiate(cfg.strategy)


def build(cfg: DictConfig, place: Any = None) -> Any:
    """The trainer of a composed config, its variables made in the strategy's scope (`place`) from
    `seed`.
    """
    import tensorflow as tf

    from sparring.distribute.strategies import variable_scope

    place = place or strategy(cfg)
    # Keras' initialisers; everything later draws from keys
    tf.keras.utils.set_random_seed(cfg.seed)
    with variable_scope(place):
        return targets.instantiate(cfg.trainer)


def _profiled(trainer: Any, folder: Path, steps: int) -> Any:
    from sparring.training.profiler import Profiled

    return Profiled(trainer, folder, steps)


def _fit(cfg: DictConfig, trainer: Any, folder: Path, place: Any) -> Any:
    """The run, ready to go on from where it was."""
    from sparring.distribute.consensus import SingleWorker, Workers
    from sparring.training.loop import Fit, Follow, Schedule
    from sparring.training.progress import Progress

    run = cfg.run
    schedule = Schedule(
        run.steps, run.log_every, run.evaluate_every, run.checkpoint_every, run.keep, run.target
    )
    chief = cluster.worker_index(cfg.strategy) == 0
    several = cluster.is_multi_worker(cfg.strategy)
    crew = Workers(place, chief) if several else SingleWorker()
    fit = (Fit if chief else Follow)(trainer, schedule, folder, Progress(_headline(trainer)), crew)
    _initialise(cfg, fit)
    if crew.any(trainer.step != crew.told(trainer.step)):
        raise UserError(
            f"strategy=multi_worker: all workers need to see the folder of runs, {folder.parent}."
        )
    if chief:
        tensorboard_page.describe(folder, cfg, trainer)
    return fit


def _initialise(cfg: DictConfig, fit: Any) -> None:
    """Where the run begins: its own checkpoint, else run.resume's, else run.warm_start's model,
    else from scratch.
    """
    from sparring.storage.checkpoints import Checkpoints
    from sparring.training import warm_start

    warm_start.freeze_weights(fit.trainer.model, cfg.run.freeze)
    if fit.resume(fit.latest):
        return
    if cfg.run.resume not in ("auto", "never"):
        if not fit.resume(
            Checkpoints(run_folder.existing(cfg.run.resume, "run.resume") / "checkpoints", 10**9)
        ):
            raise UserError(f"run.resume={cfg.run.resume}: that run has no checkpoint.")
        return
    if cfg.run.warm_start is not None:
        source = run_folder.newest(run_folder.existing(cfg.run.warm_start, "run.warm_start"))
        warm_start.load_weights(fit.trainer.model, source, cfg.run.warm_layers)
        _log.info("Warm start from %s.", source)


def _headline(trainer: Any) -> tuple[str, ...]:
    """What is shown beside the progress bar: the objective, and what the first chart shows."""
    charts = [tags for titles in trainer.charts.values() for tags in titles.values()]
    return tuple(dict.fromkeys([trainer.objective, *(charts[0] if charts else [])]))


def _said(result: dict[str, Any]) -> str:
    name = result["objective"]["name"]
    value = result["objective"]["value"]
    best = result["best"]
    said = f"{result['status']} at step {result['step']}"
    if isinstance(value, float) and name in best:
        said += f": {name} {value:.4g} (best {best[name]:.4g} at step {best['step']})"
    return said
