"""Command `sparring search rl agent=ppo env=cartpole`: search for good settings.

Optuna searches, in a study on disk.
"""

import argparse
import csv
import io
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra.types import RunMode
from omegaconf import OmegaConf

from sparring.cli import setup
from sparring.cli.parser import strict
from sparring.config import old_spellings, validation
from sparring.config.composer import Composer
from sparring.errors import UserError, listed
from sparring.storage import atomic, run_folder
from sparring.sweep import job as sweep_job
from sparring.sweep.job import Job
from sparring.sweep.live_table import LiveTable
from sparring.sweep.scheduler import Pool, Settings
from sparring.sweep.search_space import Space, override
from sparring.sweep.study import Study
from sparring.sweep.sweep import Sweep
from sparring.tensorboard.event_reader import read_curves

_SHOWN_FAILURES = 5  # trials whose reasons are printed
_EXAMPLES = """
sparring search rl agent=ppo env=cartpole --trials 40 run.name=mine   the space conf/search/ppo.yaml
sparring search rl agent=dqn search=dqn --seeds 3 --sampler random  mean over three seeds
sparring search gan data=ring --trials 30 --pruner halving  a second terminal joins the study
"""


def main(arguments: Sequence[str]) -> int:
    """Parse the flags, search, print the best; return the exit code."""
    chosen = _parse(arguments)
    if chosen.trials < 1 or chosen.seeds < 1:
        raise UserError("--trials and --seeds are at least 1.")
    setup.prepare()
    chosen.overrides = old_spellings.renamed(chosen.overrides)
    composer = Composer(chosen.config_name or chosen.kind, chosen.config_dir, chosen.overrides)
    base, space = _space(composer, chosen.overrides)
    for end in space.ends():
        validation.Command(composer, [*base, *end], multirun=False)
    cfg = composer.compose(base)
    OmegaConf.resolve(cfg.run)
    named = any(text.startswith("run.name=") for text in base)
    root = Path(cfg.run.dir, cfg.run.name if named else f"search-{cfg.run.name}").absolute()
    fixed = {"command": chosen.kind, "overrides": sorted(_fixed(base)), "seeds": chosen.seeds}
    study = Study(root, space, fixed, chosen.sampler, chosen.pruner, cfg.seed)
    flags = [
        f"--{k}={v}"
        for k in ("config-name", "config-dir")
        if (v := getattr(chosen, k.replace("-", "_")))
    ]
    search = Search(study, composer, Sweep(chosen.kind, flags), base, chosen)
    pool = Pool(Settings(jobs=chosen.jobs), LiveTable(), search)
    with pool.passing_signals():
        pool.run(search.jobs(pool))
    search.release()
    code = conclude(study, root)
    if pool.stopping:
        print(
            f"The search stopped early. The same command with run.name={root.name} goes on.",
            file=sys.stderr,
        )
        return 130
    return code


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sparring search",
        description="Search for good settings.",
        epilog=f"for example{_EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    strict(parser)
    parser.add_argument(
        "kind", choices=("rl", "gan", "supervised", "train"), help="the command that a trial runs"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        help="its overrides, the same for all trials; search=NAME: the space",
    )
    parser.add_argument(
        "--trials", type=int, default=50, help="how many the study shall have; default 50"
    )
    parser.add_argument(
        "--seeds", type=int, default=1, help="runs of a trial, whose mean is its score; default 1"
    )
    parser.add_argument("--jobs", type=int, help="runs at a time; default one for each core")
    parser.add_argument("--sampler", default="tpe", help="tpe, random or grid; default tpe")
    parser.add_argument(
        "--pruner", default="median", help="median, halving or none; default median"
    )
    parser.add_argument(
        "--config-name", help="a primary config of yours, for `sparring search train`"
    )
    parser.add_argument(
        "--config-dir", help="a folder with configs of yours, spaces in search/ among them"
    )
    return parser.parse_intermixed_args(list(arguments))


