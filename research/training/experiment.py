"""Running an experiment from a composed config: build, train, write the result."""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from sparring.config import targets
from sparring.distribute.cluster import Process
from sparring.errors import UserError
from sparring.storage import run_folder, settings
from sparring.storage.run_folder import RunFolder
from sparring.training import faults, tensorboard_page

_log = logging.getLogger("sparring")


def train(
    cfg: DictConfig, folder: Path, started: float, origin: Mapping[str, Any] | None = None
) -> float | None:
    """Run one experiment in `folder`; return its objective, which a sweeper optimizes.

    A run that has nothing left to do ends at once. Of several workers (see
    sparring.distribute.cluster) all but the chief compute their shares and write nothing.

    Args:
      cfg: the composed config.
      folder: of the run.
      started: the time (`time.time()`) at which the process began to work, for the seconds of
        imports.
      origin: the command line, see `RunFolder.record_start`.

    Raises:
      UserError: training ran into NaN, the run could not be saved at its end, or a worker is gone.
    """
    process = Process.of(cfg.strategy)
    run = RunFolder(folder)
    _check_profile(cfg, process)
    ended = run.ended_result(cfg.run)
    if process.is_chief:
        _begin(run, cfg, origin, ended)
    if ended is not None:
        return ended["objective"]["value"] if process.is_chief else None
    with _at_work(run, process):
        strategy = build_strategy(cfg)
        trainer = build(cfg, strategy)
        try:
            trainer = _profiled(trainer, folder, cfg.run.profile)
            loop = _prepare(cfg, trainer, folder, strategy, process)
            loop.outcome.seconds["imports"] += time.time() - started
            run.outcome = loop.outcome
            run.objective = trainer.objective
            loop.run()
        finally:
            trainer.close()
        if process.is_chief:
            _conclude(run, cfg, trainer)
    if process.is_chief:
        _tell_where(run)
        return run.outcome.final.get(run.objective)
    return None


def _check_profile(cfg: DictConfig, process: Process) -> None:
    if cfg.run.profile and process.is_one_of_several:
        raise UserError(
            "run.profile: a profile is of one process; leave out strategy=multi_worker, or the "
            "profile."
        )


def _begin(
    run: RunFolder,
    cfg: DictConfig,
    origin: Mapping[str, Any] | None,
    ended: Mapping[str, Any] | None,
) -> None:
    """Write the config and the origin of the process, or say that the run has ended already."""
    with run.writable():
        run.begin(cfg)
        if ended is None:
            run.record_start(cfg, origin)
    if ended is not None:
        print(
            f"{run.path} has ended already: {_sentence(ended)}.\nRaise run.steps to go on, or "
            "choose another run.name."
        )


@contextlib.contextmanager
def _at_work(run: RunFolder, process: Process) -> Iterator[None]:
    """Lock and log to the folder, and turn what ends the run early into its result."""
    with contextlib.ExitStack() as stack:
        if process.is_chief:
            stack.enter_context(run.logged())
            stack.enter_context(run.recording_failures())
        if process.is_one_of_several:
            from sparring.distribute import consensus

            stack.enter_context(consensus.lost_workers_named())
        stack.enter_context(faults.explained())
        yield


def _conclude(run: RunFolder, cfg: DictConfig, trainer: Any) -> None:
    """Write the HParams row's metric and the result."""
    tensorboard_page.settle(run.path, cfg, trainer, run.outcome)
    print(_sentence(run_folder.summary(run.outcome, run.objective)))
    with run.writable():
        run.finish()


def _tell_where(run: RunFolder) -> None:
    """Print where the results are; raise UserError if the run did not end well."""
    print(
        f"results: {run.path / run_folder.RESULT}\ncurves:  sparring tensorboard {run.path.parent}"
    )
    if run.outcome.status == "stopped":
        print(f"It was stopped. The same command with run.name={run.path.name} goes on.")
    if run.outcome.status == "nan" or run.outcome.unsaved:
        error = UserError(run.outcome.message)
        error.exit_code = 1
        raise error


