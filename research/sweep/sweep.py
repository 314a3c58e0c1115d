"""Sweep: its jobs' names and commands, their plan at its root, and how it ended."""

import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sparring.config.overrides import quoted
from sparring.storage import atomic, run_folder
from sparring.sweep import job as sweep_job
from sparring.sweep.job import Job
from sparring.sweep.live_table import LiveTable
from sparring.sweep.scheduler import Pool, Settings
from sparring.training import tensorboard_page


class Sweep:
    """Sweep over composed configs, each run in a process of its own.

    Sparring's launcher hands over all of them (`launch`); any other calls the sweep with one, on
    whatever machine (`__call__`). The outcome is therefore read from the jobs' folders.

    `command` and `flags` are what the jobs are started with, beside their overrides; see
    `sparring.cli.train`. `count` is the number of jobs; 0 if unknown.
    """

    def __init__(self, command: str, flags: Sequence[str], count: int = 0) -> None:
        self.command = command
        self.flags = list(flags)
        self.count = count
        self.stopped = False
        self.names: set[str] = set()  # of the planned jobs
        self.root: Path | None = None
        self.started = time.time()

    def __call__(self, cfg: DictConfig) -> float | None:
        """Run one job, for a launcher of another package; return its objective."""
        hydra_config: Any = HydraConfig.get()
        job = self.job(cfg, hydra_config, Path(hydra_config.runtime.output_dir))
        pool = Pool(Settings(jobs=1, cores=0, memory=0), LiveTable())
        with pool.passing_signals():
            pool.run([job])
        with contextlib.suppress(OSError):
            # A job done before counts as one of this sweep, too
            os.utime(job.folder / sweep_job.FILE)
        if pool.stopping:
            raise KeyboardInterrupt
        return job.objective()

    def launch(self, made: Iterable[Job], settings: Settings) -> list[Job]:
        """Run jobs, several at a time; return those that were begun."""
        pool = Pool(settings, LiveTable(self.count))
        with pool.passing_signals():
            begun = pool.run(made)
        self.stopped = pool.stopping
        return begun

    def job(self, cfg: DictConfig, hydra_config: DictConfig, folder: Path) -> Job:
        """Return the job of a composed config.

        Its settings are declared as columns of the sweep's HParams table.
        """
        from sparring.tensorboard.hparams import declare_hparams

        self.root = folder.parent
        found = tensorboard_page.hparams(cfg, hydra_config.runtime.choices)
        values = {key: [value] for key, value in found.items()}
        declare_hparams(folder.parent / tensorboard_page.SHARED, values, {})
        kept = [
            o
            for o in hydra_config.overrides.hydra
            if o.startswith(("hydra.searchpath=", "hydra.verbose="))
        ]
        overrides = [*self.flags, *hydra_config.overrides.task, *kept]
        arguments = [*overrides, "hydra.mode=RUN", f"hydra.run.dir={quoted(str(folder))}"]
        return Job(folder, self.command, arguments, sweep_job.hashed(cfg))

    def plan(self, root: Path, names: Sequence[str], tasks: int = 1) -> None:
        """Write the list of jobs at the sweep's root, so that unstarted ones are known too.

        `tasks` is how many tasks they have.
        """
        path = root / run_folder.SWEEP
        self.root = root
        self.names = set(names)
        with atomic.locked(root):
            try:
                old = list(json.loads(path.read_text())["jobs"])
            except (OSError, ValueError, KeyError, TypeError):
                old = []
            content = {"jobs": list(dict.fromkeys([*old, *names])), "tasks": tasks}
            with contextlib.suppress(OSError):
                atomic.write_text(path, json.dumps(content, indent=2) + "\n")

    def conclude(self) -> int:
        """Print how the jobs ended, the failed ones with their reasons; return the exit code.

        It is 1 if jobs failed, else 130 if some were stopped or not begun, else 0.
        """
        if self.root is None:
            return 0
        ended = [(path.parent, note) for path, note in self._notes()]
        counts = Counter(note["status"] for _, note in ended)
        failed = [job for job in ended if job[1]["status"] in ("failed", "nan")]
        of = f" of {self.count}" if self.count > len(ended) else ""
        listed = ", ".join(f"{count} {status}" for status, count in counts.most_common())
        print(f"{len(ended)}{of} jobs: {listed or 'none begun'}")
        print(
            f"results: sparring report {self.root}\ncurves:  sparring tensorboard {self.root}",
            flush=True,
        )
        stopped = self.stopped or bool(of) or counts["stopped"] > 0
        if stopped:
            print(
                f"The sweep stopped early. The same command with run.name={self.root.name} goes "
                "on.",
                file=sys.stderr,
            )
        for folder, note in failed:
            lines = [
                f"{folder}: {note['status']}, {note['reason']}",
                *(f"    {line}" for line in note["lines"]),
            ]
            print(*lines, sep="\n", file=sys.stderr)
        if failed:
            return 1
        return 130 if stopped else 0

    def _notes(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield the job.json files of this sweep, with their content.

        These are the planned jobs', else those written since the sweep began.
        """
        assert self.root is not None
        for path in sorted(self.root.glob(f"*/{sweep_job.FILE}")):
            try:
                note = json.loads(path.read_text())
            except (OSError, ValueError):
                continue
            if path.parent.name in self.names or (
                not self.names and path.stat().st_mtime >= self.started - 1
            ):
                yield path, note