def _space(composer: Composer, overrides: Sequence[str]) -> tuple[list[str], Space]:
    """Return the overrides without those of the search, and its space.

    The space is `search=NAME`, else the one named like a choice of the config.
    """
    own = [text for text in overrides if text.startswith(("search=", "search."))]
    base = [text for text in overrides if text not in own]
    if not any(text.startswith("search=") for text in own):
        choices = [str(choice) for choice in composer.compose(base).hydra.runtime.choices.values()]
        known = composer.options("search")
        found = next((name for name in (*choices, composer.name) if name in known), None)
        if found is None:
            raise UserError(f"search=NAME: no space is named like what was chosen. {listed(known)}")
        own.append(f"search={found}")
    cfg = composer.compose([*base, *own], RunMode.RUN)
    tree: Any = OmegaConf.to_container(cfg.search, resolve=True)
    return base, Space(tree)


def _fixed(overrides: Sequence[str]) -> list[str]:
    return [text for text in overrides if not text.startswith(("run.dir=", "run.name="))]


class Search:
    """Source of jobs for a study's trials, to which it reports their ends.

    It is an observer of the pool that runs them.
    """

    def __init__(
        self,
        study: Study,
        composer: Composer,
        sweep: Sweep,
        base: Sequence[str],
        chosen: argparse.Namespace,
    ) -> None:
        self.study = study
        self.composer = composer
        self.sweep = sweep
        self.base = list(base)
        self.chosen = chosen
        self._trials: dict[int, Any] = {}
        # By the trials' numbers; the first job of a trial is the one that the pruner sees
        self._jobs: dict[int, list[Job]] = {}
        self._ended: dict[int, list[Job]] = {}

    def jobs(self, pool: Pool) -> Any:
        """Yield every trial's runs, one for each seed, until the study has enough trials."""
        while not pool.stopping and (trial := self.study.next(self.chosen.trials)) is not None:
            number = trial.number
            self._trials[number] = trial
            self._ended[number] = []
            self._jobs[number] = [self._job(trial, place) for place in range(self.chosen.seeds)]
            for job in self._jobs[number]:
                if number in self._trials:  # not pruned meanwhile
                    yield job

    def _job(self, trial: Any, place: int) -> Job:
        values = [override(key, value) for key, value in trial.params.items()]
        seed = int(self.composer.compose(self.base).seed) + place
        folder = self.study.root / f"trial={trial.number:04d},seed={seed}"
        cfg = self.composer.compose([*self.base, *values, f"seed={seed}"])
        return self.sweep.job(cfg, cfg.hydra, folder)

    def watch(self, job: Job) -> None:
        """Report a trial's new evaluations to the pruner, and stop the trial if it decides so."""
        number = _number(job)
        if number not in self._trials or job.verdict or job is not self._jobs[number][0]:
            return  # another seed's failure has ended the trial, or it is pruned already and saving
        trial = self._trials[number]
        told = self.study.study.get_trials(deepcopy=False)[number].intermediate_values
        for step, score in _evaluations(job):
            if step not in told:
                trial.report(score, step)
        if trial.should_prune():
            for each in self._jobs[number]:
                each.verdict = (
                    ("pruned", "others were better at the same step") if each.process else None
                )
                each.send(15)

    def ended(self, job: Job) -> None:
        """Report a trial's score or state to the study, once the last of its runs has ended."""
        number = _number(job)
        if number not in self._trials:
            return
        ended = [*self._ended[number], job]
        trial = self._trials[number]
        self._ended[number] = ended
        statuses = {each.status for each in ended}
        if "pruned" in statuses:
            self._tell(trial, None, "PRUNED")
        elif "stopped" in statuses:
            self.study.release(self._trials.pop(number).number)
        elif any(each.failed for each in ended):
            self._tell(trial, None, "FAIL")
        elif len(ended) == self.chosen.seeds:
            self._tell(trial, float(np.mean([_score(each) for each in ended])), "COMPLETE")

    def _tell(self, trial: Any, score: float | None, state: str) -> None:
        self.study.tell(trial, score, state)
        del self._trials[trial.number]

    def release(self) -> None:
        """Release trials whose runs were stopped, for the next search to take up."""
        for number in list(self._trials):
            self.study.release(self._trials.pop(number).number)