def build_strategy(cfg: DictConfig) -> Any:
    """Return the strategy of a composed config.

    It is created before anything else has TensorFlow settle on its devices.
    """
    targets.check_arguments(settings.plain(cfg))
    targets.instantiate(cfg.get("device"))  # None in a config from before there was one
    return targets.instantiate(cfg.strategy)


def build(cfg: DictConfig, strategy: Any = None) -> Any:
    """Return the trainer of a composed config, its variables created in the strategy's scope.

    Keras' initializers draw from `cfg.seed`; everything later draws from keys.
    """
    import tensorflow as tf

    from sparring.distribute.strategies import variable_scope
    from sparring.training.trainer import require_contract

    strategy = strategy or build_strategy(cfg)
    tf.keras.utils.set_random_seed(cfg.seed)
    with variable_scope(strategy):
        return require_contract(targets.instantiate(cfg.trainer))


def _profiled(trainer: Any, folder: Path, steps: int) -> Any:
    if not steps:
        return trainer
    from sparring.training.profiler import Profiled

    return Profiled(trainer, folder, steps)


def _prepare(cfg: DictConfig, trainer: Any, folder: Path, strategy: Any, process: Process) -> Any:
    """Return the training loop, ready to go on from where the run was."""
    from sparring.distribute.consensus import SingleWorker, Workers
    from sparring.training.loop import TrainingLoop
    from sparring.training.progress import Progress, headline
    from sparring.training.schedule import Schedule

    run = cfg.run
    schedule = Schedule(
        run.steps, run.log_every, run.evaluate_every, run.checkpoint_every, run.keep, run.target
    )
    if process.is_chief:
        _tell_of_long_intervals(run)
    workers = SingleWorker()
    if process.is_one_of_several:
        workers = Workers(strategy, process.is_chief)
    callbacks = [targets.instantiate(each) for each in cfg.get("callbacks", {}).values()]
    progress = Progress(headline(trainer))
    loop = TrainingLoop(trainer, schedule, folder, progress, workers, callbacks)
    _initialize(cfg, loop)
    if workers.any(trainer.step != workers.broadcast(trainer.step)):
        raise UserError(
            f"strategy=multi_worker: all workers need to see the folder of runs, {folder.parent}."
        )
    if process.is_chief:
        tensorboard_page.describe(folder, cfg, trainer)
    return loop


def _tell_of_long_intervals(run: DictConfig) -> None:
    """Say what happens only once in a run that is shorter than its intervals."""
    long = [key for key in ("evaluate_every", "log_every") if run[key] > run.steps]
    if long:
        said = " and ".join(f"run.{key}={run[key]}" for key in long)
        _log.info("%s: longer than the run, of %d steps: once, at its end.", said, run.steps)


def _initialize(cfg: DictConfig, loop: Any) -> None:
    """Restore the run's own checkpoint, else run.resume's, else the model of run.warm_start."""
    from sparring.storage.checkpoints import Checkpoints
    from sparring.training import warm_start

    warm_start.freeze_weights(loop.trainer.model, cfg.run.freeze)
    if loop.resume(loop.latest):
        return
    if cfg.run.resume not in ("auto", "never"):
        other = RunFolder.named_in_config(cfg.run.resume, "run.resume")
        if not loop.resume(Checkpoints(other.path / "checkpoints", keep=10**9)):
            raise UserError(f"run.resume={cfg.run.resume}: that run has no checkpoint.")
        return
    if cfg.run.warm_start is not None:
        source = RunFolder.named_in_config(cfg.run.warm_start, "run.warm_start").newest_model()
        warm_start.load_weights(loop.trainer.model, source, cfg.run.warm_layers)
        _log.info("Warm start from %s.", source)


def _sentence(result: Mapping[str, Any]) -> str:
    """Return a result as a sentence: "finished at step 100: loss 0.1 (best 0.09 at step 80)"."""
    name = result["objective"]["name"]
    value = result["objective"]["value"]
    best = result["best"]
    sentence = f"{result['status']} at step {result['step']}"
    if isinstance(value, float) and name in best:
        sentence += f": {name} {value:.4g} (best {best[name]:.4g} at step {best['step']})"
    return sentence