def _number(job: Job) -> int:
    return int(job.name.partition(",")[0].partition("=")[2])


def _sign(job: Job) -> float:
    return 1.0 if job.result().get("maximize", _trainer(job).get("maximize", True)) else -1.0


def _trainer(job: Job) -> dict[str, Any]:
    return run_folder.read_json(job.folder / run_folder.TRAINER)


def _score(job: Job) -> float:
    value = job.objective()
    return float("nan") if value is None else _sign(job) * value


def _evaluations(job: Job) -> list[tuple[int, float]]:
    """Return step and score of every evaluation so far."""
    objective = _trainer(job).get("objective")
    steps, values = (
        read_curves(job.folder).of(objective) if objective else (np.array([]), np.array([]))
    )
    sign = _sign(job)
    return [(int(s), sign * float(v)) for s, v in zip(steps, values, strict=True) if np.isfinite(v)]


def conclude(study: Study, root: Path) -> int:
    """Write trials.csv and best.yaml, an experiment preset, and print the best trial.

    Returns the exit code.
    """
    trials = study.study.get_trials(deepcopy=False)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "score", *study.space.dimensions])
    for trial in trials:
        row = [trial.number, trial.state.name.lower(), trial.value]
        writer.writerow([*row, *(trial.params.get(key) for key in study.space.dimensions)])
    atomic.write_text(root / "trials.csv", text.getvalue())
    states = Counter(trial.state.name for trial in trials)
    counts = ", ".join(f"{count} {state.lower()}" for state, count in sorted(states.items()))
    print(f"{len(trials)} trials: {counts}\ntrials: {root / 'trials.csv'}")
    print(*_failures(root), sep="", end="", file=sys.stderr)
    best = study.best()
    if best is None:
        print("No trial came to its end.", file=sys.stderr)
        return 1
    atomic.write_text(root / "best.yaml", _preset(study, best))
    print(f"best: trial {best.number}, score {best.value:.4g}:")
    print("  " + " ".join(override(key, value) for key, value in best.params.items()))
    print(f"  as a preset: {root / 'best.yaml'}")
    return 0


def _failures(root: Path) -> Iterator[str]:
    """Yield why trials failed, a line for each of the first few."""
    failed = []
    for path in sorted(root.glob(f"trial=*/{sweep_job.FILE}")):
        note = run_folder.read_json(path)
        if note.get("status") in ("failed", "nan"):
            failed.append(f"{path.parent.name}: {note['status']}, {note.get('reason')}\n")
    yield from failed[:_SHOWN_FAILURES]
    if len(failed) > _SHOWN_FAILURES:
        yield f"and {len(failed) - _SHOWN_FAILURES} more\n"


def _preset(study: Study, best: Any) -> str:
    settings = study.study.user_attrs["settings"]
    values = [override(key, value) for key, value in best.params.items()]
    command = " ".join(["sparring", settings["command"], *settings["overrides"], *values])
    options = {k: v for k, v in best.params.items() if "." not in k}
    tree = OmegaConf.from_dotlist(
        [override(k, v) for k, v in best.params.items() if k not in options]
    )
    lines = [
        "# @package _global_",
        f"# {command}",
        f"# Trial {best.number} of {study.root.name}: {best.value:.6g}",
    ]
    if options:
        lines += [
            "defaults:",
            *(f"  - override /{group}: {option}" for group, option in options.items()),
        ]
    return "\n".join([*lines, OmegaConf.to_yaml(tree)])
